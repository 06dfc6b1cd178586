"""A folder of pseudo-words, made batch by batch, perhaps by several runs at once; bound into one when all are there."""

from __future__ import annotations

import io
import pickle
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cig.io.files import remove, write_bytes
from cig.io.json_files import write_json
from cig.io.manifest import Manifest
from cig.io.tensors import read_tensors
from cig.methods.oti import model_name
from cig.models.clip import Clip
from cig.runtime import versions

BATCHES = "batches"
STEMS = ("ema_oti_pseudo_tokens", "oti_pseudo_tokens")  # the running means, the last words


@dataclass(frozen=True)
class Made:
    """What the folder holds after a run."""

    batches: int  # that this run made
    there: int  # batches of all runs
    of: int  # batches in all
    words: int = 0  # once all are there
    failed: Mapping[str, str] = field(default_factory=dict)  # picture -> why it could not be read

    @property
    def whole(self) -> bool:
        return self.there == self.of


class Lexicon:
    """`manifest.jsonl` has a line for each batch: its pictures, and those that could not be read."""

    def __init__(
        self, out: Path, settings: Mapping[str, Any], overwrite: bool = False, mine: Iterable[int] = ()
    ) -> None:
        """As Manifest; `mine`: numbers of the batches that are to be made.

        Raises:
            MismatchError: the folder was made with other settings and overwrite is off.
        """
        self.out, self.manifest = out, Manifest(out, settings, overwrite, possible=[_name(number) for number in mine])
        for name in (f"{stem}{suffix}" for stem in STEMS for suffix in (".safetensors", ".pt") if overwrite):
            remove(out / name)

    def has(self, number: int) -> bool:
        return _name(number) in self.manifest.lines and self._file(number).is_file()

    def keep(self, number: int, names: Sequence[str], words: Sequence[Tensor], failed: Mapping[str, str]) -> None:
        """A line is believed only with its file beside it, so the line goes first."""
        import safetensors.torch

        line = {"id": _name(number), "pictures": list(names), "failed": dict(failed)}
        stored = dict(zip(STEMS, (own.contiguous() for own in words), strict=True))
        remove(self._file(number))  # one that --overwrite replaces
        self.manifest.add(line)
        write_bytes(self._file(number), safetensors.torch.save(stored))

    def bind(self, count: int, made: int, clip: Clip, published: bool = False) -> Made:
        """All batches as one folder that method `oti` reads, if they are there; other runs may have made some."""
        lines = self._all(count)
        failed = {name: why for line in lines.values() for name, why in line["failed"].items()}
        if len(lines) < count:
            return Made(made, len(lines), count, failed=failed)
        names = [name for line in lines.values() for name in line["pictures"]]
        parts = [read_tensors(self._file(number)) for number in lines]
        self._write({stem: torch.cat([own[stem] for own in parts]) for stem in STEMS}, names, published)
        about = {"clip_model_name": model_name(clip.identity["source"]), **self.manifest.settings}
        more = {"unreadable": failed, "versions": versions()}
        write_json(self.out / "hyperparameters.json", {**about, **more}, indent=2)
        return Made(made, count, count, len(names), failed)

    def _all(self, count: int) -> dict[int, dict[str, Any]]:
        """Of this run and others of the same settings: the lines of the batches that are there."""
        known = {**Manifest.read(self.out), **self.manifest.lines}
        own = {name: line for name, line in known.items() if line.get("settings") == self.manifest.digest}
        return {
            number: own[_name(number)]
            for number in range(count)
            if _name(number) in own and self._file(number).is_file()
        }

    def _write(self, tables: Mapping[str, Tensor], names: list[str], published: bool) -> None:
        """Ours and, if asked for, SEARLE's, whose pickle nothing of ours needs."""
        import safetensors.torch

        for stem, words in tables.items():
            write_bytes(self.out / f"{stem}.safetensors", safetensors.torch.save({"words": words}))
            if published:
                buffer = io.BytesIO()
                torch.save(words, buffer)
                write_bytes(self.out / f"{stem}.pt", buffer.getvalue())
        write_json(self.out / "image_names.json", names)
        if published:
            write_bytes(self.out / "image_names.pkl", pickle.dumps(names))

    def _file(self, number: int) -> Path:
        return self.out / BATCHES / f"{_name(number)}.safetensors"


def _name(number: int) -> str:
    return f"{number:06}"
