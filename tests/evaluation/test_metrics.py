"""Measures: cases worked by hand, and ir_measures where definitions agree."""

import ir_measures
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ir_measures import AP, Success, nDCG

from cig.evaluation.metrics import average_precision, ndcg, recall, share, trapezoid_average_precision

HITS = np.array([[0, 1, 0, 1], [0, 0, 0, 0], [1, 1, 0, 0]], dtype=bool)


def test_recall_by_hand():
    assert recall(HITS, np.array([1, 1, 2]), 1).tolist() == [0, 0, 0.5]
    assert recall(HITS, np.array([2, 1, 2]), 2).tolist() == [0.5, 0, 1]


def test_average_precision_by_hand():
    # hits at ranks 2 and 4 of 3 relevant: (1/2 + 2/4) / 3; hits at 1 and 2 of 2: (1 + 1) / 2
    assert average_precision(HITS, np.array([3, 1, 2]), 4).tolist() == pytest.approx([1 / 3, 0, 1])
    # at k = 1 the divisor is min(1, n) = 1, not n
    assert average_precision(HITS, np.array([3, 1, 2]), 1).tolist() == [0, 0, 1]
    # a list that is shorter than k
    assert average_precision(HITS, np.array([3, 1, 2]), 50).tolist() == pytest.approx([1 / 3, 0, 1])


@given(st.lists(st.booleans(), min_size=1, max_size=30), st.integers(0, 5), st.integers(1, 30))
def test_agrees_with_ir_measures(row, unfound, k):
    """trec_eval's AP@k times n / min(k, n) is CIRCO's; its Success@k is recall of one target."""
    n = sum(row) + unfound
    if not n:
        return
    qrels = {"q": {f"d{i}": int(hit) for i, hit in enumerate(row)} | {f"x{i}": 1 for i in range(unfound)}}
    run = {"q": {f"d{i}": float(-i) for i in range(len(row))}}
    theirs = ir_measures.calc_aggregate([AP @ k, Success @ k, nDCG @ k], qrels, run)
    hits = np.array([row])
    ours = average_precision(hits, np.array([n]), k)[0]
    assert ours == pytest.approx(theirs[AP @ k] * n / min(k, n))
    assert (recall(hits, np.array([n]), k)[0] > 0) == bool(theirs[Success @ k])
    assert ndcg(hits, np.array([n]), k)[0] == pytest.approx(theirs[nDCG @ k])


def test_ndcg_by_hand():
    # hits at 2 and 4 of 3 relevant, k 4: (1/log2(3) + 1/log2(5)) / (1 + 1/log2(3) + 1/log2(4))
    third, fifth = 1 / np.log2(3), 1 / np.log2(5)
    assert ndcg(HITS, np.array([3, 0, 2]), 4).tolist() == pytest.approx([(third + fifth) / (1.5 + third), 0, 1])


def test_share_of_the_first_k():
    assert share(HITS, np.array([9, 9, 9]), 4).tolist() == [0.5, 0, 0.5]
    assert share(HITS, np.array([9, 9, 9]), 10).tolist() == [0.2, 0, 0.2], "a short list has no more wrong pictures"


def test_trapezoid_by_hand():
    # rank 1 of 1: (1 + 1) / 2; ranks 2 and 3 of 4: ((0 + 1/2) / 2 + (1/2 + 2/3) / 2) / 4
    areas = trapezoid_average_precision([[1], [2, 3], []], np.array([1, 4, 2]))
    assert areas.tolist() == pytest.approx([1, (0.25 + 7 / 12) / 4, 0])


@given(st.sets(st.integers(1, 40), max_size=20), st.integers(0, 5))
def test_trapezoid_is_the_area_under_the_curve(ranks, unfound):
    """The published loop, written again: from 0, where precision before the first picture is 1."""
    n, area = len(ranks) + unfound, 0.0
    for found, rank in enumerate(sorted(ranks)):
        before = found / (rank - 1) if rank > 1 else 1.0
        area += (before + (found + 1) / rank) / (2 * n)
    assert trapezoid_average_precision([sorted(ranks)], np.array([n]))[0] == pytest.approx(area)
