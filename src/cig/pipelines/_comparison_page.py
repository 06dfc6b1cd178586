"""The page of `cig compare --report FILE.html`: the tables, and score against cost as a drawing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cig.evaluation.html import SURROGATES, inline_code, template
from cig.pipelines._comparison import Comparison
from cig.pipelines._several import SeveralComparisons, main_part, main_score, summary_lines

WIDTH, HEIGHT = 640, 360
LEFT, RIGHT, TOP, BOTTOM = 56, 16, 16, 48  # margins of the drawing
TICKS = 5


@dataclass(frozen=True)
class Mark:
    """A row in the drawing, in its coordinates."""

    number: int  # from 1, as in the list beside the drawing
    title: str
    x: float
    y: float
    low: float  # of the interval
    high: float
    text: str


@dataclass(frozen=True)
class Plot:
    """Score against seconds a query, which are on a logarithmic axis."""

    benchmark: str
    measure: str
    marks: tuple[Mark, ...]
    columns: tuple[tuple[float, str], ...]  # x of a grid line, and what it says
    lines: tuple[tuple[float, str], ...]  # y
    unmeasured: tuple[str, ...]  # rows without a cost


def to_html(tables: SeveralComparisons, texts: Sequence[str], provenance: Mapping[str, Any]) -> str:
    """Render the page; write it as UTF-8. Names are untrusted, and are escaped."""
    page = template("comparison.html").render(
        **inline_code("", "report.css", "comparison.css"),
        title=", ".join(table.benchmark for table in tables.tables),
        summary=summary_lines(tables) if len(tables.tables) > 1 else [],
        tables=list(zip(map(plot, tables.tables), texts, strict=True)),
        provenance=provenance,
        frame={"width": WIDTH, "height": HEIGHT, "left": LEFT, "right": WIDTH - RIGHT, "bottom": HEIGHT - BOTTOM},
    )
    return SURROGATES.sub("\ufffd", page)


def plot(table: Comparison) -> Plot:
    """Lay out a table's rows: seconds a query to the right, the score upwards, each with its interval."""
    able = [row for row in table.rows if row.cost.seconds > 0 and row.imagined]
    decades = [math.log10(row.cost.seconds) for row in able] or [0.0]
    start, end = math.floor(min(decades)), math.ceil(max(decades))
    end += start == end
    highs = [row.report.intervals[main_part(row)][table.measure][1] for row in able]
    top = max(5.0, 5 * math.ceil(max(highs, default=100.0) / 5))

    def across(decade: float) -> float:
        return round(LEFT + (decade - start) / (end - start) * (WIDTH - LEFT - RIGHT), 1)

    def up(score: float) -> float:
        return round(HEIGHT - BOTTOM - score / top * (HEIGHT - TOP - BOTTOM), 1)

    marks = []
    for number, row in enumerate(able, 1):
        score, (low, high) = main_score(row, table.measure), row.report.intervals[main_part(row)][table.measure]
        title = " + ".join(filter(None, (row.method, row.branch)))
        text = f"{score:.2f} [{low:.2f}, {high:.2f}], {row.cost.seconds:.3g} s a query"
        marks.append(Mark(number, title, across(math.log10(row.cost.seconds)), up(score), up(low), up(high), text))
    return Plot(
        benchmark=table.benchmark,
        measure=table.measure,
        marks=tuple(marks),
        columns=tuple((across(decade), f"{10.0**decade:g} s") for decade in range(start, end + 1)),
        lines=tuple((up(top * i / TICKS), f"{top * i / TICKS:g}") for i in range(TICKS + 1)),
        unmeasured=tuple(" + ".join(filter(None, (row.method, row.branch))) for row in table.rows if row not in able),
    )
