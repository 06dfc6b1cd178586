"""The state of FashionIQ after a download: a table by category and split, what is missing and why, facts for --json."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cig.benchmarks._check import evaluable, unlisted_targets, wanted_pictures
from cig.download import Outcome
from cig.download._fashioniq_pictures import PictureStore
from cig.download._folder_scan import skipped_lines
from cig.download._ledger import PRESENT
from cig.download._local_pictures import FolderImport
from cig.download._summary import lacking_line, suspicious_lines, unlisted_lines, wrong_lists
from cig.download._url_lists import UrlList
from cig.errors import some
from cig.io.digests import set_digest
from cig.io.text_table import text_table
from cig.types import Benchmark

NOT_ASKED, NO_ADDRESS = "not asked", "no address"
CORRUPT = ("web page", "no picture", "damaged", "empty", "tiny", "one colour", "placeholder", "packed", "too large")
COLUMNS = ("wanted", "present", "dead", "corrupt", "failed", "not asked")
MEANINGS = {
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
    "certificate": "the server's certificate is not trusted",
    "redirects": "too many redirects",
    "address": "not an address that may be asked",
    NO_ADDRESS: "in no list of addresses",
    NOT_ASKED: "not asked for yet",
}


@dataclass(frozen=True)
class Tally:
    """The pictures of one category of one split: their states and paths.

    Attributes:
        states: name -> "present", or why not.
        suspicious: name -> its file, and what is suspicious about it.
    """

    part: Benchmark
    states: Mapping[str, str]
    paths: Mapping[str, Path]
    suspicious: Mapping[str, str]

    @classmethod
    def of(cls, part: Benchmark, store: PictureStore, listed: Mapping[str, str]) -> Tally:
        """Look up each wanted picture in the store; listed: id -> its address."""
        states = {name: _state(part.part, name, store, listed=listed) for name in wanted_pictures(part)}
        paths = {name: path for name in states if (path := store.paths[part.part].get(name))}
        odd = {name: f"{path}: {store.suspicious[path]}" for name, path in paths.items() if path in store.suspicious}
        return cls(part, states, paths, suspicious=odd)

    def count(self, column: str) -> int:
        return sum(column in ("wanted", _column(state)) for state in self.states.values())

    @property
    def evaluable(self) -> int:
        """How many queries could run and be scored."""
        return evaluable(self.part, self.paths.keys())


def _state(category: str, name: str, store: PictureStore, *, listed: Mapping[str, str]) -> str:
    """Classify a picture: the file on disk counts first, then the last outcome in the ledger."""
    broken = store.broken[category].get(name)
    line = store.ledger.lines.get(name)
    if name in store.paths[category]:
        return PRESENT
    if broken and store.in_the_way(category, name):
        return broken.kind
    if line and line.outcome != PRESENT:
        return line.outcome
    return broken.kind if broken else NOT_ASKED if name in listed else NO_ADDRESS


def _column(state: str) -> str:
    if state in CORRUPT:
        return "corrupt"
    columns = {PRESENT: "present", "gone": "dead", NOT_ASKED: "not asked", NO_ADDRESS: "not asked"}
    return columns.get(state, "failed")


def summarise(
    tallies: Sequence[Tally],
    store: PictureStore,
    lists: Mapping[str, UrlList],
    *,
    adopted: FolderImport | None = None,
    notes: Sequence[str] = (),
) -> Outcome:
    """Show the table, the reasons, the lists by category, and the files that need attention."""
    lacking = [
        lacking_line(tally.part.title, absent, len(tally.states))
        for tally in tallies
        if (absent := tally.count("wanted") - tally.count("present"))
    ]
    unlisted = {tally.part.title: unlisted_targets(tally.part) for tally in tallies}
    sets, in_the_way = _picture_sets(tallies, store), store.blocking()
    text = [
        *_table(tallies),
        *(f"picture set of {name}: {digest}" for name, digest in sets.items()),
        *_reasons(tallies),
        *unlisted_lines(unlisted),
        *_list_lines(lists),
        *_file_lines(tallies, store, in_the_way, adopted=adopted),
        *notes,
    ]
    imported = adopted or FolderImport(Path())
    facts = {
        "parts": {tally.part.title: _facts(tally) for tally in tallies},
        "picture_sets": sets,
        "unlisted_targets": unlisted,
        "in_the_way": in_the_way,
        "adopted": imported.taken,
        "left_alone": list(imported.foreign),
        "not_followed": list(imported.links),
        "not_listed": list(imported.unreadable),
        "not_adopted": {str(path): kind for path, kind in imported.refused.items()},
        "lists": {category: _list_facts(listed) for category, listed in lists.items()},
        "ledger": str(store.ledger.path),
        "notes": list(notes),
    }
    return Outcome("\n".join(text), facts, tuple(lacking), wrong_lists(unlisted))


def _picture_sets(tallies: Sequence[Tally], store: PictureStore) -> dict[str, str]:
    """Map each split to the digest that reports on it carry in their provenance."""
    digests: dict[str, dict[Path, str]] = {}
    for tally in tallies:
        split = digests.setdefault(tally.part.name, {})
        split |= {path: store.digests[path] for path in tally.paths.values()}
    return {name: set_digest(split.values()) for name, split in digests.items()}


def _table(tallies: Sequence[Tally]) -> Iterator[str]:
    rows = [["", *COLUMNS, "queries", "evaluable"]]
    for tally in tallies:
        counts = [*map(tally.count, COLUMNS), len(tally.part.queries), tally.evaluable]
        cells = [f"{number:,}" for number in counts]
        rows.append([tally.part.title, *cells[:-1], cells[-1] + (" can run" if tally.part.hidden else "")])
    yield from text_table(rows, numbers=True)


def _reasons(tallies: Sequence[Tally]) -> Iterator[str]:
    """List each kind of problem, with its count and first ids; an id of several parts counts once."""
    kinds: dict[str, dict[str, None]] = {}
    for tally in tallies:
        for name, state in tally.states.items():
            if state != PRESENT:
                kinds.setdefault(state, {})[name] = None
    for kind in sorted(kinds, key=lambda kind: -len(kinds[kind])):
        yield f"  {kind}: {MEANINGS.get(kind, 'failed')}: {len(kinds[kind]):,} ids ({some(kinds[kind], 5)})"


def _list_lines(lists: Mapping[str, UrlList]) -> Iterator[str]:
    for category, listed in lists.items():
        shared, branded = listed.shared(), listed.branded()
        ids = [asin for asins in shared.values() for asin in asins]
        oddities = {
            f"{len(ids):,} ids share {len(shared):,} addresses, so their pictures are the same": ids,
            f"{len(branded):,} ids have a picture of the brand, not of the product": branded,
            f"{len(listed.refused):,} lines of the list are not valid": listed.refused,
        }
        yield from (f"  {category}: {what} ({some(names, 4)})" for what, names in oddities.items() if names)


def _file_lines(
    tallies: Sequence[Tally], store: PictureStore, in_the_way: Sequence[str], *, adopted: FolderImport | None
) -> Iterator[str]:
    """Report what came from a folder, and the files that the user should look at."""
    if adopted:
        kept = f", {len(adopted.kept):,} were there" if adopted.kept else ""
        yield f"  taken from {adopted.folder}: {adopted.taken:,} pictures{kept}"
        if adopted.refused:
            kinds = [f"{path.name}: {kind}" for path, kind in adopted.refused.items()]
            yield f"  not taken from {adopted.folder}: {len(kinds):,} files ({some(kinds, 5)})"
        yield from skipped_lines(adopted.foreign, adopted.links, adopted.unreadable)
    if in_the_way:
        names = some(in_the_way, 3)
        yield f"  {len(in_the_way):,} broken files are in the way: remove them and run this again ({names})"
    yield from suspicious_lines(dict.fromkeys(text for tally in tallies for text in tally.suspicious.values()))
    if store.ledger.torn:
        yield f"  {store.ledger.torn:,} lines of {store.ledger.path} were cut by a kill, or are not ours: left out"


def _facts(tally: Tally) -> dict[str, Any]:
    counts = {column.replace(" ", "_"): tally.count(column) for column in COLUMNS}
    absent: dict[str, list[str]] = {}
    for name, state in tally.states.items():
        if state != PRESENT:
            absent.setdefault(state, []).append(name)
    counts |= {"queries": len(tally.part.queries), "evaluable": tally.evaluable}
    return {**counts, "absent": absent, "suspicious": dict(tally.suspicious)}


def _list_facts(listed: UrlList) -> dict[str, Any]:
    return {
        "lines": listed.lines,
        "ids": len(listed.urls),
        "refused": list(listed.refused),
        "shared": listed.shared(),
        "brand": listed.branded(),
    }
