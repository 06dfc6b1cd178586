"""UNets, VAEs and schedulers as people have them: what is read, and what the error says of the rest."""

import inspect
import json
import shutil
from pathlib import Path

import pytest
import safetensors.torch
import torch

from cig.errors import CigError, InputError, MismatchError, NotFoundError
from cig.generators import need_unet
from cig.generators._parts import check_values, load_part, load_pipeline, load_scheduler
from cig.generators.sdxl import load

FILE = "diffusion_pytorch_model.safetensors"


@pytest.fixture
def sdxl(world, tmp_path):
    return Path(shutil.copytree(world / "models/sdxl", tmp_path / "sdxl"))


def kinds():
    from diffusers import AutoencoderKL, UNet2DConditionModel

    return {"unet": UNet2DConditionModel, "vae": AutoencoderKL}


def load_named(name, source, base=""):
    return load_part(kinds()[name], source, torch.float32, name=name, base=str(base))


def set_values(path, **values):
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.mark.parametrize("name", ["unet", "vae"])
def test_a_part_is_read_from_its_folder_the_one_above_a_variant_and_a_file(sdxl, tmp_path, name):
    expected = load_named(name, sdxl / name).state_dict()
    (sdxl / "copy").mkdir()
    shutil.copy(sdxl / name / FILE, tmp_path / "single.safetensors")
    sources = [sdxl, tmp_path / "single.safetensors", sdxl / name]
    for source in sources:
        if source == sources[-1]:
            (sdxl / name / FILE).rename(sdxl / name / "diffusion_pytorch_model.fp16.safetensors")
        weights = load_named(name, source, base=sdxl).state_dict()
        assert all(torch.equal(weights[key], value) for key, value in expected.items())
    assert need_unet(sdxl / "unet") == str(sdxl / "unet")


@pytest.mark.slow
def test_a_generator_of_the_folders_of_parts(sdxl):
    folders = {"unet": sdxl / "unet", "scheduler": sdxl / "scheduler", "vae": sdxl}
    generator = load(folders["unet"], folders["scheduler"], folders["vae"], device="cpu")
    usual = load(sdxl, sdxl, sdxl / "vae", device="cpu")
    assert {name: model["sha256"] for name, model in generator.identity.items()} == {
        name: model["sha256"] for name, model in usual.identity.items()
    }
    assert generator.pipeline.scheduler.config == usual.pipeline.scheduler.config


def renamed(file, change):
    weights = safetensors.torch.load_file(file)
    safetensors.torch.save_file({change(name): value for name, value in weights.items() if change(name)}, file)


@pytest.mark.parametrize("name", ["unet", "vae"])
def test_weights_that_do_not_fit_are_named(sdxl, name):
    file = sdxl / name / FILE
    whole = file.read_bytes()
    renamed(file, lambda weight: f"module.{weight}")
    with pytest.raises(InputError, match=r"module\."):
        load_named(name, sdxl)
    file.write_bytes(whole)
    renamed(file, lambda weight: weight if "conv_in" not in weight else "")
    with pytest.raises(InputError, match=r"conv_in\.weight"):
        load_named(name, sdxl)
    file.write_bytes(whole[:999])
    with pytest.raises(InputError, match="damaged"):
        load_named(name, sdxl)
    file.unlink()
    with pytest.raises(InputError, match=r"config\.json"):
        load_named(name, sdxl)
    torch.save({}, sdxl / name / "diffusion_pytorch_model.bin")
    with pytest.raises(InputError, match=r"diffusion_pytorch_model\.bin"):
        load_named(name, sdxl)


def test_files_that_are_no_safetensors_and_files_without_a_configuration(sdxl, tmp_path):
    torch.save({}, tmp_path / "model.ckpt")
    with pytest.raises(NotFoundError, match=r"model\.ckpt"):
        need_unet(tmp_path / "model.ckpt")
    with pytest.raises(NotFoundError, match=r"model\.ckpt"):
        load_named("vae", tmp_path / "model.ckpt", base=sdxl)
    with pytest.raises(NotFoundError, match="--sdxl-repo"):
        load_named("vae", sdxl / "vae" / FILE, base=tmp_path)


ODD = [None, "abc", -1, [], {}, float("nan")]


@pytest.mark.parametrize("name", ["unet", "vae"])
def test_odd_values_are_named_with_their_file(sdxl, name):
    path = sdxl / name / "config.json"
    config = json.loads(path.read_text())
    for key in ("block_out_channels", "act_fn", "norm_num_groups", "layers_per_block", "out_channels"):
        for value in (value for value in ODD if (key, value) != ("norm_num_groups", None)):
            path.write_text(json.dumps({**config, key: value}))
            with pytest.raises(InputError) as caught:
                load_named(name, sdxl)
            assert str(path.parent) in str(caught.value)


def test_values_that_are_published_fit(tmp_path):
    """SDXL's UNet has lists where the default is a number, and a null for a bool."""
    published = {
        "attention_head_dim": [5, 10, 20],
        "transformer_layers_per_block": [1, 2, 10],
        "upcast_attention": None,
    }
    published |= {"mid_block_scale_factor": 1.5, "only_cross_attention": [True, False], "cross_attention_dim": 2048}
    (tmp_path / "config.json").write_text(json.dumps(published))
    check_values(kinds()["unet"], tmp_path / "config.json")
    defaults = {
        name: parameter.default
        for name, parameter in inspect.signature(kinds()["unet"].__init__).parameters.items()
        if parameter.default is not inspect.Parameter.empty
    }
    (tmp_path / "config.json").write_text(json.dumps(defaults))
    check_values(kinds()["unet"], tmp_path / "config.json")


def test_schedulers_are_tried(sdxl):
    path = sdxl / "scheduler/scheduler_config.json"
    config = json.loads(path.read_text())
    assert load_scheduler(str(sdxl), None).config.beta_start == 0.00085
    for key in ("beta_start", "num_train_timesteps", "prediction_type", "final_sigmas_type", "timestep_spacing"):
        for value in ODD:
            path.write_text(json.dumps({**config, key: value}))
            with pytest.raises(CigError) as caught:
                load_scheduler(str(sdxl), None)
            assert str(path.parent) in str(caught.value)
    path.write_text(json.dumps(config))
    set_values(sdxl / "model_index.json", scheduler=["diffusers", "system"])
    with pytest.raises(MismatchError, match="system"):
        load_scheduler(str(sdxl), None)
    (sdxl / "model_index.json").write_text("[]")
    with pytest.raises(InputError, match="model_index"):
        load_scheduler(str(sdxl), None)
    (sdxl / "model_index.json").unlink()
    parts = {
        "unet": load_named("unet", sdxl),
        "vae": load_named("vae", sdxl),
        "scheduler": load_scheduler(str(sdxl), None),
    }
    from diffusers import StableDiffusionXLPipeline

    absent = dict.fromkeys(["text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2"])
    pipeline = load_pipeline(StableDiffusionXLPipeline, str(sdxl), torch.float32, cache_dir=None, parts=parts | absent)
    assert type(pipeline.scheduler).__name__ == "EulerDiscreteScheduler"
