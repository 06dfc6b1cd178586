"""Read anyone's run of a benchmark: TREC, the JSON of `--rankings`, or a submission's form."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cig.errors import InputError, MismatchError, some
from cig.evaluation.score import parse
from cig.evaluation.trec import read_run
from cig.io.files import read_bytes
from cig.io.json_files import read_object
from cig.types import TARGET, Benchmark, Query, Ranking

HEADER = ("version", "metric")
SUBSET = "recall_subset"  # CIRR's metric of the second file
Lists = Mapping[str, Sequence[str]]  # query -> names, best first


@dataclass(frozen=True)
class GivenRun:
    """A run on the parts of a benchmark, and what is odd about it."""

    parts: tuple[Benchmark, ...]  # with those measures alone that the run can be scored by
    rankings: tuple[Ranking, ...]
    notes: tuple[str, ...]


def read_given_run(paths: Sequence[Path], parts: Sequence[Benchmark]) -> GivenRun:
    """Read a run's files: one, or for CIRR the file of the whole gallery and that of the subsets.

    Raises:
        InputError: a file of no known form.
        MismatchError: a file without a query of the benchmark.
    """
    whole: dict[str, Lists] = {}
    subsets: dict[str, Lists] = {}
    for path in paths:
        lists, metric = _read(path, parts)
        if not any(
            set(rows) & {query.id for query in part.queries} for part in parts if (rows := lists.get(part.part))
        ):
            examples = some([query.id for query in parts[0].queries], 3)
            raise MismatchError(f"{path} has no query of {parts[0].name}: it should have ids such as {examples}")
        (subsets if metric == SUBSET else whole).update(lists)
    made = [_ranked(part, whole.get(part.part), subsets.get(part.part)) for part in parts]
    # Parts have one list of measures: a part without any list scores 0 by those that another part's lists answer.
    answered = {measure for part, _, _ in made for measure in part.measures}
    measures = tuple(measure for measure in parts[0].measures if measure in answered)
    left = [measure for measure in parts[0].measures if measure not in answered]
    unanswered = [f"{parts[0].name}: the run does not answer {', '.join(left)}"] if left else []
    return GivenRun(
        parts=tuple(replace(part, measures=measures) for part, _, _ in made),
        rankings=tuple(ranking for _, ranking, _ in made),
        notes=(*(note for _, _, notes in made for note in notes), *unanswered),
    )


def _read(path: Path, parts: Sequence[Benchmark]) -> tuple[dict[str, Lists], str]:
    """Return part -> lists, and the metric that the file names."""
    if not read_bytes(path).lstrip().startswith((b"{", b"\xef\xbb\xbf{")):
        return _by_part(read_run(path), parts), ""
    content: dict[str, Any] = dict(read_object(path))
    header = {key: content.pop(key) for key in HEADER if key in content}
    if content and all(isinstance(value, dict) for value in content.values()):
        lists: dict[str, Lists] = {
            part: {query: _names(path, query, row) for query, row in rows.items()} for part, rows in content.items()
        }
        return lists, ""
    rows = {query: _names(path, query, row) for query, row in content.items()}
    return _by_part(rows, parts), str(header.get("metric", ""))


def _by_part(rows: Lists, parts: Sequence[Benchmark]) -> dict[str, Lists]:
    """Sort ids such as dress/12 into the benchmark's parts."""
    if len(parts) == 1 and not any(query.id.startswith(f"{parts[0].part}/") for query in parts[0].queries):
        prefix = f"{parts[0].part}/" if parts[0].part else ""
        return {parts[0].part: {query.removeprefix(prefix): names for query, names in rows.items()}}
    sorted_rows: dict[str, dict[str, Sequence[str]]] = {part.part: {} for part in parts}
    for query, names in rows.items():
        part, _, name = query.partition("/")
        sorted_rows.setdefault(part, {})[name] = names
    return dict(sorted_rows)


def _names(path: Path, query: str, row: Any) -> list[str]:
    if not isinstance(row, list) or not all(isinstance(name, str | int) and not isinstance(name, bool) for name in row):
        raise InputError(f'{path}: query "{query}" has no list of names; see docs/files.md for the forms of runs')
    return [str(name) for name in row]


