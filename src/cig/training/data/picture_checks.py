"""Checks of pictures before a training begins: which can be decoded, and their sizes.

A file remembers the pictures that decoded, so that a rerun checks only new and changed ones.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cig.errors import CigError, PixelsError, reason
from cig.io.files import stamp, stat_file
from cig.io.image_checks import UnreadableImage, check_images
from cig.io.images import check_pixels
from cig.io.json_files import read_object, write_json
from cig.runtime import batches
from cig.training import processes
from cig.training.data.framing import Frame, Size

WORKERS = 4  # threads that decode
AT_ONCE = 2**14  # pictures, after which the file is written


@dataclass(frozen=True)
class CheckedPicture:
    """A picture that decoded."""

    digest: str  # sha256 of the file
    size: Size


def check_pictures(
    paths: Iterable[Path], frame: Frame, ledger: Path | None
) -> tuple[dict[Path, CheckedPicture], dict[Path, str]]:
    """Decode the pictures; return the good ones, and for each other one why it cannot be trained on.

    Args:
        ledger: the file that remembers the pictures that decoded.
    """
    stamps = {path: _stamp(path) for path in paths}
    # Decoding a million pictures takes hours, so process 0 does it and writes the ledger after every chunk, which a
    # kill leaves in place. The others wait, then read the ledger; only the pictures that did not decode are not in it,
    # and each process decodes those again. An entry counts while the file's stamp is the same.
    if processes.rank():
        processes.wait()
    rows = read_object(ledger) if ledger and ledger.exists() else {}
    good = {path: entry for path, stamp in stamps.items() if (entry := _entry(rows.get(str(path)), stamp))}
    failed: dict[Path, str] = {}
    todo = [path for path in stamps if path not in good]
    for chunk in [*batches(todo, AT_ONCE)] or [todo]:
        checked = check_images(chunk, WORKERS, "looking at pictures")
        for path, image in checked.items():
            if isinstance(image, UnreadableImage):
                failed[path] = image.why
            else:
                good[path] = CheckedPicture(image.digest, image.size)
        if ledger and checked and not processes.rank():
            write_json(ledger, {str(path): [stamps[path], entry.digest, *entry.size] for path, entry in good.items()})
    if not processes.rank():
        processes.wait()
    return good, failed | {path: why for path, entry in good.items() if (why := _misfit(frame, entry.size, path))}


def _stamp(path: Path) -> str:
    """Return the file's stamp; "" if it cannot be read."""
    try:
        return stamp(stat_file(path))
    except CigError:
        return ""


def _entry(row: Any, now: str) -> CheckedPicture | None:
    """Return the ledger's entry of a file that has not changed since."""
    match row:
        case [str(then), str(digest), int(width), int(height)] if then == now != "":
            return CheckedPicture(digest, (width, height))
    return None


def _misfit(frame: Frame, size: Size, path: Path) -> str:
    """Return why a picture is too large to be framed; "" if it is not."""
    try:
        check_pixels(*size)
        frame.resized(size)
    except PixelsError as error:
        return f"{path}: {reason(error)}"
    return ""
