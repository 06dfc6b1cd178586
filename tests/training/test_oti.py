"""Pseudo-words: losses by hand; a word depends on its own picture alone; resumed and in shards to the same bytes."""

import json
import math
from dataclasses import replace
from pathlib import Path
from random import Random
from shutil import copy

import pytest
import torch
from PIL import Image

from cig.cli import train_oti as oti_verb
from cig.cli.main import main
from cig.errors import IncompleteError, MismatchError, NotFoundError, UsageError
from cig.methods.oti import check_content, read_words
from cig.models.clip import load_clip
from cig.runtime import Compute, Shard, Work
from cig.training.data.pictures import load_pictures, load_references
from cig.training.data.templates import EVERY, FIRST, TEMPLATES, Phrasebook, fill_template, replace_concept
from cig.training.loop import DivergedError
from cig.training.objectives import oti
from cig.training.objectives.oti import OtiRecipe, invert, need_apart, oti_losses, train_oti

pytestmark = pytest.mark.slow  # together they take long

OURS = ("ema_oti_pseudo_tokens.safetensors", "oti_pseudo_tokens.safetensors", "image_names.json")
THEIRS = ("ema_oti_pseudo_tokens.pt", "oti_pseudo_tokens.pt", "image_names.pkl")
CPU = Compute(device="cpu", num_workers=1)
CONCEPTS = {f"n0{i}/{name}.png": ("cat", "dog") for i in (1, 2) for name in "abc"}
PHRASES = {"cat": ("a cat that sleeps", "a photo of a cat"), "dog": ("a dog that barks",)}


