"""The index's pictures: listed, shown, put and deleted. What is put lies in the index's folder, by its content.

A picture's file is pictures/SHA256.SUFFIX: written whole and synced first, then the index's row, which is one
transaction. A kill between the two leaves a file that no row names, which the next start removes.
"""

from __future__ import annotations

import io
import os
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from http import HTTPStatus
from pathlib import Path
from typing import Any

from PIL import Image

from cig.errors import PictureError, UsageError
from cig.io import images
from cig.io.digests import digest
from cig.io.files import make_folder, stamp, sweep, write_bytes
from cig.io.images import read_picture, upright
from cig.io.locks import hold_file
from cig.pipelines._index_build import Listed
from cig.pipelines.index import Index
from cig.retrieval.index import IndexEntry
from cig.service.problems import Problem, too_many
from cig.service.searches import thumbnail_address
from cig.service.uploads import finite_rows, wrong

FOLDER = "pictures"
MOST_BYTES = 1000  # of a name
QUALITY = 80  # of a thumbnail's WebP
THUMBNAILS = 2000  # that are kept in memory
PATIENCE = 20.0  # seconds for another process that writes


class IndexPictures:
    """The pictures of an index; several threads may use it."""

    def __init__(self, index: Index) -> None:
        self.index, self.folder = index, index.folder / FOLDER
        self._writing = threading.Lock()
        self._thumbnails: OrderedDict[tuple[str, int], bytes] = OrderedDict()
        self._lock = threading.Lock()  # of the thumbnails
        if self.folder.is_dir():
            with self._alone():
                self._clean()

    def entry(self, name: str) -> IndexEntry:
        entry = self.index.get(name)
        if entry is None:
            raise Problem(HTTPStatus.NOT_FOUND, "the index has no picture of this name")
        return entry

    def listed(self, where: Sequence[str], *, after: str, limit: int) -> dict[str, Any]:
        """Return a page of the list of pictures."""
        index = self.index
        select = index.wanted(1, where).select
        entries = list(index.entries(select, after=after, limit=limit + 1))
        pictures = [
            {"name": one.name, "metadata": finite_rows(one.metadata), "thumbnail": thumbnail_address(one.name)}
            for one in entries[:limit]
        ]
        more = entries[limit - 1].name if len(entries) > limit else None
        return {"pictures": pictures, "next": more, "total": index.count(select), "columns": index.columns()}

    def path(self, entry: IndexEntry) -> Path:
        path = self.index.path_of(entry)
        if not path.is_file():
            raise Problem(
                HTTPStatus.NOT_FOUND, "the picture's file is gone; `cig index build` brings the index up to date"
            )
        return path

    def thumbnail(self, entry: IndexEntry, side: int) -> bytes:
        """Return a WebP with at most that many pixels a side, as people see the picture."""
        key = entry.content, side
        with self._lock:
            if key in self._thumbnails:
                self._thumbnails.move_to_end(key)
                return self._thumbnails[key]
        try:
            data = _small(read_picture(self.path(entry)).image, side)
        except PictureError as error:
            raise Problem(HTTPStatus.NOT_FOUND, "the picture's file is damaged") from error
        with self._lock:
            self._thumbnails[key] = data
            while len(self._thumbnails) > THUMBNAILS:
                self._thumbnails.popitem(last=False)
        return data

    def put(self, name: str, data: bytes, suffix: str, *, metadata: Mapping[str, Any] | None) -> bool:
        """Write a picture and its row; return whether the name is new. Durable on return."""
        content = digest(data)
        path = self.folder / f"{content}{suffix}"
        with self._alone():
            old = self.index.get(name)
            if not path.is_file() or path.stat().st_size != len(data):
                write_bytes(path, data)
                _sync(self.folder)
            listed = Listed(name, path, stamp(path.stat()))
            rows = {name: metadata} if metadata is not None else None
            self.index.write([listed], {name: f"{FOLDER}/{path.name}"}, rows)
            if old:
                self._forget(old)
        return old is None

    def delete(self, name: str) -> None:
        """Remove a picture's row, and its file if it was put and no other name has it. Durable on return."""
        with self._alone():
            entry = self.entry(name)
            with suppress(UsageError):  # another process removed it meanwhile
                self.index.hide(name)
            self._forget(entry)

    def _clean(self) -> None:
        """Remove what killed services left: half a file, or a file that no row names."""
        sweep(self.folder)
        files = [path for path in self.folder.iterdir() if not path.name.startswith(".")]
        present = self.index.engine.features([path.stem for path in files]) if self.index.engine else {}
        for path in files:
            if path.stem not in present:
                with suppress(OSError):
                    path.unlink()

    def _forget(self, entry: IndexEntry) -> None:
        """Remove a file that no row names."""
        content = entry.content
        if entry.file.startswith(f"{FOLDER}/") and not (self.index.engine and self.index.engine.features([content])):
            with suppress(OSError):
                os.unlink(self.index.folder / entry.file)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Let one request of one service write at a time."""
        if not self.folder.is_dir():
            make_folder(self.folder)
            _sync(self.folder.parent)
        if not self._writing.acquire(timeout=PATIENCE):
            raise too_many("other pictures are being written", 5)
        try:
            with hold_file(self.folder, "cig serve", PATIENCE):
                yield
        finally:
            self._writing.release()


def check_name(name: str) -> None:
    """Raise a Problem unless a name is a relative path that every system takes."""
    parts = name.split("/")
    if len(name.encode()) > MOST_BYTES:
        raise wrong(f"the name has more than {MOST_BYTES} bytes")
    if any(part in ("", ".", "..") for part in parts) or parts[-1] == "thumbnail":
        raise wrong("the name should be words parted by single slashes, such as sofas/red.jpg, without . and ..")
    if not name.isprintable() or "\\" in name or "\ufffd" in name:  # which stands for bytes that are not UTF-8
        raise wrong("the name has letters that no name of a file should have")


def suffix_of(image: Image.Image) -> str:
    """Return the suffix by which browsers know a picture's form."""
    suffixes = {"GIF": ".gif", "BMP": ".bmp", "TIFF": ".tif", "AVIF": ".avif", "HEIF": ".heic", "ICO": ".ico"}
    return suffixes.get(image.format or "") or images.suffix_of(image)


def media_type_of(path: Path) -> str:
    """Return the type of a picture's file, by its suffix."""
    return next((Image.MIME[form] for end, form in _forms().items() if path.name.lower().endswith(end)), "image/*")


@cache
def _forms() -> dict[str, str]:
    Image.init()
    return {suffix: form for suffix, form in Image.EXTENSION.items() if form in Image.MIME}


def _small(image: Image.Image, side: int) -> bytes:
    small, buffer = upright(image), io.BytesIO()
    small.thumbnail((side, side))
    small.save(buffer, "WEBP", quality=QUALITY)
    return buffer.getvalue()


def _sync(folder: Path) -> None:
    """Wait until a folder's entries are on the disk, where the system can."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
