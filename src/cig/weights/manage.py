"""What `cig models` does: list the checkpoints that are wanted, check those on this machine, fetch or import others."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from cig.errors import IncompleteError, NotFoundError, some
from cig.io.outputs import write_json_output
from cig.runtime import say
from cig.weights import catalogue
from cig.weights.convert import import_checkpoints
from cig.weights.fetch import comes_by_hand, fetch
from cig.weights.verify import Inspection, inspect, to_json, to_text


def describe(names: Sequence[str], json: Path | None = None, cache_dir: Path | None = None) -> str:
    """A few lines a checkpoint: where it is looked for and fetched, its licence, what wants it, whether it is here."""
    checkpoints = catalogue.select(names)
    if json:
        write_json_output(json, [catalogue.to_json(checkpoint, cache_dir) for checkpoint in checkpoints], indent=1)
    lacking = [checkpoint.name for checkpoint in checkpoints if not checkpoint.local_path(cache_dir)]
    count = f"not there: {len(lacking)} of {len(checkpoints)}" + (f" ({some(lacking)})" if lacking else "")
    return "\n".join([*(catalogue.to_text(checkpoint, cache_dir) for checkpoint in checkpoints), count])


def check(names: Sequence[str], json: Path | None = None, cache_dir: Path | None = None) -> list[Inspection]:
    """Inspect checkpoints; `need_sound` of the result raises for those that cannot be used."""
    paths = [name for name in names if _is_unnamed_path(name)]
    named = [name for name in names if name not in paths]
    checkpoints = [*(catalogue.select(named) if named or not paths else ()), *map(catalogue.at_path, map(Path, paths))]
    inspections = [inspect(checkpoint, cache_dir) for checkpoint in checkpoints]
    if json:
        write_json_output(json, [to_json(inspection) for inspection in inspections], indent=1)
    return inspections


def _is_unnamed_path(name: str) -> bool:
    """Tell whether a path exists that is not in the catalogue."""
    try:
        return not catalogue.select([name])
    except NotFoundError:
        return os.path.exists(name)


def check_lines(inspections: Sequence[Inspection], named: bool) -> list[str]:
    """A line or more a checkpoint; missing ones that nobody named are counted together."""
    lines = [to_text(inspection) for inspection in inspections if named or inspection.state != "missing"]
    missing = [inspection.checkpoint.name for inspection in inspections if inspection.state == "missing"]
    if missing and not named:
        lines.append(f"not there: {len(missing)} ({some(missing)}); `cig models list` says where they come from")
    return lines


def download(names: Sequence[str], mirrors: Sequence[str] = (), cache_dir: Path | None = None) -> Iterator[Inspection]:
    """Fetch missing checkpoints one after another; yield how each went.

    Raises:
        IncompleteError: a checkpoint could not be fetched, or is named and can only be fetched by hand.
    """
    inspections = []
    for checkpoint in catalogue.select(names):
        if names or not checkpoint.shipped:
            inspections.append(fetch(checkpoint, mirrors, cache_dir))
            yield inspections[-1]
    by_hand = [
        inspection
        for inspection in inspections
        if inspection.state == "missing" and comes_by_hand(inspection.checkpoint, mirrors)
    ]
    if by_hand:
        say(f"to be fetched by hand: {some(inspection.checkpoint.name for inspection in by_hand)}")
    need_sound([inspection for inspection in inspections if names or inspection not in by_hand], named=True)


def import_folder(names: Sequence[str], folder: Path, link: bool = False) -> Iterator[Inspection]:
    """Put the checkpoints of a hand-downloaded folder in place; yield how each went.

    Raises:
        NotFoundError: the folder has no wanted checkpoint.
        IncompleteError: a checkpoint in it is broken, or named and not in it.
    """
    wanted = catalogue.select(names)
    importable = [checkpoint for checkpoint in wanted if checkpoint.kind in ("phi", "unet") and not checkpoint.shipped]
    inspections = import_checkpoints(wanted, folder, link)
    if not inspections:
        files = some(checkpoint.file for checkpoint in importable)
        raise NotFoundError(f"{folder} has none of {files}, nor below; give the folder that holds them")
    yield from inspections
    imported = {inspection.checkpoint.name for inspection in inspections}
    absent = [inspect(checkpoint) for checkpoint in importable if checkpoint.name not in imported]
    need_sound([*inspections, *absent], bool(names))


def need_sound(inspections: Iterable[Inspection], named: bool) -> None:
    """Raise IncompleteError that names what is broken, or, where checkpoints were named, missing."""
    bad = ("broken", "incomplete", "missing") if named else ("broken", "incomplete")
    lines = [
        f"{inspection.checkpoint.name} is {inspection.state}: {inspection.detail}"
        for inspection in inspections
        if inspection.state in bad
    ]
    if lines:
        raise IncompleteError("\n  ".join([f"weights that cannot be used: {len(lines)}", *lines]))
