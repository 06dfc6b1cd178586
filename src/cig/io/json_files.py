"""JSON files: written whole or not at all, read with checks; errors name the file, the line and the column."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cig.errors import InputError, reason, some
from cig.io.files import make_folder, read_bytes, sweep, write_bytes, writing


def write_json(path: Path, value: Any, indent: int | None = None) -> None:
    make_folder(path.parent)
    sweep(path.parent)
    write_bytes(path, (json.dumps(value, indent=indent, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace"))


def append_json(path: Path, value: Any, sync: bool = True) -> None:
    """One more line; a line that a kill tore stays a line of its own.

    Args:
        sync: it is on the disk when this returns; without, a power failure may lose it, but no kill does.
    """
    with writing(path), path.open("a", encoding="utf-8") as file:
        with contextlib.suppress(OSError):  # some file systems know no locks
            fcntl.flock(file, fcntl.LOCK_EX)  # on a disk in a network two machines' lines are apart only so
        torn = path.stat().st_size and not _ends_in_newline(path)
        file.write(("\n" if torn else "") + json.dumps(value) + "\n")
        file.flush()
        if sync:
            os.fsync(file.fileno())


def _ends_in_newline(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read() == b"\n"


BETWEEN = re.compile(r"[\s,]*")  # the entries of a list


def read_json(path: Path) -> Any:
    """Raises NotFoundError or InputError with the file, line and column."""
    data = read_bytes(path)
    try:
        return json.loads(data.decode("utf-8-sig"))
    except json.JSONDecodeError as error:
        raise InputError(f"{path}, line {error.lineno}, column {error.colno}: not JSON: {error.msg}") from error
    except (ValueError, RecursionError, MemoryError) as error:  # not UTF-8, a number of 5,000 digits, 10,000 brackets
        raise InputError(f"{path} cannot be read: {reason(error)}") from error


def read_object(path: Path) -> dict[str, Any]:
    value = read_json(path)
    if not isinstance(value, dict):
        raise InputError(f"{path}: expected an object, found {type(value).__name__}")
    return value


def read_entries(path: Path, keys: Sequence[str]) -> list[dict[str, Any]]:
    """An annotation file: a JSON list of objects that all have these keys."""
    entries = read_json(path)
    if not isinstance(entries, list):
        raise InputError(f"{path}: expected a list of entries, found {type(entries).__name__}")
    for position, entry in enumerate(entries):
        absent = [key for key in keys if not isinstance(entry, dict) or key not in entry]
        if absent:
            raise InputError(f"{place_of(path, position)}: lacks {some(absent)}")
    return entries


def place_of(path: Path, position: int) -> str:
    """The file, line and number of an entry in a JSON list: looked for again, because the parser does not tell."""
    text = read_bytes(path).decode("utf-8-sig")
    decoder, at = json.JSONDecoder(), text.index("[") + 1
    for _ in range(position):
        _, at = decoder.raw_decode(text, _after_space(text, at))
    line = text.count("\n", 0, _after_space(text, at)) + 1
    return f"{path}, line {line}, entry {position} (counting from 0)"


def _after_space(text: str, at: int) -> int:
    match = BETWEEN.match(text, at)
    return match.end() if match else at