@pytest.fixture(scope="module")
def clip(world):
    return load_clip(str(world / "models/clip-small"), torch.device("cpu"), torch.float32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Six pictures in two folders that use the same names."""
    home = tmp_path_factory.mktemp("pictures")
    for number, name in enumerate(CONCEPTS):
        (home / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (40, 30), (40 * number, 200 - 30 * number, 90)).save(home / name)
    return home


def book(top=15, **changes):
    return Phrasebook(CONCEPTS, PHRASES | changes, top)


# What is said


def test_templates_are_the_published_ones():
    assert len(TEMPLATES) == len(set(TEMPLATES)) == 24
    assert {"This is an illustration of a {}", "This sketch contains a {}", "We see a {} photo", "{}"} <= set(TEMPLATES)
    assert fill_template("A photo of a {}") == "A photo of a  $ "


def test_the_first_occurrence_of_a_concept_is_replaced_or_every_one_wherever_its_letters_are():
    said = ("cat", "a cat on a catwalk")
    assert replace_concept(said, FIRST) == "a  $  on a catwalk"
    assert replace_concept(said, EVERY) == "a  $  on a  $ walk"


def test_concepts_that_are_not_in_all_of_their_phrases_are_passed_over():
    phrases = {"cat": ("a cat", "a Cat"), "dog": ("a dog for $5", "dogs"), "cow": ("a cow",), "ant": ()}
    phrasebook = Phrasebook(
        {"x": ("cat", " dog", "dog ", "ant", "cow"), "y": ("cat", "ant", "cow"), "z": ()}, phrases, top=3
    )
    drawn = {phrasebook.draw("x", Random(i)) for i in range(40)}
    assert drawn == {("dog", "a dog for 5"), ("dog", "dogs")}, "the third of x's concepts is ant; a dollar is no word"
    assert phrasebook.draw("y", Random(0)) == ("cow", "a cow")
    assert phrasebook.draw("z", Random(0)) is None
    assert phrasebook.lacking("xyz") == {"z": "it has no concepts"}
    assert (
        phrasebook.identity("xy")
        != phrasebook.identity("x")
        != Phrasebook(phrasebook.concepts, phrases, top=5).identity("x")
    )


# Losses


class Said:
    """A CLIP whose text with a word is that word, and without one a row that we know."""

    device, token_width = torch.device("cpu"), 2

    def project_texts(self, texts, words=None, placement="every"):
        assert all(("$" in text) == (words is not None) for text in texts)
        return torch.tensor([{"a cat": (0.0, 1.0)}[text] for text in texts]) if words is None else words


@pytest.mark.parametrize(
    ("row", "picture"),
    [
        ("dev/dev-1-0-img0.png", "dev-1-0-img0"),  # a table of a folder, words of a benchmark
        ("dev-1-0-img0", "dev/dev-1-0-img0.png"),  # the other way round
        ("n01/7.JPEG", "n01/7.png"),
        ("7.JPEG", "n01/7.JPEG"),  # SEARLE's, by the file's name
        ("000000000042.jpg", "42"),
        ("Cafe\u0301.jpg", "Caf\u00e9"),
    ],
)
def test_concepts_are_found_by_other_spellings_of_a_picture(row, picture):
    phrasebook = Phrasebook({row: ["cat"], "other": ["dog"]}, {"cat": ["a cat"], "dog": ["a dog"]}, 1)
    assert phrasebook.draw(picture, Random(0)) == ("cat", "a cat")
    assert not phrasebook.lacking([picture])


def test_concepts_of_two_pictures_of_one_stem_are_told_apart_or_not_used():
    phrasebook = Phrasebook({"a.png": ["cat"], "a.jpg": ["dog"]}, {"cat": ["a cat"], "dog": ["a dog"]}, 1)
    assert phrasebook.draw("a.jpg", Random(0)) == ("dog", "a dog")
    assert list(phrasebook.lacking(["a.png", "a.jpg", "a", "n/a.jpg"])) == ["a", "n/a.jpg"]


def test_the_loss_is_a_weighted_mean_of_two_distances():
    words, features = torch.tensor([[1.0, 0.0], [0.0, 2.0], [1.0, 1.0]]), torch.tensor([[3.0, 0.0]] * 3)
    losses = oti_losses(
        Said(), words, features, texts=[" $ "] * 3, pairs=[("cat", "a cat"), ("cat", "a cat"), None], recipe=OtiRecipe()
    )
    half = 1 - math.sqrt(0.5)
    assert losses.tolist() == pytest.approx([0.5 / 1.5, 1 / 1.5, half]), "image and phrase; the image alone"


def test_a_step_of_adamw_and_of_the_mean_by_hand():
    """AdamW's first step is lr against the gradient's sign, after the word has decayed by lr * weight_decay."""
    [start], _ = invert(Said(), ["a"], torch.tensor([[1.0, 0.0]]), recipe=OtiRecipe(steps=0))
    [mean], [word] = invert(Said(), ["a"], torch.tensor([[1.0, 0.0]]), recipe=OtiRecipe(steps=1))
    x, y = start.tolist()
    signs = torch.tensor([math.copysign(1, y * y), -math.copysign(1, x * y)])  # of the cosine's slopes
    assert torch.allclose(word, start * (1 - 2e-4) + 2e-2 * signs, atol=1e-5)
    assert torch.allclose(mean, 0.99 * start + 0.01 * word, atol=1e-7)


def test_words_start_from_a_normal_distribution():
    clip = Said()
    clip.token_width = 20_000
    [start], _ = invert(clip, ["a"], torch.zeros(1, 20_000), recipe=OtiRecipe(steps=0))
    assert start.std().item() == pytest.approx(0.02, rel=0.02)
    assert abs(start.mean().item()) < 1e-3


def test_a_word_comes_nearer_to_its_picture_and_depends_on_no_neighbour(clip):
    names, features = list(CONCEPTS)[:3], torch.randn(3, clip.feature_width)
    few, most = OtiRecipe(steps=4), OtiRecipe(steps=60)
    together, _ = invert(clip, names, features, recipe=few, book=book())
    for index, name in enumerate(names):
        [alone], _ = invert(clip, [name], features[[index]], recipe=few, book=book())
        assert torch.allclose(alone, together[index], atol=1e-5)
    assert not torch.allclose(
        *(invert(clip, names, features, recipe=replace(few, seed=i), book=book())[0] for i in (0, 1))
    )

    def near(words):
        rows = clip.embed_texts([fill_template("A photo of a {}")] * 3, words)
        return torch.cosine_similarity(rows, features).mean().item()

    before, after = (near(invert(clip, names, features, recipe=recipe)[1]) for recipe in (OtiRecipe(steps=0), most))
    assert after > before + 0.1


def test_a_loss_that_is_no_number_names_step_and_pictures(clip):
    features = torch.randn(3, clip.feature_width)
    features[1, 0] = torch.nan
    with pytest.raises(DivergedError, match=r"at step 0, .* of 1 words are not finite: n01/b.png;"):
        invert(clip, list(CONCEPTS)[:3], features, recipe=OtiRecipe(steps=2))


# A folder of words

RECIPE = OtiRecipe(steps=3, batch=2)


def learn(clip, folder, out, recipe=RECIPE, **how):
    return train_oti(clip, load_pictures(str(folder)), recipe, out=out, book=book(), workers=1, **how)


def same(one, other, names=OURS):
    return all((one / name).read_bytes() == (other / name).read_bytes() for name in names)


def test_a_stopped_run_goes_on_and_ends_with_the_same_bytes(clip, folder, tmp_path, monkeypatch):
    whole = learn(clip, folder, tmp_path / "whole", published=True)
    assert (whole.made, whole.total, whole.words, dict(whole.failed)) == (3, 3, 6, {})
    calls = []

    def stop(*arguments, **more):
        calls.append(arguments[1])
        if len(calls) == 2:
            raise KeyboardInterrupt
        return invert(*arguments, **more)

    monkeypatch.setattr(oti, "invert", stop)
    with pytest.raises(KeyboardInterrupt):
        learn(clip, folder, tmp_path / "broken", published=True)
    assert not (tmp_path / "broken" / OURS[0]).exists()
    again = learn(clip, folder, tmp_path / "broken", published=True)
    assert [batch[0] for batch in calls] == ["n01/a.png", "n01/c.png", "n01/c.png", "n02/b.png"]
    assert again.made == 2
    assert same(tmp_path / "whole", tmp_path / "broken", OURS + THEIRS)


def test_a_torn_batch_is_made_again(clip, folder, tmp_path):
    learn(clip, folder, tmp_path / "a")
    learn(clip, folder, tmp_path / "b")
    (tmp_path / "b/batches/000001.safetensors").unlink()
    assert learn(clip, folder, tmp_path / "b").made == 1
    assert same(tmp_path / "a", tmp_path / "b")


def test_shards_make_what_one_run_makes(clip, folder, tmp_path):
    learn(clip, folder, tmp_path / "one")
    first = learn(clip, folder, tmp_path / "two", shard=Shard(1, 2))
    assert (first.made, first.present, first.complete, first.words) == (2, 2, False, 0)
    assert not (tmp_path / "two" / OURS[0]).exists()
    second = learn(clip, folder, tmp_path / "two", shard=Shard(2, 2))
    assert (second.made, second.complete, second.words) == (1, True, 6)
    assert same(tmp_path / "one", tmp_path / "two")


def test_another_batch_size_makes_the_same_words_but_for_rounding(clip, folder, tmp_path):
    learn(clip, folder, tmp_path / "two")
    learn(clip, folder, tmp_path / "six", replace(RECIPE, batch=6))
    one, other = (read_words(tmp_path / name).words for name in ("two", "six"))
    assert torch.allclose(one, other, atol=1e-5)


def test_words_of_other_settings_are_not_mixed(clip, folder, tmp_path):
    learn(clip, folder, tmp_path)
    with pytest.raises(MismatchError, match=r"steps: 3 there, 4 now"):
        learn(clip, folder, tmp_path, replace(RECIPE, steps=4))
    before = (tmp_path / OURS[0]).read_bytes()
    other = {"recipe": replace(RECIPE, steps=4), "overwrite": True}
    assert learn(clip, folder, tmp_path, shard=Shard(1, 2), **other).made == 2
    assert learn(clip, folder, tmp_path, **other).made == 1, "what was stopped goes on"
    assert (tmp_path / OURS[0]).read_bytes() != before
    assert learn(clip, folder, tmp_path, **other).made == 3, "all, once more"


def test_each_picture_finds_its_own_word_where_folders_use_the_same_names(clip, folder, tmp_path):
    learn(clip, folder, tmp_path)
    words = read_words(tmp_path)
    rows = words.of([folder / name for name in CONCEPTS])
    assert torch.equal(rows, words.words)
    assert len(rows.unique(dim=0)) == 6
    assert words.lacking([folder / "n03/a.png", Path("a.png")]).keys() == {folder / "n03/a.png", Path("a.png")}


def test_words_of_another_clip_are_told_by_its_content(clip, folder, tmp_path):
    learn(clip, folder, tmp_path)
    check_content(tmp_path, clip)
    settings = json.loads((tmp_path / "hyperparameters.json").read_text())
    (tmp_path / "hyperparameters.json").write_text(json.dumps({**settings, "clip": "0" * 64}))
    with pytest.raises(MismatchError, match="optimised with another CLIP"):
        check_content(tmp_path, clip)


def test_unreadable_pictures_are_named_and_the_others_have_words(clip, folder, tmp_path, capsys):
    home = tmp_path / "pictures"
    for name in ("a.png", "b.png", "c.png"):
        home.mkdir(exist_ok=True)
        copy(folder / "n01" / name, home / name)
    (home / "a.png").write_bytes(b"no picture")
    flags = {"clip": clip.identity["source"], "out": tmp_path / "out", "steps": 2, "batch_size": 1, "compute": CPU}
    for _ in range(2):
        with pytest.raises(IncompleteError, match=r"pictures without a pseudo-word: 1\n  a.png: .*not a whole picture"):
            oti_verb.oti(str(home), **flags)
    assert json.loads((tmp_path / "out/image_names.json").read_text()) == ["b.png", "c.png"]
    assert list(json.loads((tmp_path / "out/hyperparameters.json").read_text())["unreadable"]) == ["a.png"]
    messages = capsys.readouterr().err
    assert "words are learnt from pictures alone" in messages
    assert f"2 pseudo-words in {tmp_path / 'out'}" in messages


# Through the verbs


def test_references_are_what_queries_ask_with(few_icons):
    references, all_of_it = load_references("icons/val", limit=5), load_pictures("icons/val")
    assert 0 < len(references) <= 5
    assert set(load_references("icons/val").names) <= set(all_of_it.names)
    assert references.identity["data"] == "icons/val, references"


def test_a_gallery_without_its_references_is_inverted_with_them(world):
    names = set(load_pictures("folder/val", world / "shop").names)
    assert names >= set(load_references("folder/val", world / "shop").names)


def call(*words):
    with pytest.raises(SystemExit) as done:
        main([str(word) for word in words])
    assert not done.value.code


def evaluated(words, clip, out):
    flags = ["--limit", 6, "--method", "oti", "--phi", words, "--clip", clip, "--device", "cpu"]
    call("evaluate", "icons/val", *flags, "--json", out)
    return json.loads(out.read_text())


@pytest.mark.slow
def test_method_oti_evaluates_what_is_written_in_both_layouts(few_icons, world, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model, out = world / "models/clip-small", tmp_path / "words"
    flags = ["--references", "--limit", 6, "--steps", 3, "--layout", "published", "--device", "cpu", "--batch-size", 4]
    for shard in ("2/2", "1/2"):
        call("train", "oti", "icons/val", "--clip", model, "--out", out, *flags, "--shard", shard)
    messages = capsys.readouterr().err
    assert "1 of 2 batches" in messages
    (tmp_path / "theirs").mkdir()
    for name in (*THEIRS, "hyperparameters.json"):
        copy(out / name, tmp_path / "theirs" / name)
    ours, theirs = (evaluated(tmp_path / name, model, tmp_path / f"{name}.json") for name in ("words", "theirs"))
    assert not any(ours["missing"].values()), ours["missing"]
    assert ours["method"] == theirs["method"] == "oti"
    assert ours["scores"] == theirs["scores"]
    assert ours["per_query"] == theirs["per_query"]


def test_concepts_and_phrases_come_from_files(world, folder, tmp_path, capsys):
    """A picture that the table does not know is named, and learnt from itself alone."""
    rows = ["Image Name,1,2", *(f"{name},cat,dog" for name in list(CONCEPTS)[1:])]
    (tmp_path / "concepts.csv").write_text("\n".join(rows) + "\n")
    lines = (json.dumps({"concept": concept, "phrases": texts}) for concept, texts in PHRASES.items())
    (tmp_path / "phrases.jsonl").write_text("\n".join(lines) + "\n")
    files = {"concepts": tmp_path / "concepts.csv", "phrases": tmp_path / "phrases.jsonl"}
    how = {"clip": str(world / "models/clip-small"), "steps": 2, "compute": CPU}
    oti_verb.oti(str(folder), out=tmp_path / "told", **files, **how)
    assert "learnt from the picture alone: 1\n  n01/a.png: it has no concepts" in capsys.readouterr().err
    oti_verb.oti(str(folder), out=tmp_path / "alone", **how)
    regularised, alone = (read_words(tmp_path / name).words for name in ("told", "alone"))
    assert torch.allclose(regularised[0], alone[0], atol=1e-5)
    assert not torch.allclose(regularised[1], alone[1], atol=1e-5)


def test_wrong_calls(world, folder, tmp_path):
    flags = {"clip": str(world / "models/clip-small"), "out": tmp_path / "never", "compute": CPU}
    with pytest.raises(UsageError, match="--concepts and --phrases come together; --phrases is not given"):
        oti_verb.oti(str(folder), concepts=tmp_path / "concepts.csv", **flags)
    with pytest.raises(UsageError, match="--steps 0"):
        oti_verb.oti(str(folder), steps=0, **flags)
    with pytest.raises(UsageError, match="I/N"):
        oti_verb.oti(str(folder), work=Work(shard="3/2"), **flags)
    with pytest.raises(NotFoundError):
        oti_verb.oti(str(folder), references=True, **flags)
    with pytest.raises(UsageError, match=r"say nothing of these 6 pictures \(n01/a.png: it has no concepts\)"):
        oti_verb._tell_phrases(Phrasebook({}, PHRASES, 15), load_pictures(str(folder)))
    assert not (tmp_path / "never").exists()


def test_two_pictures_of_one_name_are_refused_before_the_work():
    with pytest.raises(UsageError, match=r"n/7.png: others have the same name but for suffix or zeros"):
        need_apart(["n/000000000007.jpg", "n/07.png", "m/7.png", "n/7.png"])
    with pytest.raises(UsageError, match="not UTF-8"):
        need_apart(["odd\udcff.png"])
