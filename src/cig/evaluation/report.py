"""Write a Report as text for the terminal, JSON for other programs, and Markdown for a README or an issue."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cig.errors import some
from cig.io.markdown import escape
from cig.io.text_table import text_table
from cig.types import Report


def to_json(report: Report, method: str, branches: list[dict[str, Any]], *, provenance: Mapping[str, Any]) -> dict:
    """Return the fields that docs/files.md describes."""
    return {
        "benchmark": report.benchmark,
        "protocol": dict(report.protocol),
        "method": method,
        "branches": branches,
        "scores": report.scores,
        "intervals": report.intervals,
        "per_query": report.per_query,
        "missing": report.missing,
        **({"unused": report.unused} if report.unused else {}),
        "counts": report.counts,
        "changes": report.changes,
        "provenance": dict(provenance),
    }


def present(report: Report, part: str, kind: str) -> str:
    """Write how many of a part's queries can be answered, or how many of its gallery are ranked: "1,004 / 2,017".

    "1,121 / ?" is of a gallery whose list is missing; the average over the parts has "".

    Args:
        kind: "queries" or "gallery".
    """
    counts = report.counts.get(part)
    if not counts:
        return ""
    return f"{counts[f'{kind}_present']:,} / {'?' if counts[kind] is None else f'{counts[kind]:,}'}"


def _present(report: Report) -> list[list[str]]:
    kinds = ("queries", "gallery") if report.counts else ()
    return [[f"{kind} present", *(present(report, part, kind) for part in report.scores)] for kind in kinds]


def to_text(report: Report) -> str:
    """Format a table: a line a measure, a column a part, each score with its 95% interval."""
    parts = list(report.scores)
    measures = list(report.scores[parts[0]])
    header = [report.benchmark, *(part or "score" for part in parts)]
    rows = [[measure, *(_cell(report, part, measure) for part in parts)] for measure in measures]
    rows += _present(report)
    lines = text_table([header, *rows])
    return "\n".join(
        line.rstrip() for line in [*lines, "", *changed(report), *notes(report.missing, report.unused)]
    ).rstrip()


def _cell(report: Report, part: str, measure: str) -> str:
    low, high = report.intervals[part][measure]
    return f"{report.scores[part][measure]:6.2f} [{low:.2f}, {high:.2f}]"


def to_markdown(
    report: Report, method: str, branches: Sequence[Mapping[str, Any]], *, provenance: Mapping[str, Any]
) -> str:
    """Format a page of Markdown: scores, branches, effect of pseudo-targets, missing data, protocol, provenance."""
    lines = [f"# {escape(report.benchmark)}: {escape(method)}", ""]
    if report.scores:
        measures = list(next(iter(report.scores.values())))
        rows = [[label(measure), *(_cell(report, part, measure) for part in report.scores)] for measure in measures]
        rows += _present(report)
        lines += [*_table(["measure", *(part or "score" for part in report.scores)], rows), ""]
        lines += ["In percent, with 95% bootstrap intervals over queries.", ""]
    lines += [
        *_table(
            ["branch", "weight", "source"],
            [[branch["name"], f"{branch['weight']:.2f}", branch["source"]] for branch in branches],
        ),
        "",
    ]
    lines += [f"- {escape(line)}" for line in [*changed(report), *notes(report.missing, report.unused)]]
    lines += [f"- {escape(key)}: {escape(value)}" for key, value in report.protocol.items()]
    lines += [f"- {escape(line)}" for line in _origin(provenance)]
    return ("\n".join(lines) + "\n").encode("utf-8", "replace").decode()


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [f"| {' | '.join(map(escape, row))} |" for row in [header, *rows]]
    return [lines[0], f"|{' --- |' * len(header)}", *lines[1:]]


def _origin(provenance: Mapping[str, Any]) -> list[str]:
    """Say where the numbers come from, a line each; the JSON has all of it."""
    models = provenance.get("models", {})
    facts = {
        "commit": provenance.get("commit"),
        "versions": ", ".join(f"{name} {version}" for name, version in provenance.get("versions", {}).items()),
        **{f"model {name}": _facts(model) for name, model in models.items()},
        "picture set": provenance.get("picture_set"),
        "device": provenance.get("device"),
        "seconds": provenance.get("seconds"),
    }
    return [f"{name}: {value}" for name, value in facts.items() if value]


def _facts(model: Any) -> str:
    return ", ".join(f"{key} {value}" for key, value in model.items()) if isinstance(model, Mapping) else str(model)


NAMES = {"recall": "Recall", "subset_recall": "Subset recall", "map": "mAP", "average": "Average"}


def label(measure: str) -> str:
    """Write "subset_recall@1" for people: "Subset recall@1"."""
    name, at, k = measure.partition("@")
    return f"{NAMES.get(name, name)}{at}{k}"


def changed(report: Report) -> list[str]:
    """Write a line a part: how many queries the pseudo-targets helped, and how many they harmed."""
    return [
        f"{f'{part}: ' if part else ''}ranks of targets with pseudo-targets: {changes['gained']:.0f} rose, "
        f"{changes['lost']:.0f} fell, {changes['unchanged']:.0f} stayed; "
        f"{changes['worse_by_more_than_10']:.1f}% fell by more than 10 ranks"
        for part, changes in report.changes.items()
    ]


EFFECTS = {
    "list": "lists of the official gallery missing, so that what was found was searched, and results compare with none",
    "gallery": "gallery pictures missing, not ranked",
    "references": "queries without a reference",
    "texts": "queries without a text (they score 0)",
    "lists": "queries that the run has no list of (they score 0)",
    "targets": "queries whose target, or one of them, is missing (without any they score 0)",
    "untargeted": "queries that no picture of the gallery answers (they score 0)",
    "pseudo_targets": "queries without a pseudo-target, searched by the reference alone",
}


def notes(missing: Mapping[str, Any], unused: Mapping[str, Any] = {}) -> list[str]:
    """Write a line for each kind of missing data: how many, what follows, and which.

    Args:
        unused: of the missing branches, those that have a picture: kind -> part -> query -> why it is not used.
    """
    lines = []
    for kind, by_part in missing.items():
        effect = EFFECTS.get(kind) or f"queries without a picture for {kind}, searched without it"
        for part, names in by_part.items():
            reasons, start = unused.get(kind, {}).get(part, {}), f"{part}: " if part else ""
            if absent := [name for name in names if name not in reasons]:
                lines.append(f"{start}{effect}: {len(absent)} ({some(absent, 10)})")
            if reasons:
                what = kind.removeprefix("branch ").removesuffix("s").replace("_", "-")
                why = some(dict.fromkeys(reasons.values()), 3)
                lines.append(
                    f"{start}queries whose {what} is not used, searched without it: {len(reasons)} "
                    f"({some(reasons, 10)}): {why}"
                )
    return lines
