"""Unpack untrusted zips: check the list of members first, then unpack one at a time, never outside a folder."""

from __future__ import annotations

import io
import os
import stat
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path, PurePosixPath

from cig.errors import InputError, reason
from cig.io.dataset_paths import SUFFIXES
from cig.io.files import UNPRINTABLE, stat_file, write_bytes

STORED, DEFLATED, LINK_BITS = zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, 16
LISTING = 2**25  # bytes of a zip's list of members: 123,403 of COCO's take 13 million
BROKEN = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, RuntimeError, ValueError, MemoryError)


@dataclass(frozen=True)
class Bounds:
    """Limits on what is unpacked from a zip.

    Attributes:
        suffixes: of members to unpack; others are ignored.
        member: bytes of one unpacked member.
        total: bytes of all unpacked members.
        ratio: unpacked bytes a packed byte, for members that unpack to over a megabyte.
    """

    suffixes: tuple[str, ...] = SUFFIXES
    member: int = 2**26
    total: int = 2**36
    ratio: int = 200


@dataclass
class Archive:
    """An open zip; use it in a `with`.

    Attributes:
        members: name -> the zip's record of it, for members that may be unpacked, in the zip's order.
        refused: name -> the reason, for members that may not be unpacked.
        others: names with other suffixes, which are ignored.
    """

    # What a hostile zip can do, and where it is stopped: state a list of members that fills the memory
    # (_BoundedReader); pack zeros a thousandfold, or let members share their bytes (Bounds, _refuse_bombs); give names
    # that lead out of the folder, links, or names that occur twice, of which two readers take different ones
    # (refusal_reason, _sort); state another size or checksum than the content has (read).

    path: Path
    bounds: Bounds = field(default_factory=Bounds)
    members: dict[str, zipfile.ZipInfo] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    others: list[str] = field(default_factory=list)

    def __enter__(self) -> Archive:
        """Open the zip and check its list; raises NotFoundError, or InputError for other files and for bombs."""
        stat_file(self.path)
        try:
            self._file = _BoundedReader(io.FileIO(self.path), LISTING)
            self._zip = zipfile.ZipFile(self._file)
        except BROKEN as error:
            raise InputError(f"{self.path} is not a whole zip: {reason(error)}") from error
        self._file.most = self.bounds.member + 1
        self._sort(self._zip.infolist())
        return self

    def __exit__(self, *_: object) -> None:
        self._zip.close()
        self._file.close()

    def read(self, name: str) -> bytes:
        """Unpack a member into memory; raises InputError if it fails, or if size or CRC differ from the zip's list."""
        info = self.members[name]
        try:
            with self._zip.open(info) as stream:
                data = stream.read(info.file_size + 1)
        except BROKEN as error:
            raise InputError(f"{self.path}: {name} cannot be unpacked: {reason(error)}") from error
        if len(data) != info.file_size or zlib.crc32(data) != info.CRC:
            raise InputError(f"{self.path}: {name} is not whole: its size or CRC is not that of the zip's list")
        return data

    def unpack(self, name: str, path: Path) -> bool:
        """Unpack a member to a file, whole or not at all; False if the file has its size and CRC already."""
        if self.holds(name, path):
            return False
        write_bytes(path, self.read(name))
        return True

    def holds(self, name: str, path: Path) -> bool:
        """Tell whether a file has the content of a member, by size and CRC."""
        info = self.members[name]
        try:
            return path.stat().st_size == info.file_size and zlib.crc32(path.read_bytes()) == info.CRC
        except OSError:
            return False

    def _sort(self, infos: Sequence[zipfile.ZipInfo]) -> None:
        chosen = []
        for info in infos:
            if info.filename.lower().endswith(self.bounds.suffixes):
                chosen.append(info)
            elif not info.filename.endswith("/"):
                self.others.append(info.filename)
        _refuse_bombs(self.path, chosen, self.bounds)
        counts = Counter(info.filename.casefold() for info in chosen)
        for info in chosen:
            repeated = counts[info.filename.casefold()] > 1
            if why := "its name occurs several times" if repeated else refusal_reason(info, self.bounds):
                self.refused[info.filename] = why
            else:
                self.members[info.filename] = info


class _BoundedReader(io.BufferedReader):
    """A reader that refuses to read too much at once: zipfile trusts the size that a file states for its list."""

    def __init__(self, raw: io.FileIO, most: int) -> None:
        super().__init__(raw)
        self.most, self.size = most, os.fstat(raw.fileno()).st_size

    def read(self, size: int | None = -1) -> bytes:
        count = self.size - self.tell() if size is None or size < 0 else size
        if count > self.most:
            raise zipfile.BadZipFile(f"it wants {count:,} bytes at once")
        return super().read(size)


def refusal_reason(info: zipfile.ZipInfo, bounds: Bounds) -> str:
    """Say why a member may not be unpacked; empty if it may."""
    kind = stat.S_IFMT(info.external_attr >> LINK_BITS)
    if info.flag_bits & 1:
        return "it is encrypted"
    if kind not in (0, stat.S_IFREG):
        return "it is a link, or no file"
    if info.compress_type not in (STORED, DEFLATED):
        return "it is packed by another method than stored or deflated"
    if info.file_size > bounds.member:
        return f"it unpacks to {info.file_size:,} bytes, over {bounds.member:,}"
    if info.file_size > max(2**20, bounds.ratio * info.compress_size):
        return f"it unpacks to {info.file_size:,} bytes from {info.compress_size:,}: a bomb?"
    return unsafe_name_reason(info.orig_filename)


def unsafe_name_reason(name: str) -> str:
    """Say why a name could lead out of a folder, on any operating system; empty if it cannot."""
    parts = name.split("/")
    if UNPRINTABLE.search(name):
        return "its name holds control characters"
    if name.startswith("/") or "\\" in name or ":" in name:
        return "its name is absolute, or that of another system"
    if any(part.strip(" .") == "" for part in parts):
        return "its name leads out of its folder"
    if any(len(part.encode()) > 255 for part in parts) or len(name.encode()) > 1024:
        return "its name is too long"
    return ""


def _refuse_bombs(path: Path, infos: Sequence[zipfile.ZipInfo], bounds: Bounds) -> None:
    """Raise InputError for members that share bytes, or are too large together."""
    total = sum(info.file_size for info in infos)
    if total > bounds.total:
        raise InputError(f"{path} unpacks to {total:,} bytes, over {bounds.total:,}; refused")
    spans = sorted((info.header_offset, info.header_offset + 30 + info.compress_size) for info in infos)
    for (_, end), (start, _) in pairwise(spans):
        if start < end:
            raise InputError(f"{path}: its members overlap, as a bomb's do; refused")


def safe_path(root: Path, folder: str, name: str) -> Path:
    """Return the path of a file in a folder below root.

    Args:
        folder: relative to root, as an annotation file gives it; ignored if it leads out of root.

    Raises:
        InputError: the name cannot be a file's.
    """
    why = "it is a path" if "/" in name else unsafe_name_reason(name)
    if why:
        raise InputError(f"{name!r} cannot name a file: {why}")
    parts = [part for part in PurePosixPath(folder).parts if part != "."]
    return root / name if parts and unsafe_name_reason("/".join(parts)) else root.joinpath(*parts, name)
