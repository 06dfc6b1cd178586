"""Fusion: a query's feature is the weighted sum of unit features, its reference's and its branches', normalised."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import normalize

from cig.errors import MismatchError, UsageError
from cig.io.feature_cache import FeatureCache
from cig.retrieval.features import PictureFeatures, embed_queries, no_query, same_pictures
from cig.types import Benchmark, Branch, Method, Query

PSEUDO_TARGET = "pseudo-target"  # the published recipe's only branch
REFERENCE = "reference"  # the name of what is left of 1


@dataclass(frozen=True)
class Rows:
    """Features of some of the queries."""

    of: Tensor  # [R] int64: which
    features: Tensor  # [R, d] unit rows


@dataclass(frozen=True)
class Embedded:
    """Queries by their reference and by each branch, not yet fused: any weights can be tried without a model."""

    queries: tuple[Query, ...]  # [Q] those that can run
    reference: Tensor  # [Q, d] unit rows
    branches: Mapping[str, Rows]  # by name; a query without a picture for it has no row there
    missing: Mapping[str, str]  # query id -> why its reference has no feature

    def fused(self, weights: Mapping[str, float]) -> Tensor:
        """[Q, d] unit rows at these weights of branches; the others are left out."""
        return fuse(self.reference, [(self.branches[name], weight) for name, weight in weights.items()])

    def lacking(self, names: Iterable[str]) -> dict[str, list[str]]:
        """Branch -> ids of the queries that have a reference, and no picture for it."""
        has = {name: set(self.branches[name].of.tolist()) for name in names}
        whole = [(row, query.id) for row, query in enumerate(self.queries) if query.id not in self.missing]
        return {name: [query for row, query in whole if row not in own] for name, own in has.items()}


def pseudo_target_branch(benchmark: Benchmark, targets: Mapping[str, Path], weight: float | None = None) -> Branch:
    """The published recipe (CIG, section 3).

    Args:
        weight: the reference's share; by default the benchmark's published one.
    """
    share = benchmark.weight if weight is None else weight
    return Branch(PSEUDO_TARGET, {query: (path,) for query, path in targets.items()}, 1 - share)


def check_names(names: Sequence[str]) -> None:
    """Raises UsageError where two branches, or one and the reference, bear one name."""
    twice = [name for name in [REFERENCE, *names] if [REFERENCE, *names].count(name) > 1]
    if twice:
        raise UsageError(f'two branches are called "{twice[0]}"; give one of them another name')


def reference_share(weights: Sequence[float]) -> float:
    """What is left of 1; raises UsageError where nothing can be."""
    share = round(1 - sum(weights), 12)  # 1 - (1 - 0.85) is 0.85 again
    if not all(0 <= weight <= 1 for weight in weights) or share < 0:
        told = " + ".join(f"{weight:g}" for weight in weights)
        raise UsageError(
            f"branches weigh {told}: each from 0 to 1, all together 1 at most; the rest is the reference's"
        )
    return share


def embed(
    benchmark: Benchmark,
    method: Method,
    branches: Sequence[Branch],
    pictures: PictureFeatures,
    allow_missing: bool = False,
    cache: FeatureCache | None = None,
) -> Embedded:
    """Every query by its reference and by each branch; with allow_missing, by its caption where the reference lacks."""
    cache = cache or FeatureCache()
    check_names([branch.name for branch in branches])
    missing = missing_references(benchmark, pictures) if method.uses_picture else {}
    able = [query for query in benchmark.queries if allow_missing or query.id not in missing]
    seen = [method.uses_picture and query.id not in missing for query in able]
    references = [benchmark.images[query.reference] if own else None for query, own in zip(able, seen, strict=True)]
    features = embed_queries(method, able, references, pictures, cache)
    whole = torch.tensor([row for row, query in enumerate(able) if query.id not in missing], dtype=torch.long)
    asked = [able[row] for row in whole.tolist()]  # what lacks its reference is searched by its caption alone
    own = {branch.name: _by_branch(branch, method, asked, pictures, cache) for branch in branches}
    rows = {name: Rows(whole[found.of], found.features) for name, found in own.items()}
    return Embedded(tuple(able), features, rows, missing)


def missing_references(benchmark: Benchmark, pictures: PictureFeatures) -> dict[str, str]:
    """Query id -> why its reference has no feature."""
    missing = {}
    for query in benchmark.queries:
        path = benchmark.images.get(query.reference)
        if path is None:
            missing[query.id] = f"no picture for the reference {query.reference}"
        elif path in pictures.failed or path in pictures.no_query:
            missing[query.id] = pictures.failed.get(path) or pictures.no_query[path]
    return missing


def _by_branch(
    branch: Branch, searcher: Method, queries: Sequence[Query], pictures: PictureFeatures, cache: FeatureCache
) -> Rows:
    """Each query's unit feature, the mean over its pictures; by the caption alone where the method looks at none."""
    method = branch.method or searcher
    if not same_pictures(method, searcher):
        raise MismatchError(
            f"branch {branch.name}: {method.name} does not share the picture features of {searcher.name}, so one "
            f"gallery cannot serve both; give them the same CLIP and preprocessing"
        )
    shown = [query if branch.caption else replace(query, captions=()) for query in queries]
    if not method.uses_picture:
        return Rows(torch.arange(len(shown)), embed_queries(method, shown, [None] * len(shown), pictures, cache))
    pairs = [(row, path) for row, query in enumerate(queries) for path in branch.pictures.get(query.id, ())]
    refused = no_query(method, [path for _, path in pairs])
    pairs = [(row, path) for row, path in pairs if pictures.have(path) and path not in refused]
    features = embed_queries(method, [shown[row] for row, _ in pairs], [path for _, path in pairs], pictures, cache)
    rows, place = torch.tensor([row for row, _ in pairs], dtype=torch.long).unique(return_inverse=True)
    if not pairs:
        return Rows(rows, torch.empty(0, pictures.features.shape[-1]))
    sums = torch.zeros(len(rows), features.shape[-1]).index_add_(0, place, features)
    return Rows(rows, normalize(sums, dim=-1))


def fuse(reference: Tensor, branches: Sequence[tuple[Rows, float]]) -> Tensor:
    """normalise(w0 * reference + w1 * branch 1 + ...), unit rows [Q, d], with w0 = 1 - w1 - ...

    A query that lacks a branch drops it: the others keep their proportions. One that lacks all that have a weight is
    searched by its reference alone.
    """
    share = reference_share([weight for _, weight in branches])
    fused, given = share * reference, torch.full((len(reference), 1), share)
    for rows, weight in branches:
        if not len(rows.of):  # of no query, so that there need be no feature whose width is known
            continue
        fused[rows.of] += weight * rows.features
        given[rows.of] += weight
    return normalize(torch.where(given > 0, fused, reference), dim=-1)
