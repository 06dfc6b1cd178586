"""A folder of pictures as one matrix on disk, mapped and not read: listed in a second or two, searched in less.

The matrix is good while no picture below the folder has come, gone or changed (by name, size and time of change).
Features themselves are in the feature cache: when something changed, only that is embedded again.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cig.errors import CigError, NotFoundError, PictureError
from cig.io.dataset_paths import walk_pictures
from cig.io.digests import digest_of
from cig.io.feature_cache import INDEXES, FeatureCache
from cig.io.files import write_bytes
from cig.io.images import Preprocess, read_pixels
from cig.io.json_files import read_object, write_json
from cig.retrieval.features import PictureFeatures, embed_pictures, picture_space
from cig.types import Method


@dataclass(frozen=True)
class Listing:
    """What is below a folder now."""

    names: tuple[str, ...]  # paths below it, in POSIX form
    digest: str  # of names, sizes and times of change


@dataclass(frozen=True)
class Indexed:
    """A folder's pictures by one method."""

    home: Path
    names: tuple[str, ...]  # [N] those that have a feature
    features: NDArray[np.float32]  # [N, d] unit rows, mapped from disk where there is a cache
    unreadable: Mapping[str, str]  # name -> why it is not searched

    def path(self, row: int) -> Path:
        return self.home / self.names[row]


def list_folder(home: Path) -> Listing:
    """Raises NotFoundError for a folder without pictures."""
    if not os.path.isdir(home):
        raise NotFoundError(f"{home} is not a folder; give that of your pictures with --gallery")
    names, content, start = [], hashlib.sha256(), len(os.path.join(home, ""))
    for entry in walk_pictures(home):
        with contextlib.suppress(OSError):  # gone meanwhile
            status = entry.stat()
            names.append(entry.path[start:].replace(os.sep, "/"))
            content.update(f"{names[-1]}\0{status.st_size}\0{status.st_mtime_ns}\n".encode("utf-8", "surrogateescape"))
    if not names:
        raise NotFoundError(f"{home} has no pictures (.jpg, .jpeg, .png, .webp); give another folder with --gallery")
    return Listing(tuple(names), content.hexdigest())


def open_gallery(home: Path, method: Method, cache: FeatureCache, batch_size: int = 32, workers: int = 4) -> Indexed:
    """The pictures below a folder; from the index in the cache's folder where nothing changed, else embedded now.

    Raises:
        NotFoundError: there are none.
        CigError: none of them can be read.
    """
    listing = list_folder(home)
    place = _place(home, method, cache)
    known = _read(place, home, listing) if place else None
    if known and not any(_can_be_read(home / name, method.preprocess) for name in known.unreadable):
        return known
    pictures = embed_pictures(method, [home / name for name in listing.names], batch_size, workers, cache)
    made = _index(home, listing, pictures)
    if not made.names:
        raise CigError(
            f"none of the {len(listing.names)} pictures in {home} can be read: {next(iter(made.unreadable.values()))}"
        )
    if place is None:
        return made
    _write(place, made, listing)
    return _read(place, home, listing) or made


def _can_be_read(path: Path, preprocess: Preprocess) -> bool:
    """Now: rights and --max-pixels change, and the listing does not."""
    try:
        read_pixels(path, preprocess)
    except PictureError:
        return False
    return True


def _place(home: Path, method: Method, cache: FeatureCache) -> Path | None:
    """Where the index of this folder by this method is kept; nowhere without a cache."""
    about = {"folder": str(home.resolve()), **picture_space(method)}
    return cache.path.parent / INDEXES / digest_of(about) if cache.path else None


def _index(home: Path, listing: Listing, pictures: PictureFeatures) -> Indexed:
    names = tuple(name for name in listing.names if pictures.have(home / name))
    features = pictures.of([home / name for name in names]).numpy().astype(np.float32)
    features /= np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    failed = {str(path.relative_to(home)): why for path, why in pictures.failed.items()}
    return Indexed(home, names, features, failed)


def _write(place: Path, made: Indexed, listing: Listing) -> None:
    """The matrix under its listing's name first; what says that it is good, last."""
    buffer = io.BytesIO()
    np.save(buffer, made.features, allow_pickle=False)
    write_bytes(place / f"{listing.digest}.npy", buffer.getvalue())
    about = {"listing": listing.digest, "names": list(made.names), "unreadable": dict(made.unreadable)}
    write_json(place / "index.json", about)
    for old in place.glob("*.npy"):
        if old.stem != listing.digest:
            with contextlib.suppress(OSError):  # mapped by another process, on systems that mind
                old.unlink()


def _read(place: Path, home: Path, listing: Listing) -> Indexed | None:
    """None where it is not there, is of another listing, or is not what we wrote."""
    try:
        about = read_object(place / "index.json")
        if about["listing"] != listing.digest:
            return None
        features = np.load(place / f"{listing.digest}.npy", mmap_mode="r", allow_pickle=False)
        names, unreadable = tuple(map(str, about["names"])), dict(about["unreadable"])
    except (CigError, OSError, EOFError, ValueError, KeyError, TypeError):
        return None
    sound = features.ndim == 2 and features.dtype == np.float32 and len(features) == len(names)
    return Indexed(home, names, features, unreadable) if sound else None
