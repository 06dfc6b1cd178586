"""The composition gap by hand, and subsets of queries."""

import numpy as np
import pytest

from cig import evaluate
from cig.evaluation.composition import composition_gap, evaluate_subset, subset_lines, unsolved
from cig.types import Benchmark, Query, Ranking


def bench(count=4, part=""):
    queries = tuple(Query(str(i), "r", ("c",), {"a": 2}) for i in range(count))
    return Benchmark(
        "toy/val", queries, dict.fromkeys("abcd"), tuple("abcd"), ("recall@1",), False, 0.5, "made up", part
    )


def ranking(ranks):
    """Each query's target a at a rank, or nowhere."""
    rows = tuple(tuple("bcd"[: rank - 1] + "a") if rank else ("b",) for rank in ranks)
    ids = tuple(str(i) for i in range(len(ranks)))
    return Ranking(ids, rows, tuple((0.0,) * len(row) for row in rows), ((),) * len(ranks), tuple(ranks))


def test_the_gap_by_hand():
    """nDCG with one target is 1 / log2(rank + 1): both 1, 1, 1/2, 0; image 0, 0, 1/2, 0; text 1/2, 0, 1/2, 0."""
    part = bench()
    both, image, text = ranking([1, 1, 3, None]), ranking([None, None, 3, None]), ranking([3, None, 3, None])
    gap = composition_gap([part], [both], image=[image], text=[text])
    assert (gap.both, gap.image, gap.text) == pytest.approx((62.5, 12.5, 25))
    assert gap.gap == pytest.approx(1 - 25 / 62.5)
    low, high = gap.interval
    assert 0 <= low < gap.gap < high <= 1
    better = composition_gap([part], [text], image=[image], text=[both])
    assert better.gap == pytest.approx(1 - 62.5 / 25), "below 0: one modality does better"
    nothing = composition_gap([part], [ranking([None] * 4)], image=[image], text=[text])
    assert (nothing.gap, nothing.interval) == (0, (0, 0))


def test_the_interval_is_that_of_a_plain_bootstrap():
    rng = np.random.default_rng(5)
    draw = [[None if rank > 3 else int(rank) for rank in rng.integers(1, 6, 40)] for _ in range(3)]
    both, image, text = map(ranking, draw)
    gap = composition_gap([bench(40)], [both], image=[image], text=[text])
    values = np.array([[1 / np.log2(rank + 1) if rank else 0 for rank in row] for row in draw])
    gaps, rng = [], np.random.default_rng(1)
    for _ in range(4000):
        means = values[:, rng.integers(0, 40, 40)].mean(axis=1)
        gaps.append(1 - max(means[1:]) / means[0])
    assert gap.interval == pytest.approx(np.percentile(gaps, [2.5, 97.5]), abs=0.06)


def test_queries_that_no_modality_alone_answers():
    parts = [bench(part="x"), bench(part="y")]
    image, text = ranking([1, None, 11, None]), ranking([None, 10, None, None])
    left = unsolved(parts, [[image, text], [text, text]])
    assert left == {"toy/val/x": {"2", "3"}, "toy/val/y": {"0", "2", "3"}}


def test_scores_of_a_subset():
    parts, rankings = [bench(part="x"), bench(part="y")], [ranking([1, None, 1, None]), ranking([1, 1, 1, 1])]
    some = evaluate_subset(parts, rankings, {"toy/val/x": {"0", "3"}, "toy/val/y": {"1"}})
    assert some.scores["x"]["recall@1"] == 50
    assert some.scores["average"]["recall@1"] == 75
    one = evaluate_subset(parts, rankings, {"toy/val/x": {"3"}})
    assert one.scores == {"x": {"recall@1": 0}}
    assert evaluate_subset(parts, rankings, {}) is None
    whole = evaluate(parts, rankings)
    lines = subset_lines({"full": whole, "few": one, "none": None})
    assert lines[0] == ["queries", "", "recall@1"]
    assert [line[:2] for line in lines[1:]] == [["full", "8"], ["few", "1"]]
    assert lines[2][2] == "0.00 [0.00, 0.00]"
