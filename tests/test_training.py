"""Losses against numbers one can check by eye; resume; what diverges; the smallest real trainings end to end."""

import json
import math
from pathlib import Path
from random import Random
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from transformers import CLIPModel

from cig.encoders import load_clip
from cig.errors import MismatchError, NotFoundError, UsageError
from cig.inversion import IM2TEXT, load_phi
from cig.tensors import read_tensors
from cig.training import load_pairs, loop
from cig.training.clip import contrastive, deepen
from cig.training.keywords import mask_keywords
from cig.training.loop import CHECKPOINT, DivergedError, Plan, train
from cig.training.phi import lincir, pic2word
from cig.verbs import training as verbs


def test_contrastive_by_hand():
    rows = torch.eye(2)
    own, other = math.log(1 + math.exp(-3)), 3 + math.log(1 + math.exp(-3))
    alone = torch.eye(2, dtype=torch.bool)
    assert contrastive(rows, 2 * rows, alone, 3.0).item() == pytest.approx(own)
    assert contrastive(rows, rows, torch.ones(2, 2, dtype=torch.bool), 3.0).item() == pytest.approx((own + other) / 2)
    assert contrastive(rows, rows.flip(0), alone, 3.0).item() == pytest.approx(other)


@pytest.mark.parametrize(
    ("caption", "masked"),
    [
        ("a photo of a red folder that has a lock", "$ of $ that has $"),
        ("Is shiny, and silver", "is $ and $"),
        ("costs $5", "$"),
        ("", "a photo of $"),
    ],
)
def test_keywords(caption, masked):
    assert mask_keywords(caption, Random(0)) == masked


def test_a_caption_without_keywords_loses_one_word():
    assert {mask_keywords("it is on", Random(i)) for i in range(20)} == {"$ is on", "it $ on", "it is $"}


class TwoWords:
    """A CLIP whose texts are numbers: T(caption) = (length, 1); T(masked) = its pseudo-word."""

    device = torch.device("cpu")

    def embed_texts(self, texts):
        return torch.tensor([[float(len(text)), 1.0] for text in texts])

    def embed_images(self, pixels):
        return pixels

    def project_texts(self, texts, words):
        assert all("$" in text for text in texts)
        return words


def test_lincir_is_the_distance_to_the_whole_caption():
    pairs = SimpleNamespace(captions=lambda count, rng: ["ab", "abcd"][:count])
    off_by_two = lincir(TwoWords(), lambda noisy: torch.tensor([[4.0, 1.0], [4.0, 1.0]]), pairs, 2, Random(0))
    assert off_by_two.item() == 1.0  # (2^2 + 0 + 0 + 0) / 4
    seen = []
    lincir(TwoWords(), lambda noisy: seen.append(noisy) or noisy, pairs, 2, Random(0))
    assert 0 < (seen[0] - torch.tensor([[2.0, 1.0], [4.0, 1.0]])).abs().max() < 6


def test_pic2word_is_the_contrast_with_the_own_picture():
    pairs = SimpleNamespace(batch=lambda size, rng: SimpleNamespace(pixels=torch.eye(2)))
    right = pic2word(TwoWords(), lambda features: features, pairs, 2, Random(0), 3.0)
    wrong = pic2word(TwoWords(), lambda features: features.flip(0), pairs, 2, Random(0), 3.0)
    assert (right.item(), wrong.item()) == pytest.approx((math.log(1 + math.exp(-3)), 3 + math.log(1 + math.exp(-3))))


# The loop


def fit(out, steps=6, stop_at=None, bad_at=None, export=lambda model: None, **plan):
    """Fits a line to noise that comes from each step's seed; returns its weights."""
    torch.manual_seed(0)
    model, count = nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.5), nn.Linear(3, 1)), iter(range(100))

    def loss_of(rng):
        step = next(count)
        if step == stop_at:
            raise KeyboardInterrupt
        loss = (model(torch.tensor([[rng.random() for _ in range(3)]])) - rng.random()).square().mean()
        return loss * float("nan") if step == bad_at else loss

    plan = Plan(steps, 1, 0.1, 2, save_every=2, **plan)
    train(model, loss_of, plan, out, lambda facts: export(model), {"data": "noise"})
    return model.state_dict()


