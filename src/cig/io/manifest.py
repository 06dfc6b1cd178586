"""The manifest of a folder of outputs: one JSON line per query (the last line wins), and the settings behind it."""

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
from cig.io.locks import agree
from cig.io.outputs import check_folder
from cig.types import Query


class Manifest:
    """The outputs that a folder holds, and the settings they were made with.

    `manifest.jsonl` has one line per query; `settings.json` spells out the settings behind each digest, so that a
    rerun with other settings can name the difference.
    """

    # Runs resume by this file. A line is appended before its output is renamed into place, so a kill between the two
    # leaves a line without a file, and the query is done again; the reverse, a file that no line describes, counts as
    # somebody else's. A line that a kill tore does not parse and counts as not written. Every line carries the digest
    # of its settings, so one folder never mixes outputs of two settings unnoticed.

    def __init__(
        self, folder: Path, settings: Mapping[str, Any], overwrite: bool = False, *, possible: Collection[str] = ()
    ) -> None:
        """Open a folder for outputs with these settings.

        Args:
            overwrite: make everything anew, except what an interrupted overwriting run has already made.
            possible: ids whose output can be made. While one of them still has an output of other settings, the
                overwriting run was interrupted, and this one continues it.

        Raises:
            MismatchError: the folder was made with other settings and overwrite is off.
            UsageError: another process fills a share of the folder with other settings.
        """
        if not (folder / "manifest.jsonl").exists():
            check_folder(folder)
        self.folder = make_folder(folder)
        sweep(folder)
        self.path = folder / "manifest.jsonl"
        self.settings = dict(settings)
        self.digest = digest_of(self.settings)
        self.lines = self._interrupted(possible) if overwrite else self.read(folder)
        self._refuse_other_settings()
        agree(folder, self.digest)
        recorded = _recorded_settings(folder)
        if self.digest not in recorded:
            write_json(folder / "settings.json", {**recorded, self.digest: self.settings}, indent=1)

    def add(self, line: Mapping[str, Any]) -> None:
        """Append a query's line; call it before the query's file is renamed into place."""
        line = {**line, "settings": self.digest}
        append_json(self.path, line)
        self.lines[line["id"]] = line

    def is_stale(self, query: Query) -> bool:
        return is_stale(self.lines.get(query.id), query)

    @staticmethod
    def read(folder: Path) -> dict[str, dict[str, Any]]:
        """Map each query id to its last line; empty without a manifest."""
        path = folder / "manifest.jsonl"
        texts = read_bytes(path).splitlines() if os.path.exists(path) else ()
        lines = filter(None, map(_manifest_line, texts))
        return {line["id"]: line for line in lines}

    @staticmethod
    def settings_used(folder: Path) -> dict[str, dict[str, Any]]:
        """Map digests to the settings that made the folder's files; empty for files that came from elsewhere."""
        used = {line.get("settings") for line in Manifest.read(folder).values()}
        recorded = _recorded_settings(folder) if used else {}  # without a manifest settings.json may be anything
        return {name: settings for name, settings in recorded.items() if name in used}

    def _interrupted(self, possible: Collection[str]) -> dict[str, dict[str, Any]]:
        """Return the lines that an interrupted overwriting run has written; empty if none was interrupted."""
        lines = self.read(self.folder) if possible else {}
        current = {name: line for name, line in lines.items() if line.get("settings") == self.digest}
        return current if any(name in lines and name not in current for name in possible) else {}

    def _refuse_other_settings(self) -> None:
        recorded = _recorded_settings(self.folder)
        for digest in {line.get("settings") for line in self.lines.values()} - {self.digest}:
            other = recorded.get(str(digest), {})
            keys = sorted(set(other) | set(self.settings))
            differ = [
                f"{key}: {other.get(key)!r} there, {self.settings.get(key)!r} now"
                for key in keys
                if other.get(key) != self.settings.get(key)
            ]
            raise MismatchError(
                f"{self.folder} was made with other settings ({some(differ)}); use another folder, or "
                f"--overwrite where the verb has it"
            )


def _recorded_settings(folder: Path) -> dict[str, dict[str, Any]]:
    path = folder / "settings.json"
    recorded = read_object(path) if path.exists() else {}
    lines = list(recorded.values())
    lines += [line.get(key, {}) for line in lines if isinstance(line, dict) for key in ("models", "compose")]
    if not all(isinstance(line, dict) for line in lines):
        raise InputError(f"{path}: not settings by their digest; use another folder")
    return recorded


def query_digest(query: Query) -> str:
    """Hash a query's reference and captions; a file made for others is not this query's."""
    return digest_of([query.reference, query.captions])


def is_stale(line: Mapping[str, Any] | None, query: Query) -> bool:
    """Tell whether a manifest's line was written for another reference or caption than the query has now."""
    return line is not None and line.get("query", query_digest(query)) != query_digest(query)


MANIFEST_TYPES: dict[str, type] = {"query": str, "id": str, "settings": str, "accepted": bool, "attempts": int}


def _manifest_line(text: bytes) -> dict[str, Any] | None:
    """Parse a line; None for one that a kill tore or that is not a manifest's, so that its query is done again."""
    try:
        line = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(line, dict) or "id" not in line:
        return None
    return line if all(isinstance(line.get(key, kind()), kind) for key, kind in MANIFEST_TYPES.items()) else None


COST_KINDS: dict[str, Any] = {"queries": int, "seconds": int | float, "gigabytes": int | float | None, "device": str}


def read_cost(pseudo_targets: Path) -> dict[str, Any] | None:
    """Read the cost of generating pseudo-targets from their folder; None if it is not recorded.

    Raises:
        InputError: cost.json has other content.
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
    """Check the types of values; raises KeyError or TypeError, which names the key."""
    for key, kind in kinds.items():
        if not isinstance(value[key], kind):
            raise TypeError(f"{key} is {type(value[key]).__name__}")
