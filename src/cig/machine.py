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

from cig.errors import ShortMemoryError

if TYPE_CHECKING:
    import torch

HALVES = "--dtype float16 or bfloat16 halves what float32 takes"


def device_name(device: torch.device) -> str:
    import torch

    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device.type} ({platform.machine()})"


def disk_of(folder: Path) -> int:
    """Return the free bytes of the disk that a folder is on, or will be made on."""
    existing = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    return shutil.disk_usage(existing).free


def available_memory(device: torch.device, root: Path = Path("/")) -> int:
    """Return the bytes that models may still take on a device.

    A machine's memory counts what the system gives back on demand, such as the page cache, and ends at the limits of
    the container and of the process.

    Args:
        root: the folder with proc/ and sys/.
    """
    import psutil
    import torch

    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + unused
    return max(0, min([psutil.virtual_memory().available, *_container_limits(root), *_process_limits()]))


def _container_limits(root: Path) -> Iterator[int]:
    """Yield what each control group that this process is in may still take: version 2, then version 1."""
    try:
        lines = [line.split(":", 2) for line in (root / "proc/self/cgroup").read_text().splitlines()]
    except OSError:  # not Linux
        return
    home = root / "sys/fs/cgroup"
    for _, controllers, name in lines:
        if not controllers:
            names = home, "memory.max", "memory.current", "inactive_file"
        elif "memory" in controllers.split(","):
            names = home / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"
        else:
            continue
        base, limit, used, cache = names
        for folder in (base / name.lstrip("/"), *(base / name.lstrip("/")).parents):
            with contextlib.suppress(OSError, ValueError, KeyError):  # "max", or a group outside of the container
                counts = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
                yield int((folder / limit).read_text()) - int((folder / used).read_text()) + int(counts[cache])
            if folder == base:
                break


def _process_limits() -> Iterator[int]:
    """Yield what `ulimit -v` leaves."""
    import psutil

    with contextlib.suppress(ImportError):  # Windows has no such limit
        import resource

        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        if limit != resource.RLIM_INFINITY:
            yield limit - psutil.Process().memory_info().vms


def need_memory(what: str, size: int, device: torch.device) -> None:
    """Raise ShortMemoryError if models of so many bytes do not fit into a device's memory; swap counts, too."""
    import psutil

    available = available_memory(device)
    if size > available + (0 if device.type == "cuda" else psutil.swap_memory().free):
        raise short_memory(f"{what} takes {size / 1e9:.2f} GB, and {available / 1e9:.2f} GB are free", device)


def short_memory(facts: str, device: torch.device) -> ShortMemoryError:
    offload = ", --offload model or sequential keeps weights off the GPU" if device.type == "cuda" else ""
    return ShortMemoryError(f"not enough memory on {device_name(device)}: {facts}; {HALVES}{offload}")


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
