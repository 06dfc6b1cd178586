"""Numbers that are not finite end a run where they are made; the error names the model, the input and the precision."""

import random
from pathlib import Path

import pytest
import safetensors.torch
import torch
from PIL import Image

import tiny
from cig import load_benchmark, load_composer, load_method
from cig.cli.main import main
from cig.errors import NotFiniteError
from cig.finite import need_finite
from cig.generators import load_generator
from cig.generators._compose import ComposedConditions
from cig.generators._round_trip import load_round_trip
from cig.io.feature_cache import FeatureCache
from cig.methods import Source
from cig.models.clip import load_clip
from cig.models.dual_encoder import load_tower
from cig.models.phi import load_phi
from cig.retrieval.features import embed_pictures, embed_queries
from cig.types import ComposedEmbedding, Query

CPU = torch.device("cpu")


@pytest.fixture
def models(tmp_path):
    """The tiny world's models, of which a test breaks one."""
    tiny.make(tmp_path)
    return tmp_path / "models"


def break_weight(file, name, value=torch.nan):
    weights = safetensors.torch.load_file(file)
    weights[name].view(-1)[0] = value
    safetensors.torch.save_file(weights, file, metadata={"format": "pt"})


def pictures(folder, count=3):
    folder.mkdir()
    for i in range(count):
        tiny.draw(random.Random(i), folder / f"{i}.png")
    return [folder / f"{i}.png" for i in range(count)]


def test_rows_are_named():
    values = torch.tensor([[1.0, 2.0], [torch.nan, 0.0], [0.0, torch.inf]])
    with pytest.raises(NotFiniteError, match=r"the model.* of b, c, in float16") as caught:
        need_finite(values, "the model", torch.float16, names="abc")
    assert caught.value.rows == [1, 2]
    assert "--dtype float32" in str(caught.value)
    assert need_finite(values[:1], "the model", torch.float16) is not None


def test_a_clip_with_a_nan_is_named_with_the_picture(models, tmp_path, capsys):
    break_weight(models / "clip-small/model.safetensors", "visual_projection.weight")
    paths = pictures(tmp_path / "gallery")
    cache = FeatureCache(tmp_path / "cache")
    method = load_method("image", Source(clip=str(models / "clip-small")))
    with pytest.raises(NotFiniteError) as caught:
        embed_pictures(method, paths, cache=cache)
    for word in ("clip-small", str(paths[0]), "float32"):
        assert word in str(caught.value)
    assert sum(count for _, count, _ in cache.spaces()) == 0, "nothing of it is kept"
    with pytest.raises(SystemExit) as done:
        main(
            f"search --gallery {tmp_path}/gallery --image {paths[0]} --method image --clip {models}/clip-small".split()
        )
    assert done.value.code == 1
    assert "clip-small" in capsys.readouterr().err


def test_texts_words_and_other_towers(models, tmp_path):
    break_weight(models / "clip-small/model.safetensors", "text_projection.weight")
    clip = load_clip(str(models / "clip-small"), CPU, torch.float32)
    with pytest.raises(NotFiniteError, match="a red dress"):
        clip.embed_texts(["a red dress"])
    with pytest.raises(NotFiniteError, match="a red dress"):
        clip.text_states(["a red dress"])
    inverter = load_phi(models / "phi-small.pt", clip)
    with pytest.raises(NotFiniteError, match="phi"):
        inverter(torch.full((1, clip.feature_width), 3e38))
    tiny.make_siglip(tmp_path / "siglip")
    tower = load_tower(str(tmp_path / "siglip"), CPU, torch.float32)
    with pytest.raises(NotFiniteError, match="siglip"):
        tower.embed_images(torch.full((1, 3, 32, 32), torch.nan))


def test_queries_of_a_method_that_checks_nothing(tmp_path):
    class Careless:
        name, identity, preprocess, uses_picture = "careless", {"source": "x", "sha256": "0"}, None, False

        def embed_captions(self, captions):
            return torch.tensor([[torch.nan, 1.0] if "b" in row else [1.0, 0.0] for row in captions])

    queries = [Query("one", "", ("a",)), Query("two", "", ("b",))]
    with pytest.raises(NotFiniteError, match=r"careless.*query two"):
        embed_queries(Careless(), queries, [None, None], pictures=None, cache=FeatureCache())


def test_embeddings_name_the_query(models):
    break_weight(models / "clip-large/model.safetensors", "text_projection.weight")
    phis = models / "phi-small.pt", models / "phi-large.pt"
    composer = load_composer(models / "clip-small", models / "clip-large", *phis)
    part = load_benchmark("cirr/val", models.parent / "CIRR")
    with pytest.raises(NotFiniteError, match="clip-large"):
        ComposedConditions(part, composer)(part.queries[:2])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("part", "weight", "word"),
    [
        ("vae", "decoder.conv_out.bias", "VAE"),
        ("unet", "conv_out.bias", "UNet"),
    ],
)
def test_pictures_that_a_generator_leaves_without_numbers_are_not_dark(models, part, weight, word):
    break_weight(models / "sdxl" / part / "diffusion_pytorch_model.safetensors", weight)
    sdxl = {"model_path": models / "sdxl", "sdxl_repo": models / "sdxl", "vae_repo": models / "sdxl/vae"}
    generator = load_generator("sdxl", **sdxl, device="cpu", height=64, width=64, steps=1)
    config = generator.pipeline.unet.config
    width, pooled = config.cross_attention_dim, config.projection_class_embeddings_input_dim
    pooled -= 6 * config.addition_time_embed_dim
    zeros = torch.zeros(2, 77, width)
    condition = ComposedEmbedding(("4", "5"), zeros[..., :8], zeros[..., 8:], torch.zeros(2, pooled), zeros)
    with pytest.raises(NotFiniteError, match=f"{word}.*query 4, query 5"):
        generator(condition, [1, 2])
    if part == "vae":
        with pytest.raises(NotFiniteError, match="VAE"):
            load_round_trip(str(models / "sdxl/vae"), "cpu", 64)(Image.new("RGB", (64, 64)))


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "NaN", "1e999"])
@pytest.mark.parametrize(
    "words",
    [
        "search . --text a --without b --without-weight",
        "run cirr --brightness-thresh",
        "evaluate cirr --fusion-weight",
        "train phi --lr",
        "train phrases --temperature",
    ],
)
def test_flags_take_finite_numbers(tmp_path, monkeypatch, capsys, words, value):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as done:
        main([*words.split()[:-1], f"{words.split()[-1]}={value}"])
    assert done.value.code == 2
    assert f"{words.split()[-1]} {value}" in capsys.readouterr().err


def test_settings_take_finite_numbers(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("cig.toml").write_text("[generate]\nguidance_scale = nan\n")
    with pytest.raises(SystemExit) as done:
        main(["generate", "cirr"])
    assert done.value.code == 2
    assert "--guidance-scale nan of cig.toml" in capsys.readouterr().err
