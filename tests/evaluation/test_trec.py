"""TREC files: what we write is what we rank, and ir_measures measures in it what we do."""

from itertools import pairwise

import ir_measures
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ir_measures import AP, R, Success

from cig import Source, evaluate, load_benchmarks, load_method, search
from cig.errors import InputError, UsageError
from cig.evaluation.trec import falling, read_qrels, read_run, write_qrels, write_run
from cig.types import Benchmark, Query, Ranking


@pytest.fixture(scope="module")
def searched(world):
    method = load_method("sum", Source(clip=str(world / "models/clip-small")))
    names = ("cirr/val", "circo/val", "fashioniq/val")
    loaded = {name: load_benchmarks(name, world) for name in names}
    return {name: (parts, [search(part, method) for part in parts]) for name, parts in loaded.items()}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cirr/val", "circo/val", "fashioniq/val"])
def test_ir_measures_agrees_on_exported_runs(searched, tmp_path, name):
    """Success@k is recall of the one target (grade 2); AP@k, over all n relevant, times n / min(k, n) is CIRCO's."""
    parts, rankings = searched[name]
    write_run(tmp_path / "a.run", parts, rankings)
    write_qrels(tmp_path / "a.qrels", parts)
    run = list(ir_measures.read_trec_run(str(tmp_path / "a.run")))
    qrels = list(ir_measures.read_trec_qrels(str(tmp_path / "a.qrels")))
    report = evaluate(parts, rankings)
    compared = 0
    for part in parts:
        relevant = {query.id: len(query.relevant) for query in part.queries}
        for measure in part.measures:
            kind, k = measure.split("@")
            if kind == "subset_recall":
                continue
            theirs = AP @ int(k) if kind == "map" else Success(rel=2) @ int(k)
            for own in ir_measures.iter_calc([theirs], qrels, run):
                *category, query = own.query_id.split("/")
                if category != ([part.part] if part.part else []):
                    continue
                scale = relevant[query] / min(int(k), relevant[query]) if kind == "map" else 1
                assert report.per_query[part.part][query][measure] == pytest.approx(100 * own.value * scale)
                compared += 1
    assert compared == sum(len(part.queries) * sum("subset" not in own for own in part.measures) for part in parts)


def test_what_is_written_is_read(searched, tmp_path):
    parts, rankings = searched["fashioniq/val"]
    write_run(tmp_path / "a.run", parts, rankings)
    run = read_run(tmp_path / "a.run")
    for part, ranking in zip(parts, rankings, strict=True):
        for query, names in zip(ranking.queries, ranking.ids, strict=True):
            assert run[f"{part.part}/{query}"] == list(names)


def toy(names, scores):
    ranking = Ranking(("1",), (tuple(names),), (tuple(scores),), ((),))
    query = Query("1", "r", ("c",), {names[0]: 2}, negatives=(names[-1],))
    part = Benchmark("toy/val", (query,), {}, (), (), False, 0.5, "")
    return part, ranking


@given(st.lists(st.text(min_size=1, max_size=8), min_size=2, max_size=5, unique=True))
def test_any_name_survives(tmp_path_factory, names):
    folder = tmp_path_factory.mktemp("run")
    part, ranking = toy(names, [0.5] * len(names))
    write_run(folder / "a.run", [part], [ranking])
    write_qrels(folder / "a.qrels", [part])
    assert read_run(folder / "a.run") == {"1": names}
    assert read_qrels(folder / "a.qrels") == {"1": {names[-1]: 0, names[0]: 2}}
    assert len((folder / "a.run").read_text().splitlines()) == len(names), "a line is a line"


def test_equal_scores_keep_our_order_in_trec_eval(tmp_path):
    """It would sort equal ones by name, z first; we say b, z, a."""
    part, ranking = toy(["b", "z", "a"], [0.25, 0.25, 0.25])
    write_run(tmp_path / "a.run", [part], [ranking])
    run = list(ir_measures.read_trec_run(str(tmp_path / "a.run")))
    for place, name in enumerate("bza", 1):
        qrels = {"1": {name: 1}}
        assert ir_measures.calc_aggregate([Success @ place, R @ place], qrels, run) == {
            Success @ place: 1,
            R @ place: 1,
        }
        if place > 1:
            assert ir_measures.calc_aggregate([Success @ (place - 1)], qrels, run)[Success @ (place - 1)] == 0


@given(st.lists(st.floats(-1, 1, width=32), max_size=20))
def test_falling_scores_fall_in_32_bits(scores):
    scores.sort(reverse=True)
    nudged = list(falling(scores))
    assert all(np.float32(a) > np.float32(b) for a, b in pairwise(nudged))
    assert nudged == pytest.approx(scores, abs=1e-5)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("1 Q0 a 1 0.5", "expected 6 columns, found 5"),
        ("1 Q0 a 1 nan t", "the score 'nan' is not a number"),
        ("1 Q0 a one 0.5 t", "the rank 'one' is not a number"),
        ("1 Q0 b 1 0.5 t\n1 Q0 b 2 0.4 t", "line 3: b is listed twice for query 1"),
    ],
)
def test_bad_runs_are_told_by_line(tmp_path, line, words):
    (tmp_path / "a.run").write_text(f"1 Q0 x 1 0.9 t\n{line}\n")
    with pytest.raises(InputError) as told:
        read_run(tmp_path / "a.run")
    assert words in str(told.value)
    assert "line " in str(told.value)


def test_empty_runs_and_hidden_targets_are_told(tmp_path, world):
    (tmp_path / "a.run").write_text("\n")
    with pytest.raises(InputError, match="is empty"):
        read_run(tmp_path / "a.run")
    (tmp_path / "b.run").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="not UTF-8"):
        read_run(tmp_path / "b.run")
    with pytest.raises(UsageError, match="hidden"):
        write_qrels(tmp_path / "q", load_benchmarks("cirr/test1", world))
    assert not (tmp_path / "q").exists()