def test_a_resumed_run_ends_with_the_same_bits(tmp_path):
    whole = fit(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path / "broken", stop_at=5)
    assert read_tensors(tmp_path / "broken" / CHECKPOINT)["facts"]["steps"] == 4
    resumed = fit(tmp_path / "broken")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    again = fit(tmp_path / "whole")
    assert all(torch.equal(whole[name], again[name]) for name in whole)


def test_a_loss_that_is_no_number_stops_and_keeps_the_last_good_checkpoint(tmp_path):
    with pytest.raises(DivergedError, match=r"nan at step 3; the last good checkpoint is .*checkpoint.pt"):
        fit(tmp_path, bad_at=3)
    saved = read_tensors(tmp_path / CHECKPOINT)
    assert saved["facts"]["steps"] == 2
    assert all(torch.isfinite(own).all() for own in saved["model"].values())


def test_a_gradient_that_is_no_number_is_not_followed(tmp_path):
    model = nn.Linear(1, 1)
    start = model.weight.item()

    def loss_of(rng):
        return (model.weight - model.weight.detach()).abs().sqrt().sum()  # 0, and its slope is infinite

    with pytest.raises(DivergedError, match=r"its gradient's norm (nan|inf) at step 0"):
        train(model, loss_of, Plan(2), tmp_path, lambda facts: None, {})
    assert model.weight.item() == start


@pytest.mark.parametrize("ema", [0.0, 0.15])
def test_what_is_exported_is_the_mean_of_the_weights(tmp_path, ema):
    shown = []
    model = nn.Linear(1, 1, bias=False)
    model.weight.data.fill_(1.0)

    def loss_of(rng):
        return model.weight.sum()

    plan = Plan(2, lr=0.5, warmup=1, schedule="constant", weight_decay=0.0, save_every=1, ema=ema)
    train(model, loss_of, plan, tmp_path, lambda facts: shown.append(model.weight.item()), {})
    assert model.weight.item() == pytest.approx(0.0, abs=1e-6)  # Adam's steps are 0.5 each: 1, 0.5, 0
    first = 0.1 * 1 + 0.9 * 0.5  # the decay rises: 1/10, then 2/11, of which 0.15 is left
    assert shown == pytest.approx([first, 0.15 * first] if ema else [0.5, 0.0], abs=1e-6)


def test_a_resumed_mean_ends_with_the_same_bits(tmp_path):
    shown = []
    keep = {"export": lambda model: shown.append(model[0].weight.detach().clone()), "ema": 0.9}
    fit(tmp_path / "whole", **keep)
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path / "broken", stop_at=5, **keep)
    fit(tmp_path / "broken", **keep)
    assert torch.equal(shown[2], shown[-1])
    assert not torch.equal(shown[1], shown[-1])


def test_parts_of_a_loss_add_up(tmp_path):
    ends = []
    for name, parts in (("whole", [(0, 4)]), ("parts", [(0, 1), (1, 4)])):
        torch.manual_seed(0)
        model, pixels = nn.Linear(2, 1), torch.arange(8.0).reshape(4, 2)

        def loss_of(rng, model=model, pixels=pixels, parts=parts):
            return (model(pixels[a:b]).square().sum() / 4 for a, b in parts)

        train(model, loss_of, Plan(3, warmup=1), tmp_path / name, lambda facts: None, {})
        ends.append(model.weight.detach().clone())
    assert torch.allclose(*ends, atol=1e-6)


def test_another_training_is_not_continued(tmp_path):
    fit(tmp_path)
    with pytest.raises(MismatchError, match=r"seed: 0 there, 1 now"):
        fit(tmp_path, seed=1)


def test_the_rate_rises_and_falls():
    plan = Plan(100, lr=1.0, warmup=10)
    assert [round(plan.rate(step), 3) for step in (0, 4, 50, 100)] == [0.1, 0.498, 0.515, 0.03]
    assert Plan(100, lr=1.0, warmup=1, schedule="constant").rate(99) == 1.0


# End to end

