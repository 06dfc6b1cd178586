"""Verifiers, against the model called by hand; what is cached, what is refused, what stays where it is."""

import json
import shutil
import sys
from functools import lru_cache
from itertools import pairwise

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoProcessor, LlavaForConditionalGeneration

import cig
import tiny
from calls import run
from cig import registry
from cig.io.feature_cache import FeatureCache
from cig.models.rerankers import grid, load_verifier, yes_no
from cig.models.vision_language import VisionLanguage
from cig.retrieval.rerank import Reranker
from cig.types import Benchmark, Query, Ranking

CPU, FLOAT = torch.device("cpu"), torch.float32


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vision-language")
    torch.manual_seed(3)
    tiny.make_vision_language(folder)
    return folder


@lru_cache
def parts_of(folder):
    return LlavaForConditionalGeneration.from_pretrained(folder).eval(), AutoProcessor.from_pretrained(folder)


def by_hand(folder, caption, *pictures):
    """P(yes) as the exponentials of two logits, by the model's class and the processor's parts."""
    model, processor = parts_of(folder)
    read = [processor.image_processor(Image.open(path), return_tensors="pt").pixel_values for path in pictures]
    patches = "<image>" * 4  # 32 / 16 squared
    text = f"{patches}\n{patches}\n{yes_no.PROMPT.format(caption=caption)}"
    ids = processor.tokenizer(text, return_tensors="pt").input_ids
    with torch.no_grad():
        logits = model(input_ids=ids, pixel_values=torch.cat(read)).logits[0, -1].double()
    vocabulary = processor.tokenizer.get_vocab()
    yes, no = (np.exp(float(logits[vocabulary[word]])) for word in ("yes", "no"))
    return yes / (yes + no)


def evaluate(capsys, world, out, *flags):
    line = ["evaluate", "cirr/val", "--dataset-path", world, "--method", "image", "--clip", world / "models/clip-small"]
    files = ["--json", out / "scores.json", "--rankings", out / "rankings.json", "--run", out / "run.trec"]
    code, _, err = run(capsys, *line, *files, "--feature-cache", out / "cache", *flags)
    assert code == 0, err
    return json.loads((out / "scores.json").read_text()), json.loads((out / "rankings.json").read_text())[""], err


def test_yes_no_reranks_the_first_and_nothing_below(capsys, world, folder, tmp_path):
    depth = 4
    _, before = evaluate(capsys, world, tmp_path)[:2]
    flags = ["--rerank", "yes-no", "--rerank-model", folder, "--rerank-depth", depth]
    scores, after, err = evaluate(capsys, world, tmp_path, *flags)
    part = cig.load_benchmark("cirr/val", root=world)
    moved = 0
    for query in part.queries:
        first = before[query.id][:depth]
        paths = [part.images[query.reference], *(part.images[name] for name in first)]
        chances = [by_hand(folder, query.captions[0], paths[0], path) for path in paths[1:]]
        expected = [first[i] for i in sorted(range(depth), key=lambda i: -chances[i])]
        assert after[query.id] == expected + before[query.id][depth:]
        moved += expected != first
    assert moved
    record = scores["rerank"]
    assert (record["calls"], record["cached"]) == (depth * len(part.queries), 0)
    assert record["settings"]["prompt"] == yes_no.PROMPT
    assert record["seconds"] > 0
    assert {"difference", "interval", "p"} <= set(record["gain"][""]["recall@1"])
    assert scores["protocol"]["rerank"] == f"yes-no by {folder}, the first {depth}"
    assert "calls" in err
    rows = [line.split() for line in (tmp_path / "run.trec").read_text().splitlines()]
    by_query = {query: [row for row in rows if row[0] == query] for query in after}
    assert all([row[2] for row in by_query[query]] == names for query, names in after.items())
    assert all(float(a[4]) > float(b[4]) for r in by_query.values() for a, b in pairwise(r))
    again, same, _ = evaluate(capsys, world, tmp_path, *flags)
    assert same == after
    assert (again["rerank"]["calls"], again["rerank"]["cached"]) == (0, record["calls"])


def test_a_submission_is_reranked(capsys, world, folder, tmp_path):
    line = ["submit", "circo/test", "--dataset-path", world, "--method", "image", "--clip", world / "models/clip-small"]
    names = {}
    for name, flags in {"a": [], "b": ["--rerank", "yes-no", "--rerank-model", folder, "--rerank-depth", 3]}.items():
        files = ["--submission-name", name, "--output-dir", tmp_path, "--json", tmp_path / "record.json"]
        assert run(capsys, *line, *files, *flags)[0] == 0
        names[name] = json.loads((tmp_path / f"{name}.json").read_text())
    changed = 0
    for query, before in names["a"].items():
        after = names["b"][query]
        assert after[3:] == before[3:]
        assert sorted(after[:3]) == sorted(before[:3])
        changed += after != before
    assert changed
    record = json.loads((tmp_path / "record.json").read_text())
    assert record["rerank"]["calls"] == 3 * len(names["a"])
    assert "gain" not in record["rerank"]


