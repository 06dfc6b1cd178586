"""What a method finds by image alone and by text alone, and the scores of queries that need both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cig.benchmarks._circus import read_labels
from cig.errors import UsageError
from cig.evaluation.composition import (
    MEASURE,
    SOLVED,
    CompositionGap,
    Subset,
    composition_gap,
    evaluate_subset,
    subset_lines,
    unsolved,
)
from cig.io.text_table import text_table
from cig.retrieval.embed import embed
from cig.retrieval.rank import rank_embedded
from cig.types import Benchmark, Method, Ranking, Report

if TYPE_CHECKING:
    from cig.io.feature_cache import FeatureCache
    from cig.retrieval.features import PictureFeatures

OURS = f"no modality alone has the target among the first {SOLVED}"


@dataclass(frozen=True)
class Subsets:
    """Subsets of the queries by name, and what is to be said of them."""

    queries: Mapping[str, Subset]
    notes: tuple[str, ...] = ()

    def scores(self, parts: Sequence[Benchmark], rankings: Sequence[Ranking]) -> dict[str, Report | None]:
        return {name: evaluate_subset(parts, rankings, subset) for name, subset in self.queries.items()}


def labelled(folder: Path | None, parts: Sequence[Benchmark]) -> Subsets:
    """The subsets of CIRCUS's labels; none without a folder.

    Raises:
        NotFoundError: no labels of this benchmark.
    """
    if folder is None:
        return Subsets({})
    labels = read_labels(folder, parts)
    return Subsets(labels.subsets, tuple(labels.lines()))


def with_all(subsets: Subsets, parts: Sequence[Benchmark]) -> Subsets:
    """Put the subset of all queries before the others."""
    every = {part.title: [query.id for query in part.queries] for part in parts}
    return Subsets({"full": every, **subsets.queries}, subsets.notes)


def unimodal_rankings(
    parts: Sequence[Benchmark], method: Method, pictures: PictureFeatures, *, cache: FeatureCache
) -> tuple[list[Ranking], list[Ranking]]:
    """Search by image alone and by text alone, by a method that takes both.

    Raises:
        UsageError: a method that has no search by one of them.
    """
    if not method.uses_picture or getattr(method, "score", None):
        raise UsageError(f"{method.name} has no search by image alone and by text alone")
    by_image = [replace_queries(part, captions=()) for part in parts]
    by_text = [replace_queries(part, reference="") for part in parts]
    image, text = (
        [
            _ranked(part, lacking, method, pictures=pictures, cache=cache)
            for part, lacking in zip(parts, queries, strict=True)
        ]
        for queries in (by_image, by_text)
    )
    return image, text


def replace_queries(part: Benchmark, **fields: Any) -> Benchmark:
    return replace(part, queries=tuple(replace(query, **fields) for query in part.queries))


def _ranked(
    part: Benchmark, lacking: Benchmark, method: Method, *, pictures: PictureFeatures, cache: FeatureCache
) -> Ranking:
    """Embed queries that lack a modality, and rank them as the whole ones: CIRR drops the reference in either case."""
    by_text = not any(query.reference for query in lacking.queries)
    embedded = embed(lacking, method, (), pictures=pictures, allow_missing=by_text, cache=cache)
    by_id = {query.id: query for query in part.queries}
    whole = replace(embedded, queries=tuple(by_id[query.id] for query in embedded.queries))
    return rank_embedded(part, whole, pictures, branch_weights={})


@dataclass(frozen=True)
class Searches:
    """A row's search with both modalities, and its method's by each alone, where it has one."""

    both: Sequence[Ranking]
    image: Sequence[Ranking] = ()
    text: Sequence[Ranking] = ()


@dataclass(frozen=True)
class Composition:
    """The composition of a table's rows, in their order."""

    gaps: tuple[CompositionGap | None, ...]
    subsets: tuple[Mapping[str, Report | None], ...]  # of a row: name -> scores; None for a subset without queries
    notes: tuple[str, ...]


