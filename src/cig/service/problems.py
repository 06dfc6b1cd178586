"""Errors as answers: RFC 9457, application/problem+json."""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from cig.errors import (
    CigError,
    InputError,
    OutputError,
    PictureError,
    PixelsError,
    UsageError,
    plain,
)

KIND = "application/problem+json"
STATUS_OF: tuple[tuple[type[CigError], HTTPStatus], ...] = (  # the first that fits
    (PixelsError, HTTPStatus.REQUEST_ENTITY_TOO_LARGE),
    (PictureError, HTTPStatus.UNSUPPORTED_MEDIA_TYPE),
    (UsageError, HTTPStatus.UNPROCESSABLE_ENTITY),
    (OutputError, HTTPStatus.INSUFFICIENT_STORAGE),
    (InputError, HTTPStatus.SERVICE_UNAVAILABLE),
    (CigError, HTTPStatus.SERVICE_UNAVAILABLE),
)

DETAILS = {  # of what the router refuses
    404: "this path leads nowhere; /openapi.json lists the paths",
    405: "this path takes other methods; /openapi.json lists them",
}


class Problem(Exception):
    """A request that is refused."""

    def __init__(self, status: int, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status, self.detail, self.headers = HTTPStatus(status), detail, dict(headers or {})


def too_many(detail: str, seconds: int = 1) -> Problem:
    return Problem(HTTPStatus.TOO_MANY_REQUESTS, detail, {"Retry-After": str(seconds)})


def to_response(problem: Problem) -> Response:
    status = problem.status
    content = {"type": "about:blank", "title": status.phrase, "status": int(status), "detail": plain(str(problem), 500)}
    return Response(json.dumps(content), status, problem.headers, media_type=KIND)


def of_error(error: CigError) -> Problem:
    """Return the problem that an error of ours is; texts speak of fields, where the command line has flags."""
    status = next(status for kind, status in STATUS_OF if isinstance(error, kind))
    return Problem(status, str(error).replace("--", ""))


def install(app: FastAPI) -> None:
    """Let every error of the application be answered as a problem."""

    @app.exception_handler(Problem)
    async def on_problem(_: Request, error: Problem) -> Response:
        return to_response(error)

    @app.exception_handler(CigError)
    async def on_own_error(_: Request, error: CigError) -> Response:
        return to_response(of_error(error))

    @app.exception_handler(HTTPException)
    async def on_http_error(_: Request, error: HTTPException) -> Response:
        detail = DETAILS.get(error.status_code, str(error.detail))
        return to_response(Problem(error.status_code, detail, error.headers))

    @app.exception_handler(RequestValidationError)
    async def on_wrong_field(_: Request, error: RequestValidationError) -> Response:
        return to_response(Problem(HTTPStatus.UNPROCESSABLE_ENTITY, fields_of(error.errors())))

    @app.exception_handler(Exception)
    async def on_bug(_: Request, error: Exception) -> Response:
        return to_response(Problem(HTTPStatus.INTERNAL_SERVER_ERROR, "the service failed; its log says how"))


def fields_of(errors: Any) -> str:
    """Name the wrong fields, without their values."""
    return "; ".join(f"{'.'.join(str(word) for word in one['loc'])}: {one['msg']}" for one in errors[:5])
