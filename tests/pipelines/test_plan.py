"""Costs of models that are never loaded: counts against a hand-worked layer and the real configurations."""

import json

import pytest
import torch

from cig import config
from cig.cli.main import main
from cig.pipelines.plan import CallCost, _advice, _hours, _memory, cost, disk_of, sdxl_costs

UNET = {  # stabilityai/stable-diffusion-xl-base-1.0
    "_class_name": "UNet2DConditionModel",
    "sample_size": 128,
    "block_out_channels": [320, 640, 1280],
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
    "attention_head_dim": [5, 10, 20],
    "transformer_layers_per_block": [1, 2, 10],
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
VAE = {
    "_class_name": "AutoencoderKL",
    "block_out_channels": [128, 256, 512, 512],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "layers_per_block": 2,
    "latent_channels": 4,
}


def test_a_layer_by_hand():
    """[5, 3] x [3, 7]: 2 * 5 * 3 * 7 operations, 28 weights of 4 bytes; two results of 35 numbers live at once."""
    with torch.device("meta"):
        layer = torch.nn.Linear(3, 7)
        x = torch.empty(5, 3)
    counted = cost(layer, lambda: layer(x).relu())
    assert counted == CallCost(weights=4 * 28, activations=4 * 2 * 35, operations=210, largest_layer=4 * 28)


NARROW = {  # of the same kind, and quickly built
    **UNET,
    "block_out_channels": [32, 64, 128],
    "attention_head_dim": [1, 2, 4],
    "transformer_layers_per_block": [1, 1, 1],
    "layers_per_block": 1,
    "cross_attention_dim": 64,
}


def sdxl_costs_of(folder, unet, batch=1, size=(64, 64), **guidance):
    """(a step of this UNet, the VAE's work)"""
    for name, shape in (("unet", unet), ("vae", VAE)):
        (folder / name).mkdir(exist_ok=True)
        (folder / name / "config.json").write_text(json.dumps(shape))
    return sdxl_costs(str(folder), str(folder / "vae"), torch.float16, batch=batch, size=size, **guidance)


@pytest.mark.slow
def test_the_real_sdxl(tmp_path):
    """2,567,463,684 weights of the UNet, as its card says; attention grows with the picture faster than its area."""
    unet, vae = sdxl_costs_of(tmp_path, UNET, size=(512, 512))
    assert unet.weights == 2 * 2_567_463_684
    assert vae.weights == 2 * 83_653_863
    large, _ = sdxl_costs_of(tmp_path, UNET, size=(1024, 1024))
    assert 4 < large.operations / unet.operations < 5


@pytest.mark.slow
def test_a_batch_costs_what_its_pictures_do(tmp_path):
    one, _ = sdxl_costs_of(tmp_path, NARROW)
    four, _ = sdxl_costs_of(tmp_path, NARROW, batch=4)
    assert four.operations == pytest.approx(4 * one.operations, rel=0.01)
    assert one.activations < four.activations < 4.1 * one.activations


@pytest.mark.slow
def test_a_unet_that_is_shown_the_reference_makes_three_passes(tmp_path):
    shape = {**NARROW, "in_channels": 8}
    plain, vae = sdxl_costs_of(tmp_path, NARROW)
    shown, both = sdxl_costs_of(tmp_path, shape)
    alone, _ = sdxl_costs_of(tmp_path, shape, guidance=1.0)
    two, _ = sdxl_costs_of(tmp_path, shape, image_guidance=1.0)
    assert shown.weights - plain.weights == 2 * 32 * 4 * 9, "four channels more are read"
    assert shown.operations == pytest.approx(1.5 * plain.operations, rel=0.01), "three passes, not two"
    assert shown.operations == pytest.approx(3 * alone.operations, rel=0.01), "without guidance one"
    assert two.operations == pytest.approx(2 * alone.operations, rel=0.01), "at 1, the third cancels out"
    assert 1.3 * vae.operations < both.operations < 2 * vae.operations, "the reference is encoded, too"


def test_memory_at_its_highest():
    """Both picture towers, or both text towers, or the generator: never two of these at once."""
    pair, sdxl = (CallCost(1, 5, 0), CallCost(2, 7, 0)), (CallCost(100, 30, 0, 4), CallCost(10, 40, 0, 3))
    stages = {"compose": 2 + 2 + 7, "search": 2 + 7}
    for offload, weights in {"none": 110, "model": 100, "sequential": 4}.items():
        assert _memory([pair, pair], sdxl, pair, offload=offload) == {**stages, "imagine": weights + 40}


def test_advice_is_what_helps_here():
    cpu, gpu, single = torch.device("cpu"), torch.device("cuda"), {torch.float32}
    assert "--offload" not in _advice(cpu, "imagine", single)
    assert "--offload model" in _advice(gpu, "imagine", {torch.float16})
    assert "--dtype float16" in _advice(cpu, "imagine", single)
    assert "--compose-dtype float16" in _advice(cpu, "compose", single)
    assert "dtype" not in _advice(gpu, "imagine", {torch.float16})


def test_words_and_disk(tmp_path):
    assert [_hours(seconds) for seconds in (3, 600, 36000)] == ["3 s", "10 min", "10.0 h"]
    assert disk_of(tmp_path / "not" / "yet") > 0


@pytest.mark.slow
def test_the_verb(world, tmp_path, capsys, monkeypatch):
    models = world / "models"
    line = ["plan", "cirr/val", "--dataset-path", world, "--out", tmp_path, "--device", "cpu", "--height", "64"]
    line += ["--clip", models / "clip-small", "--clip2", models / "clip-large", "--width", "64", "--steps", "4"]
    line += ["--model-path", models / "sdxl", "--vae-repo", models / "sdxl/vae", "--method", "image"]
    words = [str(word) for word in [*line, "--search-clip", models / "clip-small"]]
    with pytest.raises(SystemExit) as done:
        main(words)
    assert not done.value.code
    shown = capsys.readouterr().out
    assert "imagine  8 pictures, 64 x 64, 4 steps (0 are there)" in shown
    assert "search   68 pictures, 8 queries" in shown
    monkeypatch.setattr("cig.pipelines.plan.available_memory", lambda device: 1000)
    with pytest.raises(SystemExit) as done:
        main(words)
    assert done.value.code == 1
    shown = capsys.readouterr()
    assert "NOT ENOUGH" in shown.out
    assert "does not fit" in shown.err


def test_a_plan_without_the_search_clip(world, tmp_path, capsys):
    """What lacks is named, and the rest is planned: the generator is there."""
    models = world / "models"
    line = ["plan", "cirr/val", "--dataset-path", world, "--out", tmp_path, "--device", "cpu", "--height", "64"]
    line += ["--clip", models / "clip-small", "--clip2", models / "clip-large", "--width", "64", "--steps", "4"]
    line += ["--model-path", models / "sdxl", "--vae-repo", models / "sdxl/vae", "--search-clip", "someone/clip"]
    with pytest.raises(SystemExit) as done:
        main([*map(str, line), "--method", "image"])
    assert not done.value.code
    shown = capsys.readouterr().out
    assert "cig models download someone/clip" in shown
    assert "8 pictures" in shown


@pytest.mark.slow
def test_the_shipped_generator(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as done:
        main(["plan", "icons/val", "--limit", "8", "--generator", "sdxl/icons", "--method", "pic2word/icons"])
    assert not done.value.code
    steps = config.GENERATORS["sdxl/icons"]["generate"]["steps"]
    assert f"imagine  8 pictures, 64 x 64, {steps} steps (0 are there)" in capsys.readouterr().out


def test_configurations_that_are_not_here(world, capsys):
    with pytest.raises(SystemExit) as done:
        main(["plan", "cirr/val", "--dataset-path", str(world), "--model-path", str(world / "models/sdxl")])
    assert done.value.code == 2
    assert "is not on this machine; give a folder, or fetch it first" in capsys.readouterr().err


def test_sizes_that_no_vae_encodes_are_refused(world, capsys):
    where = ["--dataset-path", str(world / "CIRR"), "--model-path", str(world / "models/sdxl")]
    with pytest.raises(SystemExit) as done:
        main(["plan", "cirr/val", *where, "--width", "1"])
    assert done.value.code == 2
    assert "--width 1" in capsys.readouterr().err
