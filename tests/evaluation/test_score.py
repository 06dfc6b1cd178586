"""Scores worked by hand, CIRR's and CIRCO's among them, which the published code cannot compute."""

from dataclasses import replace

import ir_measures
import numpy as np
import pytest
from ir_measures import AP, Success

from cig import evaluate
from cig.errors import MismatchError, UsageError
from cig.evaluation.paired import compare_by_part, compare_rankings
from cig.evaluation.score import changes, parse
from cig.types import Benchmark, Query, Ranking


def bench(queries, measures, name="toy/val", part="", hidden=False, images="abcdef"):
    pictures = dict.fromkeys(images)
    return Benchmark(name, tuple(queries), pictures, tuple("abcdef"), measures, False, 0.5, "made up", part, hidden)


def ranking(rows, subset=None):
    rows = {key: tuple(names) for key, names in rows.items()}
    own = tuple(tuple(names) for names in (subset or ["" for _ in rows]))
    return Ranking(tuple(rows), tuple(rows.values()), tuple((0.0,) * len(row) for row in rows.values()), own)


def test_cirr_by_hand():
    """Targets at ranks 1, 3 and nowhere; in their own sets at 1, 2 and 3."""
    queries = [Query(str(i), "f", ("c",), {target: 2}) for i, target in enumerate("acf")]
    measures = ("recall@1", "recall@5", "subset_recall@1", "subset_recall@2", "subset_recall@3")
    report = evaluate(bench(queries, measures), ranking({"0": "abc", "1": "bac", "2": "abcde"}, ["ab", "ac", "abf"]))
    assert report.scores[""] == pytest.approx(
        {
            "recall@1": 100 / 3,
            "recall@5": 200 / 3,
            "subset_recall@1": 100 / 3,
            "subset_recall@2": 200 / 3,
            "subset_recall@3": 100,
            "average": 50,  # of recall@5 and subset_recall@1
        }
    )
    low, high = report.intervals[""]["recall@1"]
    assert 0 <= low < 100 / 3 < high <= 100


def test_a_mean_of_clusters_means_and_pictures_marked_as_wrong():
    """Cluster x has one query at rank 1, y one at rank 1 and two that fail: (1 + 1/3) / 2, and 1/2 over queries."""
    queries = [Query(str(i), "f", ("c",), {"a": 2}, negatives=("b", "c"), cluster="xyyy"[i]) for i in range(4)]
    measures = ("recall@1", "negatives@2", "ndcg@2", "trapezoid_map")
    part, rows = bench(queries, measures), {"0": "abc", "1": "ade", "2": "bac", "3": "cb"}
    micro = evaluate(part, ranking(rows)).scores[""]
    assert micro["recall@1"] == 50
    macro = evaluate(replace(part, macro=True), ranking(rows))
    assert macro.scores[""] == pytest.approx(
        {
            "recall@1": 100 * (1 + 1 / 3) / 2,
            "negatives@2": 100 * (1 / 2 + (0 + 1 / 2 + 1) / 3) / 2,
            "ndcg@2": 100 * (1 + (1 + 1 / np.log2(3)) / 3) / 2,
            "trapezoid_map": 100 * (1 + (1 + (0 + 1 / 2) / 2) / 3) / 2,
        }
    )
    low, high = macro.intervals[""]["recall@1"]
    assert (low, high) == (pytest.approx(100 / 3), 100), "two clusters are drawn, as wholes"
    better = ranking({**rows, "3": "a"})
    paired = compare_rankings([replace(part, macro=True)], [ranking(rows)], [better])["recall@1"]
    assert paired.difference == pytest.approx(100 / 6)
    assert (paired.gained, paired.lost, paired.equal) == (1, 0, 3)


def test_circo_by_hand():
    """Three correct pictures, found at ranks 1 and 4; the annotated target, b, at 4."""
    query = Query("0", "f", ("c",), {"a": 1, "b": 2, "c": 1})
    report = evaluate(bench([query], ("map@2", "map@5", "recall@2", "recall@5")), ranking({"0": "adeb"}))
    assert report.scores[""] == pytest.approx(
        {"map@2": 100 * (1 / 1) / 2, "map@5": 100 * (1 + 2 / 4) / 3, "recall@2": 0, "recall@5": 100}
    )


def test_circo_agrees_with_ir_measures():
    rng = np.random.default_rng(0)
    queries, rows, qrels, run = [], {}, {}, {}
    for i in range(30):
        names = list(rng.permutation(list("abcdef")))
        relevant = {str(name): 1 for name in rng.choice(list("abcdef"), rng.integers(1, 6), replace=False)}
        relevant[next(iter(relevant))] = 2
        queries.append(Query(str(i), "f", ("c",), relevant))
        rows[str(i)] = names
        qrels[str(i)] = dict.fromkeys(relevant, 1)
        run[str(i)] = {name: float(-rank) for rank, name in enumerate(names)}
    report = evaluate(bench(queries, ("map@3",)), ranking(rows))
    theirs = {value.query_id: value.value for value in ir_measures.iter_calc([AP @ 3], qrels, run)}
    for query in queries:
        n = len(query.relevant)
        assert report.per_query[""][query.id]["map@3"] == pytest.approx(100 * theirs[query.id] * n / min(3, n))
    target = {query.id: {name: 1 for name, grade in query.relevant.items() if grade == 2} for query in queries}
    success = ir_measures.calc_aggregate([Success @ 3], target, run)[Success @ 3]
    assert evaluate(bench(queries, ("recall@3",)), ranking(rows)).scores[""]["recall@3"] == pytest.approx(100 * success)


