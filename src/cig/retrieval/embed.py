"""Queries embedded by their reference and by each branch, before any weight is chosen."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import normalize

from cig.errors import MismatchError
from cig.io.feature_cache import FeatureCache
from cig.retrieval.features import PictureFeatures, embed_queries, no_query, same_pictures
from cig.retrieval.fusion import BranchFeatures, fuse, mix_scores
from cig.retrieval.fusion_weight import check_names
from cig.types import Benchmark, Branch, Method, Query

Scorer = Callable[[Tensor, Tensor], Tensor]  # rows of queries [Q, e], unit rows of a gallery [N, d] -> [Q, N]


@dataclass(frozen=True)
class EmbeddedQueries:
    """Queries by their reference and by each branch, not yet fused: any weights can be tried without a model."""

    queries: tuple[Query, ...]  # [Q] those that can run
    reference: Tensor  # [Q, d] unit rows
    branches: Mapping[str, BranchFeatures]  # by name; a query without a picture for it has no row there
    missing: Mapping[str, str]  # query id -> why its reference has no feature
    unused: Mapping[str, Mapping[str, str]] = field(
        default_factory=dict
    )  # branch -> query id -> why its picture is not
    without_text: bool = False  # the missing ones have no text, rather than no reference
    scorers: Mapping[str, Scorer] = field(default_factory=dict)  # branch, or "" for the reference -> how it scores

    def fused(self, branch_weights: Mapping[str, float]) -> Tensor:
        """Return unit rows [Q, d] at these weights of branches; branches that are not named are left out."""
        return fuse(self.reference, [(self.branches[name], weight) for name, weight in branch_weights.items()])

    def scores(self, rows: Sequence[int], gallery: Tensor, branch_weights: Mapping[str, float]) -> Tensor:
        """Return the scores [B, N] of some queries over a gallery's unit rows [N, d], at these weights.

        Where every method scores by cosine similarity, features are fused; else each branch's scores are mixed.
        """
        if not self.scorers.keys() & {"", *branch_weights}:
            return self.fused(branch_weights)[rows] @ gallery.T
        reference = self._score("", self.reference[rows], gallery)
        if not branch_weights:
            return reference
        slot_of, mixed = {row: slot for slot, row in enumerate(rows)}, []
        for name, weight in branch_weights.items():
            branch = self.branches[name]
            chosen = {i: slot_of[row] for i, row in enumerate(branch.queries.tolist()) if row in slot_of}
            if chosen:
                scores = self._score(name, branch.features[[*chosen]], gallery)
                mixed.append((torch.tensor([*chosen.values()]), scores, weight))
        return mix_scores(reference, mixed)

    def _score(self, name: str, features: Tensor, gallery: Tensor) -> Tensor:
        score = self.scorers.get(name)
        return score(features, gallery) if score else features @ gallery.T

    def lacking(self, names: Iterable[str]) -> dict[str, list[str]]:
        """Return branch -> ids of the queries that have a reference, and no picture for that branch."""
        rows = {name: set(self.branches[name].queries.tolist()) for name in names}
        whole = [(row, query.id) for row, query in enumerate(self.queries) if query.id not in self.missing]
        return {name: [query for row, query in whole if row not in present] for name, present in rows.items()}


def embed(
    benchmark: Benchmark,
    method: Method,
    branches: Sequence[Branch],
    *,
    pictures: PictureFeatures,
    allow_missing: bool = False,
    cache: FeatureCache | None = None,
) -> EmbeddedQueries:
    """Embed every query by its reference and by each branch.

    Args:
        allow_missing: embed a query that lacks its reference by its caption alone, instead of leaving it out.
    """
    cache = cache or FeatureCache()
    methods = {"": method, **{branch.name: branch.method or method for branch in branches}}
    scorers = {name: score for name, one in methods.items() if (score := getattr(one, "score", None))}
    check_names([branch.name for branch in branches])
    missing = (
        missing_references(benchmark, pictures) if method.uses_picture else _without_text(method, benchmark.queries)
    )
    allowed = allow_missing and method.uses_picture
    able = [query for query in benchmark.queries if allowed or query.id not in missing]
    references = [
        benchmark.images[query.reference] if method.uses_picture and query.id not in missing else None for query in able
    ]
    features = embed_queries(method, able, references, pictures=pictures, cache=cache)
    # A query that lacks its reference gets no branches, either: it is searched by its caption alone.
    whole = torch.tensor([row for row, query in enumerate(able) if query.id not in missing], dtype=torch.long)
    queries, embedded, unused = [able[row] for row in whole.tolist()], {}, {}
    for branch in branches:
        why = unused_pictures(benchmark, branch.method or method, branch, pictures=pictures)
        rows = _embed_branch(branch, method, queries, benchmark=benchmark, unused=why, pictures=pictures, cache=cache)
        embedded[branch.name] = BranchFeatures(whole[rows.queries], rows.features)
        unused[branch.name] = {
            query.id: why[paths[0]]
            for query in queries
            if (paths := branch.pictures.get(query.id)) and all(path in why for path in paths)
        }
    return EmbeddedQueries(
        tuple(able),
        reference=features,
        branches=embedded,
        missing=missing,
        unused=unused,
        without_text=bool(missing) and not method.uses_picture,
        scorers=scorers,
    )


def _without_text(method: Method, queries: Sequence[Query]) -> dict[str, str]:
    no_text = getattr(method, "no_text", None)
    return no_text(queries) if no_text else {}


def missing_references(benchmark: Benchmark, pictures: PictureFeatures) -> dict[str, str]:
    """Return query id -> why its reference has no feature."""
    missing = {}
    for query in benchmark.queries:
        path = benchmark.images.get(query.reference)
        if path is None:
            missing[query.id] = benchmark.why_missing(query.reference)
        elif path in pictures.failed or path in pictures.no_query:
            missing[query.id] = pictures.failed.get(path) or pictures.no_query[path]
    return missing


def unused_pictures(
    benchmark: Benchmark, method: Method, branch: Branch, *, pictures: PictureFeatures
) -> dict[Path, str]:
    """Return a branch's pictures that no query can be made of, and why."""
    paths = list(dict.fromkeys(path for several in branch.pictures.values() for path in several))
    unused = {path: pictures.failed.get(path, "no feature") for path in paths if not pictures.have(path)}
    unused |= no_query(method, paths)
    # What a file stores by name, a caption or a word, is of the gallery's pictures: a pseudo-target whose query is
    # called like one of them must not take it.
    if no_entry := getattr(method, "no_entry", None):
        gallery = [*benchmark.images.values(), *map(Path, benchmark.missing_images)]
        unused |= no_entry(set(paths) - set(gallery), gallery)
    return unused


