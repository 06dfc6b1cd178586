"""What there is of a dataset whose pictures come many at once: a table by split, and what is missing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from cig.benchmarks._check import Checkup, picture_set
from cig.download import Outcome
from cig.download._bulk_pictures import Taken
from cig.download._fashioniq_report import suspicious
from cig.errors import some
from cig.io.text_table import text_table
from cig.types import Benchmark

COLUMNS = ("wanted", "present", "missing", "unreadable", "queries", "evaluable")


def count(parts: Sequence[Benchmark]) -> Outcome:
    """Without a look at pictures."""
    told = [f"{own.title}: {len(own.queries):,} queries, {len(own.gallery):,} pictures" for own in parts]
    return Outcome("\n".join(told), {"parts": {own.title: {"queries": len(own.queries)} for own in parts}})


def tell(
    looked: Sequence[Checkup],
    taken: Sequence[Taken],
    notes: Sequence[str],
    ways: Sequence[str],
    decoded: bool = True,
) -> Outcome:
    """The table, what is missing, and what to do about it.

    Args:
        taken: from folders and zips.
        ways: to what is missing; shown where something is.
        decoded: whether unreadable pictures would have been found.
    """
    sets = {own.title: picture_set([own]) for own in looked if own.digests}
    lacking = tuple(_lacking(looked))
    said = [f"picture set of {title}: {digest}" for title, digest in sets.items()]
    told = [*(line for own in taken for line in own.told()), *notes]
    text = [*_table(looked, decoded), *said, *(line for own in looked for line in _missing(own)), *told]
    facts = {
        "parts": {own.title: _facts(own, decoded) for own in looked},
        "picture_sets": sets,
        "not_taken": {name: why for own in taken for name, why in own.refused.items()},
        "kept_though_another": [name for own in taken for name in own.differing],
        "left_alone": [name for own in taken for name in own.foreign],
        "not_followed": [path for own in taken for path in own.links],
        "notes": told,
    }
    return Outcome("\n".join([*text, *(ways if lacking else ())]), facts, lacking)


def _table(looked: Sequence[Checkup], decoded: bool) -> Iterator[str]:
    rows = [["", *COLUMNS]]
    for own in looked:
        facts = _facts(own, decoded)
        counts = ["not looked" if facts[key] is None else f"{facts[key]:,}" for key in COLUMNS]
        rows.append([own.title, *counts[:-1], f"{counts[-1]}{' can run' if own.hidden else ''}"])
    yield from text_table(rows, numbers=True)


def _facts(own: Checkup, decoded: bool) -> dict[str, Any]:
    return {
        "wanted": own.pictures,
        "present": own.pictures - len(own.missing) - len(own.unreadable),
        "missing": len(own.missing),
        "unreadable": len(own.unreadable) if decoded else None,
        "queries": own.queries,
        "evaluable": own.evaluable,
        "missing_names": list(own.missing),
        "unreadable_files": dict(own.unreadable),
        "suspicious": own.suspicious if decoded else None,
    }


def _missing(own: Checkup) -> Iterator[str]:
    if own.missing:
        yield f"  {own.title}: {len(own.missing):,} pictures missing ({some(own.missing, 3)})"
    if own.unreadable:
        told = some(own.unreadable.values(), 3)
        yield f"  {own.title}: {len(own.unreadable):,} cannot be read: remove them and run this again ({told})"
    yield from suspicious(own.suspicious.values())


def _lacking(looked: Sequence[Checkup]) -> Iterator[str]:
    for own in looked:
        absent = len(own.missing) + len(own.unreadable)
        if absent:
            yield f"{own.title} lacks {absent:,} of {own.pictures:,} pictures"
