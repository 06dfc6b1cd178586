import shutil
import socket
import threading
import time

import pytest
import torch

from cig.errors import NotFoundError
from cig.generators._round_trip import load_round_trip
from cig.io import hub
from cig.models.captioner import load_captioner
from cig.models.clip import load_clip
from cig.models.dual_encoder import load_tower
from cig.training.data.language_model import load_language_model
from cig.training.objectives._unet import load_unet, meta_unet
from fakehub import Hub, serving

CPU, FLOAT = torch.device("cpu"), torch.float32
LOADERS = {
    "clip": lambda name: load_clip(name, CPU, FLOAT),
    "tower": lambda name: load_tower(name, CPU, FLOAT),
    "captioner": lambda name: load_captioner(name, CPU, FLOAT),
    "language model": lambda name: load_language_model(name, CPU, FLOAT),
    "vae": lambda name: load_round_trip(name, CPU, 64),
    "unet": load_unet,
}


@pytest.fixture(autouse=True)
def no_network(tmp_path, monkeypatch):
    """A hub that refuses connections, an empty cache, and a library that fails the test when it waits."""
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("time.sleep", lambda seconds: pytest.fail(f"waits {seconds} s to try again"))


@pytest.mark.parametrize("load", LOADERS.values(), ids=LOADERS)
@pytest.mark.parametrize("name", ["openai/clip-vit-base-patch32", "models/no-such-folder", "/no/such/folder"])
def test_a_model_that_is_nowhere_is_told_at_once(load, name):
    with pytest.raises(NotFoundError, match=name):
        load(name)


def test_a_unet_that_is_nowhere_is_left_to_its_loader():
    assert meta_unet("someone/sdxl") is None


@pytest.mark.parametrize(("name", "command"), [("someone/clip", "hf download"), (next(iter(hub.REPOS)), "cig models")])
def test_the_error_says_what_fetches_it(name, command):
    with pytest.raises(NotFoundError, match=rf"127\.0\.0\.1 .*\({command}.* {name}\)"):
        load_clip(name)


def test_a_model_in_the_cache_loads_without_a_network(world, tmp_path, monkeypatch):
    commit, home = "a" * 40, tmp_path / "hub/models--someone--clip"
    shutil.copytree(world / "models/clip-small", home / "snapshots" / commit)
    (home / "refs").mkdir()
    (home / "refs/main").write_text(commit)
    assert load_clip("someone/clip").identity["revision"] == commit


def test_after_an_outage_the_hub_is_asked_again(monkeypatch):
    assert hub.unreachable()
    with serving(Hub()) as own:
        monkeypatch.setenv("HF_ENDPOINT", own.url)
        assert (hub.unreachable(), hub.unreachable()) == ("", "")


def test_who_works_offline_is_not_connected(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr(socket, "create_connection", lambda *_: pytest.fail("connects"))
    assert "HF_HUB_OFFLINE" in hub.unreachable()


def test_a_proxy_is_what_must_be_reached(monkeypatch):
    with serving(Hub()) as own:
        monkeypatch.setenv("HF_ENDPOINT", "http://hub.invalid")
        monkeypatch.setenv("http_proxy", own.url)
        assert hub.unreachable() == ""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert "proxy 127.0.0.1" in hub.unreachable()


def test_a_network_that_swallows_packets_has_so_many_seconds(monkeypatch):
    def swallow(*_):
        threading.Event().wait(5)
        raise TimeoutError

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_ETAG_TIMEOUT", 0.1)
    monkeypatch.setattr(socket, "create_connection", swallow)
    started = time.monotonic()
    assert "0.1 seconds" in hub.unreachable()
    assert time.monotonic() - started < 4