def test_calls_that_cannot_be_meant(capsys, world, folder):
    line = ["evaluate", "cirr/val", "--dataset-path", world, "--method", "image"]
    model = ["--rerank-model", folder]
    for wrong, word in [
        (["--rerank", "yes-no"], "--rerank-model"),
        (model, "--rerank"),
        (["--rerank", "yes-no", *model, "--rerank-depth", "51"], "--rerank-depth"),
        (["--rerank", "yes-no", *model, "--rerank-weight", "1.5"], "--rerank-weight"),
        (["--rerank", "yes-no", *model, "--rerank-prompt", "hello"], "{caption}"),
        (["--rerank", "yes-mo", *model], "yes-no"),
        (["--rerank", "yes-no", "--rerank-model", "no/such/folder"], "no/such/folder"),
    ]:
        code, _, err = run(capsys, *line, "--clip", world / "models/clip-small", *wrong)
        assert code == 2, err
        assert word in err


class Chances:
    """A verifier that knows each picture's score by its grey level / 255; 7 is refused."""

    identity, settings, jointly = {"source": "grey", "sha256": "0"}, {"prompt": "p"}, False

    def __init__(self):
        self.seen = []

    def __call__(self, reference, caption, candidates):
        self.seen += [(caption, picture.getpixel((0, 0))[0]) for picture in candidates]
        return [None if level == 7 else level / 255 for _, level in self.seen[-len(candidates) :]]


@pytest.fixture
def shelf(tmp_path):
    """Five pictures a..e in this order for one query, whose target is d; b is no picture."""
    for name, level in {"r": 0, "a": 51, "b": 0, "c": 102, "d": 204, "e": 255}.items():
        Image.new("RGB", (8, 8), (level,) * 3).save(tmp_path / f"{name}.png")
    (tmp_path / "b.png").write_bytes(b"no picture")
    names = tuple("abcde")
    images = {name: tmp_path / f"{name}.png" for name in ("r", *names)}
    query = Query("1", "r", ("redder",), {"d": 2}, subset=("a", "d", "e"))
    benchmark = Benchmark(
        "folder/val", (query,), images, names, measures=("recall@1",), drop_reference=True, weight=0.5, weight_source=""
    )
    scores = ((0.9, 0.8, 0.7, 0.6, 0.5),)
    return benchmark, Ranking(("1",), (names,), scores, (("a", "d", "e"),), (4,))


def test_what_has_no_score_keeps_its_position(shelf):
    benchmark, first = shelf
    ranking, cost = Reranker(Chances(), "grey", depth=4).rerank(benchmark, first)
    assert ranking.ids == (("d", "b", "c", "a", "e"),)
    assert ranking.scores[0] == pytest.approx((0.8, 0.8, 0.4, 0.2, 0.5))
    assert ranking.target_ranks == (1,)
    assert ranking.subset == (("d", "a", "e"),)
    assert list(cost.unjudged["1"]) == ["b"]
    assert cost.calls == 3
    Image.new("RGB", (8, 8), (7, 7, 7)).save(benchmark.images["b"])
    ranking, cost = Reranker(Chances(), "grey", depth=2).rerank(benchmark, first)
    assert ranking.ids == first.ids
    assert cost.unjudged == {"1": {"b": "the model did not judge it"}}
    benchmark.images["r"].unlink()
    ranking, cost = Reranker(Chances(), "grey").rerank(benchmark, first)
    assert ranking == first
    assert list(cost.skipped) == ["1"]


def test_the_weight_mixes_in_the_first_score(shelf):
    benchmark, first = shelf
    # Of a, c, d the first scores scaled are 1, 1/3, 0, the verifier's 0.2, 0.4, 0.8.
    ranking, _ = Reranker(Chances(), "grey", depth=4, weight=0.5).rerank(benchmark, first)
    assert ranking.scores[0] == pytest.approx((0.6, 0.8, 0.4, 0.1 + 0.5 / 3 + 0.1, 0.5))
    assert ranking.ids == (("a", "b", "d", "c", "e"),)
    ranking, cost = Reranker(Chances(), "grey", weight=0.0).rerank(benchmark, first)
    assert ranking.ids == first.ids
    assert not cost.tied


