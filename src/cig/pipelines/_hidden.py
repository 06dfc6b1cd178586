"""Pictures of a folder that its index leaves out, since a service removed them: the files stay where they are.

One line a picture in removed.jsonl: its name, and how its file looked. A file that changed later is searched again.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Sequence
from pathlib import Path

from cig.io.files import stamp
from cig.io.json_files import append_json
from cig.pipelines._index_build import Listed

FILE = "removed.jsonl"


def hide(folder: Path, name: str, path: Path) -> None:
    """Note that a picture of the gallery is removed from the index in this folder; durable on return."""
    with contextlib.suppress(OSError):  # no file: nothing brings the picture back
        append_json(folder / FILE, {"name": name, "stamp": stamp(path.stat())})


def shown(folder: Path, listed: Sequence[Listed]) -> list[Listed]:
    """Return the pictures without those that were removed and are as they were."""
    hidden = _read(folder / FILE)
    return [picture for picture in listed if (picture.name, picture.stamp) not in hidden]


def _read(path: Path) -> set[tuple[str, str]]:
    if not os.path.isfile(path):
        return set()
    hidden = set()
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        with contextlib.suppress(ValueError, KeyError, TypeError):  # a line that a kill tore was not acknowledged
            record = json.loads(line)
            hidden.add((str(record["name"]), str(record["stamp"])))
    return hidden
