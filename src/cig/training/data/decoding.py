"""Decoding of pictures while a step is computed; a picture that cannot be read is replaced by the next, and named."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cig.errors import InputError, PictureError, UsageError
from cig.io.files import make_folder
from cig.io.images import ToPixels, read_pixels
from cig.io.json_files import append_json
from cig.runtime import warn
from cig.training import processes
from cig.training.step import Order, Step

UNREADABLE = "unreadable.jsonl"
MOST_IN_A_ROW = 100  # pictures that cannot be read, before the folder is taken to be damaged
LISTED = 20  # unreadable pictures on a card


class UnreadablePictures:
    """Pictures that could not be read, in a file beside the model, so that a rerun leaves them out as well.

    The bits of a resumed run depend on this file: the picture that replaces an unreadable one must be the same again.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.reasons = path, _read_reasons(path)

    def add(self, name: str, why: str) -> None:
        if name not in self.reasons:
            self.reasons[name] = why
            make_folder(self.path.parent)
            append_json(self.path, {"picture": name, "why": why})
            warn(f"left out: {why}")


def facts_of_unreadable(out: Path) -> Mapping[str, Any]:
    """Return the unreadable pictures of all processes for the card; nothing if there are none."""
    reasons = _read_reasons(out / UNREADABLE)
    listed = dict(list(reasons.items())[:LISTED])
    return {"unreadable": {"count": len(reasons), "pictures": listed}} if reasons else {}


def _read_reasons(path: Path) -> dict[str, str]:
    """Read why each picture is unreadable; skip half a line, which a kill leaves: its picture is added again."""
    reasons = {}
    for line in path.read_text("utf-8").splitlines() if path.is_file() else ():
        try:
            row = json.loads(line)
            reasons[str(row["picture"])] = str(row["why"])
        except (ValueError, KeyError, TypeError):
            continue
    return reasons


class Decoder:
    """A decoder of listed pictures, which reads the next step's pictures ahead in threads.

    Args:
        names: of the pictures, for messages.
        path_at: returns the path of the picture at an index.
        workers: threads.
    """

    def __init__(
        self,
        names: Sequence[str],
        path_at: Callable[[int], Path],
        preprocess: ToPixels,
        *,
        unreadable: UnreadablePictures,
        workers: int,
    ) -> None:
        self.names, self.path_at, self.preprocess, self.unreadable = names, path_at, preprocess, unreadable
        self.pool = ThreadPoolExecutor(max(workers, 1))
        self.ahead: dict[int, Future[Tensor]] = {}

    def read_step(self, order: Order, step: Step, count: int, *, what: str) -> tuple[Tensor, list[int], slice]:
        """Return the pixels of this process's share of a step, the indices of the whole step, and the share.

        Raises:
            UsageError: a step has more pictures than there are, so it would have some of them twice.
        """
        if count > order.count:
            most = order.count
            raise UsageError(f"--batch-size {count} is more than the {most} {what}; give --batch-size {most} or less")
        share = step.rank_slice(count)
        now, following = (order.indices(number, count)[share] for number in (step.number, step.number + 1))
        indices, pixels = self.read(now, following)
        return pixels, processes.gathered_indices(indices), share

    def read(self, indices: Sequence[int], following: Sequence[int]) -> tuple[list[int], Tensor]:
        """Decode the pictures at these indices; return the indices that were read, and their pixels [B, 3, S, S].

        Args:
            following: the indices of the next step, which are decoded meanwhile.

        Raises:
            InputError: a hundred in a row cannot be read.
        """
        jobs = {index: self.ahead.get(index) or self._submit(index) for index in indices}
        self.ahead = {index: jobs.get(index) or self._submit(index) for index in following}
        read = [self._next_readable(index, jobs[index]) for index in indices]
        return [index for index, _ in read], torch.stack([pixels for _, pixels in read])

    def _submit(self, index: int) -> Future[Tensor]:
        return self.pool.submit(read_pixels, self.path_at(index), self.preprocess)

    def _next_readable(self, index: int, job: Future[Tensor] | None) -> tuple[int, Tensor]:
        """Return the first readable picture from this index on, and its index."""
        for _ in range(min(MOST_IN_A_ROW, len(self.names))):
            try:
                if self.names[index] not in self.unreadable.reasons:
                    return index, (job or self._submit(index)).result()
            except PictureError as error:
                self.unreadable.add(self.names[index], str(error))
            index, job = (index + 1) % len(self.names), None
        why = next(reversed(self.unreadable.reasons.values()))
        raise InputError(f"too many pictures in a row cannot be read, the last because: {why}")
