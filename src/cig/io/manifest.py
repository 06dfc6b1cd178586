"""What a folder of outputs holds, and by which settings it was made: one JSON line per query, its last line wins."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from cig.errors import InputError, MismatchError, some
from cig.io.digests import digest_of
from cig.io.files import make_folder, read_bytes, sweep
from cig.io.json_files import append_json, read_object, write_json
from cig.types import Query


class Manifest:
    """What a folder of outputs holds, and by which settings it was made.

    `manifest.jsonl` has one line per query; `settings.json` spells out the settings behind each digest, so that a
    rerun with others can say what differs.
    """

    def __init__(
        self, folder: Path, settings: Mapping[str, Any], overwrite: bool = False, able: Collection[str] = ()
    ) -> None:
        """With overwrite all is made anew, but for what an overwriting that was stopped has made.

        Args:
            able: ids that can be made; while one of them is of other settings, that was stopped.

        Raises:
            MismatchError: the folder was made with other settings and overwrite is off.
        """
        self.folder = make_folder(folder)
        sweep(folder)
        self.path = folder / "manifest.jsonl"
        self.settings = dict(settings)
        self.digest = digest_of(self.settings)
        self.lines = self._begun(able) if overwrite else self.read(folder)
        self._refuse_other_settings()
        known = _known_settings(folder)
        if self.digest not in known:
            write_json(folder / "settings.json", {**known, self.digest: self.settings}, indent=1)

    def add(self, line: Mapping[str, Any]) -> None:
        """Appended before the file it speaks of is renamed into place: a line without its file is done again."""
        line = {**line, "settings": self.digest}
        append_json(self.path, line)
        self.lines[line["id"]] = line

    def is_stale(self, query: Query) -> bool:
        return is_stale(self.lines.get(query.id), query)

    @staticmethod
    def read(folder: Path) -> dict[str, dict[str, Any]]:
        """Query id -> its last line; empty where there is no manifest."""
        path = folder / "manifest.jsonl"
        texts = read_bytes(path).splitlines() if os.path.exists(path) else ()
        lines = filter(None, map(_manifest_line, texts))
        return {line["id"]: line for line in lines}

    @staticmethod
    def made_by(folder: Path) -> dict[str, dict[str, Any]]:
        """Digest -> the settings that the folder's files were made by; empty for files that came from elsewhere."""
        used = {line.get("settings") for line in Manifest.read(folder).values()}
        known = _known_settings(folder) if used else {}  # elsewhere a settings.json may be anything
        return {name: settings for name, settings in known.items() if name in used}

    def _begun(self, able: Collection[str]) -> dict[str, dict[str, Any]]:
        there = self.read(self.folder) if able else {}
        own = {name: line for name, line in there.items() if line.get("settings") == self.digest}
        return own if any(name in there and name not in own for name in able) else {}

    def _refuse_other_settings(self) -> None:
        known = _known_settings(self.folder)
        for other in {line.get("settings") for line in self.lines.values()} - {self.digest}:
            theirs = known.get(str(other), {})
            keys = sorted(set(theirs) | set(self.settings))
            differ = [
                f"{key}: {theirs.get(key)!r} there, {self.settings.get(key)!r} now"
                for key in keys
                if theirs.get(key) != self.settings.get(key)
            ]
            raise MismatchError(
                f"{self.folder} was made with other settings ({some(differ)}); use another folder, or "
                f"--overwrite where the verb has it"
            )


def _known_settings(folder: Path) -> dict[str, dict[str, Any]]:
    path = folder / "settings.json"
    known = read_object(path) if path.exists() else {}
    if not all(isinstance(settings, dict) for settings in known.values()):
        raise InputError(f"{path}: not settings by their digest; use another folder")
    return known


def asked_by(query: Query) -> str:
    """What a query asks, in a digest: a file that was made for another reference or caption is not its own."""
    return digest_of([query.reference, query.captions])


def is_stale(line: Mapping[str, Any] | None, query: Query) -> bool:
    """Whether a manifest's line says that its file was made for something else than this query asks now."""
    return line is not None and line.get("query", asked_by(query)) != asked_by(query)


MANIFEST_TYPES: dict[str, type] = {"query": str, "id": str, "settings": str, "accepted": bool, "attempts": int}


def _manifest_line(text: bytes) -> dict[str, Any] | None:
    """None for a line torn by a kill, or not ours: its query counts as not done and is done again."""
    try:
        line = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(line, dict) or "id" not in line:
        return None
    return line if all(isinstance(line.get(key, kind()), kind) for key, kind in MANIFEST_TYPES.items()) else None


# What it took

COST_KINDS: dict[str, Any] = {"queries": int, "seconds": int | float, "gigabytes": int | float | None, "device": str}


def cost_of(pseudo_targets: Path) -> dict[str, Any] | None:
    """What imagining took, where that is written beside the pictures.

    Raises:
        InputError: something else is.
    """
    path = pseudo_targets / "cost.json"
    if not os.path.isfile(path):
        return None
    cost = read_object(path)
    try:
        need_kinds(cost, COST_KINDS)
    except (KeyError, TypeError) as error:
        raise InputError(f"{path} does not say what imagining took ({error}); move it away") from error
    return cost


def need_kinds(value: Mapping[str, Any], kinds: Mapping[str, Any]) -> None:
    """Raises KeyError or TypeError that names the key."""
    for key, kind in kinds.items():
        if not isinstance(value[key], kind):
            raise TypeError(f"{key} is {type(value[key]).__name__}")
