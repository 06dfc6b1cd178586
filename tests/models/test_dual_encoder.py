"""Dual towers that are no CLIP, against transformers' own processor and model called directly."""

import json
import shutil

import pytest
import torch
from PIL import Image
from transformers import (
    AutoModel,
    AutoTokenizer,
    BertConfig,
    ChineseCLIPConfig,
    ChineseCLIPImageProcessorPil,
    ChineseCLIPModel,
    Siglip2Config,
    SiglipImageProcessorPil,
)

import tiny
from cig import Source, load_method
from cig.errors import InputError, MismatchError, NotFoundError, PictureError
from cig.io.feature_cache import FeatureCache
from cig.io.images import read_picture
from cig.methods import load_method_lazily
from cig.models.clip import Clip
from cig.models.dual_encoder import load_tower
from cig.models.preprocessing import OwnPreprocess

CPU, FLOAT = torch.device("cpu"), torch.float32
TEXTS = ["is RED and longer", "is taken from above " * 10, "\ud800"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("siglip")
    torch.manual_seed(1)
    tiny.make_siglip(folder)
    return folder


@pytest.fixture(scope="module")
def siglip(folder):
    return load_tower(str(folder), CPU, FLOAT)


def test_a_clip_is_still_ours(world):
    assert isinstance(load_tower(str(world / "models/clip-small"), CPU, FLOAT), Clip)


def test_pictures_are_the_models_own(world, folder, siglip):
    paths = sorted((world / "CIRR/dev").glob("*.png"))[:6]  # of several sizes and modes
    preprocess = siglip.preprocess(pad=False)
    pixels = torch.stack([preprocess(read_picture(path).image) for path in paths])
    processor = SiglipImageProcessorPil.from_pretrained(folder)
    pictures = [Image.open(path).convert("RGB") for path in paths]
    truth = processor(images=pictures, return_tensors="pt")
    assert torch.equal(pixels, truth["pixel_values"])
    with torch.no_grad():
        features = AutoModel.from_pretrained(folder).eval().get_image_features(**truth).pooler_output
    assert torch.allclose(siglip.embed_images(pixels), features, atol=1e-5)


def test_texts_are_lower_case_and_as_long_as_the_context(folder, siglip):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    texts = [text.lower().encode("utf-8", "replace").decode() for text in TEXTS]
    ids = tokenizer(texts, padding="max_length", truncation=True, max_length=12, return_tensors="pt")["input_ids"]
    assert ids.shape == (3, 12)
    with torch.no_grad():
        truth = AutoModel.from_pretrained(folder).eval().get_text_features(input_ids=ids).pooler_output
    assert torch.allclose(siglip.embed_texts(TEXTS), truth, atol=1e-5)
    assert torch.equal(siglip.embed_texts(["is RED"]), siglip.embed_texts(["is red"]))


def test_targetpad_comes_first(siglip):
    """A picture twice as wide as high is padded to 1.25, above and below, before the model's own steps."""
    image = Image.new("RGB", (100, 50), "white")
    padded, plain = (siglip.preprocess(pad=pad)(image) for pad in (True, False))
    assert padded[0, 0, 16] == -1, "black"
    assert plain.min() == 1, "white everywhere"


def test_what_preprocesses_is_known_by_its_settings(folder, siglip):
    preprocess = siglip.preprocess(pad=False)
    assert repr(preprocess) == repr(load_tower(str(folder), CPU, FLOAT).preprocess(False))
    assert '"size": {"height": 32, "width": 32}' in repr(preprocess)
    assert repr(preprocess) != repr(siglip.preprocess(pad=True))


@pytest.mark.parametrize("name", ["image", "text", "sum", "slerp"])
def test_methods_take_it_by_folder(world, folder, name):
    method = load_method(name, Source(clip=str(folder)))
    assert (method.name, bool(method.identity["clip"]["sha256"])) == (name, True)
    paths = sorted((world / "CIRR/dev").glob("*.png"))[:2]
    images = method.embed_images(torch.stack([method.preprocess(read_picture(path).image) for path in paths]))
    queries = method.embed_queries(images, [("is red", "longer"), ("is longer",)])
    assert queries.shape == images.shape == (2, 20)


def test_what_is_remembered_of_it_is_whole(tmp_path, folder, world):
    """The second time nothing is loaded, and the preprocessing is the same, and works."""
    cache = FeatureCache(tmp_path)
    first, again = (load_method_lazily("sum", Source(clip=str(folder)), cache) for _ in range(2))
    assert type(again).__name__ == "Deferred"
    assert again.preprocess == first.preprocess
    assert again.look_up is None
    assert again.no_query is None
    assert not again.asks_for_queries
    assert again._model is None, "all of this without a model"
    picture = Image.new("RGB", (50, 60), "red")
    assert torch.equal(again.preprocess(picture), first.preprocess(picture))


def test_inversion_needs_a_clip(world, folder):
    with pytest.raises(MismatchError, match=r'is not a CLIP\'s: its model_type is "siglip"'):
        load_method("searle", Source(clip=str(folder), phi=world / "models/phi-small.pt"))


def changed(folder, to, **settings):
    shutil.copytree(folder, to)
    config = json.loads((to / "config.json").read_text())
    (to / "config.json").write_text(json.dumps(config | settings))
    return to


def test_models_that_are_no_dual_tower(tmp_path, folder):
    BertConfig().save_pretrained(tmp_path / "bert")
    with pytest.raises(MismatchError, match='its model_type is "bert"; give a CLIP, a SigLIP'):
        load_tower(str(tmp_path / "bert"), CPU, FLOAT)
    strange = changed(folder, tmp_path / "strange", model_type="my_own")
    with pytest.raises(MismatchError, match='no dual tower: its model_type is "my_own"'):
        load_tower(str(strange), CPU, FLOAT)
    with pytest.raises(NotFoundError, match=r"has no config\.json"):
        load_tower(str(tmp_path), CPU, FLOAT)


def test_variable_resolution_is_refused(tmp_path):
    Siglip2Config().save_pretrained(tmp_path)
    with pytest.raises(MismatchError, match="SigLIP 2 NaFlex, whose pictures vary in size"):
        load_tower(str(tmp_path), CPU, FLOAT)


def test_missing_files_and_weights(tmp_path, folder):
    for name, words in (("preprocessor_config.json", "preprocessing"), ("model.safetensors", "cannot be loaded")):
        broken = changed(folder, tmp_path / name)
        (broken / name).unlink()
        with pytest.raises(InputError, match=words):
            load_tower(str(broken), CPU, FLOAT)
    deeper = changed(folder, tmp_path / "deeper")
    config = json.loads((deeper / "config.json").read_text())
    config["text_config"]["num_hidden_layers"] = 3
    (deeper / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="lacks weights of a siglip"):
        load_tower(str(deeper), CPU, FLOAT)


def test_a_tokenizer_with_more_words_than_the_tower(tmp_path, folder):
    fewer = changed(folder, tmp_path / "fewer")
    tower = load_tower(str(fewer), CPU, FLOAT)
    tower.vocabulary = 4
    with pytest.raises(MismatchError, match="tokens that its text tower lacks"):
        tower.embed_texts(["is red"])


def test_sizes_that_fit_into_no_batch_or_memory(tmp_path, folder):
    settings = {"image_processor_type": "SiglipImageProcessor", "do_resize": False}
    ragged = changed(folder, tmp_path / "ragged")
    (ragged / "preprocessor_config.json").write_text(json.dumps(settings))
    with pytest.raises(MismatchError, match="sizes that fit into no batch"):
        load_tower(str(ragged), CPU, FLOAT)
    huge = changed(folder, tmp_path / "huge")
    (huge / "preprocessor_config.json").write_text(json.dumps({"size": {"height": 10**6, "width": 10**6}}))
    with pytest.raises(InputError, match=r"is over \d+ pixels"):
        load_tower(str(huge), CPU, FLOAT)
    narrow = OwnPreprocess("SiglipImageProcessorPil", json.dumps({"size": {"shortest_edge": 224}}))
    with pytest.raises(PictureError, match="resized, it would be 224 x 4480000"):
        narrow(Image.new("RGB", (20000, 1)))


def test_other_towers_read_texts_at_their_real_length(tmp_path):
    """Chinese CLIP, in a batch with a mask, is what it is for each text alone; its case is its tokenizer's affair."""
    shape = {"intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "hidden_size": 16}
    words = len(tiny.make_word_tokenizer(tmp_path))
    vision = {**shape, "image_size": 32, "patch_size": 16}
    text = {**shape, "vocab_size": words, "max_position_embeddings": 60}
    torch.manual_seed(1)
    model = ChineseCLIPModel(ChineseCLIPConfig(text_config=text, vision_config=vision, projection_dim=12)).eval()
    model.save_pretrained(tmp_path)
    ChineseCLIPImageProcessorPil(size={"height": 32, "width": 32}, do_center_crop=False).save_pretrained(tmp_path)
    tower = load_tower(str(tmp_path), CPU, FLOAT)
    texts = ["is red", "shows two dogs instead of one", "is taken from above " * 30]
    features = tower.embed_texts(texts)
    for text, feature in zip(texts, features, strict=True):
        tokens = tower.tokenizer([text], truncation=True, max_length=60, return_tensors="pt")
        with torch.no_grad():
            truth = model.get_text_features(tokens["input_ids"]).pooler_output[0]
        assert torch.allclose(feature, truth, atol=1e-5)
    assert not torch.allclose(tower.embed_texts(["is RED"]), features[:1])
