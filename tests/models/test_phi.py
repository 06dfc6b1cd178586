"""Phi, prompts and composed embeddings, against the oracle; checkpoints that do not fit are named."""

import shutil

import pytest
import safetensors.torch
import torch
from transformers import CLIPImageProcessorPil

import oracle
from cig import Phi, Source, load_composer, load_method
from cig.errors import InputError, MismatchError, NotFoundError, UsageError
from cig.generators import Composing
from cig.io.files import phi_in
from cig.io.images import Preprocess, read_picture
from cig.methods._inversion import over_orders
from cig.models.clip import load_clip
from cig.models.phi import IM2TEXT, PHI, Im2Text, checkpoint_kind, load_phi
from cig.models.prompts import join_captions, prompt, prompts


@pytest.fixture(scope="module")
def clip(world):
    return load_clip(str(world / "models/clip-small"), torch.device("cpu"), torch.float32)


def test_phi_is_the_oracles(world, clip):
    features = torch.randn(5, clip.feature_width)
    words = load_phi(world / "models/phi-small.pt", clip)(features)
    assert torch.allclose(words, oracle.phi(world / "models/phi-small.pt", features), atol=1e-6)


def test_published_shapes():
    phi = Phi(input_dim=768, hidden_dim=4 * 768, output_dim=768)
    assert {name: tuple(value.shape) for name, value in phi.state_dict().items() if "weight" in name} == {
        "layers.0.weight": (3072, 768),
        "layers.3.weight": (3072, 3072),
        "layers.6.weight": (768, 3072),
    }


def test_a_phi_of_another_clip_names_both_widths(world, clip):
    with pytest.raises(
        MismatchError, match=r"width 56 into words of width 48.*features of width 40 and words of width 32"
    ):
        load_phi(world / "models/phi-large.pt", clip)


class Bomb:
    def __reduce__(self):
        return print, ("a pickle ran",)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "cannot be read as tensors"),
        (b"PK\x03\x04 no archive", "cannot be read as tensors"),
        ({"Phi": Bomb()}, "pickled programs are refused"),
        ({"phi": {}}, "not a phi checkpoint"),
        ({"Phi": {"layers.0.weight": torch.ones(2, 2)}}, "not a phi checkpoint"),
        ([1, 2], "expected a dict"),
        ({"Phi": {k: v * torch.nan for k, v in Phi(40, 80, 32).state_dict().items()}}, "not finite"),
        ({"Phi": {**Phi(40, 80, 32).state_dict(), "layers.3.bias": torch.ones(3)}}, "do not follow from each other"),
    ],
)
def test_bad_checkpoints(tmp_path, clip, capsys, content, words):
    path = tmp_path / "phi.pt"
    path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
    with pytest.raises(InputError, match=words) as error:
        load_phi(path, clip)
    assert "phi.pt" in str(error.value)
    assert "a pickle ran" not in capsys.readouterr().out
    with pytest.raises(NotFoundError):
        load_phi(tmp_path / "none.pt", clip)


def forms(network, key):
    """The forms that trainings store a network in."""
    bare = network.state_dict()
    behind = {f"module.{name}": value for name, value in bare.items()}
    other = {"visual.proj": torch.ones(2)}
    yield from (bare, behind, {"state_dict": bare}, {"state_dict": behind}, {key: bare}, {key: behind})
    yield {"epoch": 3, key: behind, "state_dict": other}
    yield {"model": {f"phi.{name}": value for name, value in bare.items()} | other}


@pytest.mark.parametrize(("network", "kind"), [(Phi, PHI), (Im2Text, IM2TEXT)])
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_every_form_of_a_checkpoint_is_read(tmp_path, clip, network, kind, suffix):
    phi, path = network(40, 80, 32).eval(), tmp_path / f"phi{suffix}"
    features = torch.randn(3, 40)
    expected = phi(features).detach()
    for stored in forms(phi, kind.key):
        if suffix == ".pt":
            torch.save(stored, path)
        elif all(isinstance(value, torch.Tensor) for value in stored.values()):
            safetensors.torch.save_file(stored, path)
        else:
            continue
        assert checkpoint_kind(path) is kind
        assert torch.equal(load_phi(path, clip, kind)(features), expected)


def test_a_checkpoint_of_something_else_says_what_it_has(tmp_path, clip):
    path = tmp_path / "phi.pt"
    for stored in ({"encoder": {"conv.weight": torch.ones(1)}}, {"conv.weight": torch.ones(1)}):
        torch.save(stored, path)
        with pytest.raises(InputError, match=r"conv\.weight"):
            load_phi(path, clip)
    torch.save(Im2Text(40, 80, 32).state_dict(), path)
    with pytest.raises(InputError, match="pic2word"):
        load_phi(path, clip)
    torch.save({"a": Phi(40, 80, 32).state_dict(), "b": Phi(40, 80, 32).state_dict()}, path)
    with pytest.raises(InputError, match="'a', 'b'"):
        load_phi(path, clip)