def compose(
    parts: Sequence[Benchmark], searches: Sequence[Searches], labels: Subsets, *, with_gap: bool
) -> Composition | None:
    """Score every row on the subsets: those of the labels, and ours, by the controls of all methods; None without."""
    if not with_gap and not labels.queries:
        return None
    unimodal = [rankings for each in searches for rankings in (each.image, each.text) if rankings]
    queries, notes = dict(labels.queries), list(labels.notes)
    if with_gap and unimodal:
        queries["unsolved alone"] = unsolved(parts, unimodal)
        notes.append(f"unsolved alone: queries of which, by all methods of this table, {OURS}")
    subsets = with_all(Subsets(queries), parts)
    gaps = [composition_gap(parts, row.both, image=row.image, text=row.text) if row.image else None for row in searches]
    return Composition(
        tuple(gaps) if with_gap else (None,) * len(searches),
        tuple(subsets.scores(parts, row.both) for row in searches),
        tuple(notes),
    )


def composition_lines(composition: Composition, titles: Sequence[str], measure: str) -> list[str]:
    """Two tables: the gaps, and the scores on each subset."""
    lines: list[str] = []
    if any(composition.gaps):
        rows = [["method", f"{MEASURE} both", "image alone", "text alone", "composition gap"]]
        for title, gap in zip(titles, composition.gaps, strict=True):
            if gap:
                low, high = gap.interval
                scores = [f"{score:.2f}" for score in (gap.both, gap.image, gap.text)]
                rows.append([title, *scores, f"{gap.gap:.3f} [{low:.3f}, {high:.3f}]"])
        lines += [f"composition gap: 1 - max(image alone, text alone) / both, of {MEASURE}", *text_table(rows), ""]
    names = list(composition.subsets[0]) if composition.subsets else []
    rows = [["method", *names]]
    for title, reports in zip(titles, composition.subsets, strict=True):
        rows.append([title, *(_cell(reports[name], measure) for name in names)])
    return [*lines, f"{measure}, percent [95% interval] (queries)", *text_table(rows), *composition.notes]


def _cell(report: Report | None, measure: str) -> str:
    if report is None:
        return "no query"
    part = "average" if "average" in report.scores else next(iter(report.scores))
    low, high = report.intervals[part][measure]
    count = sum(counts["queries"] or 0 for counts in report.counts.values())
    return f"{report.scores[part][measure]:.2f} [{low:.2f}, {high:.2f}] ({count:,})"


def composition_facts(composition: Composition, row: int) -> dict[str, Any]:
    """What the JSON of a row holds."""
    gap = composition.gaps[row]
    return {
        "composition_gap": vars(gap) if gap else None,
        "subsets": _subset_facts(composition.subsets[row]),
    }


def _subset_facts(scores: Mapping[str, Report | None]) -> dict[str, Any]:
    return {name: report and _report_facts(report) for name, report in scores.items()}


def _report_facts(report: Report) -> dict[str, Any]:
    queries = sum(counts["queries"] or 0 for counts in report.counts.values())
    return {"queries": queries, "scores": report.scores, "intervals": report.intervals}


@dataclass(frozen=True)
class SubsetScores:
    """A search's scores on all queries and on each subset."""

    scores: Mapping[str, Report | None]
    notes: tuple[str, ...]

    @property
    def text(self) -> str:
        """A line a subset, a column a measure; "" without subsets."""
        empty = [f"{name}: no query" for name, report in self.scores.items() if report is None]
        return "\n".join([*text_table(subset_lines(self.scores)), *empty, *self.notes]) if self.scores else ""

    @property
    def facts(self) -> dict[str, Any]:
        """The same for JSON."""
        return {"subsets": _subset_facts(self.scores), "notes": list(self.notes)}


def subset_scores(labels: Subsets, parts: Sequence[Benchmark], rankings: Sequence[Ranking]) -> SubsetScores:
    """Score a search on all queries and on each subset of the labels; nothing without labels."""
    if not labels.queries:
        return SubsetScores({}, ())
    return SubsetScores(with_all(labels, parts).scores(parts, rankings), labels.notes)
