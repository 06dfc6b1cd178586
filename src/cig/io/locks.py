"""Keep two processes from writing to one place: a lock file there, which names its holder."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import platform
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from cig.errors import OutputError, UsageError
from cig.io.files import make_folder
from cig.runtime import Shard, warn

FOLDER_LOCK = ".cig.lock"
READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)
WITHOUT_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL)
WAIT = 10.0  # seconds: the folder's lock is held for moments while shares are looked at


@contextlib.contextmanager
def hold(folder: Path, purpose: str, shard: Shard | None = None) -> Iterator[None]:
    """Hold a folder of outputs for this process; a call within a call may hold it again.

    Args:
        purpose: what the folder is held for, as other processes show it: "cig extract".
        shard: hold one share; processes with other shares may work beside this one.

    Raises:
        UsageError: another process holds the folder, or this share of it; the message names the process.
        OutputError: the folder cannot be made.
    """
    # The system frees a lock when its process dies, however it dies. A share has a lock file of its own; the folder's
    # lock is then held only until the shares' locks were looked at, so that no other process comes between.
    whole = make_folder(folder) / FOLDER_LOCK
    shared = shard is not None and shard.of > 1
    with contextlib.ExitStack() as stack:
        with _locked(whole, folder, purpose, wait=WAIT if shared else 0):
            if shard and shared:
                stack.enter_context(_locked(folder / f".cig.{shard.one}-of-{shard.of}.lock", folder, purpose))
            else:
                for path in _shares(folder):
                    stack.enter_context(_locked(path, folder, purpose))
                stack.enter_context(_locked(whole, folder, purpose))
        yield


def need_free(folder: Path, shard: Shard | None = None) -> None:
    """Raise UsageError early, before models are loaded, if another process holds a folder that is held later."""
    with hold(folder, "look", shard):
        pass


@contextlib.contextmanager
def hold_file(path: Path, purpose: str, wait: float = 0) -> Iterator[None]:
    """Hold a file for this process, by a lock file beside it.

    Args:
        wait: seconds to wait for another process.

    Raises:
        UsageError: another process holds the file; the message names the process.
        OutputError: the file's folder cannot be made.
    """
    path = path.resolve()
    make_folder(path.parent)
    with _locked(path.with_name(f".{path.name}.lock"), path, purpose, wait=wait):
        yield


def agree(folder: Path, settings: str) -> None:
    """Note the settings digest of this process's share of a folder.

    Raises:
        UsageError: a process with another share works there with other settings.
    """
    held = {path.absolute(): _held.get(path.absolute()) for path in _shares(folder)}
    if not any(held.values()):
        return
    with _locked(folder / FOLDER_LOCK, folder, "compare settings", wait=WAIT):
        for path, lock in held.items():
            if lock:
                lock.record["settings"] = settings
                lock.write()
            elif _read_record(path).get("settings", settings) != settings and not _is_free(path, folder):
                raise UsageError(f"{folder} is in use by {_holder(path)}, with other settings; choose another folder")


@dataclass
class _Lock:
    """A lock file that this process holds."""

    file: FileLock
    path: Path
    record: dict[str, Any]
    count: int = 0

    def write(self) -> None:
        with contextlib.suppress(OSError):  # a full disk: then the message cannot name the holder
            self.path.write_text(json.dumps(self.record))


_held: dict[Path, _Lock] = {}


@contextlib.contextmanager
def _locked(path: Path, target: Path, purpose: str, *, wait: float = 0) -> Iterator[None]:
    """Lock a file unless this process has done so, and remove it at the end."""
    path = path.absolute()
    lock = _held.get(path) or _acquire(path, target, purpose, wait=wait)
    if lock is None:
        yield
        return
    _held[path] = lock
    lock.count += 1
    try:
        yield
    finally:
        lock.count -= 1
        if not lock.count:
            del _held[path]
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
            lock.file.release()


def _acquire(path: Path, target: Path, purpose: str, *, wait: float) -> _Lock | None:
    """Lock a file; return None where files cannot be locked or nothing can be written."""
    inodes: list[int] = []
    file = FileLock(
        path,
        timeout=wait,
        mode=0o666,  # the next process may be another user's
        thread_local=False,
        fallback_to_soft=False,
        on_acquired=lambda descriptor: inodes.append(os.fstat(descriptor).st_ino),
    )
    try:
        file.acquire()
    except Timeout as error:
        raise UsageError(f"{target} is in use by {_holder(path)}; wait for it, stop it, or choose another") from error
    except (OSError, NotImplementedError) as error:
        code = getattr(error, "errno", errno.ENOSYS)
        if code in READ_ONLY:  # what is only read needs no lock, and a write says by itself that it fails
            return None
        if code in WITHOUT_LOCKS:
            warn(f"{target} is on a drive without locks: start no second process that writes there")
            return None
        raise OutputError(f"{target} cannot be written to: {os.strerror(code)}; choose another folder") from error
    # A holder removes its lock file before it frees the lock, so the file that was opened here may be a removed one.
    if not path.exists() or path.stat().st_ino != inodes[-1]:
        file.release()
        return _acquire(path, target, purpose, wait=wait)
    lock = _Lock(file, path, _this_process(purpose))
    lock.write()
    return lock


def _is_free(path: Path, folder: Path) -> bool:
    """Tell whether a share's lock file was left by a process that has ended."""
    try:
        with _locked(path, folder, "look"):
            return True
    except UsageError:
        return False


def _shares(folder: Path) -> list[Path]:
    return sorted(folder.glob(".cig.*-of-*.lock"))


def _this_process(purpose: str) -> dict[str, Any]:
    return {
        "pid": os.getpid(),
        "host": platform.node(),
        "purpose": purpose,
        "command": shlex.join(sys.argv),
        "since": datetime.now().astimezone().isoformat(timespec="seconds"),
    }


def _read_record(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError):  # just made, just removed, or not ours
        return {}
    return record if isinstance(record, dict) else {}


def _holder(path: Path) -> str:
    record = _read_record(path)
    if not record:
        return "another process"
    names = {key: str(record.get(key, "?"))[:300] for key in ("pid", "host", "command", "since", "purpose")}
    return "process {pid} on {host} ({purpose}: `{command}`, since {since})".format(**names)
