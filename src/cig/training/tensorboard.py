"""Curves for TensorBoard."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from cig.errors import UsageError
from cig.training import processes


class Curves:
    """Event files in a folder, written by the first process; without a folder, nothing is written.

    Raises:
        UsageError: tensorboard is not installed, or the folder cannot be made.
    """

    def __init__(self, folder: Path | None) -> None:
        self._writer = None
        if folder is None or processes.rank() > 0:
            return
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise UsageError("--tensorboard needs tensorboard: pip install 'cig[train]'") from error
        try:
            self._writer = SummaryWriter(str(folder))  # type: ignore[no-untyped-call]
        except OSError as error:
            raise UsageError(f"--tensorboard {folder} cannot be a folder: {error.strerror}") from error

    def put(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items() if self._writer else ():
            self._writer.add_scalar(name, value, step)  # type: ignore[union-attr]

    def close(self) -> None:
        if self._writer:
            self._writer.close()
