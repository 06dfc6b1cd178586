"""What tests share: a tiny world made once, and the real annotations and published outputs where they are at hand."""

import json
import lzma
import os
import threading
from pathlib import Path

import pytest
import torch

import tiny
from browsing import BROWSER, browser
from cig.benchmarks import icons
from cig.cli.terminal import messages_on_stderr
from cig.runtime import quiet_transformers
from holding import held_elsewhere  # noqa: F401
from messages import Messages

HOME = Path(__file__).parents[1]


def pytest_addoption(parser):
    parser.addoption("--update-messages", action="store_true", help="rewrite tests/messages.json")


def pytest_configure():
    quiet_transformers()
    torch.manual_seed(0)
    if "PYTEST_XDIST_WORKER" in os.environ:  # workers share the cores, and so do the processes that they start
        torch.set_num_threads(1)
        os.environ.setdefault("OMP_NUM_THREADS", "1")


# The files that take longest are begun first, in this order: a worker takes whole files, and one begun late would leave
# the other cores idle at the end.
LONGEST = ("test_generator_training", "test_recipes", "test_icons", "test_kills", "test_compare", "test_run")
LONGEST += ("test_methods", "test_trial", "test_clip_training", "test_robustness", "test_icons_altered")
# Fixtures that alone take seconds, so that who asks for one is slow: a browser, the corpus's captions, published runs.
COSTLY = {"opened", "ready", "of_pairs", "of_triplets", "of_altered", "published_run"}


@pytest.hookimpl(tryfirst=True)  # before `-m "not slow"` chooses
def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: LONGEST.index(item.path.stem) if item.path.stem in LONGEST else len(LONGEST))
    for item in items:
        if COSTLY & set(item.fixturenames):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory):
    """What is kept for any of a user's calls is kept for these tests alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def _hub_is_asked(monkeypatch):
    """No test works offline because one before it could not reach the hub."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("cig.io.hub._found_offline", threading.Event())


@pytest.fixture(autouse=True)
def _messages_on_stderr():
    """What the library logs is on stderr, as the command line shows it, so that capsys reads it."""
    with messages_on_stderr():
        yield


@pytest.fixture
def message(request, tmp_path):
    """message(id, text): the text is the snapshot's."""
    return Messages(request.config.getoption("--update-messages"), tmp_path)


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    """CIRR, FashionIQ, CIRCO and models/ in miniature."""
    return tiny.make(tmp_path_factory.mktemp("world"))


def _outside(variable, name, what):
    path = Path(os.environ.get(variable, HOME.parent / "shared" / name))
    if not path.is_dir():
        pytest.skip(f"{what} not at hand: set {variable} to their folder")
    return path


@pytest.fixture(scope="session")
def few(tmp_path_factory):
    """A folder with an icons/val of twelve queries, over what they name and two hundred more."""
    folder = tmp_path_factory.mktemp("few")
    content = json.loads(lzma.decompress(icons.assets().joinpath("val.json.xz").read_bytes()))
    queries = content["queries"][:12]
    needed = {name for row in queries for name in (row[1], row[3], *row[4])}
    more = [name for name in content["gallery"] if name.startswith("tabler/folder")][:200]
    small = {"queries": queries, "gallery": sorted({*needed, *more})}
    (folder / "val.json.xz").write_bytes(lzma.compress(json.dumps(small).encode()))
    return folder


@pytest.fixture(scope="module")
def few_icons(few):
    """icons/val is that one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(icons, "assets", lambda: few)
        yield


@pytest.fixture(scope="session")
def annotations():
    """The real annotation files, which may not be redistributed here."""
    return _outside("CIG_ANNOTATIONS", "annotations", "the official annotation files are")


@pytest.fixture(scope="session")
def published():
    """A small case with the outputs of the published implementation on it."""
    return _outside("CIG_REFERENCE", "reference", "the published implementation's outputs are")


@pytest.fixture(scope="module")
def opened():
    if not BROWSER:
        pytest.skip("no chromium or google-chrome on this machine")
    with browser() as ready:
        yield ready


@pytest.fixture
def close_folder(monkeypatch):
    """Make a folder that may not be listed, by root neither, who runs these tests in some places."""
    listed, closed = os.scandir, set()

    def scandir(path="."):
        if not isinstance(path, int) and Path(path) in closed:
            raise PermissionError(13, "Permission denied")
        return listed(path)

    def close(folder):
        folder.mkdir(parents=True)
        closed.add(folder)
        return folder

    monkeypatch.setattr(os, "scandir", scandir)
    return close
