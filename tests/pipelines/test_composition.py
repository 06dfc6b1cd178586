"""Composition, several benchmarks in one table, and the page of a comparison, on the tiny world."""

import csv
import json
import re
from dataclasses import replace
from xml.etree import ElementTree

import pytest

import cig
from calls import run
from cig import load_benchmarks
from cig.errors import UsageError
from cig.io.feature_cache import FeatureCache
from cig.pipelines._comparison import compare_methods
from cig.pipelines._comparison_page import plot
from cig.retrieval.requests import Comparing, parse_method
from cig.runtime import Compute

pytestmark = pytest.mark.slow  # together they take long


@pytest.fixture(scope="module")
def clip(world):
    return world / "models/clip-small"


@pytest.fixture(scope="module")
def table(world, clip):
    methods = tuple(parse_method(f"{name} clip={clip}") for name in ("sum", "image", "text", "product"))
    parts = load_benchmarks("cirr/val", world)
    comparing = Comparing(methods, composition_gap=True)
    return parts, compare_methods(parts, comparing, compute=Compute("cpu"), cache=FeatureCache())


def test_the_controls_are_the_methods_of_one_modality(table):
    """Of `sum`, image alone is the method `image` and text alone is `text`; CIRR drops the reference in all of them."""
    parts, comparison = table
    of_sum, of_image, of_text, of_product = (row.searches for row in comparison.rows)
    assert of_sum.image[0].ids == of_image.both[0].ids == of_image.image[0].ids
    assert of_sum.text[0].ids == of_text.both[0].ids
    assert not any(query.reference in of_sum.text[0].ids[row] for row, query in enumerate(parts[0].queries))
    assert of_text.image == of_product.image == ()
    assert {"composition gap of text", "composition gap of product"} <= set(comparison.left_out)


def test_a_warm_cache_has_the_same_gaps(table, clip, tmp_path):
    """Methods that the cache describes are not loaded, and have a gap all the same."""
    parts, comparison = table
    comparing = Comparing((parse_method(f"sum clip={clip}"),), composition_gap=True)
    for _ in range(2):
        again = compare_methods(parts, comparing, compute=Compute("cpu"), cache=FeatureCache(tmp_path))
        assert again.composition.gaps == comparison.composition.gaps[:1]
        assert not again.left_out


def test_queries_that_no_control_answers(table):
    parts, comparison = table
    solved = {
        query
        for row in comparison.rows[:2]
        for ranking in (*row.searches.image, *row.searches.text)
        for query, rank in zip(ranking.queries, ranking.target_ranks, strict=True)
        if rank <= 10
    }
    reports = comparison.composition.subsets[0]
    left = reports["unsolved alone"]
    assert set(left.per_query[""] if left else ()) == {query.id for query in parts[0].queries} - solved
    assert reports["full"].scores == comparison.rows[0].report.scores
    assert [gap is None for gap in comparison.composition.gaps] == [False, False, True, True]


def labels(path, part, count):
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        columns = ["query_idx", "aggregate_label", "query_text", "query_image_ref", "primary_pos_cand_id"]
        writer.writerow(columns)
        for i, query in enumerate(part.queries[:count]):
            target = next(name for name, grade in query.relevant.items() if grade == 2)
            writer.writerow([i, "composition_required", query.captions[0], query.reference, target])
        writer.writerow([9, "composition_required", "of nobody", "x", "y"])
    return path


