"""Compare: methods, each alone and with each branch, in one table a benchmark; or TREC runs, against the first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cig.benchmarks import Data
from cig.errors import UsageError
from cig.evaluation import report, trec_compare
from cig.evaluation.trec_compare import RunComparison
from cig.io.feature_cache import FeatureCache
from cig.io.markdown import escape, fenced
from cig.io.outputs import check_distinct, write_json_output, write_output
from cig.io.text_table import text_table
from cig.machine import device_name
from cig.pipelines._comparison import Comparing, Comparison, ComparisonRow, compare_methods
from cig.pipelines._composition import composition_facts, composition_lines
from cig.pipelines._several import SeveralComparisons, summary_lines
from cig.runtime import Compute, commit, resolve_device, versions


def compare(
    data: Sequence[Data],
    compute: Compute,
    comparing: Comparing,
    *,
    cache: Path | None = None,
    json: Path | None = None,
    reports: Sequence[Path] = (),
) -> SeveralComparisons:
    """The table of methods, each alone and with each branch, for each benchmark; with sweep, weights are frozen.

    Raises:
        UsageError: hidden targets; methods or branches that cannot be.
    """
    if any(path.suffix not in (".md", ".html") for path in reports):
        raise UsageError("--report of a comparison is a page (end it in .html) or Markdown (.md)")
    check_distinct([json, *reports])
    if len(data) > 1 and comparing.sweep:
        raise UsageError("--sweep chooses the weights of one benchmark at a time")
    loaded = [each.load("val") for each in data]  # all of them, before hours of the first
    tables = SeveralComparisons(
        tuple(
            compare_methods(
                parts, comparing, compute=compute, cache=FeatureCache(cache), single=len(each.categories) == 1
            )
            for each, parts in zip(data, loaded, strict=True)
        )
    )
    device = device_name(resolve_device(compute.device))
    provenance = {"device": device, "versions": versions(), "commit": commit()}
    if json:
        write_json_output(json, tables_to_json(tables, provenance))
    for path in reports:
        if path.suffix == ".html":
            from cig.pipelines._comparison_page import to_html

            write_output(path, to_html(tables, [to_text(each) for each in tables.tables], provenance).encode())
        else:
            write_output(path, tables_to_markdown(tables).encode())
    return tables


def compare_runs(
    runs: Sequence[Path], qrels: Path, measures: Sequence[str] = (), *, json: Path | None = None
) -> RunComparison:
    """Each run against the first."""
    compared = trec_compare.compare_runs(runs, qrels, measures or trec_compare.MEASURES)
    if json:
        write_json_output(json, asdict(compared))
    return compared


# The table, for the terminal, for Markdown and for other programs


def to_text(comparison: Comparison) -> str:
    """A line a row, under the measure that rows are compared by."""
    header = [
        "method",
        "with",
        "weight",
        comparison.measure,
        "difference",
        "p",
        "Holm",
        "gained",
        "lost",
        "s/query",
        "GB",
    ]
    lines = [
        header,
        *(_cells(comparison, row, p) for row, p in zip(comparison.rows, comparison.corrected, strict=True)),
    ]
    composition = comparison.composition
    titles = [" + ".join(filter(None, (row.method, row.branch))) for row in comparison.rows]
    more = ["", *composition_lines(composition, titles, comparison.measure)] if composition else []
    return "\n".join(
        [f"{comparison.benchmark}, percent [95% interval]", *text_table(lines), "", *footnotes(comparison), *more]
    )


def tables_to_text(tables: SeveralComparisons) -> str:
    """Each benchmark's table; of several, one of all first."""
    summary = ["\n".join(summary_lines(tables))] if len(tables.tables) > 1 else []
    return "\n\n".join([*summary, *map(to_text, tables.tables)])


