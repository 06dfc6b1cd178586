"""SEARLE's objective: losses by hand, what is learnt from, two processes as one, and a phi end to end."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest
import torch
from PIL import Image

from cig.cli import train_oti as oti_verb
from cig.cli import train_phi
from cig.cli.flags import LoopFlags, SearleFlags
from cig.errors import UsageError
from cig.io.tensors import read_tensors
from cig.methods.oti import read_words
from cig.models.clip import load_clip
from cig.models.phi import load_phi
from cig.training.data.pictures import load_pictures
from cig.training.data.templates import EVERY, Phrasebook, phrase_losses
from cig.training.loop import CHECKPOINT
from cig.training.objectives.oti import OtiRecipe, train_oti
from cig.training.objectives.searle import DistillationData, Searle, distillation_data, nt_xent
from cig.training.plan import Plan
from cig.training.step import Step

NAMES = [f"{name}.png" for name in "abcdef"]
PHRASES = {"cat": ("a cat on a catwalk",), "dog": ("a dog that barks", "a photo of a dog")}


def book(names=NAMES):
    return Phrasebook(dict.fromkeys(names, ("cat", "dog")), PHRASES, 150)


def test_nt_xent_of_two_pairs_by_hand():
    """A row has its counterpart and two others; temperature 0.25 makes of a cosine of 1 a logit of 4."""
    ones = torch.eye(2)
    right, wrong = math.log(math.e**4 + 2) - 4, math.log(math.e**4 + 2)
    assert nt_xent(ones, 3 * ones, 0.25).item() == pytest.approx(right, abs=1e-5)
    assert nt_xent(ones, ones.flip(0), 0.25).item() == pytest.approx(wrong, abs=1e-5)
    both = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    assert nt_xent(both, both, 0.25).item() == pytest.approx(math.log(3), abs=1e-5), "all alike: one of three"


class Said:
    """A CLIP whose text with a word is that word, and without one always the same row."""

    device = torch.device("cpu")

    def __init__(self):
        self.read = []

    def project_texts(self, texts, words=None, placement="every"):
        self.read += texts
        return torch.tensor([[0.0, 1.0]] * len(texts)) if words is None else words


def test_the_loss_is_the_contrast_and_the_phrases_with_every_concept_replaced():
    lesson = DistillationData(("a", "b"), torch.eye(2), torch.eye(2), identity={})
    own = Searle(lesson, Phrasebook({"a": ("cat",), "b": ("cat",)}, PHRASES, 150))
    step = Step(0, Random(0))
    clip = Said()
    [loss] = own.loss(clip, lambda features: features, 2, step=step)
    contrast, phrases = math.log(math.e**4 + 2) - 4, (1 + 0) / 2  # one word is at a right angle to T(phrase)
    assert loss.item() == pytest.approx(contrast + 0.75 * phrases, abs=1e-5)
    assert sorted(step.ids) == ["a", "b"]
    assert set(clip.read) == {"a cat on a catwalk", "a  $  on a  $ walk"}


def test_it_is_not_computed_in_parts():
    lesson = DistillationData(("a", "b"), torch.eye(2), torch.eye(2), identity={})
    with pytest.raises(UsageError, match=r"SEARLE's loss contrasts all items .* --accumulate 1"):
        Searle(lesson, book()).check(Plan(1, 2, accumulate=2))


TWO = """
import sys, torch
from pathlib import Path
from torch import nn
from cig.models.phi import Phi
from cig.training import processes
from cig.training.loop import train
from cig.training.plan import CPU, Plan
from cig.training.objectives.searle import DistillationData, Searle
from cig.training.data.templates import Phrasebook

torch.set_num_threads(1)
processes.join(CPU)
torch.set_default_dtype(torch.float64)
torch.manual_seed(0)
names = tuple("abcdefghij")
lesson, phi = DistillationData(names, torch.randn(10, 4), torch.randn(10, 3), identity={}), Phi(4, 8, 3, dropout=0.5)
phrases = {"cat": ("a cat", "a cat that sleeps"), "dog": ("a dog", "two dogs")}
objective = Searle(lesson, Phrasebook({name: ("cat", "dog") for name in names}, phrases, 150))

