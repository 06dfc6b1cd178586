"""What comes in: bounded in size and time, decoded under the bounds of every picture, written under our own names."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncGenerator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl

from fastapi import Request
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect

from cig.io.images import Picture, decode_picture
from cig.service.problems import Problem
from cig.service.settings import MEGABYTE, SECONDS_TO_ARRIVE

URLENCODED = "application/x-www-form-urlencoded"
FIELDS = 100  # parts of a form that are no files
DRAINED = 64 * MEGABYTE  # of what is too large: read and dropped, so that the client reads the answer
DECODERS = ThreadPoolExecutor(2, "decode")  # a picture may take a gigabyte while it is decoded


@dataclass
class Form:
    """The fields of a request, whether it came as a form or as JSON."""

    fields: list[tuple[str, Any]] = field(default_factory=list)
    files: list[tuple[str, bytes]] = field(default_factory=list)

    def check(self, fields: tuple[str, ...], files: tuple[str, ...]) -> None:
        """Raise a Problem for names that a request has no use for."""
        for name in [name for name, _ in self.fields if name not in fields]:
            hint = "is a file: send multipart/form-data" if name in files else f"is not one of {', '.join(fields)}"
            raise wrong(f"the field {name[:40]!r} {hint}")
        for name in [name for name, _ in self.files if name not in files]:
            raise wrong(f"the file {name[:40]!r} is not one of {', '.join(files)}")

    def grouped(self) -> dict[str, list[Any]]:
        values: dict[str, list[Any]] = {}
        for name, value in self.fields:
            values.setdefault(name, []).append(value)
        return values


def wrong(detail: str) -> Problem:
    return Problem(HTTPStatus.UNPROCESSABLE_ENTITY, detail)


def most_bytes_of(request: Request, most_bytes: int, *, most_files: int) -> int:
    """Return how many bytes of memory a request may take: its length, or where it states none the bound."""
    bound, stated = most_bytes * most_files + MEGABYTE, request.headers.get("content-length", "")
    return min(int(stated), bound) if stated.isdecimal() and len(stated) < 20 else bound


async def read_form(request: Request, most_bytes: int, *, most_files: int) -> Form:
    """Read a form or a JSON object.

    Args:
        most_bytes: of a file.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    bound = most_bytes * most_files + MEGABYTE
    try:
        async with asyncio.timeout(SECONDS_TO_ARRIVE):
            if kind == "multipart/form-data":
                return await _multipart(request, bound, most_files=most_files, most_bytes=most_bytes)
            read = {"application/json": _json_fields, "": _json_fields, URLENCODED: _urlencoded_fields}.get(kind)
            if read:
                return Form(fields=read(b"".join([part async for part in _bounded(request, MEGABYTE)])))
    except TimeoutError as error:
        raise Problem(HTTPStatus.REQUEST_TIMEOUT, f"it did not arrive within {SECONDS_TO_ARRIVE:.0f} s") from error
    except ClientDisconnect as error:
        raise Problem(HTTPStatus.BAD_REQUEST, "it did not arrive whole") from error
    raise wrong("send multipart/form-data, or application/json without files")


async def _bounded(request: Request, most: int) -> AsyncGenerator[bytes, None]:
    size = 0
    async for part in request.stream():
        size += len(part)
        if size <= most:
            yield part
        elif size > most + DRAINED:
            break
    if size > most:
        raise too_large(most)


def too_large(most: int) -> Problem:
    return Problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"more than {most} bytes; --max-upload sets the bound")


async def _multipart(request: Request, bound: int, *, most_files: int, most_bytes: int) -> Form:
    parser = MultiPartParser(request.headers, _bounded(request, bound), max_files=most_files, max_fields=FIELDS)
    try:
        content = await parser.parse()
    except MultiPartException as error:
        raise wrong(f"the form cannot be read: {error.message}") from error
    except (ValueError, KeyError, LookupError) as error:  # of the parser, for forms that are none
        raise wrong("the form cannot be read") from error
    form = Form()
    try:
        for name, value in content.multi_items():
            if not isinstance(value, UploadFile):
                form.fields.append((name, value))
            elif value.filename or value.size:  # browsers send an empty part where nothing was chosen
                if (value.size or 0) > most_bytes:
                    raise too_large(most_bytes)
                form.files.append((name, await value.read()))
    finally:
        await content.close()
    return form


def _json_fields(content: bytes) -> list[tuple[str, Any]]:
    value = parse_json(content, "the request")
    if not isinstance(value, dict):
        raise wrong("send a JSON object")
    return [(key, item) for key, items in value.items() for item in (items if isinstance(items, list) else [items])]


def _urlencoded_fields(content: bytes) -> list[tuple[str, Any]]:
    try:
        text = content.decode()
        return parse_qsl(text, keep_blank_values=True, max_num_fields=FIELDS, errors="strict") if text else []
    except ValueError as error:
        raise wrong("the form cannot be read") from error


def parse_json(content: bytes | str, what: str) -> Any:
    """Parse JSON; raise a Problem for what is none, or has numbers that JSON has not."""
    try:
        value = json.loads(content, parse_constant=_no_number, parse_float=_finite)
        json.dumps(value, ensure_ascii=False).encode()  # no lone surrogates
    except (ValueError, RecursionError) as error:
        raise wrong(f"{what} is no JSON that can be read") from error
    return value


def _no_number(word: str) -> Any:
    raise ValueError(word)


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(text)
    return number


def finite_rows(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return metadata as JSON takes it: a table may hold NaN."""
    return {key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in row.items()}


async def decoded(data: bytes) -> Picture:
    """Decode a picture; raises PictureError. The size is bounded before the pixels are decoded."""
    return await asyncio.get_running_loop().run_in_executor(DECODERS, decode_picture, data)
