"""Statistics: against scipy, against cases that can be counted by eye, and on simulated nulls."""

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from cig.evaluation.significance import (
    bootstrap,
    chance_of,
    holm,
    interval,
    labels,
    paired_p,
    share_interval,
    sign_test,
)

# Intervals


def test_bootstrap_means_lie_around_the_mean():
    values = np.array([[0.0], [1.0], [1.0], [1.0]])
    means = bootstrap(values)
    assert means.shape == (2000, 1)
    assert set(np.unique(means * 4)) <= {0, 1, 2, 3, 4}
    low, high = interval(means[:, 0])
    assert (low, high) == (0.25, 1.0)
    assert np.array_equal(means, bootstrap(values))


def test_intervals_are_scipys():
    """Both are percentiles of resampled means: apart by what 20,000 draws leave to chance, a twentieth of the width."""
    values = np.random.default_rng(0).gamma(2, size=(150, 1))
    low, high = interval(bootstrap(values, resamples=20_000)[:, 0])
    own = scipy.stats.bootstrap((values[:, 0],), np.mean, n_resamples=20_000, method="percentile", rng=1)
    theirs = own.confidence_interval
    assert (low, high) == pytest.approx((theirs.low, theirs.high), abs=(high - low) / 20)


def test_clusters_are_drawn_whole():
    """Two clusters, of one query at 0 and of three at 1: means are 0, 3/4 or 1, and 3/4 is drawn half of the time."""
    values = np.array([[0.0], [1.0], [1.0], [1.0]])
    means = bootstrap(values, np.array([0, 1, 1, 1]))[:, 0]
    assert set(np.unique(means)) == {0, 0.75, 1}
    assert (means == 0.75).mean() == pytest.approx(0.5, abs=0.05)


def test_intervals_hold_the_truth_95_times_in_100():
    rng = np.random.default_rng(3)
    held = 0
    for seed in range(300):
        low, high = interval(bootstrap(rng.random((80, 1)) < 0.3, resamples=500, seed=seed)[:, 0])
        held += low <= 0.3 <= high
    assert 0.90 <= held / 300 <= 0.985


def test_intervals_of_clusters_are_wider_where_queries_agree():
    rng = np.random.default_rng(0)
    which = np.repeat(np.arange(20), 10)
    values = (rng.random(20) < 0.5)[which][:, None].astype(float)  # ten equal answers a cluster
    (low, high), (first, last) = (interval(bootstrap(values, own)[:, 0]) for own in (which, None))
    assert high - low > 2 * (last - first)


def test_labels():
    assert labels(["", ""]) is None
    assert labels(["a", "", "b", "", "a"]).tolist() == [0, 1, 2, 3, 0], "no name is a cluster of its own"


# Paired tests


def test_paired_p_by_hand():
    """Three queries better by 1: of the 8 flips, all plus and all minus are as far. A zero tells nothing."""
    assert paired_p([np.array([1.0, 1.0, 1.0])]) == 2 / 8
    assert paired_p([np.array([1.0, 0.0, 1.0, 0.0, 1.0])]) == 2 / 8
    assert paired_p([np.zeros(5)]) == 1
    # 2, -1: sums of flips are 3, 1, -1, -3, and 1 was seen
    assert paired_p([np.array([2.0, -1.0])]) == 1
    # two clusters, of 3 and of 1: 4 flips, and both agree
    assert paired_p([np.ones(4)], [np.array([0, 0, 0, 1])]) == 2 / 4


def test_paired_p_over_strata_weighs_each_alike():
    """Mean of means: 4 queries at 1/4 each against 1 query at 1; flips of (1/4 x 4, 1): +2 and -2 of 32 are as far."""
    assert paired_p([np.ones(4), np.ones(1)]) == 2 / 32
    # one stratum's loss of 4 queries weighs what another's win of one does: the mean is 0
    assert paired_p([-np.ones(4), np.ones(1)]) == 1


def test_paired_p_is_scipys():
    differences = np.random.default_rng(1).normal(0.25, 1, 60)
    own = scipy.stats.permutation_test(
        (differences, np.zeros(60)), lambda a, b: np.mean(a - b), permutation_type="samples", n_resamples=20_000, rng=2
    )
    assert paired_p([differences]) == pytest.approx(own.pvalue, abs=0.01)


@given(st.lists(st.sampled_from([-100.0, 0.0, 100.0, 33.3]), min_size=1, max_size=12))
def test_paired_p_counts_flips(values):
    import itertools

    flips = [
        sum(sign * value for sign, value in zip(signs, values, strict=True))
        for signs in itertools.product((1, -1), repeat=len(values))
    ]
    expected = sum(abs(total) >= abs(sum(values)) - 1e-6 for total in flips) / len(flips)
    assert paired_p([np.array(values)]) == pytest.approx(expected)
    assert paired_p([np.array(values)]) == paired_p([-np.array(values)])


def uniform(values):
    return scipy.stats.kstest(values, "uniform").pvalue


def test_null_p_values_are_uniform():
    rng = np.random.default_rng(0)
    drawn = [paired_p([rng.normal(size=40)], resamples=1000, seed=seed) for seed in range(500)]
    assert uniform(drawn) > 0.01
    assert np.mean(np.array(drawn) < 0.05) == pytest.approx(0.05, abs=0.03)


def test_null_p_values_of_clusters_are_uniform_and_without_them_far_too_small():
    rng, which = np.random.default_rng(0), np.repeat(np.arange(30), 5)
    draws = [rng.normal(size=30)[which] + 0.1 * rng.normal(size=150) for _ in range(500)]
    assert uniform([paired_p([own], [which], resamples=1000, seed=seed) for seed, own in enumerate(draws)]) > 0.01
    blind = [paired_p([own], None, resamples=1000, seed=seed) for seed, own in enumerate(draws)]
    assert uniform(blind) < 1e-6
    assert np.mean(np.array(blind) < 0.05) > 0.2


def test_null_p_values_of_a_recall_are_never_too_small():
    """Differences of -1, 0 and 1 tie, so p is coarse: at most 5% lie below 5%, give or take chance."""
    rng = np.random.default_rng(5)
    drawn = [paired_p([rng.integers(-1, 2, 50).astype(float)], resamples=1000, seed=seed) for seed in range(500)]
    assert np.mean(np.array(drawn) < 0.05) < 0.08


# Others


def test_sign_test_by_hand():
    assert sign_test(5, 0) == 2 / 32
    assert sign_test(0, 0) == 1
    assert sign_test(3, 3) == 1
    assert sign_test(12, 5) == pytest.approx(scipy.stats.binomtest(12, 17).pvalue)


@pytest.mark.parametrize(("wins", "losses"), [(12, 5), (5, 0), (0, 5), (1, 1), (600, 400)])
def test_the_interval_of_a_share_is_scipys(wins, losses):
    own = scipy.stats.binomtest(wins, wins + losses)
    assert share_interval(wins, losses) == pytest.approx(own.proportion_ci(method="exact"), abs=1e-9)
    assert chance_of(wins, wins + losses, 0.4) == pytest.approx(
        scipy.stats.binomtest(wins, wins + losses, 0.4, "greater").pvalue
    )


def test_nothing_is_known_of_a_share_without_votes():
    assert share_interval(0, 0) == (0, 1)


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
