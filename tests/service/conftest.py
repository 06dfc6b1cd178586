"""A small index of drawn pictures, and services over it."""

import shutil

import pytest

from cig.pipelines.open import make_index, open
from cig.retrieval.requests import OwnSearching
from cig.runtime import Compute
from services import METHOD, fill, make_client


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

    def starting(**settings):
        client = make_client(index, **settings)
        client.__enter__()
        request.addfinalizer(lambda: client.__exit__(None, None, None))
        return client

    return starting


@pytest.fixture(scope="module")
def steady(made, tmp_path_factory):
    """A client of a service that a module's tests share, since they change nothing; its index is in `home`."""
    home = tmp_path_factory.mktemp("steady")
    shutil.copytree(made / "ix", home / "ix")
    with make_client(open(home / "ix", cache=home / "cache", device="cpu")) as client:
        client.home = home
        yield client


@pytest.fixture
def client(start):
    return start()
