"""The record of a download, `download.jsonl` beside the pictures: one JSON line for each outcome of an id.

The last line of an id wins.
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
FINAL = ("gone", "tiny", "one colour", "placeholder")  # an address with this outcome is not requested again
LONGEST = 2**20  # bytes of a line

# A kill can come at any moment, so the order of writing matters: a line is appended before the files that it names are
# written. A line without its file is then noticed by the missing file, and its id is requested again, whereas a file
# without its line would lose where it came from. Lines are not synced to the disk one by one: whatever a power cut
# takes is decoded again by the next run, and a line that was cut in the middle is skipped and counted.


@dataclass(frozen=True, slots=True)
class LedgerLine:
    """The latest state of an id."""

    id: str
    outcome: str  # "present", a web.Kind, a kind of Refused, or "placeholder"
    files: tuple[str, ...] = ()  # relative to the ledger's folder
    digest: str = ""  # sha256 of the content
    size: int = 0  # bytes
    source: str = ""  # the address or file that the content came from
    why: str = ""  # for a present picture: what is suspicious about it
    final: tuple[str, ...] = ()  # addresses that have nothing, in this run or an earlier one


@dataclass(frozen=True, slots=True)
class AddressTry:
    """The outcome of one address, after its retries."""

    address: str
    outcome: str
    why: str = ""
    seconds: float = 0.0


class Ledger:
    """Attributes: lines: the last line of each id. torn: how many lines are cut by a kill, or foreign."""

    def __init__(self, folder: Path) -> None:
        self.folder = make_folder(folder)
        self.path = folder / "download.jsonl"
        self.lines: dict[str, LedgerLine] = {}
        self.torn = 0
        for line in _read(self.path) if self.path.exists() else ():
            if line is None:
                self.torn += 1
            else:
                self.lines[line.id] = line

    def add(self, line: LedgerLine, tries: Sequence[AddressTry] = ()) -> None:
        """Append a line, with what each address answered and the time."""
        row: dict[str, Any] = {key: value for key, value in asdict(line).items() if value}
        if tries:
            row["tries"] = [asdict(one) for one in tries]
        row["time"] = datetime.now(UTC).isoformat(timespec="seconds")
        append_json(self.path, row, sync=False)
        self.lines[line.id] = line

    def final(self, name: str) -> tuple[str, ...]:
        """Return the addresses that need not be requested again for an id."""
        return self.lines[name].final if name in self.lines else ()


def _read(path: Path) -> Iterator[LedgerLine | None]:
    try:
        with path.open("rb") as file:
            while text := file.readline(LONGEST):
                if text.strip():
                    yield _parse(text)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {reason(error)}") from error


def _parse(text: bytes) -> LedgerLine | None:
    """Parse a line; None if it is cut or foreign, so that its id counts as not requested."""
    try:
        row = _need(json.loads(text), dict)
        texts: dict[str, Any] = {key: _need(row.get(key, ""), str) for key in ("digest", "source", "why")}
        lists: dict[str, Any] = {
            key: tuple(_need(item, str) for item in _need(row.get(key, []), list)) for key in ("files", "final")
        }
        size = _need(row.get("size", 0), int)
        return LedgerLine(id=_need(row["id"], str), outcome=_need(row["outcome"], str), size=size, **texts, **lists)
    except (ValueError, RecursionError, TypeError, KeyError):
        return None


def _need(value: Any, kind: type) -> Any:
    if not isinstance(value, kind):
        raise TypeError(f"expected {kind.__name__}")
    return value
