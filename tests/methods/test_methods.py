"""Every method in the folder honours the contract; searle and lincir are the oracle's; bad flags are told."""

import contextlib
import json
import pickle
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import oracle
import tiny
from calls import run
from cig import Source, load_method, registry
from cig.benchmarks import Data, load_benchmarks
from cig.errors import InputError, MismatchError, NotFoundError, UsageError
from cig.io.feature_cache import FeatureCache
from cig.io.images import read_picture
from cig.io.pickled_names import read_pickled_names
from cig.io.tensors import read_matrix
from cig.methods import ALIASES, check_flags, load_method_lazily, split_method
from cig.methods._feature_files import read_table
from cig.methods._picture_names import Names, is_of, plain_name
from cig.methods.caption import joined
from cig.methods.slerp import slerp
from cig.pipelines.evaluate import evaluate
from cig.retrieval.features import embed_pictures
from cig.retrieval.rank import search
from cig.retrieval.requests import Searching
from cig.runtime import Compute
from cig.types import Query
from searchers import all_pictures, caption_file, method_of, source, source_of

CAPTIONS = [("is red", "is longer."), ("costs $5 & $6",)]


def features(method, world):
    paths = sorted((world / "CIRR/dev").glob("*.png"))[:2]
    if look_up := getattr(method, "look_up", None):
        return paths, torch.stack(list(look_up(paths).values()))
    return paths, method.embed_images(torch.stack([method.preprocess(read_picture(path).image) for path in paths]))


def ask(method, images, captions, paths):
    """As features.embed_queries asks."""
    queries = [Query(path.stem.split("-")[1], path.stem, own) for path, own in zip(paths, captions, strict=True)]
    more = {"queries": queries, "paths": paths} if getattr(method, "asks_for_queries", False) else {}
    return method.embed_queries(images, captions, **more)


