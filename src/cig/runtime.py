"""A run: its device, dtype, seeds, shards, signals, progress, messages and versions."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import platform
import signal
import subprocess
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from cyclopts import Parameter

from cig.errors import UsageError, at_least_1, did_you_mean, printable

if TYPE_CHECKING:
    import torch

T = TypeVar("T")
Seeds = Literal["published", "per-query"]
Dtype = Literal["auto", "float32", "float16", "bfloat16"]
DTYPES = ("float32", "float16", "bfloat16")
LOG = logging.getLogger("cig")


def resolve_device(name: str | torch.device) -> torch.device:
    """Return the device of a name; "auto" is the GPU if the machine has one.

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
        raise UsageError(f'--device "{name}" is not on this machine; try --device cpu or auto') from error
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)  # `measured` reads the memory of the current device, and waits for it
    return device


def resolve_dtype(name: str | torch.dtype, device: torch.device, on_gpu: str = "float32") -> torch.dtype:
    """Return the dtype of a name; "auto" is float32 on a CPU and the paper's (on_gpu) elsewhere.

    Raises:
        UsageError: a name that is not among DTYPES.
    """
    import torch

    if isinstance(name, torch.dtype):
        return name
    if name == "auto":
        name = "float32" if device.type == "cpu" else on_gpu
    if name not in DTYPES:
        raise UsageError(f'no dtype "{name}".{did_you_mean(name, ["auto", *DTYPES])}')
    dtype: torch.dtype = getattr(torch, name)
    return dtype


