"""Rewrite: caption each reference, and let a language model describe the target, as CIReVL does (ICLR 2024).

The file's first line holds the settings, each other line a query: {"id", "caption", "texts", "change", "picture"}. The
method `texts` reads it. A rerun keeps what fits the settings, the change and the picture's content.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from cig.benchmarks import Data
from cig.errors import MismatchError, PictureError, UsageError, plain
from cig.io.chat_service import ChatService
from cig.io.digests import file_digest, fingerprints, identity
from cig.io.files import make_folder, read_bytes, write_bytes
from cig.io.images import read_picture, upright
from cig.io.json_files import append_json
from cig.io.locks import hold_file
from cig.runtime import Compute, resolve_device, resolve_dtype
from cig.types import Query

PROMPT = (
    "A picture shows: {caption}\nSomeone wants that picture with this change: {change}\n"
    "Describe the wanted picture in one short sentence. Write the sentence alone."
)
LONGEST_TEXT = 60  # new tokens
LONGEST_CAPTION = 60  # new tokens, of a model that is asked by a prompt
MOST_LETTERS = 500  # of a text


@dataclass(frozen=True)
class Rewriting:
    """Which models write, and what they are asked."""

    captioner: str
    llm: str
    llm_model: str = ""
    prompt: str = PROMPT
    caption_prompt: str | None = None

    def __post_init__(self) -> None:
        if "{caption}" not in self.prompt or "{change}" not in self.prompt:
            raise UsageError("--prompt lacks {caption} or {change}, where the caption and the change are written")
        if self.remote and not self.llm_model:
            raise UsageError(f"--llm {plain(self.llm, 100)} is an address: name its model by --llm-model")

    @property
    def remote(self) -> bool:
        return self.llm.startswith(("http://", "https://"))


@dataclass
class Rewritten:
    """How a call went."""

    kept: int = 0
    written: int = 0
    missing: dict[str, str] = field(default_factory=dict)  # query -> why it has no text


def rewrite(data: Data, compute: Compute, rewriting: Rewriting, *, out: Path, overwrite: bool = False) -> Rewritten:
    """Write a text for every query; models load only if something is to be written.

    Raises:
        UsageError: several parts, whose ids are the same.
        MismatchError: the file was written with other settings, and overwrite is off.
        InputError: the service cannot be asked, or a model cannot be loaded.
    """
    parts = data.load("val")
    if len(parts) > 1:
        hint = "give one: --categories dress, or one split"
        raise UsageError(f"{data.family} has parts whose queries have the same ids; {hint}")
    if rewriting.remote:
        ChatService(rewriting.llm, rewriting.llm_model)
    make_folder(out.parent)
    with hold_file(out, "cig rewrite"):
        settings = _settings(rewriting, compute, parts[0].name)
        lines = None if overwrite else _read(out, settings)
        if lines is None:
            write_bytes(out, (json.dumps({"settings": settings}) + "\n").encode())
        done, writer = Rewritten(), _Writer(rewriting, compute)
        for query in parts[0].queries:
            path = parts[0].images.get(query.reference)
            if path is None:
                done.missing[query.id] = parts[0].why_missing(query.reference)
                continue
            _rewrite_one(query, path, lines or {}, out=out, writer=writer, done=done)
    return done


def _rewrite_one(
    query: Query, path: Path, lines: Mapping[str, Any], *, out: Path, writer: _Writer, done: Rewritten
) -> None:
    change, line = " and ".join(query.captions), lines.get(query.id, {})
    try:
        content = file_digest(path)
        if (line.get("picture"), line.get("change")) == (content, change):
            done.kept += 1
            return
        caption = writer.caption(path, content)
    except PictureError as error:
        done.missing[query.id] = str(error)
        return
    text = tidy(writer.write(caption, change))
    if not text:
        done.missing[query.id] = "the language model answered nothing"
        return
    entry = {"id": query.id, "caption": caption, "texts": [text], "change": change, "picture": content}
    append_json(out, entry, sync=False)
    done.written += 1


def tidy(text: str) -> str:
    """Return an answer's first line without quotes, on one line, of at most 500 printable letters."""
    first = next((line for line in text.splitlines() if line.strip()), "")
    return plain(" ".join(first.split()).strip("\"'`* "), MOST_LETTERS)


