"""Statistics over queries, as pure functions of numpy arrays. Nothing of ours is imported here.

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
    values: Values, clusters: Labels | None = None, resamples: int = 2000, seed: int | np.random.Generator = 0
) -> Values:
    """Means [resamples, M] of queries drawn with replacement from values [Q, M] (Efron, 1979).

    Args:
        clusters: [Q] labels 0..C-1; whole clusters are drawn, and the mean is over the queries that they hold.
        seed: for several strata one generator, from 0, so that their draws have nothing to do with each other.
    """
    rng = np.random.default_rng(seed)
    if clusters is None:
        count = len(values)
        draws = rng.multinomial(count, np.full(count, 1 / count), size=resamples)
        means: Values = draws @ values / count
        return means
    sizes = np.bincount(clusters).astype(float)
    draws = rng.multinomial(len(sizes), np.full(len(sizes), 1 / len(sizes)), size=resamples)
    weighted: Values = draws @ _sums(values, clusters) / (draws @ sizes)[:, None]
    return weighted


def interval(means: Values, level: float = 0.95) -> tuple[float, float]:
    """The percentile interval of resampled means [resamples]."""
    low, high = np.percentile(means, [50 * (1 - level), 50 * (1 + level)])
    return float(low), float(high)


def paired_p(
    differences: Sequence[Values],
    clusters: Sequence[Labels | None] | None = None,
    resamples: int = 10_000,
    seed: int = 0,
) -> float:
    """Two-sided paired randomisation test of no difference (Fisher; for retrieval Smucker et al., CIKM 2007).

    Under the null either system could have been the other, so the sign of each query's difference (of a cluster's, as
    a whole) is flipped by a coin. p = (1 + flips at least as far from 0) / (1 + flips). Of few clusters all flips are
    tried.

    Args:
        differences: [Q] a stratum (FashionIQ: a category); the statistic is the mean of their means.
        clusters: [Q] labels 0..C-1 a stratum, or None.
    """
    labels = clusters or [None] * len(differences)
    terms = np.concatenate([_terms(own, which) for own, which in zip(differences, labels, strict=True)])
    terms = terms[terms != 0] / len(differences)  # a flip of nothing changes nothing
    seen = abs(terms.sum()) - 1e-12 * np.abs(terms).sum()  # sums of the same terms in another order are equal
    if 2 ** len(terms) <= resamples:
        flips = np.array(list(itertools.product((-1, 1), repeat=len(terms)))).reshape(2 ** len(terms), len(terms))
        return float((np.abs(flips @ terms) >= seen).mean())
    far = sum(int((np.abs(signs @ terms) >= seen).sum()) for signs in _signs(len(terms), resamples, seed))
    return (1 + far) / (1 + resamples)


def _terms(differences: Values, clusters: Labels | None) -> Values:
    """What each cluster adds to the mean."""
    own = differences if clusters is None else _sums(differences[:, None], clusters)[:, 0]
    return own / len(differences)


def _sums(values: Values, clusters: Labels) -> Values:
    """[C, M]: values [Q, M] summed within each cluster."""
    sums = np.zeros((int(clusters.max()) + 1, values.shape[1]))
    np.add.at(sums, clusters, values)
    return sums


def _signs(count: int, resamples: int, seed: int) -> Iterator[Values]:
    """Coins [n, count] of -1 and 1, a bounded number at a time."""
    rng = np.random.default_rng(seed)
    step = max(1, CHUNK // count)
    for start in range(0, resamples, step):
        yield rng.choice(np.array([-1.0, 1.0]), (min(step, resamples - start), count))


def holm(values: Sequence[float]) -> list[float]:
    """p-values of several comparisons, corrected so that the chance of any false one stays (Holm, 1979)."""
    order = sorted(range(len(values)), key=lambda i: values[i])
    corrected, worst = [0.0] * len(values), 0.0
    for place, i in enumerate(order):
        worst = max(worst, min(1.0, (len(values) - place) * values[i]))
        corrected[i] = worst
    return corrected


def sign_test(wins: int, losses: int) -> float:
    """Two-sided exact binomial test that wins and losses are equally likely; ties are left out beforehand."""
    count, extreme = wins + losses, min(wins, losses)
    tail = sum(math.comb(count, i) for i in range(extreme + 1))
    return min(1.0, 2 * tail / 2**count)


def share_interval(wins: int, losses: int, level: float = 0.95) -> tuple[float, float]:
    """The exact interval of wins / (wins + losses) (Clopper and Pearson, 1934): it leaves 0.5 out where the sign test's
    p is below 1 - level, and only there. (0, 1) without either."""
    tail = (1 - level) / 2
    return _least_share(wins, wins + losses, tail), 1 - _least_share(losses, wins + losses, tail)


def _least_share(wins: int, count: int, tail: float) -> float:
    """The share of wins at which that many or more have the chance `tail`, by halving."""
    low, high = 0.0, 1.0 if wins else 0.0
    while high - low > 1e-12:
        middle = (low + high) / 2
        low, high = (low, middle) if chance_of(wins, count, middle) > tail else (middle, high)
    return low


def chance_of(wins: int, count: int, share: float) -> float:
    """Of that many wins or more in `count` tries that are each won with the chance `share`, above 0 and below 1."""
    ways = (math.lgamma(count + 1) - math.lgamma(i + 1) - math.lgamma(count - i + 1) for i in range(wins, count + 1))
    win, lose = math.log(share), math.log1p(-share)
    return math.fsum(math.exp(own + i * win + (count - i) * lose) for i, own in enumerate(ways, wins))


def labels(names: Sequence[str]) -> Labels | None:
    """Cluster names of queries -> labels 0..C-1; "" is a cluster of its own. None where nobody names one."""
    if not any(names):
        return None
    keys = [(name, None) if name else ("", i) for i, name in enumerate(names)]
    place = {key: i for i, key in enumerate(dict.fromkeys(keys))}
    return np.array([place[key] for key in keys])
