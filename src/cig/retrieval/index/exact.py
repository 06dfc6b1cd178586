"""Exact search of a folder of pictures: one matrix of features, memory-mapped from disk.

The matrix is valid while no picture below the folder was added, removed or changed (by name, size, times and
inode). Features are in the feature cache, too: after a change, only changed pictures are embedded again.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cig.errors import CigError, NotFoundError, PictureError
from cig.io.dataset_paths import walk_pictures
from cig.io.digests import digest_of
from cig.io.feature_cache import INDEXES, FeatureCache
from cig.io.files import stamp, write_bytes
from cig.io.images import Preprocess, read_pixels
from cig.io.json_files import read_object, write_json
from cig.retrieval.features import PictureFeatures, embed_pictures, picture_space
from cig.types import Method


@dataclass(frozen=True)
class Listing:
    """The pictures below a folder, as they are now."""

    names: tuple[str, ...]  # paths below it, in POSIX form
    digest: str  # of names and stamps


@dataclass(frozen=True)
class GalleryIndex:
    """A folder's pictures, embedded by one method."""

    home: Path
    names: tuple[str, ...]  # [N] those that have a feature
    features: NDArray[np.float32]  # [N, d] unit rows, mapped from disk where there is a cache
    unreadable: Mapping[str, str]  # name -> why it is not searched

    def path(self, row: int) -> Path:
        """Return the path of the picture in a row."""
        return self.home / self.names[row]


def list_folder(home: Path) -> Listing:
    """List the pictures below a folder; raise NotFoundError where there are none."""
    if not os.path.isdir(home):
        raise NotFoundError(f"{home} is not a folder; give that of your pictures with --gallery")
    names, content, start = [], hashlib.sha256(), len(os.path.join(home, ""))
    for entry in walk_pictures(home):
        with contextlib.suppress(OSError):  # removed meanwhile
            status = entry.stat()
            names.append(entry.path[start:].replace(os.sep, "/"))
            content.update(f"{names[-1]}\0{stamp(status)}\n".encode("utf-8", "surrogateescape"))
    if not names:
        raise NotFoundError(f"{home} has no pictures (.jpg, .jpeg, .png, .webp); give another folder with --gallery")
    return Listing(tuple(names), content.hexdigest())


def open_index(
    home: Path, method: Method, cache: FeatureCache, *, batch_size: int = 32, workers: int = 4
) -> GalleryIndex:
    """Open the index of a folder, from the cache's folder where nothing changed; otherwise build it now.

    Raises:
        NotFoundError: the folder has no pictures.
        CigError: none of them can be read.
    """
    listing = list_folder(home)
    folder = None
    if cache.path:
        key = digest_of({"folder": str(home.resolve()), **picture_space(method)})
        folder = cache.path.parent / INDEXES / key
    stored = _read(folder, home, listing) if folder else None
    # Rights and --max-pixels may have changed since, which the listing does not show.
    if stored and not any(_can_be_read(home / name, method.preprocess) for name in stored.unreadable):
        return stored
    paths = [home / name for name in listing.names]
    index = _build(home, listing, embed_pictures(method, paths, batch_size, workers=workers, cache=cache))
    if not index.names:
        raise CigError(
            f"none of the {len(listing.names)} pictures in {home} can be read: {next(iter(index.unreadable.values()))}"
        )
    if folder is None:
        return index
    _write(folder, index, listing)
    return _read(folder, home, listing) or index


def _can_be_read(path: Path, preprocess: Preprocess) -> bool:
    try:
        read_pixels(path, preprocess)
    except PictureError:
        return False
    return True


def _build(home: Path, listing: Listing, pictures: PictureFeatures) -> GalleryIndex:
    names = tuple(name for name in listing.names if pictures.have(home / name))
    features = pictures.of([home / name for name in names]).numpy().astype(np.float32)
    features /= np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    failed = {str(path.relative_to(home)): why for path, why in pictures.failed.items()}
    return GalleryIndex(home, names, features=features, unreadable=failed)


def _write(folder: Path, index: GalleryIndex, listing: Listing) -> None:
    """Write the index so that a reader sees the old one or the new one, whenever the writer is killed.

    The matrix goes first, under a name that no other listing uses; index.json, which declares the listing valid, goes
    last, in one atomic replacement. Old matrices are removed after that. Another process may still have one mapped,
    and some systems refuse to remove it then; the next writer removes it.
    """
    buffer = io.BytesIO()
    np.save(buffer, index.features, allow_pickle=False)
    write_bytes(folder / f"{listing.digest}.npy", buffer.getvalue())
    content = {
        "listing": listing.digest,
        "names": list(index.names),
        "unreadable": dict(index.unreadable),
        "checksum": _checksum(index.names, index.features),
    }
    write_json(folder / "index.json", content)
    for old in folder.glob("*.npy"):
        if old.stem != listing.digest:
            with contextlib.suppress(OSError):
                old.unlink()


def _checksum(names: Sequence[str], features: NDArray[np.float32]) -> int:
    of_names = zlib.crc32("\0".join(names).encode("utf-8", "surrogateescape"))
    return zlib.crc32(np.ascontiguousarray(features).data, of_names)


def _read(folder: Path, home: Path, listing: Listing) -> GalleryIndex | None:
    """Read the index; return None where it is missing, damaged or of another listing."""
    try:
        content = read_object(folder / "index.json")
        if content["listing"] != listing.digest:
            return None
        features = np.load(folder / f"{listing.digest}.npy", mmap_mode="r", allow_pickle=False)
        names, unreadable = tuple(map(str, content["names"])), dict(content["unreadable"])
    except (CigError, OSError, EOFError, ValueError, KeyError, TypeError):
        return None
    sound = features.ndim == 2 and features.dtype == np.float32 and len(features) == len(names)
    sound = sound and content.get("checksum") == _checksum(names, features)
    return GalleryIndex(home, names, features=features, unreadable=unreadable) if sound else None