class _Writer:
    """The two models, loaded when they are first used; a picture is captioned once, whatever its names."""

    def __init__(self, rewriting: Rewriting, compute: Compute) -> None:
        self.rewriting, self.compute, self.captions = rewriting, compute, dict[str, str]()
        self.device = resolve_device(compute.device)
        self.dtype = resolve_dtype(compute.dtype, self.device)
        self._captioner = cache(self._load_captioner)
        self._llm = cache(self._load_llm)

    def caption(self, path: Path, content: str) -> str:
        if content not in self.captions:
            describe = self._captioner()
            picture = upright(read_picture(path).image)
            self.captions[content] = plain(" ".join(describe(picture).split()), MOST_LETTERS)
        return self.captions[content]

    def write(self, caption: str, change: str) -> str:
        prompt = self.rewriting.prompt.replace("{change}", change).replace("{caption}", caption)
        return self._llm()(prompt)

    def _load_captioner(self) -> Callable[[Any], str]:
        from cig.models.captioner import load_captioner
        from cig.models.vision_language import VisionLanguage

        source, prompt = self.rewriting.captioner, self.rewriting.caption_prompt
        if prompt is None:
            captioner = load_captioner(source, self.device, self.dtype, cache_dir=self.compute.cache_dir)
            return lambda picture: captioner([picture])[0]
        model = VisionLanguage(source, self.device, self.dtype, cache_dir=self.compute.cache_dir)
        return lambda picture: model.answer([picture], prompt, LONGEST_CAPTION)

    def _load_llm(self) -> Callable[[str], str]:
        from cig.training.data.language_model import load_language_model

        if self.rewriting.remote:
            service = ChatService(self.rewriting.llm, self.rewriting.llm_model)
            return lambda prompt: service.answer(prompt, LONGEST_TEXT)
        model = load_language_model(self.rewriting.llm, self.device, self.dtype, cache_dir=self.compute.cache_dir)
        return lambda prompt: model.answered(prompt, LONGEST_TEXT)


def _settings(rewriting: Rewriting, compute: Compute, benchmark: str) -> dict[str, Any]:
    """Return everything that changes a text; models by their digests, so that a folder may move."""
    from cig.models._pretrained import model_folder

    models = {"captioner": rewriting.captioner} | ({} if rewriting.remote else {"llm": rewriting.llm})
    for kind, source in models.items():
        if not os.path.exists(source):
            model_folder(source, compute.cache_dir, kind)  # fetched now, so that its revision is known
    digests = fingerprints({kind: identity(source, compute.cache_dir) for kind, source in models.items()})
    names = {kind: source if not os.path.exists(source) else Path(source).name for kind, source in models.items()}
    remote = {"llm": {"address": rewriting.llm, "model": rewriting.llm_model}} if rewriting.remote else {}
    return {
        "benchmark": benchmark,
        **{kind: {"name": names[kind], "digest": digests[kind]} for kind in models},
        **remote,
        "caption_prompt": rewriting.caption_prompt,
        "prompt": rewriting.prompt,
        "tokens": LONGEST_TEXT,
        "dtype": compute.dtype,
    }


def _read(path: Path, settings: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return a file's lines by id, without a torn last one, or None without a file; MismatchError: other settings."""
    if not os.path.exists(path):
        return None
    records = [record for line in read_bytes(path).splitlines() if (record := _record(line))]
    before = records[0].get("settings") if records else None
    if not isinstance(before, dict):
        raise MismatchError(f"{path} was not written by cig rewrite; give another --out, or --overwrite")
    changed = [key for key in {**before, **settings} if before.get(key) != settings.get(key)]
    if changed:
        raise MismatchError(f"{path} was written with another {', '.join(changed)}; another --out, or --overwrite")
    return {str(record["id"]): record for record in records[1:] if "id" in record}


def _record(line: bytes) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return record if isinstance(record, dict) else {}
