"""The model card of what was trained here: data, settings, seconds, device, what was best and what was left out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cig.errors import some
from cig.formats import write_bytes, write_json
from cig.runtime import versions


def write_card(out: Path, what: str, facts: Mapping[str, Any], stem: str = "") -> None:
    """`training.json` and README.md (or `{stem}.json` and `{stem}.md`)."""
    known = {**facts, "versions": versions()}
    write_json(out / f"{stem or 'training'}.json", known, indent=2)
    about, plan = facts["about"], facts["plan"]
    text = f"""# {what[0].upper() + what[1:]}

Trained by `cig train` on {about["data"]}: {facts["steps"]} of {plan["steps"]} steps of {plan["batch"]} items,
{facts["seconds"]:.0f} s on {facts["device"]}. Loss at the end: {facts["loss"]}.
{_further(facts)}
```json
{json.dumps({"plan": plan, "about": about}, indent=2)}
```
"""
    write_bytes(out / f"{stem or 'README'}.md", text.encode())


def scores_text(facts: Mapping[str, Any]) -> str:
    """Which step was best on what, by which scores, and the last one's."""
    best = {name: score for name, score in facts["best"].items() if name != "steps"}
    where = facts["about"]["validate"]["benchmark"]
    return f"best on {where}: step {facts['best']['steps']} ({_listed(best)}); last: {_listed(facts['scores'])}"


def _listed(scores: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {score:.2f}" for name, score in scores.items())


def _further(facts: Mapping[str, Any]) -> str:
    lines = []
    if "best" in facts:
        lines.append(f"\nValidated: {scores_text(facts)}.\n")
    if "unreadable" in facts:
        count, pictures = facts["unreadable"]["count"], facts["unreadable"]["pictures"]
        lines.append(f"\nLeft out, because they could not be read: {count} pictures ({some(pictures, 5)}).\n")
    return "".join(lines)