def test_fashioniq_averages_its_categories_not_its_queries():
    one = bench([Query("0", "f", ("c",), {"a": 2})], ("recall@1",), "fashioniq/val", "dress")
    three = bench([Query(str(i), "f", ("c",), {"b": 2}) for i in range(3)], ("recall@1",), "fashioniq/val", "shirt")
    report = evaluate([one, three], [ranking({"0": "a"}), ranking({"0": "a", "1": "a", "2": "a"})])
    assert report.scores["average"] == {"recall@1": 50}
    assert report.intervals["average"]["recall@1"] == (50, 50)
    assert report.counts["shirt"] == {"queries": 3, "queries_present": 3, "gallery": 6, "gallery_present": 6}


def test_the_mean_of_the_queries_is_the_score():
    queries = [Query(str(i), "f", ("c",), {"a": 2}) for i in range(3)]
    report = evaluate(bench(queries, ("recall@1",)), ranking({"0": "a", "1": "b", "2": "a"}))
    values = [own["recall@1"] for own in report.per_query[""].values()]
    assert np.mean(values) == pytest.approx(report.scores[""]["recall@1"])


def test_what_is_missing_scores_zero_and_is_named():
    queries = [Query("0", "f", ("c",), {"a": 2}), Query("1", "f", ("c",), {"e": 2})]
    report = evaluate(bench(queries, ("recall@5",), images="abcd"), ranking({"0": "a", "1": "abcd"}))
    assert report.scores[""]["recall@5"] == 50
    assert report.missing == {"gallery": {"": ["e", "f"]}, "targets": {"": ["1"]}}
    assert report.counts[""] == {"queries": 2, "queries_present": 1, "gallery": 6, "gallery_present": 4}


def test_a_target_that_the_gallery_does_not_list_is_missing():
    """It has a picture, g, but nobody can find it."""
    queries = [Query("0", "f", ("c",), {"g": 2}), Query("1", "f", ("c",), {"a": 2})]
    report = evaluate(bench(queries, ("recall@5",), images="abcdefg"), ranking({"0": "abc", "1": "abc"}))
    assert report.missing == {"targets": {"": ["0"]}}
    assert report.counts[""]["queries_present"] == 1


def test_hidden_targets_are_not_evaluated():
    with pytest.raises(UsageError, match="hidden; use `cig submit`"):
        evaluate(bench([Query("0", "f", ("c",))], ("recall@1",), hidden=True), ranking({"0": "a"}))


def test_measures_have_a_grammar():
    assert parse("subset_recall@3") == ("subset_recall", 3)
    assert parse("trapezoid_map") == ("trapezoid_map", 0)
    for wrong in ("f1@5", "trapezoid_map@5", "recall", "recall@0", "recall@x"):
        with pytest.raises(UsageError, match="there are recall@k"):
            parse(wrong)


def test_whom_pseudo_targets_helped_and_harmed():
    """Ranks 5 -> 1 rises, 1 -> 12 falls by 11, 2 -> 2 stays; a target without a rank is not counted."""
    alone, fused = (Ranking((), (), (), (), ranks) for ranks in ((5, 1, 2, None), (1, 12, 2, 3)))
    assert changes(alone, fused) == {
        "gained": 1,
        "lost": 1,
        "unchanged": 1,
        "worse_by_more_than_10": pytest.approx(100 / 3),
    }
    assert changes(Ranking((), (), (), ()), Ranking((), (), (), ()))["worse_by_more_than_10"] == 0


def test_categories_are_drawn_independently():
    """Two categories with the same answers: were they drawn alike, their mean would vary as one of them does."""
    queries = tuple(Query(str(i), "r", ("c",), {"t": 2}) for i in range(100))
    rows = tuple(("t",) if i % 2 else ("x",) for i in range(100))
    parts = [
        Benchmark("toy/val", queries, {}, ("t", "x"), ("recall@1",), False, 0.5, "", part=name) for name in ("a", "b")
    ]
    ranking = Ranking(tuple(query.id for query in queries), rows, ((0.0,),) * 100, ((),) * 100)
    report = evaluate(parts, [ranking, ranking])
    widths = {part: own["recall@1"][1] - own["recall@1"][0] for part, own in report.intervals.items()}
    assert widths["average"] == pytest.approx(widths["a"] / 2**0.5, rel=0.15)


@pytest.mark.parametrize("rows", [{"1": "a", "0": "b"}, {"0": "a"}, {"0": "a", "2": "b"}])
def test_a_ranking_of_other_queries_is_refused(rows):
    """In another order, too: scores are by position."""
    queries = [Query(name, "f", ("c",), {"a": 2}) for name in ("0", "1")]
    with pytest.raises(MismatchError, match="toy/val"):
        evaluate(bench(queries, ("recall@1",)), ranking(rows))


def test_two_searches_are_compared_by_part_and_by_cirrs_average():
    """Query 0 gains recall@5 and subset_recall@1, query 1 loses subset_recall@1: +50, 0 and their mean."""
    queries = [Query(str(i), "a", ("c",), {"b": 2}, subset=("b", "c")) for i in range(2)]
    part = bench(queries, ("recall@5", "subset_recall@1"))
    base = ranking({"0": "c", "1": "b"}, subset=[["c"], ["b"]])
    fused = ranking({"0": "b", "1": "b"}, subset=[["b"], ["c"]])
    compared = compare_by_part([part], [base], [fused])[""]
    assert {name: pair.difference for name, pair in compared.items()} == {
        "recall@5": 50.0,
        "subset_recall@1": 0.0,
        "average": 25.0,
    }
    assert (compared["average"].gained, compared["average"].lost) == (1, 1)
    both = compare_by_part([replace(part, part="x"), replace(part, part="y")], [base, base], [fused, base])
    assert {name: pairs["average"].difference for name, pairs in both.items()} == {"x": 25.0, "y": 0.0, "average": 12.5}