class Clip:
    device = CPU
    def project_texts(self, texts, words=None, placement="every"):
        said = torch.tensor([[float(len(text)), 1.0, float(text.count("t"))] for text in texts])
        return said if words is None else said + words

loss = lambda step: objective.loss(Clip(), phi, 8, step=step)
train(phi, loss, Plan(5, 8, 0.01, 1, save_every=2), out=Path(sys.argv[1]), export=lambda facts: None, inputs={})
"""


@pytest.mark.slow
def test_two_processes_are_one_with_dropout(tmp_path):
    def run(processes, out):
        start = ["-m", "accelerate.commands.launch", "--cpu", "--num_processes", f"{processes}", "--num_machines", "1"]
        start += ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
        (tmp_path / "two.py").write_text(TWO)
        command = [sys.executable, *(start if processes > 1 else []), str(tmp_path / "two.py"), str(out)]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        return read_tensors(out / CHECKPOINT)

    one, two = run(1, tmp_path / "one"), run(2, tmp_path / "two")
    assert one["facts"]["loss"] == pytest.approx(two["facts"]["loss"], abs=1e-9)
    assert all(torch.allclose(one["model"][name], two["model"][name], atol=1e-9) for name in one["model"])


# End to end


@pytest.fixture(scope="module")
def pictures(tmp_path_factory, world):
    """Six pictures, and words of the first four."""
    home = tmp_path_factory.mktemp("searle")
    (home / "pictures").mkdir()
    for number, name in enumerate(NAMES[:5]):
        Image.new("RGB", (40, 30), (40 * number, 200 - 30 * number, 90)).save(home / "pictures" / name)
    clip = load_clip(str(world / "models/clip-small"), torch.device("cpu"), torch.float32)
    recipe = OtiRecipe(steps=2, batch=8)
    train_oti(clip, load_pictures(str(home / "pictures"), limit=4), recipe, out=home / "words", workers=1)
    Image.new("RGB", (9, 9)).save(home / "pictures" / NAMES[5])
    return home


def test_what_is_not_learnt_from_is_named(pictures, world, tmp_path):
    clip = load_clip(str(world / "models/clip-small"), torch.device("cpu"), torch.float32)
    words = read_words(pictures / "words")
    known, sight = load_pictures(str(pictures / "pictures")), clip.preprocess(pad=True)
    lesson = distillation_data(clip, known, words, book=book(NAMES[1:]), preprocess=sight)
    assert lesson.names == ("b.png", "c.png", "d.png")
    assert torch.equal(lesson.words, words.words[1:])
    why = {"a.png": "it has no concepts", "e.png": "no pseudo-word of e", "f.png": "no pseudo-word of f"}
    assert {name: lesson.missing[name][: len(text)] for name, text in why.items()} == why
    assert len(lesson.missing) == 3
    with pytest.raises(UsageError, match="none of 6 pictures can be learnt from"):
        distillation_data(clip, known, words, book=book(()), preprocess=sight)


def test_phi_learns_through_the_verb_and_a_rerun_ends_the_same(pictures, world, tmp_path, monkeypatch, capsys):
    asked = []

    def phrasebook(concepts, phrases, top):
        asked.append((concepts, phrases, top))
        return book()

    monkeypatch.setattr(oti_verb, "_phrasebook", phrasebook)
    clip = str(world / "models/clip-small")
    flags = SearleFlags(pictures / "words", Path("concepts.csv"), Path("phrases.jsonl"))
    how = {"clip": clip, "objective": "searle", "searle": flags, "batch_size": 4, "lr": 1e-2}

    def train(out, steps):
        loop = LoopFlags(save_every=2, device="cpu")
        train_phi.phi(str(pictures / "pictures"), out=out, steps=steps, loop=loop, **how)
        return json.loads((out / "training.json").read_text())

    card = train(tmp_path / "phi", 4)
    assert asked[0] == (Path("concepts.csv"), Path("phrases.jsonl"), 150)
    assert card["about"]["objective"] == "searle"
    assert (card["about"]["missing"], card["about"]["temperature"], card["plan"]["weight_decay"]) == (2, 0.25, 0.01)
    assert "pictures that are not learnt from: 2\n  e.png: no pseudo-word of e" in capsys.readouterr().err
    inverter = load_phi(tmp_path / "phi/phi.safetensors", load_clip(clip, torch.device("cpu"), torch.float32))
    assert inverter(torch.zeros(2, inverter.clip.feature_width)).shape == (2, inverter.clip.token_width)
    lines = [json.loads(line) for line in (tmp_path / "phi/log.jsonl").read_text().splitlines()]
    assert [line["steps"] for line in lines] == [2, 4]
    before = (tmp_path / "phi/phi.safetensors").read_bytes()
    train(tmp_path / "phi", 4)
    assert (tmp_path / "phi/phi.safetensors").read_bytes() == before
    with pytest.raises(UsageError, match="4 pictures can be learnt from, less than --batch-size 256"):
        train_phi.phi(str(pictures / "pictures"), out=tmp_path / "never", **{**how, "batch_size": None})
    with pytest.raises(UsageError, match="--accumulate 1"):
        train_phi.phi(str(pictures / "pictures"), out=tmp_path / "never", loop=LoopFlags(accumulate=2), **how)


def test_100_passes_are_the_default(pictures, world, tmp_path, monkeypatch):
    plans = []
    monkeypatch.setattr(oti_verb, "_phrasebook", lambda *asked: book())
    monkeypatch.setattr("cig.training.objectives.phi.train_phi", lambda clip, learnt, plan, **more: plans.append(plan))
    flags = {"clip": str(world / "models/clip-small"), "out": tmp_path, "objective": "searle", "batch_size": 2}
    train_phi.phi(str(pictures / "pictures"), searle=SearleFlags(pictures / "words"), **flags)
    assert (plans[0].steps, plans[0].lr, plans[0].schedule) == (200, 1e-4, "constant")


def test_words_concepts_and_phrases_are_needed(pictures, world, tmp_path):
    how = {"clip": str(world / "models/clip-small"), "out": tmp_path / "never", "objective": "searle"}
    with pytest.raises(UsageError, match="needs --oti DIR, --concepts FILE and --phrases FILE"):
        train_phi.phi(str(pictures / "pictures"), searle=SearleFlags(pictures / "words"), **how)
    with pytest.raises(UsageError, match="--temperature 0: more than 0"):
        train_phi.phi(str(pictures / "pictures"), searle=SearleFlags(temperature=0), **how)
    with pytest.raises(UsageError, match="--scale is for --objective pic2word"):
        train_phi.phi(str(pictures / "pictures"), scale=10.0, **how)


def test_the_first_place_of_a_concept_or_every_one_takes_the_word(world):
    """The released code fills the first `$` and reads the others as dollars."""
    clip = load_clip(str(world / "models" / "clip-small"), torch.device("cpu"), torch.float32)
    words, pair = (
        torch.randn(1, clip.token_width, generator=torch.Generator().manual_seed(0)),
        ("cat", "a cat and a cat"),
    )
    target = clip.embed_texts(["a cat and a cat"])
    for placement in ("every", "first"):
        found = phrase_losses(clip, words, [pair], occurrences=EVERY, placement=placement)
        replaced = clip.embed_texts(["a $ and a $"], words, placement)
        assert torch.allclose(found, 1 - torch.cosine_similarity(replaced, target), atol=1e-5)
    every, first = (phrase_losses(clip, words, [pair], occurrences=EVERY, placement=own) for own in ("every", "first"))
    assert not torch.allclose(every, first, atol=1e-3)
