import shutil
import socket
import threading
import time
from pathlib import Path

import pytest
import torch

from cig.errors import NotFoundError
from cig.generators._round_trip import load_round_trip
from cig.io import hub
from cig.io.images import Preprocess
from cig.models.captioner import load_captioner
from cig.models.clip import load_clip
from cig.models.dual_encoder import load_tower
from cig.models.tokenizer import openai_tokenizer
from cig.training.data.language_model import load_language_model
from cig.training.objectives._unet import load_unet, meta_unet
from fakehub import Hub, serving
from tokenizers_of_ours import own_tokenizer

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


PINNED = "openai/clip-vit-large-patch14"


def clip_folder(world, tmp_path):
    """A CLIP with a tokenizer, a preprocessing, and files that transformers does not read."""
    folder = Path(shutil.copytree(world / "models/clip-small", tmp_path / "source"))
    own_tokenizer(folder)
    (folder / "preprocessor_config.json").write_text('{"image_mean": [0.5, 0.5, 0.5]}')
    for name in ("model.fp16.safetensors", "open_clip_model.safetensors", "pytorch_model.bin", "README.md"):
        (folder / name).write_bytes(b"no weights")
    return folder


def test_a_pinned_snapshot_that_is_whole_is_not_asked_for(world, tmp_path, monkeypatch):
    """Fetched once, then loaded by every loader without a request or a connection."""
    with serving(Hub()) as own:
        monkeypatch.setenv("HF_ENDPOINT", own.url)
        own.add(PINNED, hub.repo(PINNED).commit, clip_folder(world, tmp_path))
        first = load_clip(PINNED)
        assert sorted(own.fetched) == [
            *("config.json", "model.safetensors", "preprocessor_config.json", "tokenizer.json", "tokenizer_config.json")
        ]
        own.asked.clear()
        monkeypatch.setattr(socket, "create_connection", lambda *_: pytest.fail("connects"))
        again, tower = load_clip(PINNED), load_tower(PINNED, CPU, FLOAT)
        assert own.asked == []
    assert torch.equal(again.embed_texts(["a red photo"]), first.embed_texts(["a red photo"]))
    assert again.identity["revision"] == tower.identity["revision"] == hub.repo(PINNED).commit


@pytest.mark.parametrize("trouble", ["down", "gone", "gated"])
def test_a_copy_in_the_cache_is_used_where_the_hub_gives_nothing(world, tmp_path, monkeypatch, caplog, trouble):
    name = "someone/clip"
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # the library's own tries
    with serving(Hub()) as own:
        monkeypatch.setenv("HF_ENDPOINT", own.url)
        own.add(name, "b" * 40, clip_folder(world, tmp_path))
        first = load_clip(name)
        own.down, gone = trouble == "down", trouble == "gone"
        own.repos = {} if gone else own.repos
        own.gated = {name} if trouble == "gated" else set()
        assert load_clip(name).identity == first.identity
        assert str(hub.snapshot(name)) in caplog.text
        shutil.rmtree(tmp_path / "hub")
        with pytest.raises(NotFoundError, match=name):
            load_clip(name)


def test_a_pinned_snapshot_that_lacks_a_file_gets_it(world, tmp_path, monkeypatch):
    with serving(Hub()) as own:
        monkeypatch.setenv("HF_ENDPOINT", own.url)
        own.add(PINNED, hub.repo(PINNED).commit, clip_folder(world, tmp_path))
        load_clip(PINNED)
        (hub.snapshot(PINNED) / "model.safetensors").unlink()
        assert hub.pinned_snapshot(PINNED, None, ("config.json", "model*.safetensors")) is None
        load_clip(PINNED)
    assert hub.pinned_snapshot(PINNED, None, ("config.json", "model*.safetensors")) == hub.snapshot(PINNED)


def test_shards_that_are_missing_leave_a_snapshot_incomplete(tmp_path):
    folder = tmp_path / "hub" / f"models--{PINNED.replace('/', '--')}" / "snapshots" / hub.repo(PINNED).commit
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    states = []
    index = '{"weight_map": {"a": "model-1-of-2.safetensors", "b": "model-2-of-2.safetensors"}}'
    for name in ("model-1-of-2.safetensors", "model.safetensors.index.json", "model-2-of-2.safetensors"):
        (folder / name).write_text(index)
        states.append(hub.pinned_snapshot(PINNED, None, ("config.json", "model*.safetensors")))
    assert states == [None, None, folder]


@pytest.mark.parametrize("name", [PINNED, "someone/clip"])
def test_tokenizer_and_preprocessing_come_from_the_snapshot(world, tmp_path, monkeypatch, name):
    """By its id as by its folder; a copy beside the name, of another tokenizer, is not looked at."""
    folder = clip_folder(world, tmp_path)
    for extra in ("model.fp16.safetensors", "open_clip_model.safetensors", "pytorch_model.bin"):
        (folder / extra).unlink()
    with serving(Hub()) as own:
        monkeypatch.setenv("HF_ENDPOINT", own.url)
        own.add(name, hub.repo(name).commit or "b" * 40, folder)
        by_id, by_folder = load_clip(name), load_clip(folder)
    texts = ["a photo of $ that is red"]
    assert by_id.tokenizer(texts) == by_folder.tokenizer(texts) != openai_tokenizer()(texts)
    assert by_id.preprocess(pad=True) == by_folder.preprocess(pad=True) != Preprocess(224, pad=True)
    assert torch.allclose(by_id.embed_texts(texts), by_folder.embed_texts(texts), atol=1e-5)


@pytest.mark.parametrize(
    ("names", "weights"),
    [
        (["model.safetensors", "model.fp16.safetensors", "pytorch_model.bin"], ["model.safetensors"]),
        (["model.fp16.safetensors", "pytorch_model.bin"], ["model.fp16.safetensors"]),
        (["pytorch_model.bin", "open_clip.safetensors", "onnx/model.safetensors"], ["pytorch_model.bin"]),
        (["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"], "all"),
        (["tf_model.h5", "code.py"], []),
    ],
)
def test_weights_of_one_form_are_fetched(names, weights):
    small = ["config.json", "merges.txt", "spiece.model"]
    wanted = [*small, *(names if weights == "all" else weights)]
    assert hub.files_of_model([*names, *small], "pytorch_model") == wanted
    assert "pytorch_model.bin" not in hub.files_of_model([*names, *small], "")


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
