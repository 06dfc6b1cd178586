"""Fetch annotation files: each once, written whole, and only if its content has the expected form."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from cig.benchmarks._web import fetch_each
from cig.download import FetchSettings
from cig.errors import InputError, reason
from cig.io.files import sweep, write_bytes
from cig.io.http import Web

Check = Callable[[bytes], object]  # raises InputError for an unexpected content


def json_list(data: bytes) -> None:
    """Raise InputError unless it is a JSON list."""
    _json(data, list)


def json_object(data: bytes) -> None:
    """Raise InputError unless it is a JSON object."""
    _json(data, dict)


def _json(data: bytes, kind: type) -> None:
    try:
        value = json.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError, MemoryError) as error:
        raise InputError(f"not JSON: {reason(error)}") from error
    if not isinstance(value, kind):
        raise InputError(f"expected a JSON {'list' if kind is list else 'object'}, found {type(value).__name__}")


def fetch_files(
    files: Mapping[Path, str], settings: FetchSettings, named: Iterable[str] = (), *, check: Check = json_list
) -> dict[Path, str]:
    """Fetch the files that are absent.

    Args:
        files: path -> address.
        named: addresses that the user typed (see FetchSettings.rules).
        check: raises InputError for a content that is not written.

    Returns:
        {path: why it cannot be fetched}
    """
    todo = {path: address for path, address in files.items() if not path.exists()}
    for folder in {path.parent for path in todo}:
        sweep(folder)

    def read(data: bytes) -> bytes:
        check(data)
        return data

    if not todo:
        return {}
    with Web(settings.rules(named)) as web:
        return fetch_each(web, todo, read, keep=write_bytes, waits=settings.waits, what=("annotations", "file"))
