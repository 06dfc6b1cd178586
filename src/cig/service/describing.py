"""The service's description: OpenAPI, with examples."""

from __future__ import annotations

import json
from collections.abc import Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from starlette.responses import HTMLResponse, PlainTextResponse, Response

from cig.service.problems import KIND
from cig.service.uploads import URLENCODED, parse_json, wrong

if TYPE_CHECKING:
    from fastapi import FastAPI

VERSION = "1"
MOST_METADATA = 100  # columns of a picture
APPLICATION: dict[str, Any] = {
    "description": "Composed search over pictures: pictures, a sentence and what should not be there find the pictures "
    "you mean. Send `Authorization: Bearer TOKEN`.",
    "docs_url": None,  # they load scripts from elsewhere
    "redoc_url": None,
    "generate_unique_id_function": lambda route: route.name,
}
TOKEN = {
    "type": "http",
    "scheme": "bearer",
    "description": "A token file's word; changing the index takes the write token.",
}
OPEN: dict[str, Any] = {"openapi_extra": {"security": []}}  # what needs no token
BINARY: dict[str, Any] = {"response_class": Response}  # else FastAPI describes JSON, too
TEXT = {"type": "string", "maxLength": 4000}
METADATA = {"type": "object", "additionalProperties": {"type": ["string", "number", "boolean", "null"]}}
PICTURE_SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["name", "metadata", "thumbnail"],
    "properties": {"name": {"type": "string"}, "metadata": METADATA, "thumbnail": {"type": "string"}},
}
WRITTEN = {**PICTURE_SCHEMA, "required": ["name", "thumbnail"]}
HIT = {
    "type": "object",
    "required": ["name", "score", "metadata", "thumbnail"],
    "properties": {**PICTURE_SCHEMA["properties"], "score": {"type": "number", "description": "Cosine similarity."}},
}
IMAGINED_SCHEMA = {
    "type": ["object", "null"],
    "required": ["status", "picture", "hits"],
    "properties": {
        "status": {"enum": ["pending", "done", "failed"]},
        "picture": {"type": ["string", "null"], "description": "Its address."},
        "hits": {"type": ["array", "null"], "items": HIT},
        "detail": {"type": "string", "description": "Why it failed."},
    },
}
ANSWER = {
    "type": "object",
    "required": ["id", "hits", "searched", "took_ms", "imagined"],
    "properties": {
        "id": {"type": "string"},
        "hits": {"type": "array", "items": HIT},
        "searched": {"type": "integer", "description": "Pictures that pass `where`."},
        "took_ms": {"type": "number"},
        "imagined": IMAGINED_SCHEMA,
    },
}
EXAMPLE_HIT = {
    "name": "sofas/blue.jpg",
    "score": 0.871,
    "metadata": {"price": "40"},
    "thumbnail": "/v1/pictures/sofas/blue.jpg/thumbnail",
}
EXAMPLE_PICTURE = {key: EXAMPLE_HIT[key] for key in ("name", "metadata", "thumbnail")}
EXAMPLE_ANSWER = {"id": "Zk3vY0sT", "hits": [EXAMPLE_HIT], "searched": 12000, "took_ms": 41.5, "imagined": None}
EXAMPLE_DONE = {"status": "done", "picture": "/v1/search/Zk3vY0sT/imagined", "hits": [EXAMPLE_HIT]}
QUERY: dict[str, Any] = {
    "picture": {"type": "array", "items": TEXT, "maxItems": 8, "description": "Names of pictures in the index."},
    "text": {**TEXT, "description": "What should be different, or, without a picture, what it should show."},
    "without": {**TEXT, "description": "What should not be in it."},
    "k": {"type": "integer", "minimum": 1, "maximum": 1000, "default": 10},
    "where": {"type": "array", "items": TEXT, "maxItems": 50, "description": 'Conditions on the metadata: "price<50".'},
    "group_by": {**TEXT, "description": "A column: only the nearest picture of each of its values."},
    "min_score": {"type": "number", "description": "The least cosine similarity."},
    "imagine": {"type": "boolean", "default": False, "description": "Make a pseudo-target, too; needs --imagine."},
}
FILES = {"type": "array", "maxItems": 8, "items": {"type": "string", "format": "binary"}}


