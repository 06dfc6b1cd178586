"""What the machine has: device, dtype, seeds, progress, versions. The only room that asks."""

from __future__ import annotations

import contextlib
import hashlib
import platform
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from cig.errors import UsageError, did_you_mean, printable

if TYPE_CHECKING:
    import torch

T = TypeVar("T")
Seeds = Literal["published", "per-query"]
DTYPES = ("float32", "float16", "bfloat16")


def resolve_device(name: str) -> torch.device:
    """ "auto" takes the GPU where there is one.

    Raises:
        UsageError: the device does not exist on this machine.
    """
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f'--device "{name}" is not on this machine ({reason}); try --device cpu or auto') from error
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)  # its memory is measured, and it is waited for, as the current one
    return device


def resolve_dtype(name: str, device: torch.device, on_gpu: str = "float32") -> torch.dtype:
    """ "auto" is float32 on a CPU, and what the paper used (on_gpu) elsewhere."""
    import torch

    if name == "auto":
        name = "float32" if device.type == "cpu" else on_gpu
    if name not in DTYPES:
        raise UsageError(f'no dtype "{name}".{did_you_mean(name, ["auto", *DTYPES])}')
    dtype: torch.dtype = getattr(torch, name)
    return dtype


def seed_of(mode: Seeds, seed: int, benchmark: str, query: str, attempt: int) -> int:
    """The seed of one attempt at one query.

    published: one seed for every query, + 1 at each retry (CIG's script).
    per-query: derived from the query's id, so a picture does not depend on its neighbours.
    """
    if mode == "published":
        return seed + attempt
    digest = hashlib.sha256(f"{seed}/{benchmark}/{query}/{attempt}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % 2**63


def batches(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Consecutive slices, fixed by position."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


@dataclass(frozen=True)
class Shard:
    """One of several runs that share the work: number `one` of `of`, counted from 1."""

    one: int = 1
    of: int = 1

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Raises UsageError unless it is I/N with 1 <= I <= N."""
        one, _, of = text.partition("/")
        if not (one.isdecimal() and of.isdecimal() and 1 <= int(one) <= int(of)):
            raise UsageError(f'--shard "{text}" should be I/N, counted from 1: 1/4, 2/4, 3/4 and 4/4 are the whole')
        return cls(int(one), int(of))

    def take(self, items: Iterable[T]) -> list[T]:
        """Every N-th: disjoint from the other shards', and together with them the whole."""
        return list(items)[self.one - 1 :: self.of]


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, at the end of a batch; its message says how far the run came."""

    lost = ""  # why what was done is not kept


TELL_EVERY = 60.0  # seconds, where no terminal shows a bar
_stop_asked: list[int] = []
_running: list[str] = []  # loops over batches


@contextlib.contextmanager
def stops_between_batches() -> Iterator[None]:
    """While it lasts, the first SIGINT (Ctrl-C) or SIGTERM lets a batch end; the second one stops at once."""

    def ask(number: int, frame: Any) -> None:
        if _stop_asked or not _running:
            raise KeyboardInterrupt
        _stop_asked.append(number)
        say("stopping at the end of this batch; once more stops at once")

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)
        _stop_asked.clear()

    if threading.current_thread() is not threading.main_thread():  # only there may signals be handled
        yield
        return
    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        restore()


def progress(items: Iterable[T], total: int, what: str, unit: str) -> Iterator[T]:
    """With rate and time left: a bar on a terminal, elsewhere a line a minute.

    Raises:
        Interrupted: a stop was asked for; the batch in hand was finished.
    """
    from tqdm import tqdm

    bar = tqdm(items, total=total, desc=what, unit=unit, disable=None)
    started = told = time.monotonic()
    _running.append(what)
    try:
        for done, item in enumerate(bar, 1):
            yield item
            now = time.monotonic()
            if bar.disable and now - told >= TELL_EVERY:
                told, pace = now, (now - started) / done
                say(f"{what}: {done} of {total}, {pace:.2g} s/{unit}, about {pace * (total - done) / 60:.0f} min left")
            if _stop_asked:
                raise Interrupted(f"{what}: stopped after {done} of {total} {unit}{'es' if unit == 'batch' else 's'}")
    finally:
        _running.remove(what)


def progress_bytes(
    beats: Iterable[object], done: Callable[[], int], total: Callable[[], int], what: str
) -> Iterator[None]:
    """As `progress`, of bytes: each beat is a moment to look how many there are.

    Args:
        total: 0 while it is not known.
    """
    from tqdm import tqdm

    before, started = done(), time.monotonic()
    told = started
    _running.append(what)
    try:
        with tqdm(desc=what, initial=before, unit="B", unit_scale=True, disable=None) as bar:
            for _ in beats:
                yield
                bar.n, bar.total, now = done(), total() or None, time.monotonic()
                bar.refresh()
                if bar.disable and now - told >= TELL_EVERY:
                    told = now
                    say(f"{what}: {_how_far(done(), total(), (done() - before) / (now - started))}")
                if _stop_asked:
                    raise Interrupted(f"{what}: stopped after {done() / 1e6:,.0f} MB")
    finally:
        _running.remove(what)


def _how_far(done: int, total: int, pace: float) -> str:
    """ "3,200 of 20,127 MB, 12.3 MB/s, about 23 min left"."""
    of = f" of {total / 1e6:,.0f}" if total else ""
    left = f", about {(total - done) / pace / 60:.0f} min left" if total and pace > 0 else ""
    return f"{done / 1e6:,.0f}{of} MB, {pace / 1e6:.1f} MB/s{left}"


def is_out_of_memory(error: BaseException) -> bool:
    """A device's or the machine's, as torch tells it."""
    text = str(error)
    known = "out of memory", "can't allocate memory"
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and any(word in text for word in known))


def say(text: str) -> None:
    """A line for the person at the terminal; results go to stdout, everything else here."""
    print(printable(text, "\n\t"), file=sys.stderr, flush=True)


def versions() -> dict[str, str]:
    """Of everything that can move a number."""
    packages = ("cig", "torch", "transformers", "diffusers", "tokenizers", "numpy", "pillow")
    found = {name: metadata.version(name) for name in packages}
    return {"python": platform.python_version(), **found}


def commit() -> str | None:
    """The commit of the checkout that this code runs from; None for an installed package."""
    here = Path(__file__)
    try:
        _git(here.parent, "ls-files", "--error-unmatch", here.name)  # an environment may lie in somebody's checkout
        return _git(here.parent, "rev-parse", "HEAD")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(folder: Path, *words: str) -> str:
    command = ["git", "-C", str(folder), *words]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=5).stdout.strip()


def device_name(device: torch.device) -> str:
    import torch

    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device.type} ({platform.machine()})"


def quiet_transformers() -> None:
    """Its progress bars and advice would drown ours; errors still come through."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


def jsonable(value: Any) -> Any:
    """Paths and dtypes as text, for provenance and manifests."""
    if isinstance(value, dict):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(item) for item in value]
    return value if isinstance(value, str | int | float | bool) or value is None else str(value)


def disk_of(folder: Path) -> int:
    """Free bytes where a folder is, or will be."""
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    return shutil.disk_usage(there).free


@dataclass
class Cost:
    """What a piece of work took, once it is done."""

    seconds: float = 0.0
    gigabytes: float | None = None  # the most memory in use: the GPU's where there is one; None: not known here
    device: str = ""


@contextlib.contextmanager
def measured() -> Iterator[Cost]:
    """Time and peak memory of what is done in it; a GPU's memory, else that of the whole process."""
    import torch

    cost, on_gpu = Cost(), torch.cuda.is_available() and torch.cuda.is_initialized()  # not by a run on the CPU
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
    with contextlib.suppress(OSError):  # Linux alone knows this
        Path("/proc/self/clear_refs").write_text("5")


def _peak() -> float | None:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) / 1e6 for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration, ValueError):
        return None


def free_memory() -> None:
    """Gives back what failed or finished work left on the device."""
    import gc

    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


@dataclass(frozen=True)
class Compute:
    """Where and how fast."""

    device: str = "auto"
    dtype: str = "auto"
    batch_size: int = 32
    workers: int = 4
    cache_dir: Path | None = None  # of the hub


@dataclass(frozen=True)
class Work:
    """Which share of the work is done, and what of it again."""

    shard: Shard | None = None
    overwrite: bool = False  # make everything again, with other settings if need be
    retry_rejected: bool = False  # go on with the next seeds for queries without an accepted picture