@pytest.mark.parametrize("name", registry.names("methods"))
def test_contract(world, name):
    method = method_of(world, name)
    paths, images = features(method, world)
    queries = ask(method, images, CAPTIONS, paths)
    assert images.shape == (2, 40)
    assert queries.shape == (2, 80 if hasattr(method, "score") else 40)
    assert torch.allclose(queries.norm(dim=-1), torch.ones(2), atol=1e-5)
    assert method.name == name, "weights of the user's are not the variant's"
    assert all(own["sha256"] for own in method.identity.values() if isinstance(own, dict))
    other = ask(method, images.flip(0), CAPTIONS, paths[::-1])
    if name != "texts":  # `ask` makes ids of paths
        assert method.uses_picture == (not torch.allclose(queries, other, atol=1e-4))
    if name in ("precomputed", "texts"):  # they know queries by their ids
        with pytest.raises(UsageError):
            method.embed_captions(CAPTIONS)
    else:
        assert torch.allclose(method.embed_captions(CAPTIONS).norm(dim=-1), torch.ones(2), atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("benchmark", ["cirr/val", "fashioniq/val", "circo/val"])
@pytest.mark.parametrize("name", registry.names("methods"))
def test_every_method_searches_every_benchmark(world, name, benchmark):
    """With the caption and without it, with the reference alone and with a pseudo-target."""
    method, cache = method_of(world, name), FeatureCache()
    for part in load_benchmarks(benchmark, world):
        targets = {query.id: part.images[part.gallery[i]] for i, query in enumerate(part.queries)}
        pictures = embed_pictures(method, part.images.values(), cache=cache)
        assert not pictures.failed
        assert not pictures.no_query
        bare = replace(part, queries=tuple(replace(query, captions=()) for query in part.queries))
        for own in (part, bare) if name != "text" else (part,):
            for imagined in (None, targets):
                ranking = search(own, method, imagined, pictures=pictures, cache=cache)
                assert [len(row) for row in ranking.ids] == [min(50, len(part.gallery) - part.drop_reference)] * 8
                assert not ranking.missing


@pytest.mark.parametrize("name", registry.names("methods"))
def test_what_is_remembered_answers_without_models(world, tmp_path, name):
    """A search whose features are all known loads nothing that it need not, and finds the same."""
    cache = FeatureCache(tmp_path)
    part = load_benchmarks("cirr/val", world)[0]
    first, again = (
        search(part, load_method_lazily(name, source_of(world, name), cache), cache=cache) for _ in range(2)
    )
    assert first.ids == again.ids
    deferred = load_method_lazily(name, source_of(world, name), cache)
    if name in ("oti", "caption"):  # they look at their files to say what is missing
        assert deferred.asks_for_queries
    elif name not in ("precomputed", "texts", "product", "basic"):  # these look at a file, or score by themselves
        search(part, deferred, cache=cache)
        assert deferred._model is None


def own_clip(world, folder):
    """The tiny world's CLIP with a mean and a deviation of its own."""
    shutil.copytree(world / "models/clip-small", folder)
    (folder / "preprocessor_config.json").write_text('{"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}')
    return folder


@pytest.mark.parametrize("name", [name for name in registry.names("methods") if name != "precomputed"])
def test_a_clips_own_preprocessing_is_every_methods(world, tmp_path, name):
    """White is 1 by a mean and a deviation of 0.5; padding, where the method pads, is black and so -1."""
    own = replace(source_of(world, name), clip=str(own_clip(world, tmp_path / "clip")))
    method = load_method(name, own)
    assert method.preprocess(Image.new("RGB", (300, 300), "white")).unique().tolist() == [1.0]
    wide = method.preprocess(Image.new("RGB", (900, 100), "white"))
    assert float(wide.min()) == (-1 if method.preprocess.pad else 1)
    padded = load_method(name, replace(own, preprocessing="targetpad"))
    assert padded.preprocess(Image.new("RGB", (900, 100), "white"))[0, 0].unique().tolist() == [-1.0]


@pytest.mark.parametrize("verb", ["evaluate", "extract", "search", "train"])
def test_an_odd_preprocessing_ends_every_verb(world, tmp_path, capsys, verb):
    clip, models = own_clip(world, tmp_path / "clip"), world / "models"
    (clip / "preprocessor_config.json").write_text('{"image_std": [0.5, 0.5, 0]}')
    words = {
        "evaluate": ["cirr/val", "--dataset-path", world, "--phi", models / "phi-small.pt", "--method", "searle"],
        "extract": ["cirr/val", "--dataset-path", world, "--text-embeddings-dir", tmp_path / "out"],
        "search": [world / "shop", "--method", "image", "--image", next((world / "CIRR/dev").glob("*.png"))],
        "train": ["phi", world / "CIRR/dev", "--objective", "pic2word", "--steps", "1", "--out", tmp_path / "out"],
    }[verb]
    if verb == "extract":
        words += ["--phi", models / "phi-small.pt", "--clip2", models / "clip-large", "--phi2", models / "phi-large.pt"]
    code, out, err = run(capsys, verb, *words, "--clip", clip)
    assert (code, out) == (2, "")
    assert f"{clip}/preprocessor_config.json: image_std" in err


def test_a_changed_preprocessing_is_another_method(world, tmp_path):
    """No feature, and no description of a method, is taken from before the file came, or from after it went."""
    folder = Path(shutil.copytree(world / "models/clip-small", tmp_path / "clip"))
    cache, part = FeatureCache(tmp_path / "cache"), load_benchmarks("cirr/val", world)[0]
    scores = []
    for mean in (None, 0.5, 0.2, None):
        (folder / "preprocessor_config.json").unlink(missing_ok=True)
        if mean is not None:
            (folder / "preprocessor_config.json").write_text(json.dumps({"image_mean": [mean] * 3}))
        method = load_method_lazily("image", Source(clip=str(folder)), cache)
        scores.append(search(part, method, cache=cache).scores)
    assert scores[0] == scores[3]
    assert not any(np.allclose(a, b) for i, a in enumerate(scores[:3]) for b in scores[i + 1 : 3])


def test_a_changed_option_or_file_is_another_method(world, tmp_path):
    """Nothing that was remembered of the old one is taken for the new one."""
    cache = FeatureCache(tmp_path)
    part = load_benchmarks("cirr/val", world)[0]

    def scores(name, own):
        return search(part, load_method_lazily(name, own, cache), cache=cache).scores

    halves = [scores("slerp", replace(source_of(world, "slerp"), options={"t": t})) for t in ("0.2", "0.7", "0.2")]
    assert halves[0] == halves[2] != halves[1]
    captions = tmp_path / "captions.json"
    told = replace(source_of(world, "caption"), options={"captions": str(captions)})
    found = []
    for word in ("dog", "umbrella", "dog"):
        captions.write_text(json.dumps({path.stem: f"a {word}" for path in all_pictures(world)}))
        found.append(scores("caption", told))
    assert found[0] == found[2] != found[1]


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


@pytest.mark.parametrize("name", ["searle", "lincir", "pic2word", "oti"])
def test_a_prompt_of_the_users(world, name):
    """The text of the prompt is encoded with the same word; --prompt's names stand for theirs."""
    own, part = source_of(world, name), load_benchmarks("cirr/val", world)[0]
    published, usual, other, named = (
        load_method(name, replace(own, options=options))
        for options in (
            {},
            {"prompt": "a photo of $ that {caption}"},
            {"prompt": "a photo of $ , {caption}"},
            {"prompt": "pic2word"},
        )
    )
    assert search(part, published).scores == search(part, usual).scores
    assert usual.identity == published.identity
    assert search(part, other).scores == search(part, named).scores != search(part, published).scores
    assert other.identity["prompt"] == "a photo of $ , {caption}"
    _, images = features(published, world)
    if name in ("searle", "lincir"):
        word = other.inverter(images[:1])
        ids = torch.tensor([oracle.tokens("a photo of $ , is red")])
        truth = oracle.text_states(world / "models/clip-small", ids, word, name == "searle")[2]
        query = other.embed_queries(images[:1], [("is red",)])
        assert torch.allclose(query, torch.nn.functional.normalize(truth, dim=-1), atol=1e-5)


def test_a_prompt_is_named_in_the_protocol(world):
    own = source_of(world, "searle")
    for prompt, named in (("pic2word", "a photo of $ , {caption}"), (None, None)):
        searching = Searching("searle", own.clip, own.phi, prompt=prompt)
        found = evaluate(Data("circo/val", world / "CIRCO"), Compute("cpu"), searching)
        assert found.report.protocol.get("prompt") == named


@pytest.mark.parametrize("text", ["", "a photo", "a photo of $", "{caption}"])
def test_a_prompt_without_a_place_is_refused(world, text):
    with pytest.raises(UsageError, match="prompt"):
        load_method("searle", replace(source_of(world, "searle"), options={"prompt": text}))
    with pytest.raises(UsageError, match="prompt"):
        check_flags("image", Source(options={"prompt": text}))


def test_a_phi_of_another_kind_is_told_by_its_key(world):
    models = world / "models"
    with pytest.raises(InputError, match=r'phi-small\.pt.*"state_dict_img2text".*searle'):
        load_method("pic2word", source(world))
    with pytest.raises(InputError, match=r'pic2word-small\.pt.*"Phi".*pic2word'):
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


@pytest.mark.parametrize("name", ["lincir", "pic2word"])
def test_l2_normalize_gives_phi_unit_features(world, name):
    """As LinCIR's --l2_normalize: the word is phi's of the feature of unit length, the prompt is the same."""
    plain, normalised = (
        load_method(name, replace(source_of(world, name), options=options)) for options in ({}, {"l2_normalize": "yes"})
    )
    _, images = features(plain, world)
    unit = torch.nn.functional.normalize(images, dim=-1)
    assert torch.allclose(normalised.embed_queries(images, CAPTIONS), plain.embed_queries(unit, CAPTIONS), atol=1e-6)
    assert not torch.allclose(normalised.embed_queries(images, CAPTIONS), plain.embed_queries(images, CAPTIONS))
    assert (normalised.identity["l2_normalize"], "l2_normalize" in plain.identity) == (True, False)
    with pytest.raises(UsageError, match="l2_normalize=1: yes or no"):
        load_method(name, replace(source_of(world, name), options={"l2_normalize": "1"}))


# Pseudo-words of pictures


def test_oti_is_the_oracles_prompt_with_the_pictures_word(world):
    method = method_of(world, "oti")
    paths, images = features(method, world)
    words = torch.load(world / "models/oti/ema_oti_pseudo_tokens.pt", weights_only=True)
    names = pickle.loads((world / "models/oti/image_names.pkl").read_bytes())
    queries = ask(method, images, [("costs $5",), ()], paths)
    for path, text, query in zip(paths, ("a photo of $ that costs $5", "a photo of $"), queries, strict=True):
        word, ids = words[names.index(path.stem)], torch.tensor([oracle.tokens(text)])
        truth = oracle.text_states(world / "models/clip-small", ids, word[None], first_only=True)[2]
        assert torch.allclose(query, torch.nn.functional.normalize(truth, dim=-1)[0], atol=1e-5)


def test_pictures_without_a_word_or_a_caption_are_named(world, tmp_path):
    """They can be found, but not asked with."""
    paths, _ = features(method_of(world, "image"), world)
    torch.save(torch.zeros(1, 32), tmp_path / "ema_oti_pseudo_tokens.pt")
    (tmp_path / "image_names.json").write_text(json.dumps([paths[0].name]))
    (tmp_path / "captions.csv").write_text(f'{paths[0].stem},"a dog, asleep"\n{paths[1].stem}, \n')
    told = {"phi": None, "options": {"captions": str(tmp_path / "captions.csv")}}
    for name, own, words in (("oti", {"phi": tmp_path}, "pseudo-word"), ("caption", told, "caption")):
        method = load_method(name, replace(source(world), **own))
        pictures = embed_pictures(method, paths)
        assert list(pictures.no_query) == [paths[1]]
        assert f"no {words} of {paths[1].stem} in {tmp_path}" in pictures.no_query[paths[1]]
        assert pictures.have(paths[1])
        assert [pictures.can_ask(path) for path in paths] == [True, False]
        with pytest.raises(InputError, match=rf"no {words} of 1 pictures: {paths[1].stem};"):
            ask(method, pictures.of(paths), CAPTIONS, paths)


def words_folder(folder, words=None, names=("a",), **hyperparameters):
    torch.save(torch.zeros(len(names), 32) if words is None else words, folder / "ema_oti_pseudo_tokens.pt")
    (folder / "image_names.json").write_text(json.dumps(names))
    (folder / "hyperparameters.json").write_text(json.dumps(hyperparameters))
    return folder


@pytest.mark.parametrize(
    ("change", "kind", "words"),
    [
        ({"words": torch.zeros(1, 48)}, MismatchError, "have width 48, but the words of the CLIP .* have width 32"),
        ({"words": torch.zeros(2, 32)}, InputError, "has 2 rows, but image_names.json 1 names"),
        ({"words": torch.full((1, 32), torch.nan)}, InputError, "not finite"),
        ({"words": {"a": "b"}}, InputError, "expected one tensor of floats"),
        ({"names": ["a", 5]}, InputError, "expected a list of names"),
        ({"names": ["7", "000000000007.jpg", "b"]}, None, "the first counts"),
    ],
)
def test_folders_of_pseudo_words_that_do_not_fit(world, tmp_path, change, kind, words):
    own = replace(source(world), phi=words_folder(tmp_path, **change))
    if kind is None:
        assert load_method("oti", own).words.names.rows == {"7": 0, "b": 2}
        return
    with pytest.raises(kind, match=words):
        load_method("oti", own)


def test_words_of_another_clip_are_told_by_their_hyperparameters(tmp_path):
    folder = words_folder(tmp_path, clip_model_name="ViT-L/14")
    with pytest.raises(MismatchError, match=r'says "ViT-L/14", but oti/b32 is ViT-B/32: --method oti/l14'):
        load_method("oti", Source(phi=folder))
    with pytest.raises(NotFoundError, match=r"has neither ema_oti_pseudo_tokens\.pt nor"):
        load_method("oti", Source(phi=tmp_path / "none"))
    with pytest.raises(UsageError, match="give a folder of pseudo-words with --phi"):
        load_method("oti")


def test_matrices_in_every_form(tmp_path):
    from safetensors.torch import save_file

    rows = torch.arange(6.0).reshape(2, 3)
    for value in (rows, list(rows), [row[None] for row in rows], {"words": rows}):
        torch.save(value, tmp_path / "words.pt")
        assert torch.equal(read_matrix(tmp_path / "words.pt"), rows)
    save_file({"words": rows}, tmp_path / "words.safetensors")
    assert torch.equal(read_matrix(tmp_path / "words.safetensors"), rows)
    (tmp_path / "words.safetensors").write_bytes(b"\xff" * 64)
    with pytest.raises(InputError, match="cannot be read as tensors"):
        read_matrix(tmp_path / "words.safetensors")


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@settings(max_examples=25, deadline=None)
@given(names=st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=20), max_size=30))
def test_pickled_names_are_what_pickle_reads(tmp_path_factory, protocol, names):
    path = tmp_path_factory.mktemp("names") / "image_names.pkl"
    path.write_bytes(pickle.dumps([*names, *names[:3]], protocol))  # repeated objects come from the memo
    assert read_pickled_names(path) == [*names, *names[:3]]
    shutil.rmtree(path.parent)


