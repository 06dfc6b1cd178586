"""A folder of pseudo-words, made batch by batch by one run or several; the last run joins the batches."""

from __future__ import annotations

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
from cig.io.weight_files import write_pt, write_safetensors
from cig.methods.oti import model_name
from cig.models.clip import Clip
from cig.runtime import versions

BATCHES = "batches"
STEMS = ("ema_oti_pseudo_tokens", "oti_pseudo_tokens")  # the running means, the last words


@dataclass(frozen=True)
class PseudoWordStatus:
    """The content of the folder after a run."""

    made: int  # batches that this run made
    present: int  # batches of all runs
    total: int  # batches in all
    words: int = 0  # once all batches are present
    failed: Mapping[str, str] = field(default_factory=dict)  # picture -> why it could not be read

    @property
    def complete(self) -> bool:
        return self.present == self.total


class PseudoWordFolder:
    """Batches of pseudo-words; `manifest.jsonl` has a line for each: its pictures, and those that are unreadable."""

    def __init__(
        self, out: Path, settings: Mapping[str, Any], overwrite: bool = False, *, numbers: Iterable[int] = ()
    ) -> None:
        """Open a folder as Manifest does; `numbers` are those of the batches that this run is to make.

        Raises:
            MismatchError: the folder was made with other settings and overwrite is off.
        """
        self.out, self.manifest = out, Manifest(out, settings, overwrite, possible=list(map(_name, numbers)))
        for name in (f"{stem}{suffix}" for stem in STEMS for suffix in (".safetensors", ".pt") if overwrite):
            remove(out / name)

    def has(self, number: int) -> bool:
        return _name(number) in self.manifest.lines and self._file(number).is_file()

    def add(self, number: int, names: Sequence[str], words: Sequence[Tensor], *, failed: Mapping[str, str]) -> None:
        """Keep a batch: the pictures' names, and a table of words for each of STEMS."""
        # A batch counts if it has both its line and its file, so a kill at any point leaves it undone. The old file
        # goes first, or the new line would vouch for words that --overwrite replaces; then the line, then the file.
        line = {"id": _name(number), "pictures": list(names), "failed": dict(failed)}
        remove(self._file(number))
        self.manifest.add(line)
        write_safetensors(self._file(number), dict(zip(STEMS, words, strict=True)))

    def join(self, count: int, made: int, clip: Clip, *, published: bool = False) -> PseudoWordStatus:
        """Write the files that method `oti` reads if all `count` batches are present, of this run and others."""
        lines = self._present(count)
        failed = {name: why for line in lines.values() for name, why in line["failed"].items()}
        if len(lines) < count:
            return PseudoWordStatus(made, len(lines), count, failed=failed)
        names = [name for line in lines.values() for name in line["pictures"]]
        parts = [read_tensors(self._file(number)) for number in lines]
        self._write({stem: torch.cat([part[stem] for part in parts]) for stem in STEMS}, names, published)
        settings = {"clip_model_name": model_name(clip.identity["source"]), **self.manifest.settings}
        more = {"unreadable": failed, "versions": versions()}
        write_json(self.out / "hyperparameters.json", {**settings, **more}, indent=2)
        return PseudoWordStatus(made, count, count, words=len(names), failed=failed)

    def _present(self, count: int) -> dict[int, dict[str, Any]]:
        """Return the lines of the batches that are present, by this run and by others of the same settings."""
        lines = {**Manifest.read(self.out), **self.manifest.lines}
        valid = {name: line for name, line in lines.items() if line.get("settings") == self.manifest.digest}
        return {
            number: valid[_name(number)]
            for number in range(count)
            if _name(number) in valid and self._file(number).is_file()
        }

    def _write(self, tables: Mapping[str, Tensor], names: list[str], published: bool) -> None:
        """Write our files and, with `published`, SEARLE's; nothing of ours reads its pickle."""
        for stem, words in tables.items():
            write_safetensors(self.out / f"{stem}.safetensors", {"words": words})
            if published:
                write_pt(self.out / f"{stem}.pt", words)
        write_json(self.out / "image_names.json", names)
        if published:
            write_bytes(self.out / "image_names.pkl", pickle.dumps(names))

    def _file(self, number: int) -> Path:
        return self.out / BATCHES / f"{_name(number)}.safetensors"


def _name(number: int) -> str:
    return f"{number:06}"
