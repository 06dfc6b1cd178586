"""The model card of what was trained here: data, settings, seconds, device."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

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

```json
{json.dumps({"plan": plan, "about": about}, indent=2)}
```
"""
    write_bytes(out / f"{stem or 'README'}.md", text.encode())
