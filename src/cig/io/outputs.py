"""Files and folders that a user names for results: looked at before the work, and written without loss of others."""

from __future__ import annotations

import json
import os
import re
import stat
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cig.errors import OutputError, UsageError, reason
from cig.io.files import sweep, write_bytes, writing
from cig.io.json_files import to_bytes

STANDARD = {"/dev/stdout": 1, "/dev/stderr": 2}
DESCRIPTOR = re.compile(r"/(?:dev|proc/self)/fd/(\d+)")
MODEL_FILES = (
    *("model_index.json", "adapter_config.json", "scheduler_config.json", "preprocessor_config.json"),
    *("tokenizer.json", "tokenizer_config.json", "open_clip_config.json", "training.json"),
)
MODEL_KEYS = ("model_type", "architectures", "_class_name")  # of a model's config.json
WEIGHTS = (".safetensors", ".ckpt", ".gguf", "pytorch_model.bin")
TRAINED = ("checkpoint.pt", "log.jsonl", "manifest.jsonl")  # what a training here that can go on has left


@dataclass(frozen=True)
class FileForm:
    """What an output flag writes, and how an earlier file of it is recognised."""

    what: str
    recognises: Callable[[bytes], bool]


ANY = FileForm("a file", lambda content: True)
HTML = FileForm("a web page", lambda content: bool(re.match(rb"\s*<!doctype html", content, re.IGNORECASE)))
MARKDOWN = FileForm("Markdown", lambda content: content.startswith(b"# "))
REPORT = FileForm("a report", lambda content: HTML.recognises(content) or MARKDOWN.recognises(content))
TREC_RUN = FileForm("a TREC run", lambda content: _columns_of(content) == 6)
TREC_QRELS = FileForm("TREC qrels", lambda content: _columns_of(content) == 4)
ADDRESSES = FileForm("a list of addresses", lambda content: b"://" in content[:2000])
CONCEPTS = FileForm("a table of concepts", lambda content: content.startswith((b"PAR1", b"Image Name", b'"Image Name')))

PHRASES = FileForm("phrases of `cig train phrases`", lambda content: content.lstrip()[:1] == b"{")


def _columns_of(content: bytes) -> int:
    return len(content.partition(b"\n")[0].split())


def json_form(what: str, *keys: str, parts: bool = False) -> FileForm:
    """Return the form of a JSON object with these keys, or of a list of such.

    Args:
        parts: the file is an object of such objects.
    """

    def recognises(content: bytes) -> bool:
        try:
            value = json.loads(content)
        except (ValueError, RecursionError, MemoryError):
            return False
        entries = list(value.values()) if parts and isinstance(value, dict) else value
        entries = entries if isinstance(entries, list) else [entries]
        return all(isinstance(entry, dict) and set(keys) <= set(entry) for entry in entries)

    return FileForm(what, recognises)


SCORES = json_form("scores of `cig evaluate` or `cig submit`", "benchmark", "provenance", "branches")
RANKINGS = FileForm("rankings of `cig evaluate`", lambda content: _are_rankings(content))
COMPARISON = json_form("a table of `cig compare`", "measure", "rows")
RUN_COMPARISON = json_form("a table of `cig compare`", "measures", "versus")
CHECKUPS = json_form("findings of `cig check`", "whole", "parts")
STATS = json_form("numbers of `cig stats`", "queries", "captions", parts=True)
HITS = json_form("hits of `cig search`", "hits", "text")
MODELS = json_form("a list of `cig models`", "name", "widths")
OUTCOME = json_form("what `cig download` wrote", "parts")


def _are_rankings(content: bytes) -> bool:
    try:
        value = json.loads(content)
        return all(isinstance(names, list) for queries in value.values() for names in queries.values())
    except (ValueError, RecursionError, MemoryError, AttributeError):
        return False


def check_file(path: Path, *forms: FileForm) -> None:
    """Check that results can be written to a path, before the work.

    Args:
        forms: what an earlier file there may be; an empty file may be replaced, too.

    Raises:
        UsageError: it is a folder, lies in a model's folder, or is a file of another form.
        OutputError: it cannot be written.
    """
    if is_stream(path):
        return
    target = _target(path)
    if target.is_dir():
        raise UsageError(f"{path} is a folder; name a file in it")
    if target.exists() and not target.is_file():
        raise UsageError(f"{path} is neither a file nor a pipe; name another")
    _check_writable(target.parent, path)
    if is_model_folder(target.parent):
        raise UsageError(f"{path} lies in a model's folder, which it would change; choose another folder")
    if target.exists() and (content := _read(target)) and not any(form.recognises(content) for form in forms):
        whats = " or ".join(dict.fromkeys(form.what for form in forms))
        raise UsageError(f"{path} exists and is not {whats}, so it is not overwritten; choose another name")


