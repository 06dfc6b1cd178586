"""Pictures decoded while a step is computed; one that cannot be read gives its place to the next, and is named."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cig.errors import InputError, PictureError
from cig.io.files import make_folder
from cig.io.images import Preprocess, read_pixels
from cig.io.json_files import append_json
from cig.runtime import say

UNREADABLE = "unreadable.jsonl"
MOST_IN_A_ROW = 100  # pictures that cannot be read, before the folder is taken to be damaged
TOLD = 20  # of them, on a card


class Unreadable:
    """Pictures that could not be read, in a file beside the model: a rerun leaves them out, too."""

    def __init__(self, path: Path) -> None:
        self.path, self.known = path, _noted(path)

    def note(self, name: str, why: str) -> None:
        if name not in self.known:
            self.known[name] = why
            make_folder(self.path.parent)
            append_json(self.path, {"picture": name, "why": why})
            say(f"left out: {why}")


def facts_of_unreadable(out: Path) -> Mapping[str, Any]:
    """What a card says of them, whichever process met them; nothing where there were none."""
    known = _noted(out / UNREADABLE)
    return {"unreadable": {"count": len(known), "pictures": dict(list(known.items())[:TOLD])}} if known else {}


def _noted(path: Path) -> dict[str, str]:
    """Picture -> why; a line that a kill tore is passed over, and its picture noted again."""
    known = {}
    for line in path.read_text("utf-8").splitlines() if path.is_file() else ():
        try:
            row = json.loads(line)
            known[str(row["picture"])] = str(row["why"])
        except (ValueError, KeyError, TypeError):
            continue
    return known


class Decoder:
    """Pixels of listed pictures.

    Args:
        names: what the pictures are called in messages.
        path_at: place -> path.
        workers: threads.
    """

    def __init__(
        self,
        names: Sequence[str],
        path_at: Callable[[int], Path],
        preprocess: Preprocess,
        unreadable: Unreadable,
        workers: int,
    ) -> None:
        self.names, self.path_at, self.preprocess, self.unreadable = names, path_at, preprocess, unreadable
        self.pool = ThreadPoolExecutor(max(workers, 1))
        self.ahead: dict[int, Future[Tensor]] = {}

    def read(self, places: Sequence[int], following: Sequence[int]) -> tuple[list[int], Tensor]:
        """The pictures at these places, or the next readable ones: their own places, and [B, 3, S, S].

        Args:
            following: the places of the next step, which are decoded meanwhile.

        Raises:
            InputError: a hundred in a row cannot be read.
        """
        jobs = {place: self.ahead.get(place) or self._begun(place) for place in places}
        self.ahead = {place: jobs.get(place) or self._begun(place) for place in following}
        found = [self._from(place, jobs[place]) for place in places]
        return [place for place, _ in found], torch.stack([pixels for _, pixels in found])

    def _begun(self, place: int) -> Future[Tensor]:
        return self.pool.submit(read_pixels, self.path_at(place), self.preprocess)

    def _from(self, place: int, job: Future[Tensor] | None) -> tuple[int, Tensor]:
        """A picture and its place, or the next one's that can be read."""
        for _ in range(min(MOST_IN_A_ROW, len(self.names))):
            try:
                if self.names[place] not in self.unreadable.known:
                    return place, (job or self._begun(place)).result()
            except PictureError as error:
                self.unreadable.note(self.names[place], str(error))
            place, job = (place + 1) % len(self.names), None
        why = next(reversed(self.unreadable.known.values()))
        raise InputError(f"too many pictures in a row cannot be read, the last because: {why}")