class Program:
    def __reduce__(self):
        return print, ("a pickle ran",)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (pickle.dumps([Program()]), "it has the instruction (STACK_GLOBAL|GLOBAL|SHORT_BINUNICODE)"),
        (pickle.dumps({"a": 1}), "it has the instruction BININT1"),
        (pickle.dumps({"a": "b"}), "no other pickle is read"),
        (pickle.dumps(["a", 5]), "it has the instruction BININT1"),
        (pickle.dumps(["a", ["b"]]), "no other pickle is read"),
        (pickle.dumps("a"), "no other pickle is read"),
        (pickle.dumps(["a"])[:-3], "no other pickle is read"),
        (b"", "no other pickle is read"),
        (b"\x80\x04h\x07.", "no other pickle is read"),
        (b"\x80\x04]\x94\x8c\xffa.", "no other pickle is read"),
    ],
)
def test_other_pickles_are_refused(tmp_path, capsys, value, words):
    path = tmp_path / "image_names.pkl"
    path.write_bytes(value)
    with pytest.raises(InputError, match=words):
        read_pickled_names(path)
    assert "a pickle ran" not in capsys.readouterr().out


@settings(max_examples=300, deadline=None)
@given(data=st.one_of(st.binary(max_size=60), st.binary(max_size=20).map(lambda tail: pickle.dumps(["a", "b"]) + tail)))
def test_any_bytes_are_a_list_of_names_or_an_input_error(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "any.pkl"
    path.write_bytes(data)
    with contextlib.suppress(InputError):
        assert all(isinstance(name, str) for name in read_pickled_names(path))


def test_names_as_files_and_benchmarks_write_them():
    assert plain_name("dev-1-0-img0.PNG") == plain_name("a/dev-1-0-img0") == "dev-1-0-img0"
    assert plain_name("000000000042.jpg") == plain_name("42") == "42"
    assert plain_name("000000000000") == "0"
    assert plain_name("00042.png") == "00042", "no name of COCO's: a pseudo-target of query 42"
    assert plain_name("v1.2") == "v1.2", "no suffix of a picture"


def test_a_name_with_folders_is_of_a_file_in_them_alone(tmp_path, monkeypatch):
    names = Names.of(["1.jpg", "shop/dresses/1.jpg", "dresses/1", "000000000042"], Path("f"))
    rows = [names.row(Path(own)) for own in ("a/shop/dresses/1.png", "x/dresses/1.jpg", "shirts/1.jpg", "val/42.jpg")]
    assert rows == [1, 2, 0, 3]
    assert [names.row(Path(own)) for own in ("2.jpg", "G/00042.png")] == [None, None]
    far = Names.of(["/data/imgs/1.jpg", "../up/2.jpg", "./dev/dev-1-0-img0", "./val/3", "./dev/3"], Path("f"))
    rows = [
        far.row(Path(own)) for own in ("/data/imgs/1.jpg", "/x/up/2.jpg", "dev-1-0-img0", "3", "/other/imgs2/1.jpg")
    ]
    assert rows == [0, 1, 2, None, None], "a bare name, of a picture without a file, is the one that ends so"
    (tmp_path / "shirts").mkdir()
    (tmp_path / "shirts/1.jpg").touch()
    monkeypatch.chdir(tmp_path / "shirts")
    assert Names.of(["dresses/1.jpg"], Path("f")).row(Path("1.jpg")) is None, "it is shirts/1.jpg"
    own = Path("shop/dresses/1.jpg")
    assert [is_of(own, name) for name in ("1", "dresses/1.png", "shirts/1.jpg", "a/shop/dresses/1.jpg")] == [
        *(True, True),
        *(False, False),
    ]


# Captions of references


def test_captions_take_the_place_of_the_word(world):
    method = method_of(world, "caption")
    paths, images = features(method, world)
    told = json.loads(caption_file(world).read_text())
    texts = [f"a photo of {told[path.name]} that is red" for path in paths]
    truth = torch.nn.functional.normalize(method.tower.embed_texts(texts), dim=-1)
    assert torch.allclose(ask(method, images, [("is red",)] * 2, paths), truth, atol=1e-5)


def test_joined_captions_by_hand():
    assert joined("A dog. ", ["is red"]) == ("a photo of A dog that is red",)
    assert joined("a {} dog", ["is {0}", "wet"]) == (
        "a photo of a {} dog that is {0} and wet",
        "a photo of a {} dog that wet and is {0}",
    )
    assert joined("a dog", []) == ("a photo of a dog",)


def test_a_captioner_looks_at_each_picture_once(world, tmp_path):
    tiny.make_captioner(tmp_path)
    method = load_method("caption", replace(source(world, False), options={"captioner": str(tmp_path)}))
    paths, images = features(method, world)
    seen = []
    model = method.captions.captioner
    method.captions.captioner = lambda pictures: seen.append(len(pictures)) or model(pictures)
    queries = ask(method, images[[0, 1, 0]], [("is red",)] * 3, [*paths, paths[0]])
    assert torch.allclose(queries[0], queries[2], atol=1e-6)
    assert torch.allclose(ask(method, images, [("is red",)] * 2, paths), queries[:2], atol=1e-6)
    assert sum(seen) == 2
    assert method.identity["captions"]["sha256"]
    own = tmp_path / "dev-1-own.png"
    for path in (paths[0], paths[1]):
        shutil.copy(path, own)
        ask(method, images[:1], [("is red",)], [own])
    assert sum(seen) == 2, "by what is in it: both are known, under whatever name"
    Image.new("RGB", (8, 8), "red").save(own)
    ask(method, images[:1], [("is red",)], [own])
    assert sum(seen) == 3


@pytest.mark.parametrize(
    ("options", "content", "kind", "words"),
    [
        ({}, "", UsageError, "wants one of two"),
        ({"captions": "x.json", "captioner": "y"}, "", UsageError, "wants one of two"),
        ({"caption": "x.json"}, "", UsageError, 'Did you mean "captions"'),
        ({"captions": "none.json"}, "", NotFoundError, "none.json is not there"),
        ({"captions": "x.json"}, '["a"]', InputError, "expected an object"),
        ({"captions": "x.json"}, '{"a": 5}', InputError, 'the caption of "a" should be a text, found int'),
        ({"captions": "x.json"}, '{"7": "a", "7.jpg": "b"}', InputError, "stand for one picture: 7.jpg"),
        ({"captions": "x.csv"}, "a,b\nc,d,e\n", InputError, "x.csv, line 2: expected a name and a caption, found 3"),
        ({"captions": "x.csv"}, 'a,"b\n', InputError, "x.csv, line 1: not CSV: unexpected end"),
        ({"captions": "x.csv"}, f"a,{'b' * 200_000}", InputError, "x.csv, line 1: not CSV: field larger"),
    ],
)
def test_captions_that_do_not_fit(tmp_path, monkeypatch, options, content, kind, words):
    monkeypatch.chdir(tmp_path)
    for name in ("x.json", "x.csv"):
        Path(name).write_text(content)
    with pytest.raises(kind, match=words):
        load_method("caption", Source(options=options))


# Features from a file


def precomputed(path):
    return load_method("precomputed", Source(options={"features": str(path)}))


def saved(path, **arrays):
    np.savez(path, **arrays) if path.suffix == ".npz" else None
    return path


ROWS = np.array([[3.0, 4.0], [0.0, 2.0]], dtype=np.float16)


def test_precomputed_features_by_hand(tmp_path):
    path = saved(tmp_path / "f.npz", names=["a", "42"], features=ROWS, queries=["q"], query_features=[[-5.0, 0.0]])
    method = precomputed(path)
    pictures = embed_pictures(method, [Path("x/000000000042.jpg"), Path("a.png"), Path("b.png")])
    assert pictures.failed == {Path("b.png"): f"no feature of b in {path}"}
    assert torch.equal(pictures.of([Path("a.png")]), torch.tensor([[3.0, 4.0]]))
    assert method.names == ("a", "42")
    queries = [Query("q", "a", ("is red",)), Query("q", "a", ()), Query("q", "b", ("is red",))]
    asked = method.embed_queries(
        pictures.of([Path("a.png")] * 3),
        [query.captions for query in queries],
        queries=queries,
        paths=[Path("a.png")] * 3,
    )
    own, picture = [-1.0, 0.0], [0.6, 0.8]
    assert torch.allclose(asked, torch.tensor([own, picture, picture])), "its own stands for reference and caption only"
    with pytest.raises(InputError, match="has no feature of 1 queries: r"):
        method.embed_queries(asked[:1], [("x",)], queries=[Query("r", "a", ("x",))], paths=[Path("a.png")])


def test_without_queries_it_is_image_only_and_says_so(tmp_path):
    method = precomputed(saved(tmp_path / "f.npz", names=["a", "b"], features=ROWS))
    assert method.name == "precomputed, pictures alone"
    asked = method.embed_queries(
        torch.tensor([[3.0, 4.0]]), [("x",)], queries=[Query("r", "a", ("x",))], paths=[Path("a.png")]
    )
    assert torch.allclose(asked, torch.tensor([[0.6, 0.8]]))


def test_parquet_is_the_same(tmp_path):
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "f.parquet"
    columns = {"name": ["a", "a", "b"], "feature": [[3.0, 4.0], [1.0, 0.0], [0.0, 2.0]], "query": [None, "q", None]}
    for kind in (pa.list_(pa.float32()), pa.list_(pa.float64(), 2), pa.large_list(pa.float32())):
        schema = pa.schema([("name", pa.string()), ("feature", kind), ("query", pa.string())])
        parquet.write_table(pa.table(columns, schema=schema), path, row_group_size=2)
        table = read_table(path)
        assert (table.names, table.queries) == (("a", "b"), ("q",))
        assert table.features.tolist() == [[3.0, 4.0], [0.0, 2.0]]
        assert table.query_features.tolist() == [[1.0, 0.0]]
    for bad, words in (([[1.0], [1.0, 2.0], [1.0]], "different widths"), ([[1.0], None, [1.0]], "different widths")):
        parquet.write_table(pa.table({**columns, "feature": bad}), path)
        with pytest.raises(InputError, match=words):
            read_table(path)
    parquet.write_table(pa.table({"name": ["a"], "feature": [[None, 1.0]]}), path)
    with pytest.raises(InputError, match="of a are not finite"):
        read_table(path)
    parquet.write_table(pa.table({"name": ["a"] * 1000, "feature": pa.array([[0.0] * 5000] * 1000)}), path)
    assert path.stat().st_size < 100_000
    with pytest.raises(InputError, match=r"bytes that unpack to 20\d{6}"):
        read_table(path)


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"names": ["a"]}, "it has no features, but names"),
        ({"names": ["a"], "features": ROWS}, r"float16 \(2, 2\), expected floats \(1, d\)"),
        ({"names": ["a", "b"], "features": [1.0, 2.0]}, r"float64 \(2,\), expected floats"),
        ({"names": ["a", "b"], "features": [[1], [2]]}, "int64"),
        ({"names": ["a", "b"], "features": [[1.0], [np.inf]]}, "features of b are not finite"),
        ({"names": ["a", "a.jpg"], "features": ROWS}, "stand for one picture: a.jpg"),
        ({"names": np.array(["a", None]), "features": ROWS}, "claims object"),
        ({"names": ["a", "b"], "features": ROWS, "queries": ["q"]}, "it has no query_features"),
        (
            {"names": ["a", "b"], "features": ROWS, "queries": ["q"], "query_features": [[1.0]]},
            "have width 1, feat",
        ),
        (
            {"names": ["a", "b"], "features": ROWS, "queries": ["q", "q"], "query_features": ROWS},
            "2 queries, but only 1 different ids",
        ),
    ],
)
def test_features_that_do_not_fit(tmp_path, arrays, words):
    with pytest.raises(InputError, match=words):
        precomputed(saved(tmp_path / "f.npz", **arrays))


