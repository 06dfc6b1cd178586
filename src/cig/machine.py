"""The machine: its devices, disk and memory, and what a piece of work took of them."""

from __future__ import annotations

import contextlib
import platform
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def device_name(device: torch.device) -> str:
    import torch

    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device.type} ({platform.machine()})"


def disk_of(folder: Path) -> int:
    """Return the free bytes of the disk that a folder is on, or will be made on."""
    existing = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    return shutil.disk_usage(existing).free


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether a device or the machine ran out of memory. torch has a class for CUDA's error alone."""
    text = str(error)
    phrases = "out of memory", "can't allocate memory"
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(phrase in text for phrase in phrases)
    )


def free_memory() -> None:
    """Return unused memory to the device, such as that of a batch that failed."""
    import gc

    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


@dataclass
class Cost:
    """Time and memory of a piece of work; filled in at its end."""

    seconds: float = 0.0
    gigabytes: float | None = None  # peak memory: the GPU's if one was used; None where the system does not say
    device: str = ""


@contextlib.contextmanager
def measured() -> Iterator[Cost]:
    """Measure the time and peak memory of the block; a GPU's memory, or that of the whole process."""
    import torch

    cost = Cost()
    on_gpu = torch.cuda.is_available() and torch.cuda.is_initialized()  # a run on the CPU does not initialise CUDA
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    else:
        _forget_peak()
    started = time.monotonic()
    yield cost
    if on_gpu:
        torch.cuda.synchronize()
    cost.seconds = time.monotonic() - started
    cost.gigabytes = torch.cuda.max_memory_allocated() / 1e9 if on_gpu else _peak()
    cost.device = device_name(torch.device("cuda", torch.cuda.current_device()) if on_gpu else torch.device("cpu"))


def _forget_peak() -> None:
    with contextlib.suppress(OSError):  # only Linux has this file
        Path("/proc/self/clear_refs").write_text("5")


def _peak() -> float | None:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) / 1e6 for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration, ValueError):
        return None
