"""Two processes that write to one place: refused with the first one's name, or side by side without loss."""

import json
from multiprocessing import get_context

import pytest
from torch import nn

from calls import run
from cig.errors import UsageError
from cig.retrieval.frozen_weights import FrozenWeight, freeze
from cig.training.loop import train
from cig.training.plan import Plan


def composing(world, prefix=""):
    models = world / "models"
    pair = {"clip": models / "clip-small", "clip2": models / "clip-large"}
    pair |= {"phi": models / "phi-small.pt", "phi2": models / "phi-large.pt"}
    return [word for name, path in pair.items() for word in (f"--{prefix}{name}", path)]


def calls(world, out):
    cirr = ["cirr/val", "--dataset-path", world, "--device", "cpu"]
    models = world / "models"
    sdxl = ["--model-path", models / "sdxl", "--sdxl-repo", models / "sdxl", "--vae-repo", models / "sdxl/vae"]
    search = ["--search-clip", models / "clip-small", "--search-phi", models / "phi-small.pt"]
    return {
        "extract": ["extract", *cirr, *composing(world), "--text-embeddings-dir", out],
        "run": ["run", *cirr, *composing(world), *sdxl, *search, "--out", out],
    }


@pytest.mark.parametrize("verb", ["extract", "run"])
def test_a_second_call_into_one_folder_is_refused(world, tmp_path, held_elsewhere, capsys, verb):
    first = held_elsewhere("folder", tmp_path / "out")
    code, _, error = run(capsys, *calls(world, tmp_path / "out")[verb])
    assert (code, f"process {first.pid} on" in error) == (2, True), error


def test_a_shard_works_beside_another(world, tmp_path, held_elsewhere, capsys):
    held_elsewhere("folder", tmp_path / "out", "1/2")
    line = calls(world, tmp_path / "out")["extract"]
    assert run(capsys, *line, "--shard", "2/2")[0] == 0
    assert list((tmp_path / "out").glob("*.pt"))
    assert run(capsys, *line, "--shard", "1/2")[0] == 2
    assert run(capsys, *line)[0] == 2


def test_a_second_training_into_one_folder_is_refused(tmp_path, held_elsewhere):
    first = held_elsewhere("folder", tmp_path / "out")
    plan = Plan(steps=1, batch=1, lr=0.1, warmup=0, save_every=1)
    with pytest.raises(UsageError, match=f"process {first.pid} on"):
        train(nn.Linear(1, 1), lambda step: 0, plan, out=tmp_path / "out", export=dict, inputs={})


def freeze_many(path, method):
    weight = FrozenWeight(0.4, "recall@1", {"0.4": 9.0}, "cirr/val", "digest", None, "models")
    for i in range(20):
        freeze(path, "cirr", weight, method=method, branch=str(i))


@pytest.mark.slow
def test_sweeps_side_by_side_lose_no_weight(tmp_path):
    context = get_context("spawn")
    processes = [context.Process(target=freeze_many, args=(tmp_path / "w.json", method)) for method in ("a", "b")]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    kept = json.loads((tmp_path / "w.json").read_text())["cirr"]
    assert {method: len(branches) for method, branches in kept.items()} == {"a": 20, "b": 20}
