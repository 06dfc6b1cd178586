"""What was asked for and what came of it: one JSON line each time, `download.jsonl` beside the pictures.

The last line of an id wins. A line is written before the files it speaks of: one without its file is asked for again.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cig.errors import InputError, reason
from cig.io.files import make_folder
from cig.io.json_files import append_json

PRESENT = "present"
FINAL = ("gone", "tiny", "one colour", "placeholder")  # an address with this is not asked again
LONGEST = 2**20  # bytes of a line


@dataclass(frozen=True, slots=True)
class Line:
    """The last that is known of an id."""

    id: str
    outcome: str  # "present", a web.Kind, a kind of Refused, or "placeholder"
    files: tuple[str, ...] = ()  # relative to the ledger's folder
    digest: str = ""  # sha256 of the content
    size: int = 0  # bytes
    source: str = ""  # the address or file that the content came from
    why: str = ""  # of one that is present: what is suspicious about it
    final: tuple[str, ...] = ()  # addresses that have nothing, in this run or an earlier one


@dataclass(frozen=True, slots=True)
class Try:
    """One address that was asked, retries apart."""

    address: str
    outcome: str
    why: str = ""
    seconds: float = 0.0


class Ledger:
    """Attributes: lines: the last line of each id. torn: lines cut by a kill, or not ours."""

    def __init__(self, folder: Path) -> None:
        self.folder = make_folder(folder)
        self.path = folder / "download.jsonl"
        self.lines: dict[str, Line] = {}
        self.torn = 0
        for line in _read(self.path) if self.path.exists() else ():
            if line is None:
                self.torn += 1
            else:
                self.lines[line.id] = line

    def add(self, line: Line, tries: Sequence[Try] = ()) -> None:
        said = {key: value for key, value in asdict(line).items() if value}
        told: dict[str, Any] = {"tries": [asdict(one) for one in tries]} if tries else {}
        told["time"] = datetime.now(UTC).isoformat(timespec="seconds")
        append_json(self.path, {**said, **told}, sync=False)  # what it would lose is looked at again
        self.lines[line.id] = line

    def final(self, name: str) -> tuple[str, ...]:
        """The addresses that an id need not be asked for at."""
        return self.lines[name].final if name in self.lines else ()


def _read(path: Path) -> Iterator[Line | None]:
    try:
        with path.open("rb") as file:
            while text := file.readline(LONGEST):
                if text.strip():
                    yield _parse(text)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {reason(error)}") from error


def _parse(text: bytes) -> Line | None:
    """None for a line torn by a kill, or not ours: its id counts as not asked for."""
    try:
        told = json.loads(text)
        return _line(told)
    except (ValueError, RecursionError, TypeError, KeyError):
        return None


def _line(told: Any) -> Line:
    """Raises KeyError or TypeError."""
    _need(told, dict)
    texts: dict[str, Any] = {key: _need(told.get(key, ""), str) for key in ("digest", "source", "why")}
    lists: dict[str, Any] = {
        key: tuple(_need(item, str) for item in _need(told.get(key, []), list)) for key in ("files", "final")
    }
    size = _need(told.get("size", 0), int)
    return Line(id=_need(told["id"], str), outcome=_need(told["outcome"], str), size=size, **texts, **lists)


def _need(value: Any, kind: type) -> Any:
    if not isinstance(value, kind):
        raise TypeError(f"expected {kind.__name__}")
    return value
