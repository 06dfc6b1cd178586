"""`cig reproduce`: a number that somebody published, measured again by the verbs of the walk; expected beside measured.

What moves the number is the cell's own; where data and weights lie, and on what it is computed, is the caller's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cig.errors import CigError, IncompleteError, some
from cig.evaluation.report import notes
from cig.evaluation.submissions import validate
from cig.io.json_files import write_json
from cig.io.locks import hold
from cig.pipelines.reproduce.published import Cell, cells, find
from cig.pipelines.reproduce.requirements import Lack, lacks
from cig.pipelines.reproduce.run import CellRun, Places, commands
from cig.runtime import say


@dataclass(frozen=True)
class Reproduction:
    """A published number, measured again."""

    record: dict[str, Any]  # what `out/CELL.json` holds
    text: str  # expected beside measured
    complaint: str  # which queries could not run, if any

    def need_sound(self) -> None:
        """Raise unless the number stands on everything that it should, and is what is expected.

        Raises:
            IncompleteError: something of the data was missing, or the server would not take a file.
            CigError: a number is further from the expected one than its tolerance.
        """
        _complain(self.record, self.complaint)


def reproduce(name: str, places: Places | None = None) -> Reproduction:
    """Log which commands a cell stands for, run them, and write what came out to `out/CELL.json`.

    Raises:
        NotFoundError: no such cell.
        IncompleteError: data or weights are missing, all named at once.
    """
    attempt = CellRun(find(name), places or Places())
    for command in commands(attempt):
        say(f"$ {command}")
    _need(attempt)
    with hold(attempt.folder, f"cig reproduce {name}"):
        record, complaint = attempt.run()
    result, path = outcome(attempt, record), attempt.places.out / f"{name}.json"
    write_json(path, result, indent=1)
    say(f"{path} has all of it")
    return Reproduction(result, to_text(attempt.cell, result), complaint)


def outcome(attempt: CellRun, record: Mapping[str, Any]) -> dict[str, Any]:
    """What the result file holds, of what the verb wrote."""
    cell, files = attempt.cell, record.get("submissions", [])
    return {
        "cell": cell.name,
        **{key: getattr(cell, key) for key in ("what", "benchmark", "method", "weights", "source", "run", "open")},
        "pseudo_targets": cell.imagined,
        **_compared(cell, record),
        "submissions": files,
        "problems": _problems(files, attempt.dataset),
        "commands": commands(attempt),
        **{key: record[key] for key in ("missing", "protocol", "branches", "counts", "provenance")},
        "unused": record.get("unused", {}),
    }


def _compared(cell: Cell, record: Mapping[str, Any]) -> dict[str, Any]:
    """Expected and measured, in percent; measured is null where a server measures."""
    result: dict[str, Any] = {
        "expected": dict(cell.expected),
        "tolerance": cell.tolerance,
        "complete": not record["missing"],
    }
    if cell.server:
        return {**result, "measured": None, "intervals": None, "difference": None, "within": None}
    scores, intervals = record["scores"][cell.part], record["intervals"][cell.part]
    difference = {measure: scores[measure] - value for measure, value in cell.expected.items()}
    within = None if cell.tolerance is None else all(abs(value) <= cell.tolerance for value in difference.values())
    return {
        **result,
        "measured": {measure: scores[measure] for measure in cell.expected},
        "intervals": {measure: intervals[measure] for measure in cell.expected},
        "difference": difference,
        "within": within,
    }


def _problems(files: Sequence[str], dataset: Path) -> dict[str, list[str]]:
    """Submission file -> why the server would not take it; empty where it would take all."""
    problems_of = {name: validate(Path(name), dataset)[1] for name in files}
    return {name: problems for name, problems in problems_of.items() if problems}


# Saying


def to_text(cell: Cell, result: Mapping[str, Any]) -> str:
    """A line a measure: expected, measured, difference; or the files that the server is to be given."""
    head = f"{cell.name}: {cell.what}, on {cell.benchmark}; expected by {cell.source}; {cell.run}"
    measured = _server_lines(result) if cell.server else _score_lines(result)
    lines = [head, *measured, *notes(result["missing"], result["unused"])]
    return "\n".join([*lines, *(f"not known: {question}" for question in cell.open)])


def _score_lines(result: Mapping[str, Any]) -> list[str]:
    lines = [f"{'':14}  expected  measured                difference"]
    for measure, value in result["expected"].items():
        (low, high), measured = result["intervals"][measure], result["measured"][measure]
        cell = f"{measured:6.2f} [{low:.2f}, {high:.2f}]"
        lines.append(f"{measure:14}  {value:8.2f}  {cell:22}  {result['difference'][measure]:+10.2f}")
    return lines


def _server_lines(result: Mapping[str, Any]) -> list[str]:
    taken = "would be taken by the server" if not result["problems"] else "not all would be taken by the server"
    expected = ", ".join(f"{measure} {value:.2f}" for measure, value in result["expected"].items())
    return [*result["submissions"], f"{taken}, which should then say: {expected}"]


def _need(attempt: CellRun) -> None:
    """Says what is partly there; raises IncompleteError for what is not, if anything."""
    lacking = lacks(attempt)
    lines = [lack.why for lack in lacking]
    mend = ["To get it:", *(f"  {command}" for command in dict.fromkeys(lack.get for lack in lacking))]
    if any(not lack.partly for lack in lacking):
        raise IncompleteError("\n  ".join([f"{attempt.cell.name} cannot be run here:", *lines, *mend]))
    if lacking:
        say("\n".join([*lines, *mend]))


def _complain(result: Mapping[str, Any], complaint: str) -> None:
    name = result["cell"]
    if result["problems"]:
        lines = [f"{path}: {some(problems, 5)}" for path, problems in result["problems"].items()]
        raise IncompleteError("\n  ".join([f"{name}: the server would not take", *lines]))
    if not result["complete"]:
        why = complaint or "; ".join(notes(result["missing"], result["unused"]))
        raise IncompleteError(f"{name} ran on less than its number stands on, and is not comparable: {why}")
    if result["within"] is False:
        hint = "other weights, another picture set, or a fault; see docs/reproduce.md"
        raise CigError(f"{name} is further than {result['tolerance']:g} from what is expected: {hint}")


def listing(places: Places | None = None) -> str:
    """Every cell: what it is, what is expected, and whether it can be run here."""
    looked_at: dict[str, Lack | None] = {}
    lines = []
    for cell in cells():
        lacking = lacks(CellRun(cell, places or Places()), looked_at)
        lines += [f"{cell.name}  {cell.what}, on {cell.benchmark}", f"    {cell.claim} ({cell.source}; {cell.run})"]
        lines.append(f"    {_state(lacking)}")
    return "\n".join([*lines, "", "cig reproduce CELL runs one, or says what to type for what it lacks."])


def _state(lacking: Sequence[Lack]) -> str:
    absent = [lack.what for lack in lacking if not lack.partly]
    if absent:
        return f"lacks {', '.join(absent)}"
    return "; ".join(["can be run here", *(lack.why for lack in lacking)])