def _embed_branch(
    branch: Branch,
    searcher: Method,
    queries: Sequence[Query],
    *,
    benchmark: Benchmark,
    unused: Mapping[Path, str],
    pictures: PictureFeatures,
    cache: FeatureCache,
) -> BranchFeatures:
    """Embed each query by a branch: the mean over its pictures, or the caption alone for a method without pictures."""
    method = branch.method or searcher
    if not same_pictures(method, searcher):
        raise MismatchError(
            f"branch {branch.name}: {method.name} does not share the picture features of {searcher.name}, so one "
            f"gallery cannot serve both; give them the same CLIP and preprocessing"
        )
    captioned = [query if branch.caption else replace(query, captions=()) for query in queries]
    if not method.uses_picture:
        lacking = _without_text(method, captioned)
        rows = [row for row, query in enumerate(captioned) if query.id not in lacking]
        if not rows:
            return BranchFeatures(torch.tensor(rows, dtype=torch.long), torch.empty(0, pictures.features.shape[-1]))
        texts = [captioned[row] for row in rows]
        features = embed_queries(method, texts, [None] * len(texts), pictures=pictures, cache=cache)
        return BranchFeatures(torch.tensor(rows), features)
    pairs = [(row, path) for row, query in enumerate(queries) for path in branch.pictures.get(query.id, ())]
    pairs = [(row, path) for row, path in pairs if path not in unused]
    requests = [
        captioned[row]
        if benchmark.images.get(queries[row].reference) == path
        else replace(captioned[row], reference="")
        for row, path in pairs
    ]
    paths = [path for _, path in pairs]
    features = embed_queries(method, requests, paths, pictures=pictures, cache=cache)
    rows, slots = torch.tensor([row for row, _ in pairs], dtype=torch.long).unique(return_inverse=True)
    if not pairs:
        return BranchFeatures(rows, torch.empty(0, pictures.features.shape[-1]))
    sums = torch.zeros(len(rows), features.shape[-1]).index_add_(0, slots, features)
    return BranchFeatures(rows, normalize(sums, dim=-1))