def tables_to_json(tables: SeveralComparisons, provenance: Mapping[str, Any]) -> dict[str, Any]:
    """One benchmark's fields, as ever; of several, a list of these and the means."""
    if len(tables.tables) == 1:
        return to_json(tables.tables[0], provenance)
    return {
        "measure": {each.benchmark: each.measure for each in tables.tables},
        "rows": [
            {"method": method, "branch": branch, "scores": tables.scores(method, branch), "means": means}
            for (method, branch), means in tables.means.items()
        ],
        "benchmarks": [to_json(each, provenance) for each in tables.tables],
        "provenance": dict(provenance),
    }


def tables_to_markdown(tables: SeveralComparisons) -> str:
    if len(tables.tables) == 1:
        return to_markdown(tables.tables[0])
    summary = ["# Methods over several benchmarks", "", *fenced(summary_lines(tables)), ""]
    return "\n".join([*summary, *map(to_markdown, tables.tables)])


def footnotes(comparison: Comparison) -> list[str]:
    notes = ["difference, p (paired, two-sided), gained and lost (share of queries): against the method alone"]
    sources = dict.fromkeys(row.source for row in comparison.rows if row.branch)
    notes += [f"weights: {source}" for source in sources]
    if unlisted := comparison.rows[0].report.missing.get("list"):
        notes += report.notes({"list": unlisted})
    notes += [f"{row.method} + {row.branch}: {line}" for row in comparison.rows for line in _branch_notes(row)]
    if any(not row.imagined for row in comparison.rows):
        notes.append("s/query with +?: nobody measured what imagining its pictures took")
    return [*notes, *(f"left out: {name}: {why}" for name, why in comparison.left_out.items())]


def _branch_notes(row: ComparisonRow) -> list[str]:
    """Say which queries a row's branch had no picture for, or could not use theirs."""
    kinds = {kind: parts for kind, parts in row.report.missing.items() if kind == "pseudo_targets" or "branch " in kind}
    return report.notes(kinds, row.report.unused)


def _cells(comparison: Comparison, row: ComparisonRow, corrected: float | None) -> list[str]:
    part = "average" if "average" in row.report.scores else ""
    part = part if part in row.report.scores else next(iter(row.report.scores))
    low, high = row.report.intervals[part][comparison.measure]
    score = f"{row.report.scores[part][comparison.measure]:.2f} [{low:.2f}, {high:.2f}]"
    seconds = f"{row.cost.seconds:.3f}" + ("" if row.imagined else " +?")
    memory = f"{row.cost.gigabytes:.2f}" if row.cost.gigabytes else "?"
    if not row.versus:
        return [row.method, "–", "", score, "", "", "", "", "", seconds, memory]
    paired = row.versus[comparison.measure]
    shares = [f"{share:.1f}%" for share in paired.shares]
    difference = f"{paired.difference:+.2f} [{paired.interval[0]:+.2f}, {paired.interval[1]:+.2f}]"
    p = [f"{value:.4f}" for value in (paired.p, corrected or 0.0)]
    return [row.method, row.branch, f"{row.weight:.2f}", score, difference, *p, *shares, seconds, memory]


def to_json(comparison: Comparison, provenance: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "benchmark": comparison.benchmark,
        "measure": comparison.measure,
        "protocol": dict(comparison.rows[0].report.protocol),
        "rows": [
            {
                "method": row.method,
                "branch": row.branch,
                "weight": row.weight,
                "source": row.source,
                "scores": row.report.scores,
                "intervals": row.report.intervals,
                "versus": {name: vars(paired) for name, paired in row.versus.items()},
                "holm": corrected,
                "cost": {**vars(row.cost), "imagining_included": row.imagined},
                "missing": row.report.missing,
                **(composition_facts(comparison.composition, number) if comparison.composition else {}),
            }
            for number, (row, corrected) in enumerate(zip(comparison.rows, comparison.corrected, strict=True))
        ],
        "left_out": dict(comparison.left_out),
        **({"composition_notes": list(comparison.composition.notes)} if comparison.composition else {}),
        "provenance": dict(provenance),
    }


def to_markdown(comparison: Comparison) -> str:
    lines = to_text(comparison).splitlines()
    return "\n".join([f"# {escape(comparison.benchmark)}: methods and branches", "", *fenced(lines), ""])
