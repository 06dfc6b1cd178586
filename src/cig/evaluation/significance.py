"""Statistics over queries, as pure functions of numpy arrays.

A cluster is a group of queries that are not independent (of one object, say): it is drawn, or flipped, as a whole.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]
Labels = NDArray[np.int64]
CHUNK = 2**24  # signs at once


def bootstrap(
    values: Values, clusters: Labels | None = None, *, resamples: int = 2000, seed: int | np.random.Generator = 0
) -> Values:
    """Return means [resamples, M] of queries drawn with replacement from values [Q, M] (Efron, 1979).

    A resample is a multinomial count of each query, so all resamples are one matrix product instead of 2,000 indexings.

    Args:
        clusters: [Q] labels 0..C-1; whole clusters are drawn, and the mean is over their queries.
        seed: give several strata one generator, so that their draws are independent.
    """
    rng = np.random.default_rng(seed)
    if clusters is None:
        count = len(values)
        draws = rng.multinomial(count, np.full(count, 1 / count), size=resamples)
        means: Values = draws @ values / count
        return means
    sizes = np.bincount(clusters).astype(float)
    draws = rng.multinomial(len(sizes), np.full(len(sizes), 1 / len(sizes)), size=resamples)
    weighted: Values = draws @ _sum_clusters(values, clusters) / (draws @ sizes)[:, None]
    return weighted


def interval(means: Values, level: float = 0.95) -> tuple[float, float]:
    """Return the percentile interval of resampled means [resamples]."""
    low, high = np.percentile(means, [50 * (1 - level), 50 * (1 + level)])
    return float(low), float(high)


def paired_p(
    differences: Sequence[Values],
    clusters: Sequence[Labels | None] | None = None,
    *,
    resamples: int = 10_000,
    seed: int = 0,
) -> float:
    """Return p of a two-sided paired randomisation test (Fisher; for retrieval Smucker et al., CIKM 2007).

    Under the null hypothesis the systems are interchangeable, so the sign of each query's difference (of a cluster's,
    as a whole) is flipped by a coin. p = (1 + flips at least as far from 0) / (1 + flips). Where all flips are no more
    than the resamples, they are enumerated, and p is exact.

    Args:
        differences: [Q] a stratum (FashionIQ: a category); the statistic is the mean of their means.
        clusters: [Q] labels 0..C-1 a stratum, or None.
    """
    labels = clusters or [None] * len(differences)
    terms = np.concatenate([_terms(values, cluster) for values, cluster in zip(differences, labels, strict=True)])
    # Zero terms are dropped, since flipping them changes nothing. The observed sum is lowered by a rounding error, so
    # that a flip which adds the same terms in another order counts as equally far.
    terms = terms[terms != 0] / len(differences)
    observed = abs(terms.sum()) - 1e-12 * np.abs(terms).sum()
    if 2 ** len(terms) <= resamples:
        flips = np.array(list(itertools.product((-1, 1), repeat=len(terms)))).reshape(2 ** len(terms), len(terms))
        return float((np.abs(flips @ terms) >= observed).mean())
    far = sum(int((np.abs(signs @ terms) >= observed).sum()) for signs in _signs(len(terms), resamples, seed))
    return (1 + far) / (1 + resamples)


def _terms(differences: Values, clusters: Labels | None) -> Values:
    """Return what each cluster adds to the mean."""
    sums = differences if clusters is None else _sum_clusters(differences[:, None], clusters)[:, 0]
    return sums / len(differences)


def _sum_clusters(values: Values, clusters: Labels) -> Values:
    """Sum values [Q, M] within each cluster: [C, M]."""
    sums = np.zeros((int(clusters.max()) + 1, values.shape[1]))
    np.add.at(sums, clusters, values)
    return sums


def cluster_means(values: Values, clusters: Labels) -> Values:
    """Return the mean of values [Q, M] within each cluster: [C, M]."""
    means: Values = _sum_clusters(values, clusters) / np.bincount(clusters)[:, None]
    return means


def _signs(count: int, resamples: int, seed: int) -> Iterator[Values]:
    """Draw coins [n, count] of -1 and 1, a bounded number at a time."""
    rng = np.random.default_rng(seed)
    step = max(1, CHUNK // count)
    for start in range(0, resamples, step):
        yield rng.choice(np.array([-1.0, 1.0]), (min(step, resamples - start), count))


def holm(values: Sequence[float]) -> list[float]:
    """Correct the p-values of several comparisons for the chance of any false positive (Holm, 1979).

    The smallest of m is multiplied by m, the next by m - 1, and so on; none becomes smaller than one before it.
    """
    order = sorted(range(len(values)), key=lambda i: values[i])
    corrected, worst = [0.0] * len(values), 0.0
    for smaller, i in enumerate(order):
        worst = max(worst, min(1.0, (len(values) - smaller) * values[i]))
        corrected[i] = worst
    return corrected


def sign_test(wins: int, losses: int) -> float:
    """Return p of the two-sided exact binomial test that wins and losses are equally likely; leave ties out."""
    count, extreme = wins + losses, min(wins, losses)
    tail = sum(math.comb(count, i) for i in range(extreme + 1))
    return min(1.0, 2 * tail / 2**count)


def share_interval(wins: int, losses: int, level: float = 0.95) -> tuple[float, float]:
    """Return the exact interval of wins / (wins + losses) (Clopper and Pearson, 1934); (0, 1) without either.

    It excludes 0.5 if and only if the sign test's p is below 1 - level.
    """
    tail = (1 - level) / 2
    return _least_share(wins, wins + losses, tail), 1 - _least_share(losses, wins + losses, tail)


def _least_share(wins: int, count: int, tail: float) -> float:
    """Return the share at which that many wins or more have the chance `tail`, by bisection."""
    low, high = 0.0, 1.0 if wins else 0.0
    while high - low > 1e-12:
        middle = (low + high) / 2
        low, high = (low, middle) if chance_of(wins, count, middle) > tail else (middle, high)
    return low


def chance_of(wins: int, count: int, share: float) -> float:
    """Return the chance of that many wins or more in `count` tries, each won with the chance `share` in (0, 1).

    The terms are summed as exponentials of logarithms: binomial coefficients of thousands of tries overflow a float.
    """
    ways = (math.lgamma(count + 1) - math.lgamma(i + 1) - math.lgamma(count - i + 1) for i in range(wins, count + 1))
    win, lose = math.log(share), math.log1p(-share)
    return math.fsum(math.exp(log_ways + i * win + (count - i) * lose) for i, log_ways in enumerate(ways, wins))


def labels(names: Sequence[str]) -> Labels | None:
    """Number the clusters of queries 0..C-1; each "" is a cluster by itself. None where no query names one."""
    if not any(names):
        return None
    keys = [(name, None) if name else ("", i) for i, name in enumerate(names)]
    label_of = {key: i for i, key in enumerate(dict.fromkeys(keys))}
    return np.array([label_of[key] for key in keys])
