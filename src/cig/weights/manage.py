"""What `cig models` does: list the checkpoints that are wanted, check those on this machine, fetch or import others."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from cig.errors import IncompleteError, NotFoundError, some
from cig.io.json_files import write_json
from cig.runtime import say
from cig.weights import catalogue
from cig.weights.convert import import_checkpoints
from cig.weights.fetch import comes_by_hand, fetch
from cig.weights.verify import Inspection, inspect, to_json, to_text


def show(names: Sequence[str], json: Path | None = None, cache_dir: Path | None = None) -> None:
    """Print a few lines a checkpoint."""
    checkpoints = catalogue.select(names)
    if json:
        write_json(json, [catalogue.to_json(checkpoint, cache_dir) for checkpoint in checkpoints], indent=1)
    print("\n".join(catalogue.to_text(checkpoint, cache_dir) for checkpoint in checkpoints))
    lacking = [checkpoint.name for checkpoint in checkpoints if not checkpoint.local_path(cache_dir)]
    print(f"not there: {len(lacking)} of {len(checkpoints)}" + (f" ({some(lacking)})" if lacking else ""))


def check(names: Sequence[str], json: Path | None = None, cache_dir: Path | None = None) -> None:
    """Inspect checkpoints and print the results.

    Raises:
        IncompleteError: a checkpoint is broken, or named and missing.
    """
    inspections = [inspect(checkpoint, cache_dir) for checkpoint in catalogue.select(names)]
    if json:
        write_json(json, [to_json(inspection) for inspection in inspections], indent=1)
    for inspection in inspections:
        if names or inspection.state != "missing":
            print(to_text(inspection))
    missing = [inspection.checkpoint.name for inspection in inspections if inspection.state == "missing"]
    if missing and not names:
        print(f"not there: {len(missing)} ({some(missing)}); `cig models list` says where they come from")
    _need_sound(inspections, bool(names))


def download(names: Sequence[str], mirrors: Sequence[str] = (), cache_dir: Path | None = None) -> None:
    """Fetch missing checkpoints one after another, and print how each went.

    Raises:
        IncompleteError: a checkpoint could not be fetched, or is named and can only be fetched by hand.
    """
    inspections = []
    for checkpoint in catalogue.select(names):
        if names or not checkpoint.shipped:
            inspections.append(fetch(checkpoint, mirrors, cache_dir))
            print(to_text(inspections[-1]), flush=True)
    by_hand = [
        inspection
        for inspection in inspections
        if inspection.state == "missing" and comes_by_hand(inspection.checkpoint, mirrors)
    ]
    if by_hand:
        say(f"to be fetched by hand: {some(inspection.checkpoint.name for inspection in by_hand)}")
    _need_sound([inspection for inspection in inspections if names or inspection not in by_hand], named=True)


def import_folder(names: Sequence[str], folder: Path, link: bool = False) -> None:
    """Put the checkpoints of a hand-downloaded folder in place, and print how each went.

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
    for inspection in inspections:
        print(to_text(inspection))
    imported = {inspection.checkpoint.name for inspection in inspections}
    absent = [inspect(checkpoint) for checkpoint in importable if checkpoint.name not in imported]
    _need_sound([*inspections, *absent], bool(names))


def _need_sound(inspections: Iterable[Inspection], named: bool) -> None:
    bad = ("broken", "missing") if named else ("broken",)
    lines = [
        f"{inspection.checkpoint.name} is {inspection.state}: {inspection.detail}"
        for inspection in inspections
        if inspection.state in bad
    ]
    if lines:
        raise IncompleteError("\n  ".join([f"weights that cannot be used: {len(lines)}", *lines]))
