"""Download large files, resuming by HTTP ranges.

FILE.part grows, and FILE.part.json records its address, its size and the server's validator. A rerun asks for the rest
of the same file, or starts over if it changed. A complete file that passes its checks is renamed to FILE.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import re
import time
from collections.abc import AsyncIterable, AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from cig.errors import CigError, InputError, OutputError
from cig.io.files import make_folder, remove, writing
from cig.io.http import Web, WebError, chunks, retried
from cig.io.json_files import read_object, write_json
from cig.io.locks import hold_file
from cig.machine import disk_of
from cig.runtime import progress_bytes, say

if TYPE_CHECKING:
    import httpx

WAITS = (1.0, 4.0, 16.0, 32.0)  # seconds before each retry
LONGEST = 60.0  # seconds; give up if a server asks to wait longer
HEADWAY = 2**20  # bytes after which the retries are counted from zero again
WINDOW, SLOWEST = 60.0, 1024  # seconds, and the least mean bytes a second over them


@dataclass(frozen=True)
class Expected:
    """Facts about a file that are known before the download; 0 or empty if unknown.

    Attributes:
        starts: its first bytes, which a login page in its place does not have.
        most: bytes that it may have, whatever the server says of its size.
    """

    size: int = 0
    sha256: str = ""
    md5: str = ""
    starts: bytes = b""
    most: int = 2**36

    @property
    def digests(self) -> dict[str, str]:
        return {name: value for name, value in (("sha256", self.sha256), ("md5", self.md5)) if value}


def fetch_file(
    web: Web, url: str, path: Path, *, expected: Expected | None = None, waits: Sequence[float] = WAITS
) -> Path:
    """Download a file unless it exists already, resuming an earlier download.

    Args:
        waits: seconds before each retry, counted from the first again after each megabyte received.

    Raises:
        WebError: the download failed or broke off; a rerun resumes it.
        InputError: the file differs from what is expected; it is kept as FILE.refused.
        OutputError: the disk has not enough space.
        UsageError: another process is downloading it.
    """
    make_folder(path.parent)
    state = path.with_name(f"{path.name}.part.json")
    if not path.exists():
        with hold_file(path, "download"), _appending(path.with_name(f"{path.name}.part")) as file:
            part = _Part.resumed(file, state, url, expected=expected or Expected())
            work = _receive(web, url, part, waits=waits)
            with contextlib.closing(web.poll(work)) as ticks:
                for _ in progress_bytes(ticks, lambda: part.received, lambda: part.size, what=path.name):
                    pass
            part.finish(path)
    remove(state)
    return path


def _appending(path: Path) -> BinaryIO:
    with writing(path):
        return path.open("ab")


@dataclass
class _Part:
    """The part of a file that has been received.

    Attributes:
        validator: the server's ETag or date for this content, by which it can tell whether the file has changed.
        size: bytes of the whole file; 0 if the server does not state it.
        replaces: the response holds the whole file; the bytes in the part are of an earlier response.
    """

    # A download of 20 GB breaks off, and the file may change on the server before the rerun: gluing the rest of one
    # file to the beginning of another must not happen. The rest is therefore requested with the validator (If-Range),
    # and where server and part have none, only a digest that is known beforehand allows resuming. Servers also lie: a
    # 206 is believed only if its range, size and validator fit (_continues). And where a login page answers instead of
    # the file, the old bytes stay until the new body has begun as expected (replace_old), so a rerun can still resume.

    file: BinaryIO
    state: Path
    url: str
    expected: Expected
    received: int = 0
    size: int = 0
    validator: str = ""
    replaces: bool = False

    @classmethod
    def resumed(cls, file: BinaryIO, state: Path, url: str, *, expected: Expected) -> _Part:
        """Resume a part if its address is the same and the server can tell a change, or if a digest will tell one."""
        part = cls(file, state, url, expected=expected, received=os.fstat(file.fileno()).st_size)
        try:
            record = read_object(state)
            origin, part.validator, part.size = str(record["url"]), str(record["validator"]), int(record["size"])
        except (CigError, KeyError, ValueError, TypeError):
            origin = ""
        same = bool(expected.digests) or (origin == url and part.validator)
        if not origin or not same or part.received > part.size > 0:
            part.start_over()
        elif origin != url:
            part.validator = ""  # another server's
        return part

    def start_over(self) -> None:
        with writing(Path(self.file.name)):
            self.file.truncate(0)
        self.received = self.size = 0
        self.validator = ""

    @property
    def complete(self) -> bool:
        return 0 < self.size == self.received

    def range_headers(self) -> dict[str, str]:
        """Return the headers that request the rest."""
        condition = {"If-Range": self.validator} if self.validator else {}
        return {"Range": f"bytes={self.received}-", **condition} if self.received else {}

    def begin(self, response: httpx.Response) -> None:
        """Check a response before its body: continue with the rest of the same file, or replace the part.

        Raises:
            WebError: the response holds another range than was requested.
            InputError: the file's size differs from the expected one.
            OutputError: the disk has not enough space.
        """
        start, size = _extent(response)
        validator = _validator(response)
        if self.received and response.status_code == 206:
            if self._continues(start, size, validator):
                self.size = self.size or size
                self._need_space()
                return
            self.start_over()
            raise WebError(f"{self.url}: the file changed; it is asked for anew", "range", again=True)
        if start:
            self.start_over()
            raise WebError(f"{self.url}: the answer is another part than was asked for", "range", again=True)
        if self.expected.size and size not in (0, self.expected.size):
            raise InputError(
                f"{self.url}: the server's file has {size:,} bytes, that of the release {self.expected.size:,}; "
                f"if the release changed, give the address yourself and it is taken as it is"
            )
        self.received, self.size, self.validator = 0, size, validator
        self.replaces = True
        self._need_space()

    def replace_old(self) -> None:
        """Drop the bytes of an earlier response, once a new one has begun as expected."""
        if self.replaces:
            self.replaces = False
            with writing(Path(self.file.name)):
                self.file.truncate(0)
            write_json(self.state, {"url": self.url, "validator": self.validator, "size": self.size})

    def _continues(self, start: int, size: int, validator: str) -> bool:
        """Tell whether a response is the rest of this part, by what it states."""
        same = not self.validator or validator in ("", self.validator)
        return start == self.received and same and (not size or not self.size or size == self.size)

    def _need_space(self) -> None:
        what = f"the rest of {self.state.name.removesuffix('.part.json')}"
        need_space(self.state.parent, self.size - self.received, what)

    def add(self, chunk: bytes) -> None:
        """Append bytes; raises InputError if the file does not begin as expected."""
        expected = self.expected.starts[: len(chunk)]
        if not self.received and not chunk.startswith(expected):
            raise InputError(
                f"{self.url}: it should begin with {expected!r}, and begins with {chunk[:40]!r}: a login or error page?"
            )
        self.replace_old()
        with writing(Path(self.file.name)):
            self.file.write(chunk)
            self.file.flush()
        self.received += len(chunk)

    def finish(self, path: Path) -> None:
        """Rename the complete part to its final name, or to FILE.refused if it differs from what is expected."""
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
        facts = [("size", f"{self.received:,}", f"{self.expected.size:,}")] if self.expected.size else []
        for name, value in self.expected.digests.items():
            say(f"checking the {name} of {part.stem}")
            with part.open("rb") as file:
                facts.append((name, hashlib.file_digest(file, name).hexdigest(), value.lower()))
        return [f"its {name} is {actual}, not {expected}" for name, actual, expected in facts if actual != expected]


async def _receive(web: Web, url: str, part: _Part, *, waits: Sequence[float]) -> None:
    """Request the rest until the part is complete; each headway resets the count of retries."""
    while not part.complete:
        before = part.received
        try:
            await retried(lambda: _request_rest(web, url, part), waits, LONGEST)
            return
        except WebError as error:
            if not error.again or error.after > LONGEST or part.received < before + HEADWAY:
                raise
        await asyncio.sleep(waits[0] if waits else 0)


async def _request_rest(web: Web, url: str, part: _Part) -> None:
    try:
        async with web.answer(url, part.range_headers(), large=True) as response:
            part.begin(response)
            most = min(part.size or part.expected.most, part.expected.most) - part.received
            async for chunk in _fast_enough(url, chunks(url, response, most)):
                part.add(chunk)
            part.replace_old()
    except WebError as error:
        if error.kind in ("range", "too large") and part.received:
            part.start_over()
            error.again = error.kind == "range"
        raise
    if part.size and not part.complete:
        raise WebError(f"{url}: {part.received:,} of {part.size:,} bytes came", "unreachable", again=True)


async def _fast_enough(url: str, body: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    """Yield a body's bytes; raises WebError if a window of time brings too few, as a stalled server's does."""
    since, received = time.monotonic(), 0
    async for chunk in body:
        yield chunk
        received, now = received + len(chunk), time.monotonic()
        if now - since > WINDOW:
            if received < SLOWEST * WINDOW:
                raise WebError(f"{url}: {received} bytes in {now - since:.0f} seconds", "slow", again=True)
            since, received = now, 0


def _extent(response: httpx.Response) -> tuple[int, int]:
    """Return (start of the body in the file, size of the file); 0 for what the server does not state."""
    match = re.fullmatch(r"bytes (\d{1,18})-\d{1,18}/(\d{1,18}|\*)", response.headers.get("content-range", "").strip())
    if response.status_code == 206 and match:
        return int(match[1]), int(match[2].replace("*", "0"))
    length = response.headers.get("content-length", "")
    return 0, int(length) if length.isascii() and length.isdecimal() and len(length) < 19 else 0


def _validator(response: httpx.Response) -> str:
    """Return a strong ETag, else the date of the last change."""
    tag: str = response.headers.get("etag", "")
    return tag if tag and not tag.startswith("W/") else response.headers.get("last-modified", "")


def need_space(folder: Path, size: int, what: str) -> None:
    """Raise OutputError if the disk of a folder has less than size bytes free."""
    free = disk_of(folder)
    if size > free:
        raise OutputError(
            f"{what} takes {size / 1e9:,.1f} GB, and the disk of {folder} has {free / 1e9:,.1f} free; "
            f"free space, or choose another folder"
        )
