"""Searching: each distinct picture is encoded once, queries are composed and fused, the gallery is ranked exactly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import normalize

from cig.cache import FeatureCache
from cig.features import PictureFeatures, embed_pictures, embed_queries
from cig.runtime import batches
from cig.types import TARGET, Benchmark, Gallery, Method, Query, Ranking

TOP = 50  # what submissions hold and measures need
QUERY_BATCH = 256


def wanted_pictures(
    benchmark: Benchmark, method: Method, pseudo_targets: Mapping[str, Path] | None = None
) -> list[Path]:
    """What a search will look at: the gallery, and, if the method looks at pictures, references and pseudo-targets."""
    references = [query.reference for query in benchmark.queries] if method.uses_picture else []
    names = dict.fromkeys((*benchmark.gallery, *references))
    found = [benchmark.images[name] for name in names if name in benchmark.images]
    return found + list((pseudo_targets or {}).values())


def search(
    benchmark: Benchmark,
    method: Method,
    pseudo_targets: Mapping[str, Path] | None = None,
    weight: float | None = None,
    pictures: PictureFeatures | None = None,
    allow_missing: bool = False,
    cache: FeatureCache | None = None,
) -> Ranking:
    """The whole third stage for one benchmark: embed, fuse, rank.

    Args:
        pseudo_targets: query id -> picture; None searches with the reference alone.
        weight: the reference's share; by default the benchmark's published one.
        pictures: features that are at hand; by default they are computed here.
        allow_missing: queries without a reference are ranked by their caption alone.
        cache: features of pictures and queries that are at hand, and where new ones go.
    """
    pseudo_targets = pseudo_targets if method.uses_picture else None
    cache = cache or FeatureCache()
    if pictures is None:
        pictures = embed_pictures(method, wanted_pictures(benchmark, method, pseudo_targets), cache=cache)
    missing = missing_references(benchmark, pictures) if method.uses_picture else {}
    able = [query for query in benchmark.queries if query.id not in missing]
    references = [benchmark.images[query.reference] for query in able] if method.uses_picture else [None] * len(able)
    features = embed_queries(method, able, references, pictures, cache)
    if pseudo_targets is not None:
        weight = benchmark.weight if weight is None else weight
        features = fuse(features, _pseudo_features(method, able, pseudo_targets, pictures, cache), weight)
    if allow_missing and missing:
        by_text = [query for query in benchmark.queries if query.id in missing]
        text = embed_queries(method, by_text, [None] * len(by_text), pictures, cache)
        able, features = _merge(benchmark, able, features, by_text, text)
    notes = _notes(benchmark, able, pseudo_targets, pictures)
    return rank(benchmark, able, features, index(benchmark, pictures), missing, notes)


def missing_references(benchmark: Benchmark, pictures: PictureFeatures) -> dict[str, str]:
    """Query id -> why its reference has no feature."""
    missing = {}
    for query in benchmark.queries:
        path = benchmark.images.get(query.reference)
        if not pictures.have(path):
            missing[query.id] = pictures.failed[path] if path else f"no picture for the reference {query.reference}"
    return missing


def _pseudo_features(
    method: Method,
    queries: Sequence[Query],
    targets: Mapping[str, Path],
    pictures: PictureFeatures,
    cache: FeatureCache,
) -> dict[int, Tensor]:
    """Row -> the unit feature [d] by the pseudo-target, with the same method and the same captions."""
    rows = [i for i, query in enumerate(queries) if pictures.have(targets.get(query.id))]
    own = [queries[i] for i in rows]
    features = embed_queries(method, own, [targets[query.id] for query in own], pictures, cache)
    return dict(zip(rows, features, strict=True))


def fuse(reference: Tensor, pseudo: Mapping[int, Tensor], weight: float) -> Tensor:
    """normalise(w * reference + (1 - w) * pseudo-target), unit rows; a query without the latter keeps the former."""
    fused = reference.clone()
    for row, feature in pseudo.items():
        fused[row] = weight * reference[row] + (1 - weight) * feature
    return normalize(fused, dim=-1)


def index(benchmark: Benchmark, pictures: PictureFeatures) -> Gallery:
    """The gallery's pictures that have a feature, in the gallery's order."""
    names = tuple(name for name in benchmark.gallery if pictures.have(benchmark.images.get(name)))
    features = pictures.of([benchmark.images[name] for name in names])
    return Gallery(names, normalize(features, dim=-1))


def rank(
    benchmark: Benchmark,
    queries: Sequence[Query],
    features: Tensor,
    gallery: Gallery,
    missing: Mapping[str, str] | None = None,
    notes: Mapping[str, object] | None = None,
) -> Ranking:
    """The first 50 of the gallery and the whole of each query's own set; ties in gallery order.

    Args:
        queries: those that could run, one for each row of features [Q, d]; the benchmark's others get empty rows.
    """
    place = {name: column for column, name in enumerate(gallery.ids)}
    found: dict[str, tuple] = {}
    for start, chunk in zip(range(0, len(queries), QUERY_BATCH), batches(queries, QUERY_BATCH), strict=True):
        scores = features[start : start + len(chunk)] @ gallery.features.T
        _drop_references(scores, chunk, place, benchmark.drop_reference)
        best, columns = top_k(scores, TOP)
        for query, row, values, own in zip(chunk, columns.tolist(), best.tolist(), scores, strict=True):
            kept = [(gallery.ids[c], v) for c, v in zip(row, values, strict=True) if v != -torch.inf]
            first = tuple(name for name, _ in kept), tuple(value for _, value in kept)
            found[query.id] = (*first, _own_set(query, own, place), _target_rank(query, own, place))
    rows = [found.get(query.id, ((), (), (), None)) for query in benchmark.queries]
    ids, scores_, subset, ranks = zip(*rows, strict=True) if rows else ((), (), (), ())
    order = tuple(query.id for query in benchmark.queries)
    return Ranking(order, ids, scores_, subset, ranks, dict(missing or {}), dict(notes or {}))


def _drop_references(scores: Tensor, queries: Sequence[Query], place: Mapping[str, int], drop: bool) -> None:
    for row, query in enumerate(queries):
        if drop and query.reference in place:
            scores[row, place[query.reference]] = -torch.inf


def _own_set(query: Query, scores: Tensor, place: Mapping[str, int]) -> tuple[str, ...]:
    members = [name for name in dict.fromkeys(query.subset) if name in place and name != query.reference]
    return tuple(sorted(members, key=lambda name: (-scores[place[name]].item(), place[name])))


def _target_rank(query: Query, scores: Tensor, place: Mapping[str, int]) -> int | None:
    """Of the annotated target, from 1, equal scores in gallery order; None where it is hidden or not in the gallery."""
    columns = [place[name] for name, grade in query.relevant.items() if grade == TARGET and name in place]
    ahead = [int((scores > scores[c]).sum() + (scores[:c] == scores[c]).sum()) for c in columns]
    return min(ahead) + 1 if ahead else None


def top_k(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k highest of each row, equal scores in column order: (values, columns), each [Q, min(k, N)].

    A partial selection; only rows whose k-th value is shared past the cut are looked at again.
    """
    k = min(k, scores.shape[1])
    if not k:
        return scores[:, :0], torch.empty(len(scores), 0, dtype=torch.long)
    values, columns = scores.topk(k, dim=1)
    columns, order = columns.sort(dim=1)
    values, again = values.gather(1, order).sort(dim=1, descending=True, stable=True)
    columns = columns.gather(1, again)
    last = values[:, -1:]
    for row in ((scores >= last).sum(1) > k).nonzero().flatten().tolist():
        tied = (scores[row] == last[row]).nonzero().flatten()
        above = int((values[row] > last[row]).sum())
        columns[row, above:] = tied[: k - above]
    return values, columns


def _merge(
    benchmark: Benchmark, able: Sequence[Query], features: Tensor, by_text: Sequence[Query], text: Tensor
) -> tuple[list[Query], Tensor]:
    """Queries with a feature of their own and queries by text alone, in the benchmark's order."""
    rows = dict(zip((query.id for query in able), features, strict=True))
    rows |= dict(zip((query.id for query in by_text), text, strict=True))
    return list(benchmark.queries), torch.stack([rows[query.id] for query in benchmark.queries])


def _notes(
    benchmark: Benchmark, queries: Sequence[Query], targets: Mapping[str, Path] | None, pictures: PictureFeatures
) -> dict[str, object]:
    """Names of pictures that could not be read, and queries whose pseudo-target is missing."""
    unreadable = [name for name, path in benchmark.images.items() if path in pictures.failed]
    lacking = [] if targets is None else [query.id for query in queries if not pictures.have(targets.get(query.id))]
    return {"unreadable": unreadable, "pseudo_targets": lacking}
