"""Write JSON files whole or not at all, and read them with checks; errors name the file, the line and the column."""

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
    write_bytes(path, to_bytes(value, indent))


def to_bytes(value: Any, indent: int | None = None) -> bytes:
    """Return a value as a JSON file's content."""
    return (json.dumps(value, indent=indent, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace")


def append_json(path: Path, value: Any, sync: bool = True) -> None:
    """Append a line to a JSONL file.

    Args:
        sync: wait until the line is on the disk; without, a power failure may lose it, but no kill does.
    """
    # Several processes, and on a network drive several machines, may append to one file: the lock keeps their lines
    # apart where the file system has locks. A kill can leave half a line at the end; the newline before the next
    # record keeps that half a line of its own, which readers skip, so no other record is lost with it.
    with writing(path), path.open("a", encoding="utf-8") as file:
        with contextlib.suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        file.write(("\n" if _is_torn(path) else "") + json.dumps(value) + "\n")
        file.flush()
        if sync:
            os.fsync(file.fileno())


def _is_torn(path: Path) -> bool:
    """Tell whether a file's last line lacks its newline."""
    if not path.stat().st_size:
        return False
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read() != b"\n"


SEPARATORS = re.compile(r"[\s,]*")  # between the entries of a list


def read_json(path: Path) -> Any:
    """Read a JSON file; raises NotFoundError, or InputError with the file, line and column."""
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
    """Read an annotation file: a JSON list of objects, each of which has all the keys."""
    entries = read_json(path)
    if not isinstance(entries, list):
        raise InputError(f"{path}: expected a list of entries, found {type(entries).__name__}")
    for position, entry in enumerate(entries):
        absent = [key for key in keys if not isinstance(entry, dict) or key not in entry]
        if absent:
            raise InputError(f"{locate_entry(path, position)}: lacks {some(absent)}")
    return entries


def locate_entry(path: Path, position: int) -> str:
    """Name the file, line and number of an entry in a JSON list; the parser reports no lines, so parse it again."""
    text = read_bytes(path).decode("utf-8-sig")
    decoder, offset = json.JSONDecoder(), _skip_separators(text, text.index("[") + 1)
    for _ in range(position):
        _, end = decoder.raw_decode(text, offset)
        offset = _skip_separators(text, end)
    line = text.count("\n", 0, offset) + 1
    return f"{path}, line {line}, entry {position} (counting from 0)"


def _skip_separators(text: str, offset: int) -> int:
    match = SEPARATORS.match(text, offset)
    return match.end() if match else offset
