"""Files shared with other programs: annotations, composed embeddings, phi checkpoints, manifests.

Every read is checked and never runs a pickle; every write is whole or not there (written aside, then renamed).
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import pickletools
import platform
import re
import stat
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cig.errors import InputError, MismatchError, NotFoundError, OutputError, reason, some
from cig.types import ComposedEmbedding

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

EMBEDDING_KEYS = ("conditioning", "conditioning2", "pooled", "pooled2")
FLOATS = ("torch.float16", "torch.bfloat16", "torch.float32", "torch.float64")
LONGEST_NAME = 10_000  # in a pickle


# Writing


def make_folder(path: Path) -> Path:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        raise OutputError(f"{path} cannot be made: {reason(error)}; choose another folder") from error
    return path


def write_bytes(path: Path, data: bytes) -> None:
    """Whole or not at all: a kill leaves the old file or the new one, and perhaps a `.part`, which sweep removes."""
    make_folder(path.parent)
    aside = path.with_name(f".{path.name}.{_HOST}-{os.getpid()}.part")  # no two processes write one file
    with _writing(path):
        try:
            with aside.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(aside, path)
        except OSError:
            with contextlib.suppress(OSError):
                aside.unlink(missing_ok=True)
            raise


_HOST = re.sub(r"[^A-Za-z0-9]", "", platform.node())[:32]


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
def _writing(path: Path) -> Iterator[None]:
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
    """Of a model's folder: its configuration and weight files."""
    suffixes = {".json", ".safetensors", ".bin", ".txt"}
    files = sorted(path for path in folder.rglob("*") if path.suffix in suffixes and path.is_file())
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
        cached = try_to_load_from_cache(str(source), config, cache_dir=cache_dir)
    except ValueError:  # no hub id either, as whoever loads it will say
        cached = None
    return {"source": str(source), "revision": Path(cached).parent.name if isinstance(cached, str) else "unknown"}


