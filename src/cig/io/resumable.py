"""A large file from a server, by ranges: FILE.part grows, and FILE.part.json says of what it is the beginning.

A rerun asks for the rest, if that is still the rest of the same file, and begins anew if not. What is whole, and what
was expected where anything was, gets its name.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import os
import re
import time
from collections.abc import AsyncIterable, AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from cig.errors import CigError, InputError, OutputError, UsageError
from cig.io.files import make_folder, remove, writing
from cig.io.http import Web, WebError, chunks, retried
from cig.io.json_files import read_object, write_json
from cig.runtime import disk_of, progress_bytes, say

if TYPE_CHECKING:
    import httpx

WAITS = (1.0, 4.0, 16.0, 32.0)  # seconds before further tries
LONGEST = 60.0  # seconds; a server that asks for more is not waited for
HEADWAY = 2**20  # bytes that make up for the tries they took
WINDOW, SLOWEST = 60.0, 1024  # seconds, and bytes a second on the mean of them: less is a drip
MOST = 2**36  # bytes of a file that states no size


@dataclass(frozen=True)
class Known:
    """What is known of a file beforehand; what is not is 0 or empty.

    Attributes:
        starts: its first bytes, so that a login page is not taken for it.
    """

    size: int = 0
    sha256: str = ""
    md5: str = ""
    starts: bytes = b""

    @property
    def digests(self) -> dict[str, str]:
        return {name: value for name, value in (("sha256", self.sha256), ("md5", self.md5)) if value}


def fetch_file(web: Web, url: str, path: Path, known: Known | None = None, waits: Sequence[float] = WAITS) -> Path:
    """The file at an address; one that is there is not asked for again.

    Args:
        waits: seconds before further tries. They are counted anew whenever a megabyte came.

    Raises:
        WebError: it cannot be had, or not all of it: a rerun goes on from there.
        InputError: it is not what was known; it is kept as FILE.refused.
        OutputError: no space for it.
        UsageError: another process is fetching it.
    """
    make_folder(path.parent)
    state = path.with_name(f"{path.name}.part.json")
    if not path.exists():
        with _alone(path.with_name(f"{path.name}.part")) as file:
            part = _Part.resumed(file, state, url, known or Known())
            work = _receive(web, url, part, waits)
            with contextlib.closing(web.beats(work)) as beats:
                for _ in progress_bytes(beats, lambda: part.have, lambda: part.size, path.name):
                    pass
            part.finish(path)
    remove(state)
    return path


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[BinaryIO]:
    """The file, for one process at a time: what is killed loses its lock."""
    with writing(path):
        file = path.open("ab")
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UsageError(f"another process is fetching {path.stem}; wait for it, or stop it") from error
        except OSError:  # a drive without locks
            pass
        yield file


@dataclass
class _Part:
    """What has come so far.

    Attributes:
        validator: the server's word for this content, by which it knows whether a rest would be of the same.
        size: of the whole file; 0 where the server does not say.
    """

    file: BinaryIO
    state: Path
    url: str
    known: Known
    have: int = 0
    size: int = 0
    validator: str = ""
    anew: bool = False  # what comes is the whole file; what is there is of an older answer

    @classmethod
    def resumed(cls, file: BinaryIO, state: Path, url: str, known: Known) -> _Part:
        """Goes on where it may: the address is the same and the server can tell a change, or a digest will tell."""
        part = cls(file, state, url, known, os.fstat(file.fileno()).st_size)
        try:
            said = read_object(state)
            there, part.validator, part.size = str(said["url"]), str(said["validator"]), int(said["size"])
        except (CigError, KeyError, ValueError, TypeError):
            there = ""
        same = bool(known.digests) or (there == url and part.validator)
        if not there or not same or part.have > part.size > 0:
            part.start_over()
        elif there != url:
            part.validator = ""  # another server's
        return part

    def start_over(self) -> None:
        with writing(Path(self.file.name)):
            self.file.truncate(0)
        self.have = self.size = 0
        self.validator = ""

    @property
    def whole(self) -> bool:
        return 0 < self.size == self.have

    def asking(self) -> dict[str, str]:
        """The headers that ask for the rest."""
        condition = {"If-Range": self.validator} if self.validator else {}
        return {"Range": f"bytes={self.have}-", **condition} if self.have else {}

    def begin(self, response: httpx.Response) -> None:
        """Before the body: goes on with a rest of the same file, else starts over with what comes.

        Raises:
            WebError: another part than was asked for.
            InputError: a file of another size than is known.
            OutputError: no space for it.
        """
        start, size = _extent(response)
        validator = _validator(response)
        if self.have and response.status_code == 206:
            if self._goes_on(start, size, validator):
                self.size = self.size or size
                self._need_space()
                return
            self.start_over()
            raise WebError(f"{self.url}: the file changed; it is asked for anew", "range", again=True)
        if start:
            self.start_over()
            raise WebError(f"{self.url}: the answer is another part than was asked for", "range", again=True)
        if self.known.size and size not in (0, self.known.size):
            raise InputError(
                f"{self.url}: the server's file has {size:,} bytes, that of the release {self.known.size:,}; "
                f"if the release changed, give the address yourself and it is taken as it is"
            )
        self.have, self.size, self.validator = 0, size, validator
        self.anew = True
        self._need_space()

    def replace_old(self) -> None:
        """What was there makes room for a file from its beginning; not before that has begun as it should."""
        if self.anew:
            self.anew = False
            with writing(Path(self.file.name)):
                self.file.truncate(0)
            write_json(self.state, {"url": self.url, "validator": self.validator, "size": self.size})

    def _goes_on(self, start: int, size: int, validator: str) -> bool:
        """Whether an answer is the rest of what is there, as far as it says."""
        same = not self.validator or validator in ("", self.validator)
        return start == self.have and same and (not size or not self.size or size == self.size)

    def _need_space(self) -> None:
        what = f"the rest of {self.state.name.removesuffix('.part.json')}"
        need_space(self.state.parent, self.size - self.have, what)

    def add(self, chunk: bytes) -> None:
        """Raises InputError if the first bytes are not those that are known."""
        expected = self.known.starts[: len(chunk)]
        if not self.have and not chunk.startswith(expected):
            raise InputError(
                f"{self.url}: it should begin with {expected!r}, and begins with {chunk[:40]!r}: a login or error page?"
            )
        self.replace_old()
        with writing(Path(self.file.name)):
            self.file.write(chunk)
            self.file.flush()
        self.have += len(chunk)

    def finish(self, path: Path) -> None:
        """Its name, if it is what is known."""
        part = Path(self.file.name)
        with writing(path):
            os.fsync(self.file.fileno())
            wrong = self._differences(part)
            os.replace(part, path.with_name(f"{path.name}.refused") if wrong else path)
        if wrong:
            remove(self.state)
            raise InputError(
                f"{self.url} is not the file that is known: {'; '.join(wrong)}. It is kept as {path.name}.refused"
            )

    def _differences(self, part: Path) -> list[str]:
        found = {"size": f"{self.have:,}"}
        expected = {"size": f"{self.known.size:,}"} if self.known.size else {}
        for name, value in self.known.digests.items():
            say(f"checking the {name} of {part.stem}")
            with part.open("rb") as file:
                found[name], expected[name] = hashlib.file_digest(file, name).hexdigest(), value.lower()
        return [f"its {name} is {found[name]}, not {value}" for name, value in expected.items() if found[name] != value]


async def _receive(web: Web, url: str, part: _Part, waits: Sequence[float]) -> None:
    """Asks until all is there; the tries are counted anew after each headway."""
    while not part.whole:
        before = part.have
        try:
            await retried(lambda: _ask(web, url, part), waits, LONGEST)
            return
        except WebError as error:
            if not error.again or error.after > LONGEST or part.have < before + HEADWAY:
                raise
        await asyncio.sleep(waits[0] if waits else 0)


async def _ask(web: Web, url: str, part: _Part) -> None:
    """Once, for all that is not there yet."""
    try:
        async with web.answer(url, part.asking(), large=True) as response:
            part.begin(response)
            most = part.size - part.have if part.size else MOST
            async for chunk in _lively(url, chunks(url, response, most)):
                part.add(chunk)
            part.replace_old()
    except WebError as error:
        if error.kind == "range" and part.have:
            part.start_over()
            error.again = True
        raise
    if part.size and not part.whole:
        raise WebError(f"{url}: {part.have:,} of {part.size:,} bytes came", "unreachable", again=True)


async def _lively(url: str, body: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    """A body, as long as it is no drip."""
    since, came = time.monotonic(), 0
    async for chunk in body:
        yield chunk
        came, now = came + len(chunk), time.monotonic()
        if now - since > WINDOW:
            if came < SLOWEST * WINDOW:
                raise WebError(f"{url}: {came} bytes in {now - since:.0f} seconds", "slow", again=True)
            since, came = now, 0


def _extent(response: httpx.Response) -> tuple[int, int]:
    """(where the body starts in the file, the file's size); 0 for what is not said."""
    found = re.fullmatch(r"bytes (\d{1,18})-\d{1,18}/(\d{1,18}|\*)", response.headers.get("content-range", "").strip())
    if response.status_code == 206 and found:
        return int(found[1]), int(found[2].replace("*", "0"))
    length = response.headers.get("content-length", "")
    return 0, int(length) if length.isascii() and length.isdecimal() and len(length) < 19 else 0


def _validator(response: httpx.Response) -> str:
    """A strong ETag, else the date of the last change."""
    tag: str = response.headers.get("etag", "")
    return tag if tag and not tag.startswith("W/") else response.headers.get("last-modified", "")


def need_space(folder: Path, size: int, what: str) -> None:
    """Raises OutputError if the disk of a folder has less."""
    free = disk_of(folder)
    if size > free:
        raise OutputError(
            f"{what} takes {size / 1e9:,.1f} GB, and the disk of {folder} has {free / 1e9:,.1f} free; "
            f"free space, or choose another folder"
        )