def test_several_benchmarks_with_labels_and_a_page(world, clip, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    call = ["compare", "cirr/val", "fashioniq/val", "circo/val", "--dataset-path", world, "--device", "cpu"]
    call += ["--methods", f"sum clip={clip}", f"image clip={clip}", "--branches", "oracle"]
    code, out, err = run(capsys, *call, "--json", "t.json", "--report", "t.html", "--report", "t.md")
    assert code == 0, err
    facts = json.loads((tmp_path / "t.json").read_text())
    assert facts["measure"] == {"cirr/val": "recall@1", "fashioniq/val": "recall@10", "circo/val": "map@5"}
    assert [row["method"] for row in facts["rows"]] == ["sum", "sum", "image", "image"]
    scores = facts["rows"][0]["scores"]
    assert scores["fashioniq/val"] == facts["benchmarks"][1]["rows"][0]["scores"]["average"]["recall@10"]
    assert facts["rows"][0]["means"] == {}, "three measures, so there is nothing to average"
    assert "3 benchmarks" in out
    page = (tmp_path / "t.html").read_text()
    drawings = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert [len(ElementTree.fromstring(each).findall(".//circle")) for each in drawings] == [4, 4, 4]
    assert "<script" not in page
    assert (tmp_path / "t.md").read_text().startswith("# Methods over several benchmarks")
    code, _, err = run(capsys, *call, "--measure", "recall@1")
    assert (code, "fashioniq/val" in err) == (2, True), "one that all of them have"


def test_means_are_of_one_measure(world, clip, tmp_path, capsys):
    call = ["compare", "fashioniq/val", "circo/val", "--dataset-path", world, "--device", "cpu", "--branches", "oracle"]
    call += ["--methods", f"image clip={clip}", "--measure", "recall@10", "--json", tmp_path / "t.json"]
    code, out, err = run(capsys, *call)
    assert code == 0, err
    row = json.loads((tmp_path / "t.json").read_text())["rows"][0]
    assert row["means"]["recall@10"] == pytest.approx(sum(row["scores"].values()) / 2)
    assert "mean recall@10" in out


def test_labels_in_every_table(world, clip, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (part,) = load_benchmarks("cirr/val", world)
    path = labels(tmp_path / "cirr.csv", part, 3)
    shared = ["cirr/val", "--dataset-path", world, "--circus", path]
    code, out, err = run(
        capsys, "evaluate", *shared, "--method", "image", "--clip", clip, "--device", "cpu", "--json", "e.json"
    )
    assert code == 0, err
    subsets = json.loads((tmp_path / "e.json").read_text())["circus"]["subsets"]
    assert (subsets["full"]["queries"], subsets["shortcut-free"]["queries"], subsets["validated"]) == (8, 3, None)
    assert "unmatched: 1" in out
    run(capsys, "evaluate", *shared[:3], "--method", "image", "--clip", clip, "--device", "cpu", "--run", "i.run")
    code, out, err = run(capsys, "score", *shared[:1], "i.run", *shared[1:], "--json", "s.json")
    assert json.loads((tmp_path / "s.json").read_text())["circus"]["subsets"]["full"]["queries"] == 8
    line = ["compare", *shared, "--methods", f"image clip={clip}", "--branches", "oracle", "--device", "cpu"]
    code, out, err = run(capsys, *line, "--composition-gap", "--json", "c.json")
    assert code == 0, err
    first, second = json.loads((tmp_path / "c.json").read_text())["rows"]
    assert first["subsets"]["shortcut-free"] == subsets["shortcut-free"]
    gap = first["composition_gap"]
    assert gap["image"] == gap["both"], "image alone is all that it uses"
    assert gap["gap"] == pytest.approx(1 - max(gap["image"], gap["text"]) / gap["both"])
    assert second["composition_gap"]["both"] > first["composition_gap"]["both"]
    assert run(capsys, "evaluate", *shared[:3], "--method", "image", "--circus", tmp_path / "none")[0] == 2


def test_a_drawing_has_every_row_that_was_measured(table):
    _, comparison = table
    drawn = plot(comparison)
    assert [mark.title for mark in drawn.marks] == [row.method for row in comparison.rows]
    assert all(mark.high <= mark.y <= mark.low for mark in drawn.marks), "y grows downwards"
    assert len(drawn.columns) >= 2
    by_score = sorted(drawn.marks, key=lambda mark: mark.y)
    assert by_score[0].title in {row.method for row in comparison.rows}


def test_wrong_calls(world, clip, tmp_path, capsys):
    line = ["compare", "cirr/val", "circo/val", "--dataset-path", world, "--methods", f"image clip={clip}"]
    assert run(capsys, *line, "--sweep")[0] == 2
    assert run(capsys, *line, "--report", tmp_path / "t.pdf")[0] == 2
    (tmp_path / "a.run").write_text("q Q0 a 1 1 x\n")
    assert run(capsys, "compare", "cirr/val", tmp_path / "a.run")[0] == 2
    with pytest.raises(UsageError, match="less of it is better"):
        compare_methods(
            (replace(cig.load_benchmark("circo/val", world), measures=("map@5", "negatives@10")),),
            Comparing((parse_method(f"image clip={clip}"),), sweep=True, measure="negatives@10"),
            compute=Compute("cpu"),
            cache=FeatureCache(),
        )
