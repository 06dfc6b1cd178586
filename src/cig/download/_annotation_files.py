"""Annotation files: small, each fetched once, written whole, and only if it is what it should be."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from cig.download import Asking
from cig.errors import InputError, reason
from cig.io.files import sweep, write_bytes
from cig.io.http import Web, WebError, retried
from cig.runtime import progress

Check = Callable[[bytes], object]  # raises InputError for what is not the file that was asked for


def json_list(data: bytes) -> None:
    """Raises InputError unless it is a JSON list."""
    _json(data, list)


def json_object(data: bytes) -> None:
    """Raises InputError unless it is a JSON object."""
    _json(data, dict)


def _json(data: bytes, kind: type) -> None:
    try:
        value = json.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError, MemoryError) as error:
        raise InputError(f"not JSON: {reason(error)}") from error
    if not isinstance(value, kind):
        raise InputError(f"expected a JSON {'list' if kind is list else 'object'}, found {type(value).__name__}")


def fetch_files(
    files: Mapping[Path, str], asking: Asking, named: Iterable[str] = (), check: Check = json_list
) -> dict[Path, str]:
    """Fetches those that are not there.

    Args:
        files: where each goes -> its address.
        named: addresses that the user typed (see Asking.rules).

    Returns:
        {path: why it cannot be had}
    """
    todo = {path: address for path, address in files.items() if not path.exists()}
    failed: dict[Path, str] = {}
    if not todo:
        return failed
    for folder in {path.parent for path in todo}:
        sweep(folder)
    with Web(asking.rules(named)) as web:

        async def get(path: Path) -> bytes | str:
            try:
                data = await retried(lambda: web.body(todo[path]), asking.waits)
                check(data)
                return data
            except WebError as error:
                return str(error)
            except InputError as error:
                return f"{todo[path]}: {error}"

        with contextlib.closing(web.each(todo, get)) as answers:  # also where it stops
            for path, got in progress(answers, len(todo), "annotations", "file"):
                if isinstance(got, str):
                    failed[path] = got
                else:
                    write_bytes(path, got)
    return failed