def check_folder(path: Path, *, trains: bool = False) -> None:
    """Check that results can be written to a folder, before the work.

    Args:
        trains: a folder that an earlier training left may be continued.

    Raises:
        UsageError: it is a model's folder, or the root of the file system.
        OutputError: it cannot be made or written to.
    """
    target = _target(path)
    if target == target.parent:
        raise UsageError(f"{path} is the root of the file system; choose another folder")
    _check_writable(target, path)
    if _is_of_others(target) if trains else is_model_folder(target) or _has_weights(target):
        raise UsageError(f"{path} is a model's folder, which results would change; choose another folder")


def _target(path: Path) -> Path:
    """Follow links; raise OutputError for a path that no file can have."""
    target = Path(os.path.realpath(path))
    try:
        target.exists()
    except OSError as error:
        raise OutputError(f"{str(path)[:80]}... cannot be written: {error.strerror}; choose another name") from error
    return target


def check_distinct(paths: Iterable[Path | None]) -> None:
    """Raise UsageError for two results in one file."""
    files = [path for path in paths if path and not is_stream(path)]
    targets = [os.path.realpath(path) for path in files]
    for path, target in zip(files, targets, strict=True):
        if targets.count(target) > 1:
            raise UsageError(f"{path} is named for two results; give each a file")


def is_model_folder(folder: Path) -> bool:
    """Tell whether a folder holds a model's configuration."""
    if any((folder / name).is_file() for name in MODEL_FILES):
        return True
    config = folder / "config.json"
    try:
        return config.is_file() and any(f'"{key}"'.encode() in config.read_bytes() for key in MODEL_KEYS)
    except OSError:
        return False


def _is_of_others(folder: Path) -> bool:
    """Tell whether a folder holds a model that no training here can go on with."""
    # A training that was stopped early has left a tokenizer and a configuration, but no weights yet.
    if any((folder / name).exists() for name in TRAINED):
        return False
    return _has_weights(folder) or (folder / "model_index.json").exists()


def _has_weights(folder: Path) -> bool:
    try:
        return any(name.endswith(WEIGHTS) for name in os.listdir(folder))
    except OSError:
        return False


def _check_writable(folder: Path, named: Path) -> None:
    """Raise OutputError unless a folder can be made and written to."""
    base = folder
    try:
        while not os.path.lexists(base):
            base = base.parent
        os.stat(base)
    except (OSError, ValueError) as error:
        raise OutputError(f"{named} cannot be made: {reason(error)}; choose another folder") from error
    if not base.is_dir():
        raise OutputError(f"{named} cannot be made: {base} is not a folder; choose another folder")
    if not os.access(base, os.W_OK | os.X_OK):
        raise OutputError(f"{named} cannot be written: {base} is read-only; choose another folder")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise OutputError(f"{path} cannot be overwritten: {reason(error)}; choose another name") from error


# Writing


def is_stream(path: Path) -> bool:
    """Tell whether a path is a pipe, a terminal or another device that takes bytes one after the other."""
    if _descriptor(path) is not None:
        return True
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)


def _descriptor(path: Path) -> int | None:
    """Return the open file that a path such as /dev/stdout or /dev/fd/63 means."""
    numbered = DESCRIPTOR.fullmatch(str(path))
    return STANDARD.get(str(path), int(numbered[1]) if numbered else None)


def write_output(path: Path, content: bytes | str) -> None:
    """Write a result: through pipes and devices, to what a link leads to, and else whole or not at all."""
    data = content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content
    if not is_stream(path):
        target = Path(os.path.realpath(path))
        sweep(target.parent)  # what a kill left of an earlier result
        write_bytes(target, data)
        return
    sys.stdout.flush()  # what was printed before comes before
    descriptor = _descriptor(path)
    with writing(path), open(path if descriptor is None else os.dup(descriptor), "wb") as file:
        file.write(data)


def write_json_output(path: Path, value: Any, indent: int | None = None) -> None:
    write_output(path, to_bytes(value, indent))