THREE_STEPS = {"steps": 3, "batch_size": 8, "save_every": 2, "device": "cpu"}


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A CLIP and two phis of three steps each."""
    folder = tmp_path_factory.mktemp("trained")
    verbs.clip("icons/train", out=folder / "clip", size="tiny", **THREE_STEPS)
    for objective in ("lincir", "pic2word"):
        asked = {"clip": str(folder / "clip"), "out": folder / objective, "objective": objective}
        verbs.phi("icons/train", **asked, **THREE_STEPS)
    return folder


def test_what_is_trained_loads_and_searches(small, tmp_path):
    clip = load_clip(str(small / "clip"), torch.device("cpu"), torch.float32)
    assert (clip.size, clip.feature_width, clip.tokenizer.context) == (64, 16, 32)
    assert clip.tokenizer(["a folder with $"])[0].count(clip.tokenizer.placeholder) == 1
    for name, kind in (("lincir", None), ("pic2word", IM2TEXT)):
        file = small / name / "phi.safetensors"
        inverter = load_phi(file, clip, kind) if kind else load_phi(file, clip)
        assert inverter(torch.zeros(2, 16)).shape == (2, 32)
    card = (small / "clip" / "README.md").read_text()
    assert "icons/train: 3 of 3 steps of 8 items" in card
    weights = read_tensors(small / "clip" / "model.safetensors")
    assert {own.dtype for own in weights.values() if own.is_floating_point()} == {torch.float16}


def test_a_phis_rate_stays_or_falls(small, tmp_path):
    asked = {"clip": str(small / "clip"), "out": tmp_path, **THREE_STEPS}
    verbs.phi("icons/train", schedule="cosine", **asked)
    plans = [json.loads((folder / "training.json").read_text())["plan"] for folder in (small / "lincir", tmp_path)]
    assert [plan["schedule"] for plan in plans] == ["constant", "cosine"]
    assert (tmp_path / "phi.safetensors").read_bytes() != (small / "lincir" / "phi.safetensors").read_bytes()


def test_a_clip_can_be_trained_to_the_same_bits_in_two_calls(small, tmp_path, monkeypatch):
    saved = loop._save

    def save_and_stop(*arguments):
        saved(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(loop, "_save", save_and_stop)
        with pytest.raises(KeyboardInterrupt):
            verbs.clip("icons/train", out=tmp_path, size="tiny", **THREE_STEPS)
    verbs.clip("icons/train", out=tmp_path, size="tiny", **THREE_STEPS)
    assert (tmp_path / "model.safetensors").read_bytes() == (small / "clip" / "model.safetensors").read_bytes()


def test_a_deepened_clip_says_the_same_and_its_new_layers_learn(small):
    model = CLIPModel.from_pretrained(small / "clip")
    ids, pixels = torch.tensor([[2, 5, 1]]), torch.randn(2, 3, 64, 64)
    before = model(ids, pixels).logits_per_image
    deepen(model, 3)
    after = model(ids, pixels).logits_per_image
    assert torch.equal(after, before)
    after.sum().backward()
    assert [bool(layer.mlp.fc2.weight.any()) for layer in model.vision_model.encoder.layers] == [True, False, False]
    assert all(layer.mlp.fc2.weight.grad.any() for layer in model.text_model.encoder.layers)
    assert model.config.text_config.num_hidden_layers == model.config.vision_config.num_hidden_layers == 3
    with pytest.raises(UsageError, match="has 3 layers already"):
        deepen(model, 3)


def test_a_clip_can_start_from_another(small, tmp_path):
    verbs.clip("icons/train", out=tmp_path, start=small / "clip", **THREE_STEPS)
    assert (tmp_path / "tokenizer.json").read_bytes() == (small / "clip" / "tokenizer.json").read_bytes()
    assert load_clip(str(tmp_path), torch.device("cpu"), torch.float32).feature_width == 16
    assert (tmp_path / "model.safetensors").read_bytes() != (small / "clip" / "model.safetensors").read_bytes()
    assert json.loads((tmp_path / "training.json").read_text())["about"]["start"]["source"] == str(small / "clip")
    with pytest.raises(NotFoundError, match=r"no config.json"):
        verbs.clip("icons/train", out=tmp_path / "b", start=tmp_path / "none", **THREE_STEPS)


def test_wrong_calls():
    with pytest.raises(UsageError, match="icons/train has"):
        load_pairs("cirr/train")
    with pytest.raises(UsageError, match="no size"):
        verbs.clip("icons/train", out=Path("never"), size="huge")
    with pytest.raises(UsageError, match="--steps"):
        verbs.clip("icons/train", out=Path("never"), steps=0)
    with pytest.raises(UsageError, match="icons/val is not for training"):
        load_pairs("icons/val")
    with pytest.raises(UsageError, match="--start names"):
        verbs.clip("icons/train", out=Path("never"), layers=8)
