"""Losses of the VAE and the generator on numbers one can check by eye; parts; resume; the smallest real training."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from random import Random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from PIL import Image

from cig.benchmarks import load_benchmark
from cig.benchmarks._icons.corpus import INKS
from cig.benchmarks._icons.scenes import OTHER_INK, SAME_INK, IconScenes
from cig.benchmarks._icons.triplets import ATTRIBUTES
from cig.cli import train as verbs
from cig.cli import train_phi
from cig.cli.flags import LoopFlags
from cig.errors import InputError, MismatchError, UsageError
from cig.generators import sdxl
from cig.generators._compose import ComposedConditions, take
from cig.generators._generate import Imagining, imagine
from cig.io.feature_cache import FeatureCache
from cig.io.files import write_png
from cig.io.images import MEAN, STD
from cig.io.tensors import map_tensors, read_tensors
from cig.models.composer import load_composer
from cig.training import loop
from cig.training.data import latent_cache, load_scenes
from cig.training.data.framing import Frame
from cig.training.objectives._diffusion import (
    DiffusionBatch,
    ddpm,
    denoising_loss,
    drop_conditions,
    drop_references,
    snr_weights,
)
from cig.training.objectives._lora import ADAPTER
from cig.training.objectives._unet import SIZES, build, need_widths, widen
from cig.training.objectives.generator import draw_examples, load_vae
from cig.training.objectives.vae import reconstruction
from cig.training.plan import Plan
from cig.types import ComposedEmbedding

# Losses


def test_reconstruction_by_hand():
    paper, half = torch.zeros(1, 3, 2, 2), torch.full((1, 3, 2, 2), 0.5)
    standard = torch.zeros(1, 4, 1, 1)
    assert reconstruction(paper, paper, mean=standard, logvar=standard).item() == 0
    assert reconstruction(paper, half, mean=standard, logvar=standard).item() == pytest.approx(0.5 + 0.25)
    assert reconstruction(paper, paper, mean=standard + 2, logvar=standard).item() == pytest.approx(1e-4 * 0.5 * 4)


class Silent:
    """A UNet that says zeros."""

    dtype = torch.float32

    def __call__(self, noisy, times, prompt, added_cond_kwargs):
        assert added_cond_kwargs["time_ids"].shape == (len(noisy), 6)
        return SimpleNamespace(sample=torch.zeros_like(noisy))


def batch_of(latents, noise, time, count=2):
    shape = (count, 4, 2, 2)
    condition = torch.zeros(count, 3, 5), torch.zeros(count, 7)
    framing = torch.zeros(count, 6)
    return DiffusionBatch(
        torch.full(shape, latents),
        torch.full(shape, noise),
        torch.full((count,), time),
        condition=condition,
        framing=framing,
    )


def test_epsilon_is_the_noise_and_velocity_is_minus_the_picture_where_all_is_noise():
    assert denoising_loss(Silent(), ddpm("epsilon"), batch_of(3.0, 0.5, 500)).item() == pytest.approx(0.25)
    pure = denoising_loss(Silent(), ddpm("v_prediction"), batch_of(3.0, 0.5, 999))
    assert pure.item() == pytest.approx(9.0, rel=1e-3)


def noising_of(prediction, *signals):
    """A schedule with these shares of signal, alpha_bar."""
    config = SimpleNamespace(prediction_type=prediction)
    return SimpleNamespace(config=config, alphas_cumprod=torch.tensor(signals))


def test_min_snr_by_hand():
    """Ratios of signal to noise 9, 1 and 1/4, of which at most 5 counts."""
    times = torch.tensor([0, 1, 2])
    weights = snr_weights(noising_of("epsilon", 0.9, 0.5, 0.2), times, 5.0)
    assert weights.tolist() == pytest.approx([5 / 9, 1, 1])
    weights = snr_weights(noising_of("v_prediction", 0.9, 0.5, 0.2), times, 5.0)
    assert weights.tolist() == pytest.approx([0.5, 0.5, 0.2])
    assert snr_weights(ddpm("v_prediction"), torch.tensor([999]), 5.0).item() == 0, "pure noise"


def test_each_item_has_the_weight_of_its_own_timestep():
    noising = ddpm("epsilon")
    two = replace(batch_of(3.0, 0.5, 0), times=torch.tensor([0, 999]))
    wanted = 0.25 * snr_weights(noising, two.times, 5.0).mean()
    assert denoising_loss(Silent(), noising, two, min_snr=5.0).item() == pytest.approx(wanted.item())
    assert wanted.item() == pytest.approx(0.125, rel=0.01), "the first timestep weighs next to nothing"


def test_a_dropped_condition_is_zeros():
    ones = torch.ones(2, 3, 4)
    composed = ComposedEmbedding(("a", "b"), ones, ones, torch.ones(2, 6), ones)
    prompt, pooled = drop_conditions(composed, torch.tensor([True, False]), "cpu")
    assert prompt.sum((1, 2)).tolist() == [0, 24]
    assert pooled.sum(1).tolist() == [0, 6]


# A reference beside the noise


class Counting(Silent):
    """Remembers what it was given."""

    def __call__(self, noisy, times, prompt, added_cond_kwargs):
        self.noisy = noisy
        return SimpleNamespace(sample=torch.zeros_like(noisy[:, :4]))


def test_a_reference_lies_beside_the_noisy_latents_and_adds_nothing_to_what_is_wanted():
    unet, reference = Counting(), torch.full((2, 4, 2, 2), 7.0)
    shown = replace(batch_of(3.0, 0.5, 999), reference=reference)
    loss = denoising_loss(unet, ddpm("v_prediction"), shown)
    assert loss.item() == pytest.approx(9.0, rel=1e-3)
    assert unet.noisy.shape == (2, 8, 2, 2)
    assert torch.equal(unet.noisy[:, 4:], reference)


@pytest.mark.slow
def test_condition_and_reference_are_dropped_apart_and_together():
    """Brooks et al., CVPR 2023, section 3.2.1: each alone in 5% of examples, both in 5%."""
    torch.manual_seed(0)
    scenes, scheduler = load_scenes("icons/train", 4), ddpm("epsilon")
    drawn = draw_examples(40_000, scenes, Random(0), shape=(1, 1, 1), scheduler=scheduler, dropout=0.1)
    away, blind = drawn.no_condition, drawn.no_reference
    alone = away & ~blind, blind & ~away, away & blind
    assert [share.float().mean().item() for share in alone] == pytest.approx([0.05] * 3, abs=0.005)
    assert drop_references(torch.ones(2, 1, 1, 1), torch.tensor([True, False])).flatten().tolist() == [0, 1]


def test_a_widened_unet_says_the_same_until_it_has_learnt():
    narrow = build(SIZES["tiny"], latents=4, prompt=12, pooled=6)
    noisy, prompt = torch.randn(2, 4, 8, 8), torch.randn(2, 3, 12)
    known = {"text_embeds": torch.randn(2, 6), "time_ids": torch.zeros(2, 6)}
    with torch.no_grad():
        before = narrow(noisy, torch.tensor(5), prompt, added_cond_kwargs=known).sample
        wide = widen(narrow)
        both = torch.cat([noisy, torch.randn(2, 4, 8, 8)], dim=1)
        after = wide(both, torch.tensor(5), prompt, added_cond_kwargs=known).sample
    assert torch.allclose(before, after, atol=1e-6)
    assert (wide.config.in_channels, wide.config.out_channels) == (8, 4)
    assert widen(wide) is wide
    assert wide.conv_in.weight.shape[1] == 8


# Scenes of icons


@pytest.mark.slow
def test_a_caption_names_the_ink_where_the_view_has_another():
    scenes, places = load_scenes("icons/train", 40), list(range(40))
    assert (len(scenes), len(IconScenes())) == (40, 2 * 29_373)
    for view in (SAME_INK, OTHER_INK):
        captions = scenes.said(places, view, Random(0))
        named = [
            ink in caption.replace(",", "").split()
            for caption, ink in zip(captions, inks_of(scenes, places), strict=True)
        ]
        assert all(named) == (view == OTHER_INK)
        assert ("" in captions) == (view == SAME_INK)
    assert scenes.identity["pictures"] == "40"


def inks_of(scenes, places):
    """By what the pictures show: the ink whose colour their darkest pixel is nearest to."""
    for picture in scenes.pictures(places):
        pixels = (picture.flatten(1).T + 1) * 127.5
        darkest = pixels[(255 - pixels).sum(1).argmax()]
        yield min(INKS, key=lambda ink: (darkest - torch.tensor(INKS[ink])).square().sum().item())


@pytest.mark.slow
def test_a_view_as_a_picture_is_not_augmented():
    scenes = load_scenes("icons/train", 4)
    same, other = (scenes.references([0, 3], view, Random(0)) for view in (SAME_INK, OTHER_INK))
    assert torch.equal(same, scenes.pictures([0, 3]))
    assert other.shape == same.shape
    assert not torch.equal(same, other)
    triplets = load_scenes("icons/triplets", 60)
    place = next(place for place, own in enumerate(triplets.triplets) if own.change == "ink")
    assert not torch.equal(triplets.references([place], 0, Random(0)), triplets.pictures([place]))


def test_a_view_is_for_any_clip_and_of_the_seed():
    scenes = load_scenes("icons/train", 4)
    one, two = (scenes.seen([0, 3], OTHER_INK, 64, rng=Random(seed)) for seed in (0, 1))
    assert scenes.seen([0, 3], OTHER_INK, 32, rng=Random(0)).shape == (2, 3, 32, 32)
    assert torch.equal(one, scenes.seen([0, 3], OTHER_INK, 64, rng=Random(0)))
    assert not torch.equal(one, two)


@pytest.mark.slow
def test_a_triplet_changes_one_thing_and_says_so():
    triplets = load_scenes("icons/triplets", 60)
    inks = [triplets._inks(index) for index in range(60)]
    told = triplets.said(range(60), 0, Random(0))
    for own, (one, other), caption in zip(triplets.triplets, inks, told, strict=True):
        reference, target = triplets.icons[own.reference], triplets.icons[own.target]
        differing = [name for name in ATTRIBUTES if getattr(reference, name) != getattr(target, name)]
        assert (differing, one != other) == (([], True) if own.change == "ink" else ([own.change], False))
        assert (reference.prefix, reference.object) == (target.prefix, target.object)
        wanted = {"ink": other, "style": target.style, "badge": target.badge or reference.badge}
        assert wanted.get(own.change, "") in caption
    assert {own.change for own in triplets.triplets} >= {"ink", "style", "badge"}
    assert triplets.pictures([0, 1]).shape == triplets.seen([0, 1], 0, 64, rng=Random(0)).shape == (2, 3, 64, 64)
    assert triplets.names([0])[0].endswith(f".{inks[0][1]}.png")


# End to end

STEPS = {"steps": 4, "batch_size": 8, "loop": LoopFlags(save_every=2, device="cpu")}


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """Two CLIPs, their phis and a VAE, of three steps each, as the generator's flags name them."""
    folder = tmp_path_factory.mktemp("parts")
    few, loops = {"steps": 3, "batch_size": 8}, [LoopFlags(seed=i, save_every=3, device="cpu") for i in (0, 1)]
    for number in ("", "2"):
        clip = str(folder / f"clip{number}")
        verbs.clip("icons/train", out=folder / f"clip{number}", size="tiny", loop=loops[len(number)], **few)
        objective = "pic2word" if number else "lincir"  # a composing phi may be of either kind
        train_phi.phi("icons/train", clip=clip, out=folder / f"phi{number}", objective=objective, loop=loops[0], **few)
    verbs.vae("icons/train", out=folder / "vae", size="tiny", loop=loops[0], **few)
    phis = {f"phi{number}": folder / f"phi{number}" / "phi.safetensors" for number in ("", "2")}
    return {"clip": str(folder / "clip"), "clip2": str(folder / "clip2"), "vae": str(folder / "vae"), **phis}