def describe(app: FastAPI) -> None:
    """Let the description say which token a route takes."""
    described = app.openapi

    def with_token() -> dict[str, Any]:
        schema = described()
        schema["components"] = {**schema.get("components", {}), "securitySchemes": {"token": TOKEN}}
        schema["security"] = [{"token": []}]
        return schema

    app.openapi = with_token  # type: ignore[method-assign]


def _problems(*statuses: int) -> dict[str, Any]:
    schema = {
        "type": "object",
        "required": ["title", "detail", "status"],
        "properties": {"title": {"type": "string"}, "detail": {"type": "string"}, "status": {"type": "integer"}},
    }
    titles = {
        400: "The request did not arrive whole",
        401: "No token, or a wrong one",
        403: "A read token, or a foreign page",
        404: "There is none",
        408: "The request did not arrive in time",
        413: "Too large",
        415: "No picture",
        421: "Another host's name",
        422: "A wrong field",
        429: "Too many at once; see Retry-After",
        503: "Not ready",
        507: "The disk is full",
    }
    wait = {"Retry-After": {"schema": {"type": "integer"}, "description": "Seconds."}}
    answers: dict[str, Any] = {}
    for status in statuses:
        example = {"title": HTTPStatus(status).phrase, "status": status, "detail": titles[status].lower()}
        content = {KIND: {"schema": schema, "example": {"type": "about:blank", **example}}}
        answers[str(status)] = {"description": titles[status], "content": content}
        if status in (429, 503):
            answers[str(status)]["headers"] = wait
    return answers


def _route(summary: str, status: int, answer: dict[str, Any], *problems: int, **more: Any) -> dict[str, Any]:
    """Return what a route's decorator takes; the answers are ours alone, so FastAPI's own 422 is left out."""
    guarded = {421} if problems and 401 in problems else set()
    responses = {str(status): answer, **_problems(*sorted({*problems, *guarded}))}
    return {"summary": summary, "responses": responses, "status_code": status, **more}


def _json(description: str, schema: dict[str, Any], example: Any = None) -> dict[str, Any]:
    content: dict[str, Any] = {"schema": schema} | ({"example": example} if example is not None else {})
    return {"description": description, "content": {"application/json": content}}


def _binary(description: str, kind: str) -> dict[str, Any]:
    return {"description": description, "content": {kind: {"schema": {"type": "string", "format": "binary"}}}}


