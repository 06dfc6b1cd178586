"""A small index of drawn pictures, and services over it."""

import shutil

import pytest
from fastapi.testclient import TestClient
from PIL import Image, ImageDraw

from cig.pipelines.open import make_index, open
from cig.retrieval.requests import OwnSearching
from cig.runtime import Compute
from cig.service.access import Access
from cig.service.app import make_app
from cig.service.running import Running
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


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """A folder of pictures and its index; tests work on copies of the index."""
    home = tmp_path_factory.mktemp("served")
    gallery = fill(home / "photos")
    index = make_index(
        gallery,
        home / "ix",
        OwnSearching(method=METHOD, feature_cache=home / "cache"),
        compute=Compute(device="cpu"),
        metadata=home / "table.csv",
    )
    index.close()
    return home


@pytest.fixture
def index(made, tmp_path):
    shutil.copytree(made / "ix", tmp_path / "ix")
    return open(tmp_path / "ix", cache=tmp_path / "cache", device="cpu")


@pytest.fixture
def start(index, request):
    """start(**settings): a client of a service over the index; it may write."""

    def starting(access=None, imagine=None, ready=True, **settings):
        running = Running(Serving(imagine=imagine is not None, **settings))
        if ready:
            running.open(index, imagine)
        access = access or Access(write="w" * 20, read="r" * 20)
        client = TestClient(make_app(running, access), base_url="http://127.0.0.1:8000", raise_server_exceptions=False)
        client.headers["Authorization"] = f"Bearer {access.write or access.secret}"
        client.__enter__()
        request.addfinalizer(lambda: client.__exit__(None, None, None))
        return client

    return starting


@pytest.fixture
def client(start):
    return start()
