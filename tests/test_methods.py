"""Every method in the folder honours the contract; searle and lincir are the oracle's; bad flags are told."""

from dataclasses import replace

import pytest
import torch

import oracle
from cig import Source, load_method, plugins
from cig.errors import InputError, MismatchError, NotFoundError, UsageError
from cig.images import read_picture
from cig.methods import ALIASES, check_flags, published_experiment, split_method
from cig.methods.slerp import slerp

CAPTIONS = [("is red", "is longer."), ("costs $5 & $6",)]


def source(world, phi=True):
    models = world / "models"
    return Source(clip=str(models / "clip-small"), phi=models / "phi-small.pt" if phi else None)


def method_of(world, name):
    wants_phi = bool(next(iter(plugins.load("methods", name).VARIANTS.values())).phi)
    own = replace(source(world), phi=world / "models/pic2word-small.pt") if name == "pic2word" else None
    return load_method(name, own or source(world, wants_phi))


def features(method, world):
    paths = sorted((world / "CIRR/dev").glob("*.png"))[:2]
    return paths, method.embed_images(torch.stack([method.preprocess(read_picture(path).image) for path in paths]))


@pytest.mark.parametrize("name", plugins.names("methods"))
def test_contract(world, name):
    method = method_of(world, name)
    _, images = features(method, world)
    queries = method.embed_queries(images, CAPTIONS)
    assert queries.shape == images.shape == (2, 40)
    assert torch.allclose(queries.norm(dim=-1), torch.ones(2), atol=1e-5)
    assert torch.allclose(method.embed_captions(CAPTIONS).norm(dim=-1), torch.ones(2), atol=1e-5)
    assert method.name == name, "weights of the user's are not the variant's"
    assert method.identity["clip"]["sha256"]
    changed = not torch.allclose(queries, method.embed_queries(images.flip(0), CAPTIONS), atol=1e-4)
    assert changed == method.uses_picture


@pytest.mark.parametrize(("name", "pad", "first_only"), [("searle", True, True), ("lincir", False, False)])
def test_inversion_methods_are_the_oracles(world, name, pad, first_only):
    method = method_of(world, name)
    paths, images = features(method, world)
    queries = method.embed_queries(images, CAPTIONS)
    for path, captions, query in zip(paths, CAPTIONS, queries, strict=True):
        truth = oracle.query_feature(world / "models", path, captions, first_only, pad)
        assert torch.allclose(query, truth, atol=1e-5)


def test_pic2word_is_its_formula(world):
    """Two blocks of linear and ReLU, then linear; the word stands at the $ of LinCIR's prompt."""
    method = method_of(world, "pic2word")
    paths, images = features(method, world)
    stored = torch.load(world / "models/pic2word-small.pt", weights_only=True)["state_dict_img2text"]
    words = images
    for layer in ("layers.0.0", "layers.1.0"):
        words = (words @ stored[f"module.{layer}.weight"].T + stored[f"module.{layer}.bias"]).clamp(min=0)
    words = words @ stored["module.fc_out.weight"].T + stored["module.fc_out.bias"]
    queries = method.embed_queries(images, [("is red",), ("is red",)])
    for word, query in zip(words, queries, strict=True):
        ids = torch.tensor([oracle.tokens("a photo of $ that is red")])
        truth = oracle.text_states(world / "models/clip-small", ids, word[None], False)[2]
        assert torch.allclose(query, torch.nn.functional.normalize(truth, dim=-1)[0], atol=1e-5)
    assert len(paths) == 2


def test_a_phi_of_another_kind_is_told_by_its_key(world):
    models = world / "models"
    with pytest.raises(InputError, match=r'phi-small\.pt: not a phi checkpoint: expected a key "state_dict_img2text"'):
        load_method("pic2word", source(world))
    with pytest.raises(InputError, match=r'pic2word-small\.pt: not a phi checkpoint: expected a key "Phi"'):
        load_method("searle", replace(source(world), phi=models / "pic2word-small.pt"))


def test_baselines_by_hand(world):
    image, text, both = (method_of(world, name) for name in ("image", "text", "sum"))
    _, pixels = features(image, world)
    unit = torch.nn.functional.normalize(pixels, dim=-1)
    words = text.embed_queries(pixels, CAPTIONS)
    assert torch.allclose(image.embed_queries(pixels, CAPTIONS), unit)
    assert torch.allclose(both.embed_queries(pixels, CAPTIONS), torch.nn.functional.normalize(unit + words, dim=-1))


def test_slerp_by_hand():
    """Between the axes, the angle is a right one: a third of the way is 30 degrees."""
    east, north = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    assert torch.allclose(slerp(east, north, 1 / 3), torch.tensor([[0.75**0.5, 0.5]]))
    assert torch.equal(slerp(east, north, 0.0), east)
    assert torch.allclose(slerp(east, east, 0.3), east), "parallel rows are interpolated linearly"


