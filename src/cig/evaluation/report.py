"""A Report -> the terminal, JSON for other programs, and Markdown for a README or an issue."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cig.errors import some
from cig.io.text_table import text_table
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


def present(report: Report, part: str, what: str) -> str:
    """ "1,004 / 2,017": of a part's queries those that can be answered, of its gallery the pictures that are ranked.

    "1,121 / ?" of a gallery whose list is missing; "" for the average over the parts.
    """
    own = report.counts.get(part)
    if not own:
        return ""
    return f"{own[f'{what}_present']:,} / {'?' if own[what] is None else f'{own[what]:,}'}"


def _present(report: Report) -> list[list[str]]:
    things = ("queries", "gallery") if report.counts else ()
    return [[f"{what} present", *(present(report, part, what) for part in report.scores)] for what in things]


def to_text(report: Report) -> str:
    """A table: a line a measure, a column a part, each score with its 95% interval."""
    parts = list(report.scores)
    measures = list(report.scores[parts[0]])
    header = [report.benchmark, *(part or "score" for part in parts)]
    rows = [[measure, *(_cell(report, part, measure) for part in parts)] for measure in measures]
    rows += _present(report)
    lines = text_table([header, *rows])
    return "\n".join(line.rstrip() for line in [*lines, "", *changed(report), *notes(report.missing)]).rstrip()


def _cell(report: Report, part: str, measure: str) -> str:
    low, high = report.intervals[part][measure]
    return f"{report.scores[part][measure]:6.2f} [{low:.2f}, {high:.2f}]"


def to_markdown(
    report: Report, method: str, branches: Sequence[Mapping[str, Any]], provenance: Mapping[str, Any]
) -> str:
    """A page of Markdown: scores, branches, protocol, what pseudo-targets changed, what was missing, provenance."""
    lines = [f"# {_plain(report.benchmark)}: {_plain(method)}", ""]
    if report.scores:
        measures = list(next(iter(report.scores.values())))
        rows = [[label(measure), *(_cell(report, part, measure) for part in report.scores)] for measure in measures]
        rows += _present(report)
        lines += [*_table(["measure", *(part or "score" for part in report.scores)], rows), ""]
        lines += ["In percent, with 95% bootstrap intervals over queries.", ""]
    lines += [*_table(["branch", "weight", "source"], [_branch(branch) for branch in branches]), ""]
    lines += [f"- {_plain(line)}" for line in [*changed(report), *notes(report.missing)]]
    lines += [f"- {_plain(key)}: {_plain(value)}" for key, value in report.protocol.items()]
    lines += [f"- {_plain(line)}" for line in _origin(provenance)]
    return "\n".join(lines) + "\n"


def _branch(branch: Mapping[str, Any]) -> list[str]:
    return [branch["name"], f"{branch['weight']:.2f}", branch["source"]]


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [f"| {' | '.join(map(_plain, row))} |" for row in [header, *rows]]
    return [lines[0], f"|{' --- |' * len(header)}", *lines[1:]]


def _plain(value: Any) -> str:
    """On one line, with nothing in it that ends a cell, starts HTML, or cannot be written."""
    text = " ".join(str(value).encode("utf-8", "replace").decode().split())
    for mark, safe in (("&", "&amp;"), ("<", "&lt;"), ("|", r"\|")):
        text = text.replace(mark, safe)
    return text


def _origin(provenance: Mapping[str, Any]) -> list[str]:
    """Where the numbers come from, a line each: the whole of it is in the JSON."""
    models = provenance.get("models", {})
    known = {
        "commit": provenance.get("commit"),
        "versions": ", ".join(f"{name} {version}" for name, version in provenance.get("versions", {}).items()),
        **{f"model {name}": _facts(model) for name, model in models.items()},
        "picture set": provenance.get("picture_set"),
        "device": provenance.get("device"),
        "seconds": provenance.get("seconds"),
    }
    return [f"{what}: {value}" for what, value in known.items() if value]


def _facts(model: Any) -> str:
    return ", ".join(f"{key} {value}" for key, value in model.items()) if isinstance(model, Mapping) else str(model)


NAMES = {"recall": "Recall", "subset_recall": "Subset recall", "map": "mAP", "average": "Average"}


def label(measure: str) -> str:
    """ "Subset recall@1" from "subset_recall@1"."""
    name, at, k = measure.partition("@")
    return f"{NAMES.get(name, name)}{at}{k}"


def changed(report: Report) -> list[str]:
    """A line a part: whom the pseudo-targets helped, and whom they harmed."""
    return [
        f"{f'{part}: ' if part else ''}ranks of targets with pseudo-targets: {own['gained']:.0f} rose, "
        f"{own['lost']:.0f} fell, {own['unchanged']:.0f} stayed; "
        f"{own['worse_by_more_than_10']:.1f}% fell by more than 10 ranks"
        for part, own in report.changes.items()
    ]


EFFECTS = {
    "list": "lists of the official gallery missing, so that what was found was searched, and results compare with none",
    "gallery": "gallery pictures missing, not ranked",
    "references": "queries without a reference",
    "targets": "queries whose target, or one of them, is missing (without any they score 0)",
    "pseudo_targets": "queries without a pseudo-target, searched by the reference alone",
}


def _effect(kind: str) -> str:
    return EFFECTS.get(kind) or f"queries without a picture for {kind}, searched without it"


def notes(missing: Mapping[str, Any]) -> list[str]:
    """A line for each kind of missing thing: how many, what follows, and which."""
    lines = []
    for kind, by_part in missing.items():
        for part, names in by_part.items():
            lines.append(f"{f'{part}: ' if part else ''}{_effect(kind)}: {len(names)} ({some(names, 10)})")
    return lines