def _ranked(part: Benchmark, whole: Lists | None, subsets: Lists | None) -> tuple[Benchmark, Ranking, list[str]]:
    """Make the ranking of a part; the part comes back with the measures that its lists answer, and what is odd."""
    odd: Counter[str] = Counter()
    every = set(part.gallery)
    ids = [
        _cleaned(part, query, (whole or {}).get(query.id, ()), gallery=part.galleries.get(query.id, every), odd=odd)
        for query in part.queries
    ]
    inside = [
        _subset(query, (subsets or {}).get(query.id), names) for query, names in zip(part.queries, ids, strict=True)
    ]
    listed, wanted = {*(whole or ()), *(subsets or ())}, {query.id for query in part.queries}
    missing = {query.id: "the run has no list of it" for query in part.queries if query.id not in listed}
    foreign = [query for rows in (whole, subsets) for query in rows or () if query not in wanted]
    title = f"{part.title}: "
    notes = [f"{title}{count} {what}" for what, count in odd.items()]
    notes += [f"{title}{len(foreign)} lists of queries that it does not have ({some(foreign)})"] if foreign else []
    depth = max(map(len, ids), default=0)
    measures = [name for name in part.measures if _is_answered(part, name, whole=whole, inside=inside)]
    cutoffs = {name: parse(name)[1] or len(every) for name in measures if parse(name)[0] != "subset_recall"}
    short = [name for name, cutoff in cutoffs.items() if cutoff > depth]
    notes += [f"{title}lists hold {depth} names at most, so {', '.join(short)} may be higher"] if short else []
    names = {*part.gallery, *(query.reference for query in part.queries)}
    ranking = Ranking(
        queries=tuple(query.id for query in part.queries),
        ids=tuple(ids),
        scores=tuple(tuple(float(-rank) for rank in range(len(row))) for row in ids),
        subset=tuple(inside),
        target_ranks=tuple(_target_rank(query, row) for query, row in zip(part.queries, ids, strict=True)),
        missing=missing,
        notes={"lacks": "lists"},
    )
    # Scoring needs no picture: those that are not on this machine are not missing.
    scored = replace(part, measures=tuple(measures), images={name: Path(name) for name in names})
    return scored, ranking, notes


def _cleaned(
    part: Benchmark, query: Query, names: Sequence[str], *, gallery: Collection[str], odd: Counter[str]
) -> tuple[str, ...]:
    """Return the names once each, without the reference where the protocol leaves it out."""
    once = tuple(dict.fromkeys(names))
    odd["names that are listed twice in a query's list; the first counts"] += len(names) - len(once)
    odd["names that are not in the gallery; they keep their ranks"] += sum(name not in gallery for name in once)
    if part.drop_reference and query.reference in once:
        odd["lists with the query's own reference, which the protocol leaves out"] += 1
        once = tuple(name for name in once if name != query.reference)
    for what in [what for what, count in odd.items() if not count]:
        del odd[what]
    return once


def _subset(query: Query, given: Sequence[str] | None, names: Sequence[str]) -> tuple[str, ...]:
    """Return the query's picture set in the run's order: as its own file has it, else as the list does."""
    members = set(query.subset) - {query.reference}
    return tuple(name for name in (names if given is None else given) if name in members)


def _is_answered(part: Benchmark, measure: str, *, whole: Lists | None, inside: Sequence[Sequence[str]]) -> bool:
    if parse(measure)[0] != "subset_recall":
        return bool(whole)
    sizes = [len(set(query.subset) - {query.reference}) for query in part.queries]
    return all(
        len(row) >= min(size, parse(measure)[1]) for row, size in zip(inside, sizes, strict=True) if row
    ) and any(inside)


def _target_rank(query: Query, names: Sequence[str]) -> int | None:
    ranks = [names.index(name) + 1 for name, grade in query.relevant.items() if grade == TARGET and name in names]
    return min(ranks, default=None)