def make(parts, out, **others):
    verbs.generator("icons/train", out=out, **{"size": "tiny", "limit": 24, **parts, **STEPS, **others})
    return read_tensors(out / "unet" / "diffusion_pytorch_model.safetensors")


@pytest.mark.slow
@pytest.mark.parametrize("prediction", ["epsilon", "v"])
def test_what_is_trained_imagines_pseudo_targets(parts, tmp_path, prediction):
    home = tmp_path / "generator"
    make(parts, home, prediction=prediction, lr=1e-3)
    generator = sdxl.load(home, str(home), str(home / "vae"), device="cpu", height=64, width=64, steps=2, guidance=2.0)
    assert generator.pipeline.scheduler.config.prediction_type == {"v": "v_prediction"}.get(prediction, prediction)
    part = load_benchmark("icons/val", limit=2)
    composer = load_composer(**{name: parts[name] for name in ("clip", "clip2", "phi", "phi2")})
    how = Imagining(brightness_thresh=-1)
    done = imagine(part, ComposedConditions(part, composer), generator, out=tmp_path / "made", how=how)
    assert [Image.open(path).size for path in done.pictures.values()] == [(64, 64)] * 2
    card = json.loads((home / "training.json").read_text())
    assert set(card["about"]["models"]) == {"clip", "clip2", "phi", "phi2", "vae"}