STATUS = {"type": "object", "properties": {"status": {"type": "string"}}}
ASKED = (401, 403, 422, 503)  # of what needs a token and an open index
HEALTH = _route("Whether the process answers", 200, _json("It does", STATUS, {"status": "ok"}), **OPEN)
READY = _route("Whether the index is open", 200, _json("It is", STATUS, {"status": "ready"}), 503, **OPEN)
METRICS = _route(
    "Counters for Prometheus",
    200,
    {"description": "Text", "content": {"text/plain": {"schema": {"type": "string"}}}},
    *(401, 403),
    response_class=PlainTextResponse,
)
PAGE = _route(
    "The page that people search with",
    200,
    {"description": "HTML", "content": {"text/html": {"schema": {"type": "string"}}}},
    *(401, 403, 503),
    response_class=HTMLResponse,
)
SEARCH = _route(
    "Search",
    200,
    _json("The nearest pictures, nearest first", ANSWER, EXAMPLE_ANSWER),
    *(*ASKED, 400, 408, 413, 415, 429),
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": {"type": "object", "properties": QUERY, "additionalProperties": False},
                    "example": {"picture": ["sofas/red.jpg"], "text": "but blue", "where": ["price<50"], "k": 5},
                },
                URLENCODED: {
                    "schema": {"type": "object", "properties": QUERY, "additionalProperties": False},
                    "example": {"text": "a red sofa", "k": 5},
                },
                "multipart/form-data": {
                    "schema": {"type": "object", "properties": {"image": FILES, **QUERY}},
                    "encoding": {"image": {"contentType": "image/*"}},
                    "example": {"image": ["(a picture's bytes)"], "text": "but blue", "k": 5},
                },
            },
        }
    },
)
SECOND_PHASE = _route(
    "A search with imagine: its second phase",
    200,
    _json("The search, with what is imagined", ANSWER, {**EXAMPLE_ANSWER, "imagined": EXAMPLE_DONE}),
    *(*ASKED, 404),
)
CANCEL = _route("Cancel a search with imagine", 204, {"description": "Cancelled"}, *ASKED, 404)
IMAGINED = _route("A search's pseudo-target", 200, _binary("The picture", "image/png"), *ASKED, 404, **BINARY)
LIST = _route(
    "List pictures, by name",
    200,
    _json(
        "A page of them",
        {
            "type": "object",
            "required": ["pictures", "next", "total", "columns"],
            "properties": {
                "pictures": {"type": "array", "items": PICTURE_SCHEMA},
                "next": {"type": ["string", "null"], "description": "What `after` is for the next page."},
                "total": {"type": "integer", "description": "Pictures that pass `where`."},
                "columns": {"type": "array", "items": {"type": "string"}},
            },
        },
        {
            "pictures": [EXAMPLE_PICTURE],
            "next": None,
            "total": 1,
            "columns": ["price"],
        },
    ),
    *ASKED,
)
THUMBNAIL = _route("A small picture", 200, _binary("WebP", "image/webp"), *ASKED, 404, 429, **BINARY)
PICTURE = _route(
    "A picture's file; with Accept: application/json, its name, metadata and sha256",
    200,
    _binary("The file", "image/*"),
    *(*ASKED, 404),
    **BINARY,
)
PICTURE["responses"]["200"]["content"] |= _json("", PICTURE_SCHEMA, {**EXAMPLE_PICTURE, "sha256": "9f86d0..."})[
    "content"
]
PUT = _route(
    "Add or replace a picture",
    201,
    _json("Added; durable", WRITTEN, {key: EXAMPLE_HIT[key] for key in ("name", "thumbnail")}),
    *(*ASKED, 400, 404, 408, 413, 415, 429, 507),
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                "multipart/form-data": {
                    "schema": {
                        "type": "object",
                        "required": ["file"],
                        "properties": {
                            "file": {"type": "string", "format": "binary"},
                            "metadata": {"type": "string", "description": "A JSON object."},
                        },
                    },
                    "example": {"file": "(the picture's bytes)", "metadata": '{"price": 40}'},
                }
            },
        }
    },
)
PUT["responses"]["200"] = {**PUT["responses"]["201"], "description": "Replaced; durable"}
DELETE = _route("Remove a picture", 204, {"description": "Removed; durable"}, *ASKED, 404, 429)


def checked_metadata(given: Sequence[Any]) -> dict[str, Any] | None:
    """Read the field `metadata`: a JSON object of texts, numbers, booleans and nulls."""
    if len(given) > 1:
        raise wrong(f"metadata is given {len(given)} times")
    if not given:
        return None
    row = parse_json(given[0], "metadata")
    if not isinstance(row, dict) or len(row) > MOST_METADATA:
        raise wrong(f"metadata should be a JSON object of at most {MOST_METADATA} columns")
    for column, cell in row.items():
        if not column.strip() or len(column) > 200 or isinstance(cell, dict | list) or len(json.dumps(cell)) > 10000:
            raise wrong(f"metadata: the column {column[:40]!r} should be a text, a number, true, false or null")
    return row
