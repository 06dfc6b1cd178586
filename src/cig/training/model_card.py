"""The model card of a training: data, command, settings, seconds, device, best scores, unreadable pictures."""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cig.errors import some
from cig.io.files import write_bytes
from cig.io.json_files import write_json
from cig.io.markdown import escape, fenced
from cig.runtime import versions


def write_card(out: Path, what: str, facts: Mapping[str, Any]) -> None:
    """Write training.json and README.md."""
    typed = command(sys.argv)
    facts = {**facts, **({"command": typed} if typed else {}), "versions": versions()}
    write_json(out / "training.json", facts, indent=2)
    inputs, plan = facts["about"], facts["plan"]
    block = "\n".join(fenced(json.dumps({"plan": plan, "about": inputs}, indent=2).splitlines(), "json"))
    text = f"""# {what[0].upper() + what[1:]}

Trained by `cig train` on {escape(inputs["data"])}: {facts["steps"]} of {plan["steps"]} steps of {plan["batch"]} items,
{facts["seconds"]:.0f} s on {facts["device"]}. Loss at the end: {facts["loss"]}.
{_details(facts)}
{block}
"""
    write_bytes(out / "README.md", text.encode("utf-8", "backslashreplace"))  # file names may be any bytes


def command(argv: Sequence[str]) -> str:
    """Return the command line as it was typed; "" if the program was not `cig`.

    Absolute paths and paths below a home are cut to their last name: a card is published, and folders are private.
    """
    program, *words = argv or [""]
    if Path(program).stem != "cig" and Path(program).parts[-2:] != ("cig", "__main__.py"):
        return ""
    return shlex.join(["cig", *map(_without_folders, words)])


def _without_folders(word: str) -> str:
    """ "--out=/home/me/clip" -> "--out=clip"; of several in one word ("clip=/a/b phi=/c/d"), each."""
    flag, sign, value = word.partition("=") if word.startswith("-") else ("", "", word)
    if Path(value).is_absolute() or value.startswith("~"):
        return flag + sign + Path(value).name
    return flag + sign + re.sub(r"(?<==)[/~][^\s,]*", lambda path: Path(path[0]).name, value)


def scores_text(facts: Mapping[str, Any]) -> str:
    """Return the best step with its scores, and the last step's scores."""
    best = {name: score for name, score in facts["best"].items() if name != "steps"}
    where = facts["about"]["validate"]["benchmark"]
    return f"best on {where}: step {facts['best']['steps']} ({_listed(best)}); last: {_listed(facts['scores'])}"


def _listed(scores: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {score:.2f}" for name, score in scores.items())


def _details(facts: Mapping[str, Any]) -> str:
    lines = []
    if "command" in facts:
        lines.append(f"\n    {facts['command']}\n")
    if "best" in facts:
        lines.append(f"\nValidated: {scores_text(facts)}.\n")
    if "unreadable" in facts:
        count, pictures = facts["unreadable"]["count"], facts["unreadable"]["pictures"]
        lines.append(f"\nLeft out, because they could not be read: {count} pictures ({escape(some(pictures, 5))}).\n")
    return "".join(lines)
