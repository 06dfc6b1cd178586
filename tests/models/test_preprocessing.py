"""A CLIP's own preprocessing: as transformers does it, read from its folder, and refused where it cannot be meant."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch.nn.functional import normalize
from transformers import CLIPImageProcessorPil, CLIPModel

from cig.errors import InputError, MismatchError
from cig.io.images import Preprocess, read_picture, target_pad
from cig.models.clip import load_clip
from cig.models.preprocessing import OwnPreprocess, from_published, load_clip_preprocess, preprocessing_file

HALF = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
PUBLISHED = {
    "crop_size": 224,
    "do_center_crop": True,
    "do_normalize": True,
    "do_resize": True,
    "feature_extractor_type": "CLIPFeatureExtractor",
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "resample": 3,
    "size": 224,
}  # openai/clip-vit-large-patch14's file, field by field


def write(folder, fields, name="preprocessor_config.json"):
    (folder / name).write_text(json.dumps(fields))
    return folder


@pytest.fixture
def folder(world, tmp_path):
    return Path(shutil.copytree(world / "models/clip-small", tmp_path / "clip"))


def first_hit(reference, name, folder):
    """The nearest other picture of a gallery, and its cosine: by us, and by transformers alone."""
    paths = sorted((reference / "CIRR/dev").glob("*.png"))
    clip, row = load_clip(folder), [path.name for path in paths].index(name)
    preprocess = clip.preprocess(pad=False)
    ours = clip.embed_images(torch.stack([preprocess(read_picture(path).image) for path in paths]))
    processor, model = CLIPImageProcessorPil.from_pretrained(folder), CLIPModel.from_pretrained(folder).eval()
    with torch.no_grad():
        pixels = processor(images=[Image.open(path).convert("RGB") for path in paths], return_tensors="pt")
        theirs = model.get_image_features(**pixels).pooler_output
    hits = []
    for features in (ours, theirs):
        scores = normalize(features, dim=-1) @ normalize(features, dim=-1)[row]
        scores[row] = -1
        hits.append((paths[int(scores.argmax())].name, float(scores.max())))
    return hits


def test_the_first_hit_is_transformers(world, folder):
    """Mean and deviation of 0.5, as LAION's ViT-L/14 has them."""
    names = [path.name for path in sorted((world / "CIRR/dev").glob("*.png"))]
    (name, score), (expected, cosine) = first_hit(world, names[0], write(folder, HALF))
    assert (name, score) == (expected, pytest.approx(cosine, abs=1e-5))


@pytest.mark.slow
def test_the_first_hit_of_the_published_case(published, tmp_path):
    """Measured once with transformers alone: 0.8695, dev-151-0-img0.png."""
    folder = Path(shutil.copytree(published / "models/clip-small", tmp_path / "clip"))
    for name, score in first_hit(published, "dev-1020-3-img1.png", write(folder, HALF)):
        assert (name, score) == ("dev-151-0-img0.png", pytest.approx(0.8695, abs=5e-5))


OWN = {
    "mean": HALF,
    "numbers": {"image_mean": 0.5, "image_std": 0.25},
    "bilinear": {"resample": 2},
    "squeezed": {"size": {"height": 224, "width": 224}},
    "wide crop": {"size": {"shortest_edge": 256}, "crop_size": {"height": 224, "width": 224}},
    "no crop": {"size": {"height": 224, "width": 224}, "do_center_crop": False},
    "no resizing": {"do_resize": False},
    "factor": {"rescale_factor": 1 / 127.5},
    "raw": {"do_rescale": False, "do_normalize": False},
}


@pytest.mark.parametrize("fields", OWN.values(), ids=OWN)
def test_pixels_are_transformers(world, folder, fields):
    own = load_clip(write(folder, fields)).preprocess(pad=False)
    processor = CLIPImageProcessorPil.from_pretrained(folder)
    for path in sorted((world / "CIRR/dev").glob("*.png"))[:4]:
        image = Image.open(path).convert("RGB")
        theirs = processor(images=image, return_tensors="pt")["pixel_values"][0]
        assert torch.equal(own(read_picture(path).image), theirs.float())


@pytest.mark.parametrize("fields", [PUBLISHED, {}, {"size": 224, "image_mean": None}, {"do_convert_rgb": False}])
def test_the_published_constants_stay(folder, fields):
    write(folder, fields)
    clip = load_clip(folder)
    assert clip.preprocess(pad=True) == Preprocess(224, pad=True)
    assert clip.preprocess(pad=False, rgb_first=True) == Preprocess(224, rgb_first=True)


def test_a_size_that_is_left_out_is_the_towers(tmp_path):
    own = load_clip_preprocess(write(tmp_path, HALF), 48)
    assert own(Image.new("RGB", (100, 60), "white")).shape == (3, 48, 48)
    assert own(Image.new("RGB", (100, 60), "white")).unique().tolist() == [1.0]


