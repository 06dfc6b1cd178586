"""Tables of several benchmarks side by side, with the means of those that are compared by one measure.

Benchmarks of different measures are never averaged: a mean of recall and mAP says nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from cig.io.text_table import text_table
from cig.pipelines._comparison import Comparison, ComparisonRow

Title = tuple[str, str]  # a method and its branch, "" for the method alone


@dataclass(frozen=True)
class SeveralComparisons:
    """A table for each benchmark, of the same methods and branches."""

    tables: tuple[Comparison, ...]

    @property
    def titles(self) -> list[Title]:
        """Every row of any table, in the order in which they come."""
        return list(dict.fromkeys((row.method, row.branch) for table in self.tables for row in table.rows))

    def scores(self, method: str, branch: str) -> dict[str, float | None]:
        """Benchmark -> score by its measure; None where the method could not run."""
        return {table.benchmark: _score(table, (method, branch)) for table in self.tables}

    @property
    def means(self) -> Mapping[Title, Mapping[str, float | None]]:
        """Row -> measure -> mean over the benchmarks compared by it, where there are several; None if one lacks."""
        measures: dict[str, list[str]] = {}
        for table in self.tables:
            measures.setdefault(table.measure, []).append(table.benchmark)
        shared = {measure: names for measure, names in measures.items() if len(names) > 1}
        return {title: self._means(title, shared) for title in self.titles}

    def _means(self, title: Title, shared: Mapping[str, list[str]]) -> dict[str, float | None]:
        scores, means = self.scores(*title), {}
        for measure, names in shared.items():
            values = [score for name in names if (score := scores[name]) is not None]
            means[measure] = float(np.mean(values)) if len(values) == len(names) else None
        return means


def _score(table: Comparison, title: Title) -> float | None:
    row = next((row for row in table.rows if (row.method, row.branch) == title), None)
    return None if row is None else main_score(row, table.measure)


def main_score(row: ComparisonRow, measure: str) -> float:
    """The score of a row by a measure, over all parts."""
    return row.report.scores[main_part(row)][measure]


def main_part(row: ComparisonRow) -> str:
    scores = row.report.scores
    return next(part for part in ("average", "", next(iter(scores))) if part in scores)


def summary_lines(tables: SeveralComparisons) -> list[str]:
    """A line a row: its score on each benchmark, then the means."""
    names = [f"{table.benchmark} {table.measure}" for table in tables.tables]
    means = tables.means
    measures = list(next(iter(means.values()), {}))
    rows = [["method", "with", *names, *(f"mean {measure}" for measure in measures)]]
    for title, of_row in means.items():
        scores = [*tables.scores(*title).values(), *of_row.values()]
        rows.append([title[0], title[1] or "–", *("–" if score is None else f"{score:.2f}" for score in scores)])
    note = "means are over the benchmarks that are compared by one measure"
    return [f"{len(tables.tables)} benchmarks, percent", *text_table(rows), *([note] if measures else [])]
