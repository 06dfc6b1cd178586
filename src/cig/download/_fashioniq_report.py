"""What was had of FashionIQ, and what was not: a table by category and split, lists, and the same for --json."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cig.benchmarks._check import evaluable
from cig.download import Outcome
from cig.download._fashioniq_pictures import Shelf
from cig.download._folder_scan import left_alone
from cig.download._ledger import PRESENT
from cig.download._local_pictures import Adopted
from cig.download._picture_checks import Refused
from cig.download._url_lists import UrlList
from cig.errors import some
from cig.io.digests import set_digest
from cig.io.image_checks import SMALLEST
from cig.io.text_table import text_table
from cig.types import TARGET, Benchmark

NOT_ASKED, NO_ADDRESS = "not asked", "no address"
CORRUPT = ("web page", "no picture", "damaged", "empty", "tiny", "one colour", "placeholder", "packed", "too large")
COLUMNS = ("wanted", "present", "dead", "corrupt", "failed", "not asked")
MEANING = {
    "gone": "the server says there is nothing (404, 410)",
    "web page": "a web page in the place of a picture",
    "no picture": "other content in the place of a picture",
    "damaged": "cut off, or broken otherwise",
    "empty": "nothing in the answer",
    "tiny": "a picture of a few pixels",
    "one colour": "one colour all over",
    "placeholder": "the same content at many addresses",
    "packed": "compressed, which nobody asked for",
    "too large": "over --max-mb or --max-pixels",
    "refused": "the server refuses (401, 403, ...)",
    "busy": "the host asks to wait (429, 503): rerun later",
    "failing": "the server fails (5xx)",
    "slow": "not done within --patience",
    "unreachable": "no connection, or one that broke off",
    "redirects": "too many redirects",
    "address": "not an address that may be asked",
    NO_ADDRESS: "in no list of addresses",
    NOT_ASKED: "not asked for yet",
}


@dataclass(frozen=True)
class Tally:
    """Of one category of one split."""

    part: Benchmark
    states: Mapping[str, str]  # name -> "present", or why not
    paths: Mapping[str, Path]

    @classmethod
    def of(cls, part: Benchmark, shelf: Shelf, listed: Mapping[str, str]) -> Tally:
        names = wanted_by(part)
        states = {name: _state(part.part, name, shelf, listed) for name in names}
        return cls(part, states, {name: own for name in names if (own := shelf.found[part.part].get(name))})

    def named(self, column: str) -> list[str]:
        return [name for name, state in self.states.items() if column == "wanted" or _column(state) == column]

    @property
    def evaluable(self) -> int:
        return evaluable(self.part, self.paths.keys())

    def suspicious(self, shelf: Shelf) -> dict[str, str]:
        """Name -> its file, and what is suspicious about it."""
        known = {name: path for name, path in self.paths.items() if path in shelf.suspicious}
        return {name: f"{path}: {shelf.suspicious[path]}" for name, path in known.items()}


def wanted_by(part: Benchmark) -> list[str]:
    """The names of the gallery, and whatever else queries mention."""
    mentioned = [name for query in part.queries for name in (query.reference, *_targets(query.relevant))]
    return list(dict.fromkeys((*part.gallery, *mentioned)))


def _targets(relevant: Mapping[str, int]) -> list[str]:
    return [name for name, grade in relevant.items() if grade == TARGET]


def _state(category: str, name: str, shelf: Shelf, listed: Mapping[str, str]) -> str:
    broken: Refused | None = shelf.broken[category].get(name)
    line = shelf.ledger.lines.get(name)
    if name in shelf.found[category]:
        return PRESENT
    if broken and shelf.in_the_way(category, name):
        return broken.kind
    if line and line.outcome != PRESENT:
        return line.outcome
    return broken.kind if broken else NOT_ASKED if name in listed else NO_ADDRESS


def _column(state: str) -> str:
    if state in CORRUPT:
        return "corrupt"
    known = {PRESENT: "present", "gone": "dead", NOT_ASKED: "not asked", NO_ADDRESS: "not asked"}
    return known.get(state, "failed")


def tell(
    tallies: Sequence[Tally],
    shelf: Shelf,
    lists: Mapping[str, UrlList],
    adopted: Adopted | None = None,
    notes: Sequence[str] = (),
) -> Outcome:
    lacking = _lacking(tallies)
    odd = dict.fromkeys(about for tally in tallies for about in tally.suspicious(shelf).values())
    files = [*_adopted(adopted), *_ways(shelf), *suspicious(odd), *_torn(shelf)]
    text = "\n".join([*_table(tallies, shelf), *_reasons(tallies), *_lists(lists), *files, *notes])
    facts = {
        "parts": {tally.part.title: _facts(tally, shelf) for tally in tallies},
        "picture_sets": picture_sets(tallies, shelf),
        "in_the_way": [str(path) for path in _blocking(shelf)],
        "adopted": adopted.taken if adopted else 0,
        "left_alone": list(adopted.foreign) if adopted else [],
        "not_followed": list(adopted.links) if adopted else [],
        "not_adopted": {str(path): kind for path, kind in adopted.refused.items()} if adopted else {},
        "lists": {category: _list_facts(own) for category, own in lists.items()},
        "ledger": str(shelf.ledger.path),
        "notes": list(notes),
    }
    return Outcome(text, facts, tuple(lacking))


def _lacking(tallies: Sequence[Tally]) -> Iterator[str]:
    for tally in tallies:
        absent = len(tally.states) - len(tally.named("present"))
        if absent:
            yield f"{tally.part.title} lacks {absent:,} of {len(tally.states):,} pictures"


def picture_sets(tallies: Sequence[Tally], shelf: Shelf) -> dict[str, str]:
    """Split -> the digest that reports on it carry in their provenance."""
    paths: dict[str, dict[Path, str]] = {}
    for tally in tallies:
        own = paths.setdefault(tally.part.name, {})
        own |= {path: shelf.digests[path] for path in tally.paths.values()}
    return {name: set_digest(own.values()) for name, own in paths.items()}


def _table(tallies: Sequence[Tally], shelf: Shelf) -> Iterator[str]:
    rows = [["", *COLUMNS, "queries", "evaluable"]]
    for tally in tallies:
        counts = [len(tally.named(column)) for column in COLUMNS]
        rows.append([tally.part.title, *(f"{n:,}" for n in (*counts, len(tally.part.queries))), _able(tally)])
    yield from text_table(rows, numbers=True)
    yield from (f"picture set of {name}: {own}" for name, own in picture_sets(tallies, shelf).items())


def _able(tally: Tally) -> str:
    return f"{tally.evaluable:,}" + (" can run" if tally.part.hidden else "")


def _reasons(tallies: Sequence[Tally]) -> Iterator[str]:
    """Each kind of trouble, with its count and its first ids: an id of several parts is one."""
    kinds: dict[str, dict[str, None]] = {}
    for tally in tallies:
        for name, state in tally.states.items():
            if state != PRESENT:
                kinds.setdefault(state, {})[name] = None
    for kind in sorted(kinds, key=lambda kind: -len(kinds[kind])):
        yield f"  {kind}: {MEANING.get(kind, 'failed')}: {len(kinds[kind]):,} ids ({some(kinds[kind], 5)})"


def _lists(lists: Mapping[str, UrlList]) -> Iterator[str]:
    for category, own in lists.items():
        shared, branded = own.shared(), own.branded()
        ids = [asin for asins in shared.values() for asin in asins]
        told = {
            f"{len(ids):,} ids share {len(shared):,} addresses, so their pictures are the same": ids,
            f"{len(branded):,} ids have a picture of the brand, not of the product": branded,
            f"{len(own.refused):,} lines of the list are not valid": own.refused,
        }
        yield from (f"  {category}: {what} ({some(names, 4)})" for what, names in told.items() if names)


def _blocking(shelf: Shelf) -> list[Path]:
    known = [shelf.in_the_way(category, name) for category, own in shelf.broken.items() for name in own]
    return list(dict.fromkeys(path for path in known if path))


def _ways(shelf: Shelf) -> Iterator[str]:
    paths = _blocking(shelf)
    if paths:
        names = some(map(str, paths), 3)
        yield f"  {len(paths):,} broken files are in the way: remove them and run this again ({names})"


def suspicious(files: Collection[str]) -> Iterator[str]:
    """Of pictures that lie there: an evaluation would embed them, so they are present."""
    if files:
        yield (
            f"  {len(files):,} pictures count as present, and show nothing (under {SMALLEST} pixels a side, or one "
            f"colour): if they are placeholders, remove them and run this again ({some(files, 5)})"
        )


def _adopted(own: Adopted | None) -> Iterator[str]:
    if not own:
        return
    yield f"  taken from {own.folder}: {own.taken:,} pictures{f', {len(own.kept):,} were there' if own.kept else ''}"
    if own.refused:
        kinds = [f"{path.name}: {kind}" for path, kind in own.refused.items()]
        yield f"  not taken from {own.folder}: {len(kinds):,} files ({some(kinds, 5)})"
    yield from left_alone(own.foreign, own.links)


def _torn(shelf: Shelf) -> Iterator[str]:
    if shelf.ledger.torn:
        yield f"  {shelf.ledger.torn:,} lines of {shelf.ledger.path} were cut by a kill, or are not ours: left out"


def _facts(tally: Tally, shelf: Shelf) -> dict[str, Any]:
    counts = {column.replace(" ", "_"): len(tally.named(column)) for column in COLUMNS}
    absent: dict[str, list[str]] = {}
    for name, state in tally.states.items():
        if state != PRESENT:
            absent.setdefault(state, []).append(name)
    counts |= {"queries": len(tally.part.queries), "evaluable": tally.evaluable}
    return {**counts, "absent": absent, "suspicious": tally.suspicious(shelf)}


def _list_facts(own: UrlList) -> dict[str, Any]:
    told = {"lines": own.lines, "ids": len(own.urls), "refused": list(own.refused)}
    return {**told, "shared": own.shared(), "brand": own.branded()}
