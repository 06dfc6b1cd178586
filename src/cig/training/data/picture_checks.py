"""Pictures looked at before a training begins: what cannot be drawn is known, and the sizes of the others are.

What was decoded whole is remembered in a file, so that a rerun looks at new and changed pictures alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cig.errors import CigError, PixelsError, reason
from cig.io.files import stat_file
from cig.io.image_checks import UnreadableImage, check_images
from cig.io.images import check_pixels
from cig.io.json_files import read_object, write_json
from cig.runtime import batches
from cig.training import processes
from cig.training.data.framing import Frame, Size

WORKERS = 4  # threads that decode
AT_ONCE = 2**14  # pictures, after which those that were looked at are remembered


@dataclass(frozen=True)
class File:
    """A picture that was decoded whole."""

    digest: str  # sha256 of the file
    size: Size


def look_over(paths: Iterable[Path], frame: Frame, ledger: Path | None) -> tuple[dict[Path, File], dict[Path, str]]:
    """(Pictures, why others cannot be drawn).

    Args:
        ledger: the file that remembers.
    """
    stamps = {path: _stamp(path) for path in paths}
    if processes.rank():  # the first process looks; the others read what it remembers, and look at what was broken
        processes.wait()
    rows = read_object(ledger) if ledger and ledger.exists() else {}
    files = {path: own for path, stamp in stamps.items() if (own := _remembered(rows.get(str(path)), stamp))}
    failed: dict[Path, str] = {}
    todo = [path for path in stamps if path not in files]
    for chunk in [*batches(todo, AT_ONCE)] or [todo]:
        looks = check_images(chunk, WORKERS, "looking at pictures")
        failed |= {path: own.why for path, own in looks.items() if isinstance(own, UnreadableImage)}
        files |= {
            path: File(own.digest, own.size) for path, own in looks.items() if not isinstance(own, UnreadableImage)
        }
        if ledger and looks and not processes.rank():
            write_json(ledger, {str(path): [stamps[path], own.digest, *own.size] for path, own in files.items()})
    if not processes.rank():
        processes.wait()
    return files, failed | {path: why for path, own in files.items() if (why := _misfit(frame, own.size, path))}


def _stamp(path: Path) -> str:
    """What changes when a file does; "" where it cannot be told."""
    try:
        status = stat_file(path)
    except CigError:
        return ""
    return f"{status.st_size}/{status.st_mtime_ns}"


def _remembered(row: Any, stamp: str) -> File | None:
    match row:
        case [str(then), str(digest), int(width), int(height)] if then == stamp != "":
            return File(digest, (width, height))
    return None


def _misfit(frame: Frame, size: Size, path: Path) -> str:
    try:
        check_pixels(*size)
        frame.resized(size)
    except PixelsError as error:
        return f"{path}: {reason(error)}"
    return ""
