"""Open a folder of pictures or an index: by which method, from where, and whether they fit each other."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from cig import config
from cig.errors import InputError, MismatchError, NotFoundError, some
from cig.io.digests import digest_of
from cig.io.feature_cache import INDEXES, FeatureCache
from cig.io.images import Upright
from cig.io.json_files import read_object
from cig.pipelines._search_benchmark import check_searching, load_searcher
from cig.pipelines.index import FILE, Index
from cig.retrieval.features import picture_space
from cig.retrieval.requests import OWN_METHOD, OwnSearching, Searching
from cig.runtime import Compute
from cig.types import Method

FORMAT = 1


def is_index(location: Path) -> bool:
    """Tell whether a folder is an index, rather than pictures."""
    return os.path.isfile(location / FILE)


def open(
    location: str | Path, method: str | None = None, cache: str | Path | None = None, *, device: str = "auto"
) -> Index:
    """Open a folder of pictures or an index, ready to search; `cig.open`.

    A folder is embedded now, as far as it is not yet. An index is taken as it is: `index.build()` brings it up to date.

    Args:
        method: FAMILY[/VARIANT]. Default: an index's own; of a folder bge-vl/base.
        cache: where features are kept. Default: cig in the user's cache folder.

    Raises:
        NotFoundError: no folder, no pictures, or no weights.
        MismatchError: an index of another method.
    """
    searching = OwnSearching(method=method or "", feature_cache=Path(cache) if cache else None)
    return open_place(Path(location), searching, Compute(device=device))


def open_place(location: Path, searching: OwnSearching, compute: Compute, *, build: bool = True) -> Index:
    """Open a folder or an index; an index is searched by its own method where none is given."""
    cache = FeatureCache(cache_folder(searching))
    if is_index(location):
        return _open_existing(location, searching, compute=compute, cache=cache)
    if not os.path.isdir(location):
        raise NotFoundError(f"{location} is neither a folder of pictures nor an index")
    method = load_own(searching.resolved(), compute, cache)
    key = digest_of({"folder": str(location.resolve()), **picture_space(method)})
    folder = cache_folder(searching) / INDEXES / key
    facts = _new_facts(location, method, searching.resolved())
    try:
        stored = _read_facts(folder) if is_index(folder) else facts
        index = Index(folder, method, cache, facts=stored, is_folder=True)
    except InputError:  # nothing is in it that cannot be made again
        shutil.rmtree(folder, ignore_errors=True)
        index = Index(folder, method, cache, facts=facts, is_folder=True)
    if build:
        index.build(compute=compute)
    return index


def make_index(
    gallery: Path,
    out: Path,
    searching: OwnSearching,
    *,
    compute: Compute,
    store: str = "exact",
    metadata: Path | None = None,
) -> Index:
    """Make an index of a folder, or bring it up to date; Index.changes says what was done."""
    cache = FeatureCache(cache_folder(searching))
    if is_index(out):
        index = _open_existing(out, searching, compute=compute, cache=cache)
        if index.gallery != gallery.resolve():
            raise MismatchError(f"{out} is an index of {index.gallery}, not of {gallery}; choose another --out")
    else:
        method = load_own(searching.resolved(), compute, cache)
        index = Index(out, method, cache, facts={**_new_facts(gallery, method, searching.resolved()), "store": store})
    index.build(metadata, compute)
    return index


def cache_folder(searching: Searching | None) -> Path:
    """Return where features are kept, and the indexes of folders."""
    return (searching and searching.feature_cache) or config.user_cache()


def load_own(searching: Searching, compute: Compute, cache: FeatureCache) -> Method:
    """Load a method that sees pictures as people do: upright, and on white where they are transparent."""
    check_searching(replace(searching, reference_weight=None))
    try:
        method: Any = load_searcher(searching, compute, cache)
    except NotFoundError as error:
        if searching.method != OWN_METHOD or searching.clip:
            raise
        raise NotFoundError(
            f"{error} For a try without it: --method sum/icons, which is shipped and knows icons alone"
        ) from error
    if method.preprocess is not None:
        method.preprocess = Upright(method.preprocess)
    return method


def _new_facts(gallery: Path, method: Method, searching: Searching) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "gallery": str(gallery.resolve()),
        "store": "exact",
        "method": _method_facts(searching),
        "space": digest_of(picture_space(method)),
    }


def _open_existing(location: Path, searching: OwnSearching, *, compute: Compute, cache: FeatureCache) -> Index:
    facts = _read_facts(location)
    made_by = OwnSearching(**_as_searching(facts["method"]))
    method = load_own(searching.resolved() if searching.chosen else made_by, compute, cache)
    if digest_of(picture_space(method)) != facts["space"]:
        raise MismatchError(
            f"{location} was made by {made_by.method}, with other weights or another preprocessing than those of "
            f"{method.name}; leave --method out, or make another index with `cig index build`"
        )
    return Index(location, method, cache, facts=facts)


def _read_facts(folder: Path) -> dict[str, Any]:
    facts = read_object(folder / FILE)
    lacking = [key for key in ("format", "gallery", "store", "method", "space") if key not in facts]
    if lacking or facts["format"] != FORMAT:
        raise InputError(f"{folder / FILE} is no index of this version: it lacks {some(lacking or ['format 1'], 3)}")
    return facts


def _method_facts(searching: Searching) -> dict[str, Any]:
    names = ("method", "clip", "phi", "preprocess_type", "method_option", "prompt")
    facts = {name: value for name, value in asdict(searching).items() if name in names and value}
    return {name: str(value) if isinstance(value, Path) else value for name, value in facts.items()}


def _as_searching(facts: Mapping[str, Any]) -> dict[str, Any]:
    made = {**facts, "method_option": tuple(facts.get("method_option", ()))}
    return made | ({"phi": Path(facts["phi"])} if "phi" in facts else {})