def fingerprints(models: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """What settings say of models: content digests or revisions, not the places they came from."""
    return {name: model.get("sha256") or f"{model['source']}@{model['revision']}" for name, model in models.items()}


# Tensors


def read_tensors(path: Path) -> dict[str, Any]:
    """A `.pt` file as a dict; weights only, because a pickle from a stranger is a program."""
    import torch

    data = read_bytes(path)
    try:
        _refuse_bombs(data)
        loaded = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:
        raise InputError(f"{path} cannot be read as tensors (pickled programs are refused): {reason(error)}") from error
    if not isinstance(loaded, dict):
        raise InputError(f"{path}: expected a dict of tensors, found {type(loaded).__name__}")
    return loaded


def _refuse_bombs(data: bytes) -> None:
    """Raises ValueError for what would fill the memory, or keep torch busy for hours.

    torch searches what it says of a refused name with a pattern that takes the square of the name's length.
    """
    for pickled in _pickles(data):
        for _, argument, _ in pickletools.genops(pickled):
            if isinstance(argument, str) and len(argument) > LONGEST_NAME:
                raise ValueError(f"a name of {len(argument)} characters")


def _pickles(data: bytes) -> Iterator[io.BytesIO]:
    """The pickles of a `.pt` file: members of an archive or, as torch saved before 1.6, five in a row."""
    if not data.startswith(b"PK\x03\x04"):
        yield from [io.BytesIO(data)] * 5  # one stream: each is read to its end
        return
    archive = zipfile.ZipFile(io.BytesIO(data))
    unpacked = sum(member.file_size for member in archive.infolist())
    if unpacked > len(data):  # torch.save does not compress
        raise ValueError(f"an archive of {len(data)} bytes that unpacks to {unpacked}")
    for member in archive.infolist():
        if member.filename.lower().endswith(".pkl"):
            yield io.BytesIO(archive.read(member))


def is_plain(value: Any) -> bool:
    """A dense tensor of floats, each in memory: not sparse, quantized, on no device, or one number seen 2^40 times."""
    import torch

    if not isinstance(value, torch.Tensor) or str(value.dtype) not in FLOATS:
        return False
    if value.layout is not torch.strided or value.device.type != "cpu" or value.is_nested:
        return False
    return 0 < value.numel() * value.element_size() <= value.untyped_storage().nbytes()


def write_embedding(path: Path, composed: ComposedEmbedding, row: int) -> None:
    """One query's `{id}.pt`, with the published keys; saved through a buffer so that bytes do not depend on a name."""
    import torch

    tensors = {
        "conditioning": composed.conditioning[row],
        "conditioning2": composed.conditioning2[row],
        "pooled": composed.last[row],
        "pooled2": composed.pooled2[row],
    }
    buffer = io.BytesIO()
    torch.save({key: tensor.detach().cpu().clone() for key, tensor in tensors.items()}, buffer)
    write_bytes(path, buffer.getvalue())


def read_embedding(path: Path) -> dict[str, Tensor]:
    """conditioning [L, h1], conditioning2 [L, h2], pooled [L, h1], pooled2 [p2]; published files may lead with a 1.

    Raises:
        InputError: a key is absent (pooled may be: no generator reads it), a shape is wrong, a value is not finite.
    """
    loaded = read_tensors(path)
    dims = {"conditioning": 2, "conditioning2": 2, "pooled2": 1} | ({"pooled": 2} if "pooled" in loaded else {})
    return {key: _tensor(loaded, key, dim, path) for key, dim in dims.items()}


def _tensor(loaded: Mapping[str, Any], key: str, dim: int, path: Path) -> Tensor:
    import torch

    value = loaded.get(key)
    if not isinstance(value, torch.Tensor):
        raise InputError(f'{path}: no tensor "{key}"; it has {some(map(str, loaded))}')
    if not is_plain(value):
        raise InputError(f'{path}: "{key}" should be a dense tensor of floats, found {value.dtype} on {value.device}')
    if value.dim() == dim + 1 and value.shape[0] == 1:
        value = value[0]
    if value.dim() != dim:
        raise InputError(f'{path}: "{key}" is {tuple(value.shape)}, expected {dim} dimensions')
    if not torch.isfinite(value).all():
        raise InputError(f'{path}: "{key}" has values that are not finite')
    return value


def stack_embeddings(ids: Sequence[str], rows: Sequence[Mapping[str, Tensor]]) -> ComposedEmbedding:
    """Files of one run as a batch; raises MismatchError where their shapes differ."""
    import torch

    shapes = {tuple(tuple(row[key].shape) for key in ("conditioning", "conditioning2", "pooled2")) for row in rows}
    if len(shapes) > 1:
        raise MismatchError(f"the embeddings of {some(ids)} differ in shape: {sorted(shapes)}; extract them in one run")
    stacked = {key: torch.stack([row[key] for row in rows]) for key in ("conditioning", "conditioning2", "pooled2")}
    last = torch.stack([row.get("pooled", row["conditioning"]) for row in rows])
    return ComposedEmbedding(tuple(ids), last=last, **stacked)


# Names of files by query id


def picture_name(query: str) -> str:
    """Integer ids are padded to five digits, as the published retrieval reads them."""
    return f"{int(query):05d}.png" if query.isdecimal() else f"{query}.png"


def find_by_id(folder: Path, ids: Iterable[str], suffixes: Sequence[str]) -> dict[str, Path]:
    """The file of each id, padded or unpadded.

    Raises:
        NotFoundError: the folder is not there.
        MismatchError: two files claim one id and differ.
    """
    stems: dict[str, list[Path]] = {}
    for path in map(folder.joinpath, names_in(folder)):
        if path.suffix.lower() in suffixes:
            stems.setdefault(path.stem, []).append(path)
    found = {query: _one_of(query, stems) for query in ids}
    return {query: path for query, path in found.items() if path}


def _one_of(query: str, stems: Mapping[str, list[Path]]) -> Path | None:
    names = dict.fromkeys([Path(picture_name(query)).stem, query])
    paths = [path for name in names for path in stems.get(name, [])]
    if len({file_digest(path) for path in paths} if len(paths) > 1 else ()) > 1:
        raise MismatchError(f"query {query} has files that differ: {some(map(str, paths))}; keep one of them")
    return paths[0] if paths else None


# The manifest: one JSON line per query, the last line of an id wins


class Manifest:
    """What a folder of outputs holds, and by which settings it was made.

    `manifest.jsonl` has one line per query; `settings.json` spells out the settings behind each digest, so that a
    rerun with others can say what differs.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any], overwrite: bool = False) -> None:
        """Raises MismatchError if the folder was made with other settings and overwrite is off."""
        self.folder = make_folder(folder)
        sweep(folder)
        self.path = folder / "manifest.jsonl"
        self.settings = dict(settings)
        self.digest = digest_of(self.settings)
        self.lines = {} if overwrite else self.read(folder)
        self._refuse_other_settings()
        known = self._known_settings()
        if self.digest not in known:
            write_json(folder / "settings.json", {**known, self.digest: self.settings}, indent=1)

    def add(self, line: Mapping[str, Any]) -> None:
        """Appended before the file it speaks of is renamed into place: a line without its file is done again."""
        line = {**line, "settings": self.digest}
        with _writing(self.path):
            torn = self.path.exists() and self.path.stat().st_size and not self._ends_in_newline()
            with self.path.open("a", encoding="utf-8") as file:
                file.write(("\n" if torn else "") + json.dumps(line) + "\n")
                file.flush()
                os.fsync(file.fileno())
        self.lines[line["id"]] = line

    def _ends_in_newline(self) -> bool:
        with self.path.open("rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read() == b"\n"

    @staticmethod
    def read(folder: Path) -> dict[str, dict[str, Any]]:
        """Query id -> its last line; empty where there is no manifest."""
        path = folder / "manifest.jsonl"
        texts = read_bytes(path).splitlines() if os.path.exists(path) else ()
        lines = filter(None, map(_manifest_line, texts))
        return {line["id"]: line for line in lines}

    def _known_settings(self) -> dict[str, Any]:
        path = self.folder / "settings.json"
        known = read_object(path) if path.exists() else {}
        if not all(isinstance(settings, dict) for settings in known.values()):
            raise InputError(f"{path}: not settings by their digest; use another folder")
        return known

    def _refuse_other_settings(self) -> None:
        known = self._known_settings()
        for other in {line.get("settings") for line in self.lines.values()} - {self.digest}:
            theirs = known.get(str(other), {})
            keys = sorted(set(theirs) | set(self.settings))
            differ = [
                f"{key}: {theirs.get(key)!r} there, {self.settings.get(key)!r} now"
                for key in keys
                if theirs.get(key) != self.settings.get(key)
            ]
            raise MismatchError(
                f"{self.folder} was made with other settings ({some(differ)}); use another folder, or --overwrite"
            )


MANIFEST_TYPES: dict[str, type] = {"id": str, "settings": str, "accepted": bool, "attempts": int}


def _manifest_line(text: bytes) -> dict[str, Any] | None:
    """None for a line torn by a kill, or not ours: its query counts as not done and is done again."""
    try:
        line = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(line, dict) or "id" not in line:
        return None
    return line if all(isinstance(line.get(key, kind()), kind) for key, kind in MANIFEST_TYPES.items()) else None