def test_targetpad_comes_before_the_models_own_steps(folder):
    clip = load_clip(write(folder, {**HALF, "resample": 2}))
    picture = Image.linear_gradient("L").resize((300, 60)).convert("RGB")
    plain, padded = clip.preprocess(pad=False), clip.preprocess(pad=True)
    assert torch.equal(padded(picture), plain(target_pad(picture)))
    assert not torch.equal(padded(picture), plain(picture))
    assert padded(picture)[:, 0].unique().tolist() == [-1.0]  # black, by this mean and deviation


def test_the_key_of_features_has_every_field(folder):
    keys = {repr(load_clip_preprocess(write(folder, fields), 224)) for fields in OWN.values()}
    assert len(keys) == len(OWN)


def test_which_file_is_read(tmp_path):
    assert preprocessing_file(tmp_path) is None
    both = write(tmp_path, {"processor_class": "CLIPProcessor"}, "processor_config.json") / "processor_config.json"
    assert preprocessing_file(tmp_path) is None
    write(tmp_path, {"image_mean": [0.1] * 3})
    assert preprocessing_file(tmp_path)[0].name == "preprocessor_config.json"
    write(tmp_path, {"image_processor": HALF, "size": 3}, "processor_config.json")
    assert preprocessing_file(tmp_path) == (both, HALF)


ODD = {
    "image_mean": [["a", 0, 0], [0.5, 0.5], "0.5", [0.5, 0.5, float("nan")], [True, 0, 0], {}],
    "image_std": [[0.5, 0.5, 0.0], [-1, 1, 1], 0, float("inf")],
    "size": [0, -224, "224", 224.5, True, {"shortest_edge": "a"}, {"height": 224}, {"longest_edge": 224}, [224], 10**9],
    "crop_size": [0, {"shortest_edge": 224}, [224, 224], "x"],
    "resample": [-1, 6, "bicubic", 2.5, True],
    "rescale_factor": [0, -1, "1/255", float("nan"), [1]],
    "do_resize": ["yes", 1],
    "do_center_crop": ["false"],
    "do_rescale": [0],
    "do_normalize": [[]],
    "image_processor_type": ["NoSuchProcessor", 3, ["CLIPImageProcessor"], "Sam3ImageProcessor"],
}


@pytest.mark.parametrize(("field", "value"), [(field, value) for field, values in ODD.items() for value in values])
@pytest.mark.parametrize("nested", [False, True])
def test_odd_values_are_named_with_their_file(tmp_path, field, value, nested):
    name = "processor_config.json" if nested else "preprocessor_config.json"
    write(tmp_path, {"image_processor": {field: value}} if nested else {field: value}, name)
    with pytest.raises(MismatchError, match=rf"{name}: {field}"):
        load_clip_preprocess(tmp_path, 224)


@pytest.mark.parametrize(
    "fields", [{"size": 336, "crop_size": 336}, {"do_center_crop": False}, {"size": {"height": 224, "width": 99}}]
)
def test_pictures_of_another_size_than_the_tower_reads_are_refused(tmp_path, fields):
    write(tmp_path, {**HALF, **fields, **({"do_center_crop": False} if "size" in fields else {})})
    with pytest.raises(MismatchError, match=r"preprocessor_config\.json: size and crop_size"):
        load_clip_preprocess(tmp_path, 224)


@pytest.mark.parametrize("text", ["{", "[]", "\x00"])
def test_a_file_that_is_no_object_is_named(tmp_path, text):
    (tmp_path / "preprocessor_config.json").write_text(text)
    with pytest.raises(InputError, match=r"preprocessor_config\.json"):
        load_clip_preprocess(tmp_path, 224)


def test_a_picture_that_would_become_huge_is_refused(tmp_path):
    own = load_clip_preprocess(write(tmp_path, HALF), 224)
    with pytest.raises(InputError, match="resized"):
        own(Image.new("RGB", (2_000_000, 1)))


def test_another_processor_of_transformers(tmp_path):
    write(tmp_path, {"image_processor_type": "ViTImageProcessorFast", "size": {"height": 32, "width": 32}})
    own = load_clip_preprocess(tmp_path, 32)
    assert own.processor == "ViTImageProcessorPil"
    assert own(Image.new("RGB", (90, 60), "white")).unique().tolist() == [1.0]  # ViT's mean and deviation are 0.5


def test_drawn_pixels_come_in_another_preprocessing(tmp_path):
    """Of white, black and grey: published pixels of 32 x 32, then those with a mean and a deviation of 0.5."""
    published, own = Preprocess(32), load_clip_preprocess(write(tmp_path, HALF), 32)
    shades = [Image.new("RGB", (32, 32), (shade,) * 3) for shade in (255, 0, 51)]
    drawn = torch.stack([published(image) for image in shades])
    assert from_published(drawn, published) is drawn
    levels = from_published(drawn, own).mean((1, 2, 3))
    assert torch.allclose(levels, torch.tensor([1.0, -1.0, -0.6]), atol=1e-6)
    assert isinstance(own, OwnPreprocess)
