"""The flags of SEARLE's and LinCIR's evaluation scripts mean what they mean there."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from calls import run
from cig.benchmarks import Data
from cig.cli.published_flags import LINCIR_CLIPS, TargetFlags
from cig.errors import UsageError
from cig.retrieval.requests import Searching
from searchers import oti_folder

L14 = "openai/clip-vit-large-patch14"


def experiment(folder, clip="ViT-L/14"):
    folder.mkdir(parents=True)
    (folder / "hyperparameters.json").write_text(json.dumps({"clip_model_name": clip}))
    return folder


def completed(name="cirr/val", default="val", method="searle", search=None, **flags):
    search = replace(search or Searching(), method=method)
    return TargetFlags(**flags).completed(search, (), Data(name), default_split=default)


def weights(search):
    return search.method, search.clip, search.phi and Path(search.phi).as_posix()


def test_an_experiment_of_searle_is_its_clip_and_its_checkpoint(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    experiment(tmp_path / "data/phi_models/mine")
    own = {"method": "phi", "exp_name": "mine", "phi_checkpoint_name": "phi_20.pt"}
    assert weights(completed(**own)) == ("phi", L14, "data/phi_models/mine/checkpoints/phi_20.pt")
    assert weights(completed(**own, search=Searching(clip="other")))[1] == "other"


@pytest.mark.parametrize(
    ("name", "default", "folder"),
    [
        ("cirr/val", "val", "cirr/val"),
        ("cirr", "test", "cirr/test"),
        ("cirr/test1", "test", "cirr/test"),
        ("circo", "test", "circo/test"),
        ("fashioniq", "val", "fashioniq/val"),
    ],
)
def test_words_of_searle_are_in_the_folder_of_their_benchmark(tmp_path, monkeypatch, name, default, folder):
    monkeypatch.chdir(tmp_path)
    place = experiment(tmp_path / "data/oti_pseudo_tokens" / folder / "mine")
    search = completed(name, default, "oti", exp_name="mine")
    assert weights(search) == ("oti/l14", None, place.relative_to(tmp_path).as_posix())


@pytest.mark.parametrize(
    ("method", "flags", "expected"),
    [
        ("phi", {"clip_model_name": "large"}, ("lincir", L14, "w/phi_best.pt")),
        ("phi", {"clip_model_name": "huge"}, ("lincir", "laion/CLIP-ViT-H-14-laion2B-s32B-b79K", "w/phi_best.pt")),
        ("phi", {}, ("lincir", "Geonmo/CLIP-Giga-config-fixed", "w/phi_best.pt")),
        ("pic2word", {"clip_model_name": "large"}, ("pic2word", L14, "w/phi_best.pt")),
    ],
)
def test_lincir_names_a_file_and_a_size(method, flags, expected):
    search = completed(method=method, phi_checkpoint_name="w/phi_best.pt", **flags)
    assert weights(search) == expected
    assert search.options == {}


def test_l2_normalize_is_an_option_of_the_method():
    search = completed(method="phi", phi_checkpoint_name="p.pt", l2_normalize=True)
    assert search.options == {"l2_normalize": "yes"}
    assert weights(completed(method="lincir", l2_normalize=True)) == ("lincir", None, None)


@pytest.mark.parametrize(
    ("method", "flags", "words"),
    [
        ("searle", {"phi_checkpoint_name": "p.pt"}, "--phi-checkpoint-name without --exp-name"),
        ("searle", {"l2_normalize": True}, "--l2_normalize without"),
        ("searle", {"exp_name": "mine"}, "come together"),
        ("oti", {"exp_name": "mine", "phi_checkpoint_name": "p.pt"}, "leave --phi-checkpoint-name out"),
        ("phi", {"exp_name": "mine", "clip_model_name": "large"}, "of LinCIR's"),
        ("phi", {"clip_model_name": "large", "search": Searching(clip="x")}, "give one of them"),
        ("phi", {"phi_checkpoint_name": "p.pt", "search": Searching(phi=Path("x"))}, "give one of them"),
    ],
)
def test_flags_that_exclude_or_lack_each_other(method, flags, words):
    with pytest.raises(UsageError, match=words):
        completed(method=method, **flags)


def test_published_lines_score_what_our_flags_score(world, tmp_path, monkeypatch, capsys):
    """SEARLE's by an experiment's words, LinCIR's by a path, an underscore and a size; here with CLIPs of noise."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(oti_folder(world), tmp_path / "data/oti_pseudo_tokens/cirr/val/mine")
    clip, phi = world / "models/clip-small", world / "models/phi-small.pt"
    monkeypatch.setitem(LINCIR_CLIPS, "large", str(clip))
    data = ["--dataset", "cirr", "--dataset-path", world / "CIRR"]
    pairs = [
        (
            ["--eval-type", "oti", "--exp-name", "mine", "--clip", clip],
            ["--method", "oti", "--clip", clip, "--phi", oti_folder(world)],
        ),
        (
            ["--eval-type", "phi", "--phi-checkpoint-name", phi, "--clip_model_name", "large", "--l2_normalize"],
            ["--method", "lincir", "--clip", clip, "--phi", phi, "--method-option", "l2_normalize=yes"],
        ),
    ]
    for published, ours in pairs:
        for name, words in (("published.json", published), ("ours.json", ours)):
            code, _, err = run(capsys, "evaluate", *data, *words, "--rankings", name)
            assert code == 0, err
        assert Path("published.json").read_text() == Path("ours.json").read_text()
