"""Find files by query id: embeddings and pictures, padded or unpadded, one or several a query."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from cig.errors import MismatchError, some
from cig.io.digests import file_digest
from cig.io.files import names_in


def picture_name(query: str) -> str:
    """Name a query's picture; integer ids are padded to five digits, as the published retrieval reads them."""
    return f"{int(query):05d}.png" if query.isdecimal() else f"{query}.png"


def find_by_id(folder: Path, ids: Iterable[str], suffixes: Sequence[str]) -> dict[str, Path]:
    """Find the file of each id, padded or unpadded; ids without a file are left out.

    Raises:
        NotFoundError: the folder does not exist.
        MismatchError: two files with different content claim one id.
    """
    stems = _by_stem(folder, suffixes)
    paths = {query: _only_file(query, stems, stems_of(query)) for query in ids}
    return {query: path for query, path in paths.items() if path}


def find_several_by_id(folder: Path, ids: Iterable[str], suffixes: Sequence[str]) -> dict[str, tuple[Path, ...]]:
    """Find the files of each id: as find_by_id, then `{id}_{j}`, by j, unless that name is itself an id."""
    stems, ids = _by_stem(folder, suffixes), dict.fromkeys(ids)
    numbers: dict[str, set[str]] = {}
    for base, mark, number in (stem.rpartition("_") for stem in stems if stem not in ids):
        if mark and number.isascii() and number.isdecimal():
            numbers.setdefault(base, set()).add(number)
    files = {}
    for query in ids:
        names = stems_of(query)
        several = sorted({number for stem in names for number in numbers.get(stem, ())}, key=lambda j: (len(j), j))
        candidates = [names, *([f"{stem}_{number}" for stem in names] for number in several)]
        files[query] = tuple(path for group in candidates if (path := _only_file(query, stems, group)))
    return {query: paths for query, paths in files.items() if paths}


def _by_stem(folder: Path, suffixes: Sequence[str]) -> dict[str, list[Path]]:
    stems: dict[str, list[Path]] = {}
    for path in map(folder.joinpath, names_in(folder)):
        if path.suffix.lower() in suffixes:
            stems.setdefault(path.stem, []).append(path)
    return stems


def stems_of(query: str) -> list[str]:
    """List the names, without suffix, that a query's file may have: padded and, as published files are, unpadded."""
    return list(dict.fromkeys([Path(picture_name(query)).stem, query]))


def _only_file(query: str, stems: Mapping[str, list[Path]], names: Iterable[str]) -> Path | None:
    paths = [path for name in names for path in stems.get(name, [])]
    if len(paths) > 1 and len(set(map(file_digest, paths))) > 1:
        raise MismatchError(f"query {query} has files that differ: {some(map(str, paths))}; keep one of them")
    return paths[0] if paths else None
