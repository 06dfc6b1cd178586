"""A Report -> the terminal, and JSON for other programs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cig.errors import some
from cig.types import Report


def to_json(report: Report, method: str, branches: list[dict[str, Any]], provenance: Mapping[str, Any]) -> dict:
    """The fields of docs/files.md."""
    return {
        "benchmark": report.benchmark,
        "protocol": dict(report.protocol),
        "method": method,
        "branches": branches,
        "scores": report.scores,
        "intervals": report.intervals,
        "per_query": report.per_query,
        "missing": report.missing,
        "counts": report.counts,
        "changes": report.changes,
        "provenance": dict(provenance),
    }


def to_text(report: Report) -> str:
    """A table: a line a measure, a column a part, each score with its 95% interval."""
    parts = list(report.scores)
    measures = list(report.scores[parts[0]])
    header = [report.benchmark, *(part or "score" for part in parts)]
    rows = [[measure, *(_cell(report, part, measure) for part in parts)] for measure in measures]
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in [header, *rows]]
    return "\n".join(line.rstrip() for line in [*lines, "", *changed(report), *notes(report.missing)]).rstrip()


def _cell(report: Report, part: str, measure: str) -> str:
    low, high = report.intervals[part][measure]
    return f"{report.scores[part][measure]:6.2f} [{low:.2f}, {high:.2f}]"


def changed(report: Report) -> list[str]:
    """A line a part: whom the pseudo-targets helped, and whom they harmed."""
    return [
        f"{f'{part}: ' if part else ''}with pseudo-targets the target rose for {own['gained']:.0f} queries, fell for "
        f"{own['lost']:.0f}, stayed for {own['unchanged']:.0f}; "
        f"{own['worse_by_more_than_10']:.1f}% fell by more than 10 ranks"
        for part, own in report.changes.items()
    ]


EFFECTS = {
    "gallery": "gallery pictures missing, not ranked",
    "references": "queries without a reference",
    "targets": "queries whose target is missing, which score 0",
    "pseudo_targets": "queries without a pseudo-target, searched by the reference alone",
}


def notes(missing: Mapping[str, Any]) -> list[str]:
    """A line for each kind of missing thing: how many, what follows, and which."""
    lines = []
    for kind, by_part in missing.items():
        for part, names in by_part.items():
            lines.append(f"{f'{part}: ' if part else ''}{len(names)} {EFFECTS[kind]}: {some(names, 10)}")
    return lines