def test_files_of_features_are_hostile(tmp_path):
    path = tmp_path / "f.npz"
    np.savez_compressed(path, names=["a"], features=np.zeros((1, 10**7), np.float32))
    with pytest.raises(InputError, match="bytes that unpack to 4"):
        read_table(path)
    np.savez(path, names=["a", "b"], features=ROWS)
    path.write_bytes(path.read_bytes().replace(b"'shape': (2, 2), }    ", b"'shape': (2, 99999), }"))
    with pytest.raises(InputError, match="cannot be read as features"):
        read_table(path)
    for content in (b"", b"PK\x03\x04", b"\x80\x04N."):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"f\.npz cannot be read as features"):
            read_table(path)
    with pytest.raises(UsageError, match=r"features come as \.npz or \.parquet"):
        precomputed(tmp_path / "f.pkl")
    with pytest.raises(UsageError, match="wants --method-option features=FILE"):
        load_method("precomputed")
    with pytest.raises(UsageError, match="has no CLIP"):
        load_method("precomputed", Source(clip="x"))


# Methods of others


@pytest.mark.slow
def test_a_package_adds_a_method_by_name(world, tmp_path, monkeypatch):
    """By entry point, and by dotted name; no file of ours knows of it, and ours win where names clash."""
    (tmp_path / "their_package").mkdir()
    (tmp_path / "their_package/flip.py").write_text(
        "from cig.methods import image\n"
        "VARIANTS = image.VARIANTS\n"
        "class Flip(image.ImageOnly):\n"
        "    family = 'flip'\n"
        "    def embed_queries(self, images, captions):\n"
        "        return -super().embed_queries(images, captions)\n"
        "def load(variant, source):\n"
        "    return Flip(variant, source)\n"
    )
    points = "[cig.methods]\nflip = their_package.flip\nimage = their_package.flip\nlost = their_package.gone\n"
    info = tmp_path / "their_package-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-package\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(points)
    monkeypatch.syspath_prepend(tmp_path)
    assert registry.names("methods")[-2:] == ["flip", "lost"]
    part = load_benchmarks("cirr/val", world)[0]
    for name in ("flip", "their_package.flip"):
        method = load_method_lazily(name, source(world, False), FeatureCache())
        nearest, furthest = (search(part, own).scores[0][0] for own in (method_of(world, "image"), method))
        assert furthest < nearest
    assert registry.load("methods", "image").__name__ == "cig.methods.image"
    with pytest.raises(NotFoundError, match='"lost" cannot be imported'):
        load_method("lost")
    sys.modules.pop("their_package.flip")