def test_a_folder_that_a_training_wrote(world, tmp_path, clip):
    with pytest.raises(NotFoundError, match="nothing"):
        phi_in(tmp_path)
    shutil.copy(world / "models/phi-small.pt", tmp_path / "phi_latest.pt")
    (tmp_path / "checkpoint.pt").write_bytes(b"")
    features = torch.randn(2, 40)
    expected = load_phi(world / "models/phi-small.pt", clip)(features)
    assert torch.equal(load_phi(tmp_path, clip)(features), expected)
    method = load_method("searle", Source(clip=str(world / "models/clip-small"), phi=tmp_path))
    assert torch.equal(method.inverter(features), expected)
    assert Composing(phi=tmp_path, phi2=tmp_path).phis == (tmp_path / "phi_latest.pt",) * 2
    torch.save({"Phi": Phi(40, 80, 32).state_dict()}, tmp_path / "phi_best.pt")
    assert phi_in(tmp_path) == tmp_path / "phi_best.pt"


def test_prompts():
    assert prompt("is {red} $5") == "a photo of $ that is {red} $5"
    assert join_captions([" Is red. "]) == (" Is red. ",)
    assert join_captions(["is red.", " longer?, "]) == ("is red and longer", "longer and is red")
    assert prompts(["is red.", "longer"])[1] == "a photo of $ that longer and is red"
    assert prompts([]) == ("a photo of $",)
    assert prompts([""]) == ("a photo of $ that ",), "an empty caption is a caption, as published"
    with pytest.raises(UsageError, match="leaves nothing to search with"):
        prompts([], bare=None)


def test_orders_are_averaged_as_unit_vectors():
    table = {"a and b": [2.0, 0.0], "b and a": [0.0, 5.0], "c": [3.0, 4.0]}
    features = over_orders([("a and b", "b and a"), ("c",)], lambda texts: torch.tensor([table[t] for t in texts]))
    assert torch.allclose(features, torch.tensor([[0.5**0.5, 0.5**0.5], [0.6, 0.8]]))


def test_a_composer_prepares_pictures_as_each_clip_does(world, tmp_path):
    """By the first, of mean and deviation 0.5, features are those of transformers; the second is as published."""
    models, folder = world / "models", tmp_path / "clip"
    shutil.copytree(models / "clip-small", folder)
    (folder / "preprocessor_config.json").write_text('{"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}')
    phis = {"phi": models / "phi-small.pt", "phi2": models / "phi-large.pt"}
    composer = load_composer(folder, models / "clip-large", **phis)
    assert composer.preprocesses[1] == Preprocess(224, rgb_first=True)
    image = read_picture(sorted((world / "CIRR/test1").glob("*.png"))[0]).image
    pixels = [preprocess(image)[None] for preprocess in composer.preprocesses]
    theirs = CLIPImageProcessorPil.from_pretrained(folder)(images=image.convert("RGB"), return_tensors="pt")
    features = composer.embed_images(pixels)
    assert torch.allclose(features[0], oracle.image_features(folder, theirs["pixel_values"]), atol=1e-5)
    assert torch.allclose(features[1], oracle.image_features(models / "clip-large", pixels[1]), atol=1e-5)


def test_composed_embeddings_are_the_oracles(world):
    models = world / "models"
    phis = {"phi": models / "phi-small.pt", "phi2": models / "phi-large.pt"}
    composer = load_composer(models / "clip-small", models / "clip-large", **phis)
    assert composer.preprocesses[0] == Preprocess(224, rgb_first=True)
    paths = sorted((world / "CIRR/test1").glob("*.png"))[:2]
    pixels = torch.stack([composer.preprocesses[0](read_picture(path).image) for path in paths])
    captions = ["costs $5 & up", "is red"]
    composed = composer.compose(["1", "2"], composer.embed_images([pixels]), [(caption,) for caption in captions])
    assert composed.prompt.shape == (2, 77, 32 + 48)
    for row, (path, caption) in enumerate(zip(paths, captions, strict=True)):
        truth = oracle.embedding(models, path, caption)
        ours = {"conditioning": composed.conditioning, "conditioning2": composed.conditioning2}
        ours |= {"pooled": composed.last, "pooled2": composed.pooled2}
        for key, value in truth.items():
            assert (ours[key][row] - value).norm() / value.norm() < 1e-5