@pytest.mark.slow
def test_a_unet_that_is_shown_the_reference_draws_by_it(parts, tmp_path):
    home = tmp_path / "generator"
    make(parts, home, show_reference=True)
    kind = json.loads((home / "model_index.json").read_text())["_class_name"]
    assert kind == "StableDiffusionXLInstructPix2PixPipeline"
    generator = sdxl.load(
        home, str(home), str(home / "vae"), device="cpu", height=64, width=64, steps=2, image_guidance=9.0
    )
    assert generator.shown
    assert generator.settings["image_guidance"] == 9.0
    part = load_benchmark("icons/val", limit=2)
    composer = load_composer(**{name: parts[name] for name in ("clip", "clip2", "phi", "phi2")})
    done = imagine(
        part, ComposedConditions(part, composer), generator, out=tmp_path / "made", how=Imagining(brightness_thresh=-1)
    )
    assert [Image.open(path).size for path in done.pictures.values()] == [(64, 64)] * 2
    composed = ComposedConditions(part, composer)(part.queries[:1])
    with pytest.raises(UsageError, match="shown the reference"):
        generator(composed, [1])
    black, white = (Image.new("RGB", (96, 64), ink) for ink in ("black", "white"))
    twice = take(composed, [0, 0])

    def drawn_by(*references, by=generator):
        return [np.asarray(own).astype(int) for own in by(replace(twice, references=references), [1, 1])]

    one, other = drawn_by(black, white)
    assert difference(drawn_by(white, black), [other, one]) <= 1, "each row by its own reference"
    assert difference([one], [other]) > 3
    generator.sampling["image_guidance_scale"] = 1.0
    by_three = drawn_by(black, white)
    assert difference(by_three, [one, other]) > 1, "and the guidance by it counts"
    thrifty = sdxl.load(
        home, str(home), str(home / "vae"), device="cpu", height=64, width=64, steps=2, image_guidance=1.0
    )
    asked = []
    thrifty.pipeline.unet.conv_in.register_forward_hook(lambda _, given, out: asked.append(len(out)))
    assert difference(drawn_by(black, white, by=thrifty), by_three) <= 1, "at 1 the third pass cancels out"
    assert asked == [4, 4], "two pictures in two steps of two passes"
    with pytest.raises(UsageError, match="shown the reference"):
        generator(replace(twice, references=(black,)), [1, 1])
    alone = sdxl.load(home, str(home), str(home / "vae"), device="cpu", height=64, width=64, guidance=1.0)
    assert alone.settings["image_guidance"] == 1.0, "diffusers guides by both or by neither"
    options = {"sdxl_repo": str(home), "vae_repo": str(home / "vae"), "device": "cpu", "height": 64, "width": 64}
    cache = FeatureCache(tmp_path / "cache")
    assert [sdxl.load_lazily(cache, model_path=home, **options).shown for _ in range(2)] == [True, True]
    with pytest.raises(UsageError, match="1 or more"):
        sdxl.load(home, str(home), str(home / "vae"), device="cpu", height=64, width=64, image_guidance=0.5)


