"""Write files whole or not at all, and read them with checks."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import os
import platform
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from cig.errors import InputError, NotFoundError, OutputError, reason, some

if TYPE_CHECKING:
    from PIL.Image import Image


# Writing

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # a disk, a user's share of it, the largest file that it takes


def make_folder(path: Path) -> Path:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        raise OutputError(f"{path} cannot be made: {reason(error)}; choose another folder") from error
    return path


def write_bytes(path: Path, data: bytes, sync: bool = True) -> None:
    """Write a file whole or not at all.

    Args:
        sync: wait until the data is on the disk; without, a power failure may tear the file, but no kill does.
    """
    with replacing(path, sync) as file:
        file.write(data)


@contextlib.contextmanager
def replacing(path: Path, sync: bool = True) -> Iterator[BinaryIO]:
    """Yield an open file that takes the place of `path` at the end, if the context ends without an error.

    Large content is written through it piece by piece, instead of being put together in memory.

    Args:
        sync: as write_bytes has it.
    """
    # The data goes to a temporary file beside the target, which then takes the target's name: renaming is atomic, so
    # a kill leaves the old file or the new one. It can also leave the temporary file. Its name holds the machine and
    # the process, so that no two writers share it (machines may share a folder), and so that sweep can tell the files
    # of dead processes from those being written.
    make_folder(path.parent)
    temporary = path.with_name(f".{path.name}.{_HOST}-{os.getpid()}.part")
    with writing(path):
        try:
            with temporary.open("wb") as file:
                yield file
                file.flush()
                if sync:
                    os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise


_HOST = hashlib.sha256(platform.node().encode()).hexdigest()[:12]


def sweep(folder: Path) -> None:
    """Remove the temporary files of write_bytes that killed processes of this machine left in a folder."""
    for path in folder.glob(".*.part"):
        host, _, process = path.name.split(".")[-2].rpartition("-")
        if host == _HOST and process.isdecimal() and not _alive(int(process)):
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an OSError within the context into an OutputError that names the file and folder."""
    try:
        yield
    except OSError as error:
        hint = "free space or choose another folder" if error.errno in FULL else "choose a folder that you may write to"
        raise OutputError(
            f"{path.name} cannot be written to {path.parent}: {error.strerror}; {hint}. "
            f"What was finished is kept, and a rerun goes on from there"
        ) from error


def write_png(path: Path, image: Image) -> None:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    write_bytes(path, buffer.getvalue())


def remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"{path} cannot be removed: {error.strerror}; move it away") from error


# Reading


def read_bytes(path: Path) -> bytes:
    """Read a regular file; a pipe or a device might never end.

    Raises:
        NotFoundError: the file does not exist.
        InputError: it cannot be read.
    """
    stat_file(path)
    try:
        return path.read_bytes()
    except (OSError, MemoryError) as error:
        raise InputError(f"{path} cannot be read: {reason(error)}") from error


def stat_file(path: Path) -> os.stat_result:
    try:
        status = path.stat()
    except FileNotFoundError as error:
        raise NotFoundError(f"{path} is not there") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {reason(error)}") from error
    if not stat.S_ISREG(status.st_mode):
        raise InputError(f"{path} is not a file")
    return status


def stamp(status: os.stat_result) -> str:
    """Return what changes with a file's content: a copy may keep size and modification time, not the other two."""
    return f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns} {status.st_ino}"


def names_in(folder: Path) -> list[str]:
    """List the names in a folder, sorted; raises NotFoundError or InputError."""
    if not os.path.isdir(folder):  # unlike Path.is_dir, it returns False for a name that is too long
        raise NotFoundError(f"{folder} is not a folder")
    try:
        return sorted(os.listdir(folder))
    except OSError as error:
        raise InputError(f"{folder} cannot be listed: {error.strerror}") from error


UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")  # in names: control characters and lone surrogates


# Files of a trained phi, in the order of preference: ours, then those of the published layouts.
PHI_FILES = [
    *("phi.safetensors", "phi_best.pt", "ema_phi_best.pt", "epoch_best.pt", "ema_epoch_best.pt"),
    *("phi_last.safetensors", "phi_last.pt", "ema_phi_last.pt", "phi_latest.pt", "ema_phi_latest.pt"),
    *("epoch_latest.pt", "ema_epoch_latest.pt"),
]


def phi_in(path: Path) -> Path:
    """Return the path or, for a folder that `cig train phi` wrote, its best or last phi; raises NotFoundError."""
    if not os.path.isdir(path):
        return path
    names = names_in(path)
    name = next((name for name in PHI_FILES if name in names), None)
    if name is None:
        raise NotFoundError(
            f"the folder {path} has no phi.safetensors or phi_best.pt, as `cig train phi` writes; it has "
            f"{some(names, 5) or 'nothing'}; give the file of a phi"
        )
    return path / name


def weights_at(path: Path) -> Path:
    """Return the path or, if it does not exist, NAME.safetensors, which `cig models download` converts it to."""
    safe = path.with_suffix(".safetensors")
    return safe if os.path.isfile(safe) and not os.path.isfile(path) else path
