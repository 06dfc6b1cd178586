"""Drawn pictures, an index of them, and a service over it."""

import threading
from contextlib import contextmanager

import httpx
import uvicorn
from fastapi.testclient import TestClient
from PIL import Image, ImageDraw

from cig.service.access import Access
from cig.service.app import make_app
from cig.service.running import Running
from cig.service.server import GracefulServer, listen
from cig.service.settings import Serving

METHOD = "sum/icons"
COLOURS = ("red", "green", "blue", "gold", "purple")


def drawn(number, colour="red", side=64):
    """Return a picture: a shape of a colour, at its own size."""
    picture = Image.new("RGB", (side, side), "white")
    draw = ImageDraw.Draw(picture)
    shape = (draw.ellipse, draw.rectangle)[number % 2]
    shape((4 + number % 7, 6, 30 + number, 32 + number), fill=colour)
    return picture


def fill(folder, count=30):
    lines = ["name,price,colour"]
    for i in range(count):
        colour = COLOURS[i % len(COLOURS)]
        path = folder / colour / f"{i:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        drawn(i, colour).save(path)
        lines.append(f"{colour}/{path.name},{i},{colour}")
    (folder.parent / "table.csv").write_text("\n".join(lines) + "\n")
    return folder


def make_client(index, access=None, imagine=None, ready=True, **settings):
    """Return a client, which enters as a context; it may write, and `client.running` is the service."""
    running = Running(Serving(imagine=imagine is not None, **settings))
    if ready:
        running.open(index, imagine)
    access = access or Access(write="w" * 20, read="r" * 20)
    client = TestClient(make_app(running, access), base_url="http://127.0.0.1:8000", raise_server_exceptions=False)
    client.headers["Authorization"] = f"Bearer {access.write or access.secret}"
    client.running = running
    return client


@contextmanager
def live(index, **settings):
    """A service with a port of this machine; yields a client like that of make_client, and its server."""
    client = make_client(index, **settings)
    server = GracefulServer(uvicorn.Config(client.app, log_config=None, access_log=False, timeout_graceful_shutdown=20))
    taken = listen(Serving(port=0))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [taken]})
    thread.start()
    address = f"http://127.0.0.1:{taken.getsockname()[1]}"
    try:
        with httpx.Client(base_url=address, headers=dict(client.headers), timeout=30) as caller:
            while caller.get("/healthz").status_code != 200:
                pass
            yield caller, server
    finally:
        server.should_exit = True
        thread.join()
        taken.close()