def seed_of(mode: Seeds, seed: int, *, benchmark: str, query: str, attempt: int) -> int:
    """Return the seed of one attempt at one query.

    published: one seed for every query, + 1 at each retry (CIG's script).
    per-query: derived from the query's id, so a picture does not depend on its neighbours.
    """
    if mode == "published":
        return seed + attempt
    digest = hashlib.sha256(f"{seed}/{benchmark}/{query}/{attempt}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % 2**63


def need_seed(seed: int) -> None:
    """Raise UsageError unless torch can take --seed: 64 bits with the sign."""
    if not abs(seed) < 2**63:
        raise UsageError(f"--seed {seed}: of less than 64 bits")


def batches(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Cut a sequence into consecutive slices. A resumed run cuts the same ones, so it computes the same bits."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


@dataclass(frozen=True)
class Shard:
    """One of several runs that share the work: number `one` of `of`, from 1."""

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
        """Take every N-th item: shards are disjoint, and together they are the whole."""
        return list(items)[self.one - 1 :: self.of]

    def part(self, items: Sequence[T]) -> Sequence[T]:
        """Take the I-th of N pieces of a sequence: disjoint, together the whole, and the same at any batch size."""
        return items[len(items) * (self.one - 1) // self.of : len(items) * self.one // self.of]


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, at the end of a batch; the message says how far the run came."""

    lost = ""  # why the finished work is not kept; empty where it is


# A stop between batches. A batch on a GPU may take a minute, and its pictures or features are written at its end, so
# the first Ctrl-C only takes note: the loop that runs (`progress`, `progress_bytes`) finishes its batch, which is then
# kept, and raises Interrupted. A second Ctrl-C, or one outside of such a loop, where no batch would ever end, stops at
# once. The notes are global since signals are the process's; lists, so that handlers change them without `global`.

MESSAGE_INTERVAL = 60.0  # seconds between lines about progress where no terminal shows a bar
_stop_signals: list[int] = []
_running: list[str] = []  # names of the loops over batches


@contextlib.contextmanager
def stops_between_batches() -> Iterator[None]:
    """Let the first SIGINT (Ctrl-C) or SIGTERM finish the batch; the second one stops at once."""

    def take_note(number: int, frame: Any) -> None:
        if _stop_signals or not _running:
            raise KeyboardInterrupt
        _stop_signals.append(number)
        say("stopping at the end of this batch; once more stops at once")

    if threading.current_thread() is not threading.main_thread():  # Python sets signal handlers in no other thread
        yield
        return
    before = {number: signal.signal(number, take_note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _stop_signals.clear()


@contextlib.contextmanager
def finished_before_a_stop(what: str) -> Iterator[None]:
    """Let a signal wait until the block is done; then raise Interrupted."""
    _running.append(what)
    try:
        yield
    finally:
        _running.remove(what)
    if _stop_signals:
        raise Interrupted(f"stopped after {what}")


def progress(items: Iterable[T], total: int, what: str, *, unit: str, finish: bool = True) -> Iterator[T]:
    """Yield items and show rate and time left: by a bar on a terminal, elsewhere by a line a minute.

    Args:
        finish: let a signal wait until the item is done; otherwise it raises KeyboardInterrupt at once.

    Raises:
        Interrupted: a signal came; the batch was finished.
    """
    from tqdm import tqdm

    bar = tqdm(items, total=total, desc=what, unit=unit, disable=None)
    started = last_message = time.monotonic()
    with contextlib.ExitStack() as stack:
        if finish:
            _running.append(what)
            stack.callback(_running.remove, what)
        for done, item in enumerate(bar, 1):
            yield item
            now = time.monotonic()
            if bar.disable and now - last_message >= MESSAGE_INTERVAL:
                last_message, pace = now, (now - started) / done
                left = f"about {pace * (total - done) / 60:.0f} min left"
                say(f"{what}: {done} of {total}, {number(pace)} s/{unit}, {left}")
            if _stop_signals:
                raise Interrupted(f"{what}: stopped after {done} of {total} {unit}{'es' if unit == 'batch' else 's'}")


def number(value: float) -> str:
    """Write a number with two digits or more, and without powers of ten: 0.045, 3.2, 120."""
    return f"{value:.0f}" if value >= 10 else f"{Decimal(f'{value:.2g}'):f}"


def progress_bytes(
    beats: Iterable[object], done: Callable[[], int], total: Callable[[], int], *, what: str
) -> Iterator[None]:
    """Show the progress of a download as `progress` does; each beat is a moment to count the bytes.

    Args:
        done: returns the bytes on disk.
        total: returns the bytes of the whole; 0 while the server has not said.
    """
    from tqdm import tqdm

    before, started = done(), time.monotonic()
    last_message = started
    _running.append(what)
    try:
        with tqdm(desc=what, initial=before, unit="B", unit_scale=True, disable=None) as bar:
            for _ in beats:
                yield
                bar.n, bar.total, now = done(), total() or None, time.monotonic()
                bar.refresh()
                if bar.disable and now - last_message >= MESSAGE_INTERVAL:
                    last_message = now
                    say(f"{what}: {_how_far(done(), total(), (done() - before) / (now - started))}")
                if _stop_signals:
                    raise Interrupted(f"{what}: stopped after {done() / 1e6:,.0f} MB")
    finally:
        _running.remove(what)


def _how_far(done: int, total: int, pace: float) -> str:
    """Return "3,200 of 20,127 MB, 12.3 MB/s, about 23 min left"."""
    of = f" of {total / 1e6:,.0f}" if total else ""
    left = f", about {(total - done) / pace / 60:.0f} min left" if total and pace > 0 else ""
    return f"{done / 1e6:,.0f}{of} MB, {pace / 1e6:.1f} MB/s{left}"


def say(text: str) -> None:
    """Log a message at INFO to the logger "cig". The command line shows it on stderr."""
    LOG.info("%s", printable(text, "\n\t"))  # names of files may hold what moves a terminal


def warn(text: str) -> None:
    """Log a message at WARNING to the logger "cig", which Python shows without any configuration."""
    LOG.warning("%s", printable(text, "\n\t"))


def versions() -> dict[str, str]:
    """Return the versions of Python and of every package that can change a score."""
    packages = ("cig", "torch", "transformers", "diffusers", "tokenizers", "numpy", "pillow")
    return {"python": platform.python_version(), **{name: metadata.version(name) for name in packages}}


def commit() -> str | None:
    """Return the commit of the checkout that this code runs from; None for an installed package."""
    module = Path(__file__)
    try:
        _git(module.parent, "ls-files", "--error-unmatch", module.name)  # a checkout may only hold the environment
        return _git(module.parent, "rev-parse", "HEAD")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(folder: Path, *words: str) -> str:
    command = ["git", "-C", str(folder), *words]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=5).stdout.strip()


def quiet_transformers() -> None:
    """Silence transformers' and the hub's progress bars and warnings; their errors are still raised."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", message=".*local_dir_use_symlinks", category=UserWarning)


def jsonable(value: Any) -> Any:
    """Write paths, dtypes and other objects as text, for provenance and manifests."""
    if isinstance(value, dict):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(item) for item in value]
    return value if isinstance(value, str | int | float | bool) or value is None else str(value)


@dataclass(frozen=True)
class Compute:
    """The device and its precision, and how much is read and computed at once."""

    device: str = "auto"
    "cuda, cuda:1, mps, cpu; auto takes a GPU where there is one."
    dtype: Dtype = "auto"
    "auto: what the paper used on a GPU, float32 on a CPU."
    num_workers: Annotated[int, Parameter(alias="--workers")] = 4
    "Threads that decode pictures."
    cache_dir: Path | None = None
    "The hub's cache."
    max_pixels: int = 2**28
    "Larger pictures are refused before they are decoded."
    batch_size: Annotated[int, Parameter(parse=False)] = 32
    "Pictures at once: a flag of its own in each verb."

    def __post_init__(self) -> None:
        at_least_1("--batch-size", self.batch_size)
        at_least_1("--max-pixels", self.max_pixels)

    def settings(self) -> dict[str, Any]:
        """Return what can move a number, under the keys that result files use."""
        return {
            "device": self.device,
            "dtype": self.dtype,
            "batch_size": self.batch_size,
            "workers": self.num_workers,
            "cache_dir": self.cache_dir,
        }


@dataclass(frozen=True)
class Work:
    """Which share of the work a run does, and what it makes again."""

    shard: str = "1/1"
    "I/N: do this share, counted from 1; shards may run side by side into one folder."
    overwrite: bool = False
    """Make everything again, with other settings if need be. Where that was stopped, with other settings, the same
    again goes on."""
    retry_rejected: Annotated[bool, Parameter(parse=False)] = False
    "Go on with the next seeds for queries without an accepted picture."

    def __post_init__(self) -> None:
        Shard.parse(self.shard)

    @property
    def share(self) -> Shard:
        """The shard, parsed."""
        return Shard.parse(self.shard)
