"""Curves for TensorBoard, by accelerate's tracker."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cig.errors import UsageError
from cig.training import processes


def open_tracker(folder: Path | None) -> Any:
    """Return a tracker that logs into a folder, in the first process; None in the others and without a folder.

    Raises:
        UsageError: tensorboard is not installed, or the folder cannot be made.
    """
    if folder is None or processes.rank() > 0:
        return None
    from accelerate.tracking import TensorBoardTracker

    tracker = TensorBoardTracker(folder.name, folder.parent)
    try:
        tracker.start()
    except ImportError as error:
        raise UsageError("--tensorboard needs tensorboard: pip install 'cig[train]'") from error
    except OSError as error:
        raise UsageError(f"--tensorboard {folder} cannot be a folder: {error.strerror}") from error
    return tracker
