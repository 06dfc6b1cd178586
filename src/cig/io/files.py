"""Files: written whole or not at all, read with checks, found by query id, known by their content."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import io
import json
import os
import platform
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cig.errors import InputError, MismatchError, NotFoundError, OutputError, reason, some
from cig.io import hub

if TYPE_CHECKING:
    from PIL.Image import Image


# Writing


def make_folder(path: Path) -> Path:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        raise OutputError(f"{path} cannot be made: {reason(error)}; choose another folder") from error
    return path


def write_bytes(path: Path, data: bytes, sync: bool = True) -> None:
    """Whole or not at all: a kill leaves the old file or the new one, and perhaps a `.part`, which sweep removes.

    Args:
        sync: it is on the disk when this returns; without, a power failure may tear it, but no kill does.
    """
    make_folder(path.parent)
    aside = path.with_name(f".{path.name}.{_HOST}-{os.getpid()}.part")  # no two processes write one file
    with writing(path):
        try:
            with aside.open("wb") as file:
                file.write(data)
                file.flush()
                if sync:
                    os.fsync(file.fileno())
            os.replace(aside, path)
        except OSError:
            with contextlib.suppress(OSError):
                aside.unlink(missing_ok=True)
            raise


_HOST = hashlib.sha256(platform.node().encode()).hexdigest()[:12]


def sweep(folder: Path) -> None:
    """Removes what killed processes of this machine were writing in a folder."""
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
    """An OSError in it becomes an OutputError that names the folder."""
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"{path.name} cannot be written to {path.parent}: {error.strerror}; free space or choose another folder. "
            f"What was finished is kept, and a rerun goes on from there"
        ) from error


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
    """Of a regular file only: a pipe or a device would never end.

    Raises:
        NotFoundError: it is not there.
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


def names_in(folder: Path) -> list[str]:
    """The names in a folder, sorted; raises NotFoundError or InputError."""
    if not os.path.isdir(folder):  # unlike Path.is_dir, no name is too long for it
        raise NotFoundError(f"{folder} is not a folder")
    try:
        return sorted(os.listdir(folder))
    except OSError as error:
        raise InputError(f"{folder} cannot be listed: {error.strerror}") from error


# JSON

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


# Digests: what a model or a file is, whatever it is called


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def digest_of(value: Any) -> str:
    """Of settings: the same whatever the order of their keys. 16 hex digits."""
    return digest(json.dumps(value, sort_keys=True).encode())[:16]


def set_digest(digests: Iterable[str]) -> str:
    """Of a set of contents, whatever their names and order."""
    return digest("\n".join(sorted(digests)).encode())


def file_digest(path: Path) -> str:
    """sha256 of the content; a large file is read once a process while it does not change."""
    status = stat_file(path)
    return _digest_once(path, status.st_size, status.st_mtime_ns) if status.st_size > 2**20 else _digest_file(path)


def _digest_file(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error


@lru_cache(maxsize=4096)
def _digest_once(path: Path, size: int, changed: int) -> str:
    return _digest_file(path)


Hashed = Callable[[Path], str]


def folder_digest(folder: Path, hashed: Hashed = file_digest) -> str:
    """Of a model's folder: its configuration and weight files; what is kept in folders below is none of it."""
    suffixes = {".json", ".safetensors", ".bin", ".txt"}
    files = sorted(path for path in folder.glob("*") if path.suffix in suffixes and path.is_file())
    lines = [f"{path.relative_to(folder)} {hashed(path)}" for path in files]
    return digest("\n".join(lines).encode())


def identity(
    source: str | Path, cache_dir: Path | None = None, config: str = "config.json", hashed: Hashed = file_digest
) -> dict[str, str]:
    """What stands behind a folder, a file or a hub id: a content digest, or the revision in the hub's cache.

    Args:
        hashed: path -> sha256; one with a memory need not read gigabytes again.
    """
    path = Path(source)
    if os.path.isdir(path):
        return {"source": str(source), "sha256": folder_digest(path, hashed)}
    if os.path.isfile(path):
        return {"source": str(source), "sha256": hashed(path)}
    from huggingface_hub import try_to_load_from_cache

    try:
        revision = hub.commit_of(source, cache_dir)
        cached = try_to_load_from_cache(str(source), config, cache_dir=cache_dir, revision=revision)
    except ValueError:  # no hub id either, as whoever loads it will say
        cached = None
    return {"source": str(source), "revision": Path(cached).parent.name if isinstance(cached, str) else "unknown"}


def fingerprints(models: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """What settings say of models: content digests or revisions, not the places they came from."""
    return {name: model.get("sha256") or f"{model['source']}@{model['revision']}" for name, model in models.items()}


# Names of files by query id

UNSAYABLE = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")  # control characters, and halves of characters


def picture_name(query: str) -> str:
    """Integer ids are padded to five digits, as the published retrieval reads them."""
    return f"{int(query):05d}.png" if query.isdecimal() else f"{query}.png"


def find_by_id(folder: Path, ids: Iterable[str], suffixes: Sequence[str]) -> dict[str, Path]:
    """The file of each id, padded or unpadded.

    Raises:
        NotFoundError: the folder is not there.
        MismatchError: two files claim one id and differ.
    """
    stems = _by_stem(folder, suffixes)
    found = {query: _one_of(query, stems, stems_of(query)) for query in ids}
    return {query: path for query, path in found.items() if path}


def find_several_by_id(folder: Path, ids: Iterable[str], suffixes: Sequence[str]) -> dict[str, tuple[Path, ...]]:
    """The files of each id: as find_by_id, then `{id}_{j}`, by j, unless that name is itself an id."""
    stems, ids = _by_stem(folder, suffixes), dict.fromkeys(ids)
    numbers: dict[str, set[str]] = {}
    for base, mark, number in (stem.rpartition("_") for stem in stems if stem not in ids):
        if mark and number.isascii() and number.isdecimal():
            numbers.setdefault(base, set()).add(number)
    found = {}
    for query in ids:
        own = stems_of(query)
        several = sorted({number for stem in own for number in numbers.get(stem, ())}, key=lambda j: (len(j), j))
        tries = [own, *([f"{stem}_{number}" for stem in own] for number in several)]
        found[query] = tuple(path for names in tries if (path := _one_of(query, stems, names)))
    return {query: paths for query, paths in found.items() if paths}


def _by_stem(folder: Path, suffixes: Sequence[str]) -> dict[str, list[Path]]:
    stems: dict[str, list[Path]] = {}
    for path in map(folder.joinpath, names_in(folder)):
        if path.suffix.lower() in suffixes:
            stems.setdefault(path.stem, []).append(path)
    return stems


def stems_of(query: str) -> list[str]:
    """The names, without suffix, that a file of this id may have: padded, and as published ones are, unpadded."""
    return list(dict.fromkeys([Path(picture_name(query)).stem, query]))


def _one_of(query: str, stems: Mapping[str, list[Path]], names: Iterable[str]) -> Path | None:
    paths = [path for name in names for path in stems.get(name, [])]
    if len({file_digest(path) for path in paths} if len(paths) > 1 else ()) > 1:
        raise MismatchError(f"query {query} has files that differ: {some(map(str, paths))}; keep one of them")
    return paths[0] if paths else None
