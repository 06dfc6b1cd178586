"""Zips from strangers: listed and looked at before anything is unpacked, a member at a time, never outside a folder."""

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
from cig.io.files import UNSAYABLE, stat_file, write_bytes

STORED, DEFLATED, LINK_BITS = zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, 16
LISTING = 2**25  # bytes of a zip's list of members: 123,403 of COCO's take 13 million
BROKEN = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, RuntimeError, ValueError, MemoryError)


@dataclass(frozen=True)
class Bounds:
    """What is taken from a zip.

    Attributes:
        suffixes: of members; others are left alone.
        member: bytes of one, unpacked.
        total: bytes of all, unpacked.
        ratio: to what a member may unpack from a byte, if that is over a megabyte.
    """

    suffixes: tuple[str, ...] = SUFFIXES
    member: int = 2**26
    total: int = 2**36
    ratio: int = 200


@dataclass
class Archive:
    """An open zip; use it in a `with`.

    Attributes:
        members: name -> what the zip says of it; those that may be unpacked, in the zip's order.
        refused: name -> why it may not be.
        others: names of other suffixes, which are left alone.
    """

    path: Path
    bounds: Bounds = field(default_factory=Bounds)
    members: dict[str, zipfile.ZipInfo] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    others: list[str] = field(default_factory=list)

    def __enter__(self) -> Archive:
        """Raises NotFoundError, or InputError for what is no zip, or a bomb."""
        stat_file(self.path)
        try:
            self._file = _Sparing(io.FileIO(self.path), LISTING)
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
        """A member, whole; raises InputError if it cannot be unpacked, or is not what the zip's list says."""
        info = self.members[name]
        try:
            with self._zip.open(info) as stream:
                data = stream.read(info.file_size + 1)
        except BROKEN as error:
            raise InputError(f"{self.path}: {name} cannot be unpacked: {reason(error)}") from error
        if len(data) != info.file_size or zlib.crc32(data) != info.CRC:
            raise InputError(f"{self.path}: {name} is not whole: its size or CRC is not that of the zip's list")
        return data

    def place(self, name: str, path: Path) -> bool:
        """Unpacks a member to a file, whole or not at all; False where it was there, by size and CRC."""
        if self.holds(name, path):
            return False
        write_bytes(path, self.read(name))
        return True

    def holds(self, name: str, path: Path) -> bool:
        """Whether a file is this member."""
        info = self.members[name]
        try:
            return path.stat().st_size == info.file_size and zlib.crc32(path.read_bytes()) == info.CRC
        except OSError:
            return False

    def _sort(self, infos: Sequence[zipfile.ZipInfo]) -> None:
        taken = []
        for info in infos:
            if info.filename.lower().endswith(self.bounds.suffixes):
                taken.append(info)
            elif not info.filename.endswith("/"):
                self.others.append(info.filename)
        _no_bomb(self.path, taken, self.bounds)
        times = Counter(info.filename.casefold() for info in taken)
        for info in taken:
            why = trouble_of(info, self.bounds)
            if times[info.filename.casefold()] > 1:
                why = "its name occurs several times"
            if why:
                self.refused[info.filename] = why
            else:
                self.members[info.filename] = info


class _Sparing(io.BufferedReader):
    """Reads no more at once than is needed: zipfile believes whatever size a file states for its list of members."""

    def __init__(self, raw: io.FileIO, most: int) -> None:
        super().__init__(raw)
        self.most, self.size = most, os.fstat(raw.fileno()).st_size

    def read(self, size: int | None = -1) -> bytes:
        asked = self.size - self.tell() if size is None or size < 0 else size
        if asked > self.most:
            raise zipfile.BadZipFile(f"it wants {asked:,} bytes at once")
        return super().read(size)


def trouble_of(info: zipfile.ZipInfo, bounds: Bounds) -> str:
    """Why a member may not be unpacked; empty if it may."""
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
    return trouble_of_name(info.orig_filename)


def trouble_of_name(name: str) -> str:
    """Why a name may lead elsewhere than below a folder, on any system; empty if it may not."""
    parts = name.split("/")
    if UNSAYABLE.search(name):
        return "its name holds control characters"
    if name.startswith("/") or "\\" in name or ":" in name:
        return "its name is absolute, or that of another system"
    if any(part.strip(" .") == "" for part in parts):
        return "its name leads out of its folder"
    if any(len(part.encode()) > 255 for part in parts) or len(name.encode()) > 1024:
        return "its name is too long"
    return ""


def _no_bomb(path: Path, infos: Sequence[zipfile.ZipInfo], bounds: Bounds) -> None:
    """Raises InputError for members that share bytes, or are too much together."""
    total = sum(info.file_size for info in infos)
    if total > bounds.total:
        raise InputError(f"{path} unpacks to {total:,} bytes, over {bounds.total:,}; refused")
    spans = sorted((info.header_offset, info.header_offset + 30 + info.compress_size) for info in infos)
    for (_, end), (start, _) in pairwise(spans):
        if start < end:
            raise InputError(f"{path}: its members overlap, as a bomb's do; refused")


def inside(root: Path, place: str, name: str) -> Path:
    """The file of a name below a folder.

    Args:
        place: a folder below it, as an annotation file gives it; one that leads out of it is not followed.

    Raises:
        InputError: the name is that of no file.
    """
    why = "it is a path" if "/" in name else trouble_of_name(name)
    if why:
        raise InputError(f"{name!r} cannot name a file: {why}")
    parts = [part for part in PurePosixPath(place).parts if part != "."]
    return root / name if parts and trouble_of_name("/".join(parts)) else root.joinpath(*parts, name)
