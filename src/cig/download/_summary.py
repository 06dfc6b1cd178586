"""The state of a dataset whose pictures come in bulk: a table by split, and what is missing."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from cig.benchmarks._check import LIST_BY_HAND, Checkup, picture_set, unlisted_targets, wanted_pictures
from cig.download import Outcome
from cig.download._bulk_pictures import BulkImport
from cig.errors import some
from cig.io.image_checks import SMALLEST
from cig.io.text_table import text_table
from cig.types import Benchmark

COLUMNS = ("wanted", "present", "missing", "unreadable", "queries", "evaluable")
Unlisted = Mapping[str, Mapping[str, str]]  # title of a part -> query -> its target, which the gallery does not list


def count(parts: Sequence[Benchmark], notes: Sequence[str] | None = None) -> Outcome:
    """Count queries and wanted pictures, without reading any picture; notes say what is lacking."""
    lines = [f"{part.title}: {len(part.queries):,} queries, {len(wanted_pictures(part)):,} pictures" for part in parts]
    facts: dict[str, Any] = {"parts": {part.title: {"queries": len(part.queries)} for part in parts}}
    unlisted = {part.title: unlisted_targets(part) for part in parts}
    text = [*lines, *unlisted_lines(unlisted), *(notes or ())]
    facts["unlisted_targets"] = unlisted
    facts |= {} if notes is None else {"notes": list(notes)}
    return Outcome("\n".join(text), facts, tuple(notes or ()), wrong_lists(unlisted))


def summarise(
    checkups: Sequence[Checkup],
    imports: Sequence[BulkImport],
    *,
    notes: Sequence[str] = (),
    advice: Sequence[str],
    decoded: bool = True,
) -> Outcome:
    """Show the table, what is missing, and how to get it.

    Args:
        imports: from folders and zips.
        advice: how to get missing pictures; shown if there are any.
        decoded: whether the checkups decoded the pictures, and so know which are unreadable.
    """
    sets = {checkup.title: picture_set([checkup]) for checkup in checkups if checkup.digests}
    lacking = [
        lacking_line(checkup.title, len(checkup.missing) + len(checkup.unreadable), checkup.pictures)
        for checkup in checkups
        if checkup.missing or checkup.unreadable
    ]
    unlisted = {checkup.title: checkup.unlisted for checkup in checkups}
    notes = [*(line for result in imports for line in result.lines()), *notes]
    text = [
        *_table(checkups, decoded),
        *(f"picture set of {title}: {digest}" for title, digest in sets.items()),
        *(line for checkup in checkups for line in _problems(checkup)),
        *unlisted_lines(unlisted),
        *notes,
        *(advice if lacking else ()),
    ]
    facts = {
        "parts": {checkup.title: _facts(checkup, decoded) for checkup in checkups},
        "picture_sets": sets,
        "unlisted_targets": unlisted,
        "not_taken": {name: why for result in imports for name, why in result.refused.items()},
        "kept_though_another": [name for result in imports for name in result.differing],
        "left_alone": [name for result in imports for name in result.foreign],
        "not_followed": [path for result in imports for path in result.links],
        "not_listed": [path for result in imports for path in result.unreadable],
        "notes": notes,
    }
    return Outcome("\n".join(text), facts, tuple(lacking), wrong_lists(unlisted))


def lacking_line(title: str, absent: int, wanted: int) -> str:
    return f"{title} lacks {absent:,} of {wanted:,} pictures"


def wrong_lists(unlisted: Unlisted) -> tuple[str, ...]:
    """Say how many queries of each part have a target that is not in the gallery's list."""
    counts = {title: len(targets) for title, targets in unlisted.items() if targets}
    return tuple(
        f"{title}: the gallery's list lacks the targets of {count:,} queries" for title, count in counts.items()
    )


def unlisted_lines(unlisted: Unlisted) -> Iterator[str]:
    """Name these queries, and what to do."""
    for said, targets in zip(wrong_lists(unlisted), filter(None, unlisted.values()), strict=True):
        yield f"  {said} ({some([f'{query}: {name}' for query, name in targets.items()], 3)})"
    if any(unlisted.values()):
        yield f"    -> {LIST_BY_HAND}"


def suspicious_lines(files: Collection[str]) -> Iterator[str]:
    """Report existing pictures that show nothing; they count as present, as an evaluation would embed them."""
    if files:
        yield (
            f"  {len(files):,} pictures count as present, and show nothing (under {SMALLEST} pixels a side, or one "
            f"colour): if they are placeholders, remove them and run this again ({some(files, 5)})"
        )


def _table(checkups: Sequence[Checkup], decoded: bool) -> Iterator[str]:
    rows = [["", *COLUMNS]]
    for checkup in checkups:
        facts = _facts(checkup, decoded)
        counts = ["not looked" if facts[key] is None else f"{facts[key]:,}" for key in COLUMNS]
        rows.append([checkup.title, *counts[:-1], f"{counts[-1]}{' can run' if checkup.hidden else ''}"])
    yield from text_table(rows, numbers=True)


def _facts(checkup: Checkup, decoded: bool) -> dict[str, Any]:
    return {
        "wanted": checkup.pictures,
        "present": checkup.readable,
        "missing": len(checkup.missing),
        "unreadable": len(checkup.unreadable) if decoded else None,
        "queries": checkup.queries,
        "evaluable": checkup.evaluable,
        "missing_names": list(checkup.missing),
        "unreadable_files": dict(checkup.unreadable),
        "suspicious": checkup.suspicious if decoded else None,
    }


def _problems(checkup: Checkup) -> Iterator[str]:
    if checkup.missing:
        yield f"  {checkup.title}: {len(checkup.missing):,} pictures missing ({some(checkup.missing, 3)})"
    if checkup.unreadable:
        reasons = some(checkup.unreadable.values(), 3)
        yield (
            f"  {checkup.title}: {len(checkup.unreadable):,} cannot be read: remove them and run this again ({reasons})"
        )
    yield from suspicious_lines(checkup.suspicious.values())