@pytest.mark.slow
def test_what_is_shown_is_kept_on_the_shelf_or_made_anew_alike(parts, tmp_path):
    make(parts, tmp_path, show_reference=True)
    (path,) = tmp_path.glob("shelf-*/*.safetensors")
    scenes, vae = load_scenes("icons/train", 24), load_vae(parts["vae"])
    kept = latent_cache.LatentCache([map_tensors(path)], 24, scale=1.0, shape=(vae.config.latent_channels, 8, 8))
    anew = latent_cache.LatentEncoder(scenes, None, vae)
    for view in range(scenes.views):
        one, other = (own.references([3, 5], view, [1, 2]) for own in (kept, anew))
        assert torch.allclose(one, other, atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("shelved", [True, False])
def test_clips_and_unet_see_the_same_view(parts, tmp_path, shelved):
    """Of a picture whose augmented views differ by how much of it they show: its left part is black."""
    half = np.full((64, 64, 3), 255, np.uint8)
    half[:, :32] = 0
    write_png(tmp_path / "a.png", Image.fromarray(half))
    (tmp_path / "t.csv").write_text("picture,caption\na.png,a thing\n")
    scenes = load_scenes(str(tmp_path / "t.csv"), frame=Frame(64))

    class Eye:
        """A tower and a VAE that see means."""

        size, device, dtype = 64, torch.device("cpu"), torch.float32
        config = SimpleNamespace(block_out_channels=(1, 1, 1, 1), latent_channels=3, scaling_factor=1)

        def embed_images(self, pixels):
            return pixels.mean((1, 2, 3))[:, None]

        def encode(self, pictures):
            mean = torch.nn.functional.avg_pool2d(pictures, 8)
            return SimpleNamespace(latent_dist=SimpleNamespace(mean=mean))

        def state_dict(self):
            return {}

    vae, tower = Eye(), SimpleNamespace(clip=Eye())
    composer = SimpleNamespace(first=tower, second=tower)
    if shelved:
        composer.identity, composer.settings = {}, {"dtype": "float32"}
        encoded = latent_cache.cache_latents(
            scenes, composer, vae, out=tmp_path / "out", plan=Plan(1, 1, 1.0), references=True
        )
    else:
        encoded = latent_cache.LatentEncoder(scenes, composer, vae)
    shown, (one, other) = encoded.references([0], 0, [5]), encoded.features([0], 0, [5])
    assert torch.equal(one, other)
    as_seen = (shown.mean((2, 3)) + 1) / 2  # [1, 3]: of each colour, in 0..1
    wanted = ((as_seen - torch.from_numpy(MEAN)) / torch.from_numpy(STD)).mean()
    assert one.item() == pytest.approx(wanted.item(), abs=0.02)


def test_a_sample_is_the_mean_and_a_share_of_the_deviation():
    """A distribution of mean 2 and deviation 3, and noise of 0.5."""
    encoded = torch.cat([torch.full((1, 4, 2, 2), 2.0), torch.full((1, 4, 2, 2), 3.0)], dim=1)
    assert latent_cache.sample(encoded, torch.full((1, 4, 2, 2), 0.5)).unique().tolist() == [3.5]
    assert latent_cache.sample(encoded[:, :4], None).unique().tolist() == [2.0]


@pytest.mark.slow
def test_sampled_latents_are_kept_with_their_deviations(parts, tmp_path):
    make(parts, tmp_path / "kept", sample_latents=True)
    make(parts, tmp_path / "anew", sample_latents=True, shelf=False)
    (path,) = (tmp_path / "kept").glob("shelf-*/*.safetensors")
    scenes, vae = load_scenes("icons/train", 24), load_vae(parts["vae"])
    channels = vae.config.latent_channels
    kept = latent_cache.LatentCache([map_tensors(path)], 24, scale=vae.config.scaling_factor, shape=(channels, 8, 8))
    anew, noise = latent_cache.LatentEncoder(scenes, None, vae), torch.randn(2, channels, 8, 8)
    assert torch.allclose(kept.latents([3, 5], noise), anew.latents([3, 5], noise), atol=2e-2)
    assert not torch.allclose(kept.latents([3, 5], noise), kept.latents([3, 5], -noise), atol=0.1)


@pytest.mark.slow
def test_an_adapter_goes_on_from_a_unet_that_is_shown(parts, tmp_path):
    make(parts, tmp_path / "shown", show_reference=True)
    own = make(parts, tmp_path / "own", start=str(tmp_path / "shown"), lora=4)
    assert own["conv_in.weight"].shape[1] == 8


@pytest.mark.slow
def test_an_adapter_cannot_be_shown_what_its_unet_is_not(parts, base, tmp_path):
    with pytest.raises(UsageError, match="cannot teach"):
        make(parts, tmp_path, start=str(base), lora=4, show_reference=True)


def stop_after_a_checkpoint(parts, out, monkeypatch, **flags):
    saved = loop.save

    def save_and_stop(*arguments):
        saved(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(loop, "save", save_and_stop)
        with pytest.raises(KeyboardInterrupt):
            make(parts, out, **flags)


@pytest.mark.slow
@pytest.mark.parametrize("others", [{}, {"show_reference": True}])
def test_a_stopped_training_ends_with_the_same_bits(parts, tmp_path, monkeypatch, others):
    whole = make(parts, tmp_path / "whole", **others)
    stop_after_a_checkpoint(parts, tmp_path / "broken", monkeypatch, **others)
    resumed = make(parts, tmp_path / "broken", **others)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


ONE_STEP = {"steps": 1, "warmup": 1, "ema": 0.0, "lr": 1e-2, "loop": LoopFlags(device="cpu")}


def gradients(out):
    """A tenth of them, as Adam's first moments have them after one step."""
    state = read_tensors(out / "checkpoint.pt")["optimizer"]["state"]
    return torch.cat([own["exp_avg"].flatten() for own in state.values()])


@pytest.mark.slow
@pytest.mark.parametrize("others", [{}, {"shelf": False, "min_snr": 5.0}, {"shelf": False, "show_reference": True}])
def test_parts_of_a_step_are_the_step(parts, tmp_path, monkeypatch, others):
    """A batch of 32, and four of 8, some of them without a condition."""
    seen, blind = [], []

    def watched(unet, noising, batch, *, min_snr):
        seen.append((len(batch.latents), min_snr))
        blind.append(int((batch.condition[0] == 0).flatten(1).all(1).sum()))
        return denoising_loss(unet, noising, batch, min_snr=min_snr)

    monkeypatch.setattr("cig.training.objectives.generator.denoising_loss", watched)
    for count in (1, 4):
        flags = {**ONE_STEP, "batch_size": 32, "condition_dropout": 0.3, **others}
        make(parts, tmp_path / str(count), **{**flags, "loop": LoopFlags(accumulate=count, device="cpu")})
    whole, summed = (gradients(tmp_path / str(count)) for count in (1, 4))
    assert torch.allclose(whole, summed, atol=1e-5)
    assert whole.abs().max() > 1e-3, "there is something to compare"
    assert seen == [(size, others.get("min_snr")) for size in (32, 8, 8, 8, 8)]
    assert 1 < blind[0] == sum(blind[1:]) < 20


@pytest.mark.slow
def test_two_processes_train_as_one_does(parts, tmp_path):
    flags = {"size": "tiny", "limit": 24, **parts, "steps": 1, "batch_size": 32, "ema": 0.0}
    texts = {name: str(own) if isinstance(own, Path) else own for name, own in flags.items()}
    script = tmp_path / "train.py"
    script.write_text(TRAIN.format(flags=texts))
    start = ["-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2", "--num_machines", "1"]
    start += ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
    for name, before in (("one", []), ("two", start)):
        command = [sys.executable, *before, str(script), str(tmp_path / name)]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=170, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
    one, two = (gradients(tmp_path / name) for name in ("one", "two"))
    assert torch.allclose(one, two, atol=1e-5)
    losses = [read_tensors(tmp_path / name / "checkpoint.pt")["facts"]["loss"] for name in ("one", "two")]
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


TRAIN = """
import sys, torch
from pathlib import Path
from cig.cli.flags import LoopFlags
from cig.cli import train

torch.set_num_threads(1)
flags = {flags}
flags |= {{name: Path(flags[name]) for name in ("phi", "phi2")}}
train.generator("icons/train", out=Path(sys.argv[1]), loop=LoopFlags(device="cpu"), **flags)
"""


@pytest.mark.slow
def test_a_unet_can_start_from_another_that_fits(parts, tmp_path):
    make(parts, tmp_path / "first")
    make(parts, tmp_path / "second", start=str(tmp_path / "first"))
    assert "start" in json.loads((tmp_path / "second" / "training.json").read_text())["about"]
    shown = make(parts, tmp_path / "shown", start=str(tmp_path / "first"), show_reference=True)
    assert shown["conv_in.weight"].shape[1] == 8
    make(parts, tmp_path / "again", start=str(tmp_path / "shown"))
    about = json.loads((tmp_path / "again" / "training.json").read_text())["about"]
    assert about["shown"], "it reads references already"
    build(SIZES["tiny"], latents=4, prompt=2048, pooled=16).save_pretrained(tmp_path / "first" / "unet")
    with pytest.raises(MismatchError, match=r"of width 2048 and pooled ones of 16"):
        make(parts, tmp_path / "third", start=str(tmp_path / "first"))


# LoRA


@pytest.fixture(scope="module")
def base(parts, tmp_path_factory):
    """A generator to start from, whose weights float16 rounds and bfloat16 would round more."""
    home = tmp_path_factory.mktemp("base")
    make(parts, home, lr=1e-2)
    return home


def pictures(home, unet=None, adapter=None):
    generator = sdxl.load(
        unet or home, str(home), str(home / "vae"), device="cpu", height=64, width=64, steps=2, guidance=2.0
    )
    if adapter:
        generator.pipeline.load_lora_weights(adapter)
    config = generator.pipeline.unet.config
    rows = torch.randn(2, 8, config.cross_attention_dim, generator=torch.Generator().manual_seed(0))
    pooled = torch.ones(2, config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim)
    made = generator(ComposedEmbedding(("a", "b"), rows, rows[..., :0], pooled, rows), [1, 2])
    return [np.asarray(image).astype(int) for image in made]


def difference(ones, others):
    """Grey levels, the largest."""
    return max(abs(one - other).max() for one, other in zip(ones, others, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_an_adapter_that_has_learnt_nothing_is_the_base(parts, base, tmp_path, dtype):
    """B is zeros at a rate of 0; what bfloat16 rounds is not what is written."""
    flags = {**ONE_STEP, "lr": 0.0, "lora": 4, "start": str(base), "loop": LoopFlags(device="cpu", dtype=dtype)}
    own = make(parts, tmp_path, **flags)
    before = read_tensors(base / "unet" / "diffusion_pytorch_model.safetensors")
    assert own.keys() == before.keys()
    assert all(torch.equal(own[name], before[name]) for name in own)
    assert difference(pictures(tmp_path), pictures(base)) == 0


@pytest.mark.slow
def test_what_an_adapter_has_learnt_is_merged_and_alone(parts, base, tmp_path):
    make(parts, tmp_path, start=str(base), lora=4, lora_alpha=8, lr=0.1, warmup=1, ema=0.0)
    merged = pictures(tmp_path)
    assert difference(merged, pictures(base)) > 20
    assert difference(merged, pictures(base, adapter=tmp_path / ADAPTER)) <= 2
    whole = (base / "unet" / "diffusion_pytorch_model.safetensors").stat().st_size
    assert (tmp_path / ADAPTER).stat().st_size < whole / 3
    about = json.loads((tmp_path / "training.json").read_text())["about"]
    assert about["lora"] == {"rank": 4, "alpha": 8, "targets": ["to_k", "to_q", "to_v", "to_out.0"]}


@pytest.mark.slow
def test_a_checkpoint_has_what_is_trained_alone(parts, base, tmp_path, monkeypatch):
    flags = {"start": str(base), "lora": 4, "lr": 1e-2}
    whole = make(parts, tmp_path / "whole", **flags)
    saved = read_tensors(tmp_path / "whole" / "checkpoint.pt")
    assert saved["model"].keys() == saved["mean"].keys()
    assert all("lora_" in name for name in saved["model"])
    assert len(saved["optimizer"]["state"]) == len(saved["model"])
    stop_after_a_checkpoint(parts, tmp_path / "broken", monkeypatch, **flags)
    resumed = make(parts, tmp_path / "broken", **flags)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


@pytest.mark.slow
@pytest.mark.parametrize("lora", [None, 4])
def test_gradient_checkpointing_changes_no_gradient(parts, base, tmp_path, monkeypatch, lora):
    flags, on = {**ONE_STEP, "start": str(base), "lora": lora}, []
    enable = UNet2DConditionModel.enable_gradient_checkpointing
    monkeypatch.setattr(
        UNet2DConditionModel, "enable_gradient_checkpointing", lambda own: on.append(len(on)) or enable(own)
    )
    make(parts, tmp_path / "kept", **flags)
    make(parts, tmp_path / "again", gradient_checkpointing=True, **flags)
    assert torch.allclose(gradients(tmp_path / "kept"), gradients(tmp_path / "again"), atol=1e-7)
    assert on == [0], "for the one that was asked to"


# The shelf


@pytest.mark.slow
def test_a_shelf_in_shards_is_the_shelf(parts, tmp_path, monkeypatch):
    whole = make(parts, tmp_path / "whole")
    monkeypatch.setattr(latent_cache, "PICTURES", 8)
    stop_after_a_checkpoint(parts, tmp_path / "shards", monkeypatch)
    shards = sorted((tmp_path / "shards").glob("shelf-*/*.safetensors"))
    assert [path.name for path in shards] == [f"0000{number}.safetensors" for number in range(3)]
    shards[1].unlink()  # as if it had not been finished
    again = make(parts, tmp_path / "shards")
    assert all(torch.equal(whole[name], again[name]) for name in whole)


@pytest.mark.slow
def test_without_a_shelf_views_are_drawn_anew(parts, tmp_path):
    make(parts, tmp_path, shelf=False)
    assert not list(tmp_path.glob("shelf-*"))
    with pytest.raises(MismatchError, match="views: drawn anew"):
        make(parts, tmp_path)


@pytest.mark.slow
def test_latents_are_kept_whatever_their_layout(parts, tmp_path, monkeypatch):
    """As large convolutions return them for several pictures on a CPU: channels last."""
    whole, encode = make(parts, tmp_path / "whole"), latent_cache.encode
    seen = []

    def channels_last(*arguments, **options):
        latents = encode(*arguments, **options).contiguous(memory_format=torch.channels_last)
        seen.append(latents.is_contiguous())
        return latents

    monkeypatch.setattr(latent_cache, "encode", channels_last)
    other = make(parts, tmp_path / "other")
    assert seen == [False] * 3
    assert all(torch.equal(whole[name], other[name]) for name in whole)


def test_latents_that_overflow_are_not_trained_on():
    class Overflowing:
        device, dtype = torch.device("cpu"), torch.float32
        config = SimpleNamespace(block_out_channels=(1, 1, 1, 1))

        def encode(self, pictures):
            return SimpleNamespace(latent_dist=SimpleNamespace(mean=torch.full((1, 4, 8, 8), 1e6)))

    with pytest.raises(InputError, match="sdxl-vae-fp16-fix"):
        latent_cache.encode(torch.zeros(1, 3, 64, 64), Overflowing(), ["a"])


@pytest.mark.slow
def test_what_is_started_from_is_not_written_over(parts, base, tmp_path):
    with pytest.raises(UsageError, match=r"--start .* would be written over"):
        make(parts, base, start=str(base))
    with pytest.raises(UsageError, match=r"--vae .* would be written over"):
        make({**parts, "vae": str(base / "vae")}, base)


def test_a_unet_of_another_kind_or_for_another_vae_is_told(parts, tmp_path):
    made = build(SIZES["tiny"], latents=4, prompt=64, pooled=16)
    with pytest.raises(MismatchError, match="turns 4 channels of latents into 4, and the VAE's have 8"):
        need_widths(made, "X", widths=(64, 16), latents=8)
    made.register_to_config(addition_embed_type=None)
    with pytest.raises(MismatchError, match="not of SDXL's kind"):
        need_widths(made, "X", widths=(64, 16), latents=4)


@pytest.mark.slow
def test_the_vae_is_written_as_it_was_whatever_it_computes_in(parts, tmp_path, monkeypatch):
    loaded = []
    monkeypatch.setattr(
        "cig.training.objectives.generator.load_vae",
        lambda *args, **own: loaded.append(load_vae(*args, **own)) or loaded[-1],
    )
    make(parts, tmp_path / "g", frozen_dtype="bfloat16", lr=1e-4)
    assert loaded[0].dtype == torch.bfloat16
    name = "diffusion_pytorch_model.safetensors"
    one, other = (read_tensors(folder / name) for folder in (Path(parts["vae"]), tmp_path / "g/vae"))
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_a_crop_is_drawn_for_a_name_that_is_no_text():
    frame = Frame(64, "random")
    assert frame.corner((64, 128), "caf\udce9.png") == frame.corner((64, 128), "caf\udce9.png")
    assert len({frame.corner((64, 128), f"{number}.png") for number in range(9)}) > 1


def test_a_vae_is_loaded_with_the_scale_that_was_measured(parts):
    written = json.loads((Path(parts["vae"]) / "config.json").read_text())["scaling_factor"]
    assert load_vae(parts["vae"]).config.scaling_factor == written != AutoencoderKL().config.scaling_factor == 0.18215


def test_wrong_calls(parts, tmp_path):
    with pytest.raises(UsageError, match="cirr/val is for measuring; train on cirr/train"):
        load_scenes("cirr/val")
    with pytest.raises(UsageError, match="neither a table nor a folder nor a benchmark"):
        load_scenes("nothing.csv")
    with pytest.raises(UsageError, match="no --resolution"):
        load_scenes("icons/train", frame=Frame(64))
    with pytest.raises(UsageError, match="icons/val is not for training"):
        load_scenes("icons/val")
    wrong = {"--accumulate": {"loop": LoopFlags(accumulate=0)}, "--limit": {"limit": 0}, "no size": {"size": "huge"}}
    wrong |= {"--start names": {"lora": 4}, "--lora RANK": {"lora_alpha": 4}, "such as 5": {"min_snr": 0.0}}
    wrong |= {"--lora 0": {"lora": 0}}
    wrong |= {"--condition-dropout 2": {"condition_dropout": 2.0}, "--min-snr nan": {"min_snr": float("nan")}}
    for words, flags in wrong.items():
        with pytest.raises(UsageError, match=words):
            make(parts, tmp_path, **flags)
    with pytest.raises(UsageError, match="no size"):
        verbs.vae("icons/train", out=tmp_path, size="huge")