def test_slerp_half_way_is_the_sum(world):
    half, both = load_method("slerp", replace(source(world, False), options={"t": "0.5"})), method_of(world, "sum")
    _, images = features(half, world)
    assert torch.allclose(half.embed_queries(images, CAPTIONS), both.embed_queries(images, CAPTIONS), atol=1e-6)
    assert (half.identity["t"], method_of(world, "slerp").identity["t"]) == (0.5, 0.8)


@pytest.mark.parametrize("name", ["image", "sum", "slerp"])
def test_without_a_caption_image_like_methods_search_with_the_picture(world, name):
    method = method_of(world, name)
    _, images = features(method, world)
    unit = torch.nn.functional.normalize(images, dim=-1)
    assert torch.allclose(method.embed_queries(images, [(), ()]), unit, atol=1e-6)
    mixed = method.embed_queries(images, [(), ("is red",)])
    assert torch.allclose(mixed[0], unit[0], atol=1e-6)
    assert torch.allclose(mixed[1:], method.embed_queries(images[1:], [("is red",)]), atol=1e-6)


def test_without_a_caption_the_text_method_has_nothing_left(world):
    method = method_of(world, "text")
    with pytest.raises(UsageError, match="leaves nothing to search with"):
        method.embed_queries(torch.zeros(1, 40), [()])


@pytest.mark.parametrize("name", ["searle", "lincir", "pic2word"])
def test_without_a_caption_the_prompt_is_the_word_alone(world, name):
    method = method_of(world, name)
    _, images = features(method, world)
    ids = torch.tensor([oracle.tokens("a photo of $")] * 2)
    truth = oracle.text_states(world / "models/clip-small", ids, method.inverter(images), True)[2]
    queries = method.embed_queries(images, [(), ()])
    assert torch.allclose(queries, torch.nn.functional.normalize(truth, dim=-1), atol=1e-5)


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("slerp", {"T": "1"}, r'slerp has no option "T"\. Choose from: t\.'),
        ("sum", {"t": "1"}, 'sum has no options; leave "t" out'),
        ("slerp", {"t": "nan"}, "give a number from 0"),
        ("slerp", {"t": "1,5"}, "give a number from 0"),
    ],
)
def test_options_that_do_not_fit(name, options, words):
    with pytest.raises(UsageError, match=words):
        load_method(name, Source(options=options))


def test_names():
    assert split_method("searle") == ("searle", "b32")
    assert split_method("searle-xl") == ("searle", "l14")
    assert split_method("phi") == ("searle", "b32")
    for alias in ALIASES:
        split_method(alias)
    with pytest.raises(NotFoundError, match='Did you mean "searle"'):
        split_method("serle")
    with pytest.raises(NotFoundError, match=r'no variant "b31".*Did you mean "b32"'):
        split_method("searle/b31")


@pytest.mark.parametrize(
    ("name", "flags", "words"),
    [
        ("searle", {"clip": "x"}, "come together"),
        ("lincir", {"phi": "x"}, "come together"),
        ("image", {"phi": "x"}, "has no phi"),
        ("phi", {}, "give --clip and --phi"),
    ],
)
def test_flags_that_do_not_fit(name, flags, words):
    with pytest.raises(UsageError, match=words):
        check_flags(name, Source(**flags))


@pytest.mark.parametrize(
    ("name", "file", "address"),
    [
        ("searle", "SEARLE_ViT-B32.pt", "github.com/miccunifi/SEARLE/releases/download/weights"),
        ("searle-xl", "SEARLE_ViT-L14.pt", "github.com/miccunifi/SEARLE/releases/download/weights"),
        ("lincir", "lincir_large.pt", "navervision/zeroshot-cir-models"),
        ("lincir/g14", "phi_best_giga.pt", "drive folder"),
        ("pic2word", "pic2word_large.pt", "navervision/zeroshot-cir-models"),
    ],
)
def test_missing_weights_say_which_file_to_put_where(tmp_path, monkeypatch, name, file, address):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(NotFoundError, match=f"get {file} from .*{address}.* put it at models/{file}"):
        load_method(name)


def test_a_pair_that_does_not_fit(world):
    wrong = Source(clip=str(world / "models/clip-large"), phi=world / "models/phi-small.pt")
    with pytest.raises(MismatchError, match="come in pairs"):
        load_method("searle", wrong)


def test_published_experiments(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "data/phi_models/mine"
    folder.mkdir(parents=True)
    (folder / "hyperparameters.json").write_text('{"clip_model_name": "ViT-L/14"}')
    clip, phi = published_experiment("mine", "phi_20.pt", None, None)
    assert (clip, phi.as_posix()) == ("openai/clip-vit-large-patch14", "data/phi_models/mine/checkpoints/phi_20.pt")
    with pytest.raises(UsageError, match="come together"):
        published_experiment("mine", None, None, None)
