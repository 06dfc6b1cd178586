"""Every method in the folder honours the contract; searle and lincir are the oracle's; bad flags are told."""

import pytest
import torch

import oracle
from cig import Source, load_method, plugins
from cig.errors import MismatchError, NotFoundError, UsageError
from cig.images import read_picture
from cig.methods import ALIASES, check_flags, published_experiment, split_method

CAPTIONS = [("is red", "is longer."), ("costs $5 & $6",)]


def source(world, phi=True):
    models = world / "models"
    return Source(clip=str(models / "clip-small"), phi=models / "phi-small.pt" if phi else None)


def method_of(world, name):
    wants_phi = bool(next(iter(plugins.load("methods", name).VARIANTS.values())).phi)
    return load_method(name, source(world, wants_phi))


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


def test_baselines_by_hand(world):
    image, text, both = (method_of(world, name) for name in ("image", "text", "sum"))
    _, pixels = features(image, world)
    unit = torch.nn.functional.normalize(pixels, dim=-1)
    words = text.embed_queries(pixels, CAPTIONS)
    assert torch.allclose(image.embed_queries(pixels, CAPTIONS), unit)
    assert torch.allclose(both.embed_queries(pixels, CAPTIONS), torch.nn.functional.normalize(unit + words, dim=-1))


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