def test_ties_keep_the_first_order_and_are_named(shelf):
    benchmark, first = shelf
    Image.new("RGB", (8, 8), (51,) * 3).save(benchmark.images["d"])
    ranking, cost = Reranker(Chances(), "grey", depth=4).rerank(benchmark, first)
    assert ranking.ids == (("c", "b", "a", "d", "e"),)
    assert cost.tied == ["1"]


def test_the_cache_knows_content_and_caption(shelf, tmp_path):
    benchmark, first = shelf
    cache = FeatureCache(tmp_path / "cache")
    benchmark.images["c"].replace(benchmark.images["b"])  # the same content under another name
    Image.new("RGB", (8, 8), (102,) * 3).save(benchmark.images["c"])
    Reranker(Chances(), "grey", cache=cache).rerank(benchmark, first)
    again = Chances()
    Image.new("RGB", (8, 8), (90, 90, 90)).save(benchmark.images["a"])
    _, cost = Reranker(again, "grey", cache=cache).rerank(benchmark, first)
    assert again.seen == [("redder", 90)]
    assert (cost.calls, cost.cached) == (1, 4)


def test_grid_reads_numbers_in_order():
    assert grid.scores_of("2, then 4 (not 9); 2", 4) == [0, 1, 0, 0.75]
    assert grid.scores_of("none of them", 3) == [None] * 3
    page = grid.sheet([Image.new("RGB", (448, 224), colour) for colour in ("red", "lime", "blue")])
    assert page.size == (448, 448)
    assert page.getpixel((100, 60)) == (255, 0, 0)
    assert page.getpixel((324, 60)) == (0, 255, 0)
    assert page.getpixel((100, 284)) == (0, 0, 255)
    assert page.getpixel((324, 284)) == (255, 255, 255)


def test_grid_asks_once_a_query(shelf, folder):
    benchmark, first = shelf
    verifier = load_verifier("grid", str(folder), device=CPU, dtype=FLOAT)
    answers = iter(["3 1"])
    verifier.model.answer = lambda pictures, text, most: next(answers)
    ranking, cost = Reranker(verifier, "grid", depth=5).rerank(benchmark, first)
    assert ranking.ids == (("d", "b", "a", "c", "e"),)  # b has no picture, so 3 is d
    assert (cost.calls, cost.cached) == (1, 0)


def test_greedy_answers_are_the_models(folder):
    model = VisionLanguage(str(folder), CPU, FLOAT)
    pictures = [Image.new("RGB", (20, 30), colour) for colour in ("red", "blue")]
    answer = model.answer(pictures, "is the dog red", 5)
    text, tokenizer = "is the dog red", AutoProcessor.from_pretrained(folder).tokenizer
    first = tokenizer.decode([int(model.next_token_logits(pictures, text).argmax())], skip_special_tokens=True)
    assert answer.startswith(first)
    spoof = model.next_token_logits(pictures, "is the <image> dog red")
    assert spoof.equal(model.next_token_logits(pictures, "is the   dog red"))


def test_a_chat_template_makes_the_prompt(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "chat")
    template = (
        "{% for turn in messages %}dog {% for part in turn.content %}"
        "{% if part.type == 'image' %}<image>{% else %}{{ part.text }}{% endif %}{% endfor %} cat{% endfor %}"
        "{% if add_generation_prompt %} is{% endif %}"
    )
    (tmp_path / "chat/chat_template.jinja").write_text(template)
    picture = Image.new("RGB", (32, 32), "red")
    logits = VisionLanguage(str(tmp_path / "chat"), CPU, FLOAT).next_token_logits([picture], "red <image>")
    model, processor = parts_of(folder)
    inputs = processor(images=[picture], text="dog <image>red   cat is", return_tensors="pt")
    with torch.no_grad():
        expected = model(**inputs).logits[0, -1]
    assert logits.equal(expected)


def test_a_verifier_of_another_package(tmp_path, monkeypatch):
    (tmp_path / "judges").mkdir()
    (tmp_path / "judges/mine.py").write_text(
        "def load(source, prompt, *, device, dtype, cache_dir=None): return source"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert load_verifier("judges.mine", "x", device=CPU, dtype=FLOAT) == "x"
    sys.modules.pop("judges.mine")
    assert {"grid", "yes-no"} <= set(registry.names("models.rerankers"))


def test_what_is_no_vision_language_model(world, folder, tmp_path):
    with pytest.raises(cig.CigError, match="cannot be loaded"):
        VisionLanguage(str(world / "models/clip-small"), CPU, FLOAT).first_tokens(["yes", "no"])
    with pytest.raises(cig.CigError, match="does not tell"):
        VisionLanguage(str(folder), CPU, FLOAT).first_tokens(["zebraesque", "no"])
