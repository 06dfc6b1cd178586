"""The routes of the service, and their description in OpenAPI."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Path, Query, Request
from fastapi.routing import APIRoute
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, Response
from starlette.types import ASGIApp

from cig.service import describing, page, problems
from cig.service.access import Access, Guard
from cig.service.metrics import Recorder
from cig.service.pictures import check_name, media_type_of, suffix_of
from cig.service.running import Running
from cig.service.searches import SearchFields, thumbnail_address
from cig.service.settings import MOST_PICTURES
from cig.service.uploads import decoded, finite_rows, read_form, wrong


def make_app(running: Running, access: Access) -> ASGIApp:
    """Return the application: every request is counted, then checked, then answered."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        running.close()

    app = FastAPI(title="cig serve", version=describing.VERSION, lifespan=lifespan, **describing.APPLICATION)
    app.state.running = running
    app.router.route_class = _Noted
    problems.install(app)
    app.include_router(ROUTES)
    describing.describe(app)
    return Recorder(Guard(app, access), running.metrics)


class _Noted(APIRoute):
    """A route that leaves its pattern for the log and the metrics."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def noting(request: Request) -> Response:
            log(request)["route"] = self.path
            return await handle(request)

        return noting


ROUTES = APIRouter(route_class=_Noted)


def log(request: Request) -> dict[str, Any]:
    """Return what the request's line of the log says beside its status."""
    return request.scope["state"]["log"]


def of(request: Request) -> Running:
    return request.app.state.running


Name = Annotated[
    str, Path(description="A picture's name in the index; slashes as they are.", examples=["sofas/red.jpg"])
]
SearchId = Annotated[str, Path(description="The id of a search with imagine.", examples=["Zk3vY0sT"])]


@ROUTES.get("/healthz", **describing.HEALTH)
async def healthz() -> Response:
    return JSONResponse({"status": "ok"})


@ROUTES.get("/readyz", **describing.READY)
async def readyz(request: Request) -> Response:
    of(request).need_open()
    return JSONResponse({"status": "ready"})


@ROUTES.get("/metrics", **describing.METRICS)
async def metrics(request: Request) -> Response:
    return Response(await asyncio.to_thread(of(request).metrics.text), media_type=CONTENT_TYPE_LATEST)


@ROUTES.get("/", **describing.PAGE)
async def show_page(request: Request) -> Response:
    opened = of(request).need_open()
    rendered = await asyncio.to_thread(page.render, opened.index, imagine=opened.imagining is not None)
    return HTMLResponse(rendered.content, headers={"Content-Security-Policy": rendered.policy})


@ROUTES.post("/v1/search", **describing.SEARCH)
async def search(request: Request) -> Response:
    running = of(request)
    opened = running.need_open()
    with running.admitted(request, MOST_PICTURES):
        form = await read_form(request, running.serving.max_upload, most_files=MOST_PICTURES)
        fields = SearchFields.of(form)
        if running.serving.log_queries:
            log(request).update(text=fields.text, without=fields.without, picture=fields.picture, where=fields.where)
        log(request).update(images=len(fields.images) + len(fields.picture), k=fields.k)
        return JSONResponse(await opened.search(fields))


@ROUTES.get("/v1/search/{id}", **describing.SECOND_PHASE)
async def second_phase(request: Request, id: SearchId) -> Response:
    return JSONResponse(of(request).need_open().imagined(id).shown())


@ROUTES.delete("/v1/search/{id}", **describing.CANCEL)
async def cancel(request: Request, id: SearchId) -> Response:
    opened = of(request).need_open()
    search = opened.imagined(id)
    opened.need_imagining().cancel(search)
    return Response(status_code=204)


@ROUTES.get("/v1/search/{id}/imagined", **describing.IMAGINED)
async def imagined(request: Request, id: SearchId) -> Response:
    picture = of(request).need_open().imagined(id).picture
    if picture is None or not picture.is_file():
        raise problems.Problem(404, "the pseudo-target is not made yet")
    return FileResponse(picture, media_type="image/png")


@dataclass(frozen=True)
class ListedPage:
    """Which pictures are listed."""

    where: Annotated[list[str] | None, Query(description='Conditions on the metadata: "price<50".')] = None
    after: Annotated[str, Query(description="The last name of the page before.")] = ""
    limit: Annotated[int, Query(ge=1, le=1000, description="How many.")] = 100


@ROUTES.get("/v1/pictures", **describing.LIST)
async def list_pictures(request: Request, wanted: Annotated[ListedPage, Depends()]) -> Response:
    pictures = of(request).need_open().pictures
    return JSONResponse(
        await asyncio.to_thread(
            pictures.listed, [text for text in wanted.where or () if text], after=wanted.after, limit=wanted.limit
        )
    )


@ROUTES.get("/v1/pictures/{name:path}/thumbnail", **describing.THUMBNAIL)
async def thumbnail(
    request: Request, name: Name, side: Annotated[int, Query(ge=16, le=2048, description="Pixels.")] = 320
) -> Response:
    pictures = of(request).need_open().pictures
    entry = await asyncio.to_thread(pictures.entry, name)
    tag = f'"{entry.content}-{side}"'
    headers = {"ETag": tag, "Cache-Control": "private, no-cache"}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    small = await of(request).in_pictures(pictures.thumbnail, entry, side)
    return Response(small, media_type="image/webp", headers=headers)


@ROUTES.get("/v1/pictures/{name:path}", **describing.PICTURE)
async def picture(request: Request, name: Name) -> Response:
    pictures = of(request).need_open().pictures
    entry = await asyncio.to_thread(pictures.entry, name)
    if "application/json" in request.headers.get("accept", ""):
        facts = {"name": entry.name, "metadata": finite_rows(entry.metadata), "sha256": entry.content}
        return JSONResponse(facts | {"thumbnail": thumbnail_address(entry.name)})
    path = await asyncio.to_thread(pictures.path, entry)
    headers = {"Content-Security-Policy": "default-src 'none'; sandbox"}
    return FileResponse(path, headers=headers, media_type=media_type_of(path))


@ROUTES.put("/v1/pictures/{name:path}", **describing.PUT)
async def put(request: Request, name: Name) -> Response:
    running = of(request)
    pictures = running.need_open().pictures
    check_name(name)
    with running.admitted(request, 1):
        form = await read_form(request, running.serving.max_upload, most_files=1)
        form.check(("metadata",), ("file",))
        if not form.files:
            raise wrong("send the picture as the multipart field file")
        metadata = describing.checked_metadata(form.grouped().get("metadata", []))
        data = form.files[0][1]
        suffix = suffix_of((await decoded(data)).image)
        new = await running.in_writing(partial(pictures.put, name, data, suffix, metadata=metadata))
    facts = {"name": name, "thumbnail": thumbnail_address(name)}
    return JSONResponse(facts, 201 if new else 200)


@ROUTES.delete("/v1/pictures/{name:path}", **describing.DELETE)
async def delete(request: Request, name: Name) -> Response:
    running = of(request)
    await running.in_writing(running.need_open().pictures.delete, name)
    return Response(status_code=204)
