"""Methods that score over the gallery, and target texts: each beside a plain second implementation in numpy."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cig import Branch, evaluate, load_benchmark, load_method, search
from cig.errors import InputError, UsageError
from cig.methods.basic import Parts, contrastive
from cig.methods.texts import read_texts
from cig.pipelines.open import open_place
from cig.retrieval.features import embed_pictures
from cig.retrieval.fusion import mix_scores
from cig.retrieval.requests import OwnSearching
from cig.runtime import Compute
from searchers import method_of, source, text_file


def unit(rows):
    rows = np.asarray(rows, np.float64)
    return rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1e-12)


@pytest.fixture(scope="module")
def towers(world):
    """(benchmark, unit gallery features by name, unit text features of a list)."""
    part, image = load_benchmark("cirr/val", world), method_of(world, "image")
    pictures = embed_pictures(image, part.images.values())
    gallery = {name: unit(pictures.of([path])[0]) for name, path in part.images.items()}
    return part, gallery, lambda texts: unit(image.tower.embed_texts(list(texts)).numpy())


def scores_of(part, method, names, **more):
    """[Q, N] scores over these names, read from a ranking of all of them."""
    ranking = search(part, method, **more)
    found = [dict(zip(ids, scores, strict=True)) for ids, scores in zip(ranking.ids, ranking.scores, strict=True)]
    return np.array([[row.get(name, np.nan) for name in names] for row in found])


def close(ours, theirs):
    seen = ~np.isnan(ours)
    assert seen.sum() > ours.size * 0.5
    np.testing.assert_allclose(ours[seen], theirs[seen], rtol=1e-5, atol=2e-6)


def test_product_is_its_formula(world, towers):
    part, gallery, texts = towers
    names = list(part.gallery)
    rows = np.stack([gallery[name] for name in names])
    asked = np.stack([gallery[query.reference] for query in part.queries])
    words = texts(query.captions[0] for query in part.queries)
    expected = np.maximum(asked @ rows.T, 0) * np.maximum(words @ rows.T, 0)
    close(scores_of(part, method_of(world, "product"), names), expected)
    bare = replace(part, queries=tuple(replace(query, captions=()) for query in part.queries))
    close(scores_of(bare, method_of(world, "product"), names), np.maximum(asked @ rows.T, 0))


PAPERS = {"components": "3", "context": "0", "expand": "5"}
OFF = {"components": "0", "context": "0", "expand": "0", "harris": "0", "centre": "no", "normalise": "no"}


def plain_basic(part, gallery, texts, *, options, subjects, styles):
    """BASIC by numpy and float64, a query at a time."""
    values = {"alpha": 0.2, "harris": 0.1, "expand": 0, "components": 250, "context": 20}
    values |= {key: float(value) for key, value in options.items() if key in values}
    centre, normalise = (options.get(name, "yes") == "yes" for name in ("centre", "normalise"))
    names = list(part.gallery)
    rows = np.stack([gallery[name] for name in names])
    corpus, ways = texts(subjects), texts(styles)
    text_mean = corpus.mean(0) if centre else 0
    mean = rows.mean(0) if centre else 0
    centred = rows - mean
    project = np.eye(rows.shape[1])
    if values["components"]:
        plus, minus = ((each - text_mean).T @ (each - text_mean) / len(each) for each in (corpus, ways))
        matrix = (1 - values["alpha"]) * plus - values["alpha"] * minus + 1e-5 * np.eye(rows.shape[1])
        levels, vectors = np.linalg.eigh(matrix)
        order = [i for i in np.argsort(-levels) if levels[i] > 1.001e-5][: int(values["components"])]
        project = vectors[:, order] @ vectors[:, order].T
    low = ((centred @ project) @ centred.T).min(), ((corpus - text_mean) @ centred.T).min()
    answers = []
    for query in part.queries:
        context = subjects[: int(values["context"])]
        spoken = texts([f"{one} {query.captions[0]}" for one in context] or [query.captions[0]]).mean(0)
        asked = project @ (gallery[query.reference] - mean)
        if values["expand"]:
            near = np.argsort(-(centred @ asked), kind="stable")[: int(values["expand"])]
            weights = np.exp(0.1 * np.array([1.0, *(centred @ asked)[near]]))
            weights /= weights.sum()
            asked = weights[0] * asked + weights[1:] @ (centred[near] @ project)
        image, text = centred @ asked, centred @ (unit(spoken) - text_mean)
        if normalise:
            image, text = (image - low[0]) / abs(low[0]), (text - low[1]) / abs(low[1])
        image, text = np.maximum(image, 0), np.maximum(text, 0)
        answers.append(image * text - values["harris"] * (image + text) ** 2)
    return np.stack(answers)


@pytest.mark.parametrize(
    "options",
    [
        OFF,
        PAPERS,
        *({**OFF, **one} for one in ({"centre": "yes"}, {"components": "2"}, {"harris": "0.3"}, {"expand": "4"})),
        *({**OFF, **one} for one in ({"context": "2"}, {"normalise": "yes"}, {"components": "3", "alpha": "0.6"})),
    ],
    ids=str,
)
def test_basic_with_every_switch(world, tmp_path, towers, options):
    part, gallery, texts = towers
    subjects, styles = ["a dog", "a red shape", "two circles", "a logo"], ["in blue", "in a drawing", "small"]
    files = {"subjects": tmp_path / "subjects.txt", "styles": tmp_path / "styles.txt"}
    files["subjects"].write_text("\n".join(subjects))
    files["styles"].write_text("\n\n".join(styles))
    told = replace(source(world, phi=False), options={**options, **{name: str(path) for name, path in files.items()}})
    expected = plain_basic(part, gallery, texts, options=options, subjects=subjects, styles=styles)
    close(scores_of(part, load_method("basic", told), list(part.gallery)), expected)


def test_basic_with_all_parts_off_is_the_product(world, towers):
    part, names = towers[0], list(towers[0].gallery)
    off = load_method("basic", replace(source(world, phi=False), options=OFF))
    close(scores_of(part, off, names), scores_of(part, method_of(world, "product"), names))


def test_projection_keeps_what_subjects_spread_along():
    """Subjects differ along the first axis, styles along the second: the first alone is kept."""
    subjects, styles = torch.tensor([[1.0, 0, 0], [-1.0, 0, 0]]), torch.tensor([[0, 1.0, 0], [0, -1.0, 0]])
    kept = contrastive(subjects, styles, 1, alpha=0.2)
    assert torch.allclose(kept, torch.diag(torch.tensor([1.0, 0, 0])), atol=1e-6)
    assert torch.linalg.matrix_rank(contrastive(subjects, styles, 250, alpha=0.2)) == 1


@pytest.mark.parametrize(
    ("name", "value"), [("components", "-1"), ("alpha", "2"), ("centre", "maybe"), ("harris", "x")]
)
def test_options_that_cannot_be_used(name, value):
    with pytest.raises(UsageError, match=name):
        Parts.of({name: value})


def test_branches_are_mixed_by_standardised_scores(world, towers):
    """Weights 0.4 and 0.6 of scores with mean 0 and deviation 1; a query without the branch keeps its own."""
    part, gallery, _ = towers
    product, image = method_of(world, "product"), method_of(world, "image")
    whole = replace(part, drop_reference=False, gallery=part.gallery[:40])  # all of them are ranked
    names = list(whole.gallery)
    targets = {query.id: part.images[names[i]] for i, query in enumerate(part.queries[:-1])}
    branch = Branch("pseudo-target", targets, 0.6, method=image, caption=False)
    ours = scores_of(whole, product, names, branches=[branch])
    alone = scores_of(whole, product, names)
    assert not np.isnan(alone).any()
    z = lambda rows: (rows - rows.mean(-1, keepdims=True)) / rows.std(-1, keepdims=True)  # noqa: E731
    rows = np.stack([gallery[name] for name in names])
    imagined = rows[: len(targets)] @ rows.T
    expected = np.concatenate([0.4 * z(alone[:-1]) + 0.6 * z(imagined), z(alone[-1:])])
    np.testing.assert_allclose(ours, expected, atol=1e-4)


def test_scores_are_mixed_by_hand():
    reference, branch = torch.tensor([[1.0, 3.0], [5.0, 5.0]]), torch.tensor([[20.0, 10.0]])
    mixed = mix_scores(reference, [(torch.tensor([0]), branch, 0.25)])
    assert torch.allclose(mixed, torch.tensor([[-0.5, 0.5], [0.0, 0.0]]))  # 0.75 (-1, 1) + 0.25 (1, -1)


@pytest.mark.parametrize("name", ["product/b32", "basic/b32"])
def test_an_index_is_searched_by_scores(world, tmp_path, name, towers):
    """Over one's own pictures: the same order as a benchmark's ranking of the same query."""
    part = towers[0]
    method = OwnSearching(method=name.partition("/")[0], clip=str(world / "models/clip-small"), feature_cache=tmp_path)
    index = open_place(world / "CIRR/dev", method, Compute(device="cpu"))
    query = part.queries[0]
    hits = index.search(part.images[query.reference], query.captions[0], k=5, keep_reference=True)
    whole = replace(part, gallery=tuple(sorted(part.images)), drop_reference=False)
    ranking = search(whole, index.method)
    assert [Path(hit.name).stem for hit in hits] == [*ranking.ids[0][:5]]
    assert [hit.score for hit in hits] == pytest.approx(ranking.scores[0][:5], abs=1e-5)


def test_texts_are_averaged_and_missing_ones_named(world, tmp_path, towers):
    part, gallery, texts = towers
    names = list(part.gallery)
    rows = np.stack([gallery[name] for name in names])
    known = json.loads(text_file(world).read_text())
    means = unit(np.stack([texts(known[query.id]).mean(0) for query in part.queries]))
    close(scores_of(part, method_of(world, "texts"), names), means @ rows.T)
    lacking = {name: text for name, text in known.items() if name != part.queries[2].id}
    (tmp_path / "some.json").write_text(json.dumps(lacking))
    told = replace(source(world, phi=False), options={"texts": str(tmp_path / "some.json")})
    ranking = search(part, load_method("texts", told))
    assert ([*ranking.missing], ranking.notes["lacks"]) == ([part.queries[2].id], "texts")
    assert evaluate(part, ranking).missing["texts"] == {"": [part.queries[2].id]}
    assert ranking.ids[2] == ()


def test_texts_as_a_branch_leave_out_queries_without_one(world, tmp_path, towers):
    part = towers[0]
    first = part.queries[0].id
    (tmp_path / "one.json").write_text(json.dumps({first: "a red square"}))
    texts = load_method("texts", replace(source(world, phi=False), options={"texts": str(tmp_path / "one.json")}))
    image = method_of(world, "image")
    ranking = search(part, image, branches=[Branch("texts", {}, 0.5, method=texts)])
    alone = search(part, image)
    assert ranking.ids[0] != alone.ids[0]
    assert ranking.ids[1:] == alone.ids[1:]
    assert ranking.notes["branches"]["texts"] == [query.id for query in part.queries[1:]]


def test_similar_texts_weigh_more(world, tmp_path):
    (tmp_path / "t.json").write_text(json.dumps({"0": ["a red square", "a red square", "zebra crossing at night"]}))
    methods = [
        load_method("texts", replace(source(world, phi=False), options={"texts": str(tmp_path / "t.json"), **more}))
        for more in ({}, {"weights": "similarity"})
    ]
    query = load_benchmark("cirr/val", world).queries[0]
    equal, weighted = (method.embed_captions([()], queries=[replace(query, id="0")]) for method in methods)
    red = methods[0].tower.embed_texts(["a red square"])[0]
    assert torch.cosine_similarity(weighted[0], red, 0) > torch.cosine_similarity(equal[0], red, 0)


@pytest.mark.parametrize(
    "content",
    [
        '{"7": "a dog", "8": ["a cat", "two cats"]}',
        '{"settings": {"llm": "x"}}\n{"id": 7, "texts": ["a dog"]}\n\n{"id": "8", "texts": ["a cat", "two cats"]}\n',
        '[{"pairid": 7, "target": "a dog"}, {"pairid": 8, "text": ["a cat", "two cats"], "caption": "x"}]',
        '{"7": {"caption": "not this", "texts": ["a dog"]}, "8": {"texts": ["a cat", "two cats"]}}',
    ],
)
def test_forms_of_texts(tmp_path, content):
    path = tmp_path / "texts"
    path.write_text(content)
    assert read_texts(path) == {"7": ("a dog",), "8": ("a cat", "two cats")}


@pytest.mark.parametrize("content", ["", "{}", "[]", "7", "a dog", '{"7": 3}', '{"id": 7}', '[["7", "x"]]', "[" * 9999])
def test_files_that_are_not_texts(tmp_path, content):
    path = tmp_path / "texts"
    path.write_text(content)
    with pytest.raises(InputError, match="texts"):
        read_texts(path)
