"""A contest's table, for the terminal, for Markdown and for other programs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cig.evaluation import report
from cig.pipelines.compare import Contest, Row


def to_text(contest: Contest) -> str:
    """A line a row, under the measure that rows are compared by."""
    header = ["method", "with", "weight", contest.measure, "difference", "p", "Holm", "gained", "lost", "s/query", "GB"]
    lines = [header, *(_cells(contest, row, p) for row, p in zip(contest.rows, contest.corrected, strict=True))]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    table = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    return "\n".join([f"{contest.benchmark}, percent [95% interval]", *table, "", *footnotes(contest)])


def footnotes(contest: Contest) -> list[str]:
    notes = ["difference, p (paired, two-sided), gained and lost (share of queries): against the method alone"]
    sources = dict.fromkeys(row.source for row in contest.rows if row.branch)
    notes += [f"weights: {source}" for source in sources]
    if unlisted := contest.rows[0].report.missing.get("list"):
        notes += report.notes({"list": unlisted})
    if any(not row.imagined for row in contest.rows):
        notes.append("s/query with +?: nobody measured what imagining its pictures took")
    return [*notes, *(f"left out: {name}: {why}" for name, why in contest.left_out.items())]


def _cells(contest: Contest, row: Row, corrected: float | None) -> list[str]:
    part = "average" if "average" in row.report.scores else ""
    part = part if part in row.report.scores else next(iter(row.report.scores))
    low, high = row.report.intervals[part][contest.measure]
    score = f"{row.report.scores[part][contest.measure]:.2f} [{low:.2f}, {high:.2f}]"
    seconds = f"{row.cost.seconds:.3f}" + ("" if row.imagined else " +?")
    memory = f"{row.cost.gigabytes:.2f}" if row.cost.gigabytes else "?"
    if not row.versus:
        return [row.method, "–", "", score, "", "", "", "", "", seconds, memory]
    own = row.versus[contest.measure]
    shares = [f"{share:.1f}%" for share in own.shares]
    difference = f"{own.difference:+.2f} [{own.interval[0]:+.2f}, {own.interval[1]:+.2f}]"
    p = [f"{value:.4f}" for value in (own.p, corrected or 0.0)]
    return [row.method, row.branch, f"{row.weight:.2f}", score, difference, *p, *shares, seconds, memory]


def to_json(contest: Contest, provenance: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "benchmark": contest.benchmark,
        "measure": contest.measure,
        "protocol": dict(contest.rows[0].report.protocol),
        "rows": [
            {
                "method": row.method,
                "branch": row.branch,
                "weight": row.weight,
                "source": row.source,
                "scores": row.report.scores,
                "intervals": row.report.intervals,
                "versus": {name: vars(own) for name, own in row.versus.items()},
                "holm": corrected,
                "cost": {**vars(row.cost), "imagining_included": row.imagined},
                "missing": row.report.missing,
            }
            for row, corrected in zip(contest.rows, contest.corrected, strict=True)
        ],
        "left_out": dict(contest.left_out),
        "provenance": dict(provenance),
    }


def to_markdown(contest: Contest) -> str:
    lines = to_text(contest).splitlines()
    return "\n".join([f"# {contest.benchmark}: methods and branches", "", "```", *lines, "```", ""])
