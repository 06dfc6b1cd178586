"""Searching: each distinct picture is encoded once, queries are composed and fused, the gallery is ranked exactly."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import normalize

from cig.io.feature_cache import FeatureCache
from cig.retrieval.features import PictureFeatures, embed_pictures
from cig.retrieval.fusion import Embedded, embed, pseudo_target_branch
from cig.runtime import batches
from cig.types import TARGET, Benchmark, Branch, Gallery, Method, Query, Ranking

TOP = 50  # what submissions hold and measures need
QUERY_BATCH = 256


def wanted_pictures(benchmark: Benchmark, method: Method, branches: Iterable[Branch] = ()) -> list[Path]:
    """What a search will look at: the gallery, references if the method looks at pictures, and those of branches."""
    references = [query.reference for query in benchmark.queries] if method.uses_picture else []
    names = dict.fromkeys((*benchmark.gallery, *references))
    found = [benchmark.images[name] for name in names if name in benchmark.images]
    own = {query.id for query in benchmark.queries}
    shown = [paths for branch in branches for query, paths in branch.pictures.items() if query in own]
    return found + [path for paths in shown for path in paths]


def seen_by(method: Method, benchmark: Benchmark) -> Benchmark:
    """The benchmark with pictures that have no file, but whose features the method knows by name."""
    look_up = getattr(method, "look_up", None)
    if not look_up:
        return benchmark
    paths = {name: Path(name) for name in benchmark.missing_images}
    known = look_up(list(paths.values()))
    return replace(benchmark, images={**benchmark.images, **{name: own for name, own in paths.items() if own in known}})


def search(
    benchmark: Benchmark,
    method: Method,
    pseudo_targets: Mapping[str, Path] | None = None,
    weight: float | None = None,
    branches: Sequence[Branch] = (),
    pictures: PictureFeatures | None = None,
    allow_missing: bool = False,
    cache: FeatureCache | None = None,
) -> Ranking:
    """The whole third stage for one benchmark: embed, fuse, rank.

    Args:
        pseudo_targets: query id -> picture, the published recipe: the branch that the method makes of them.
        weight: the reference's share in it; by default the benchmark's published one.
        branches: any others; without any, the reference searches alone.
        pictures: features that are at hand; by default they are computed here.
        allow_missing: queries without a reference are ranked by their caption alone.
        cache: features of pictures and queries that are at hand, and where new ones go.

    Raises:
        UsageError: weights that do not sum to 1 at most, or branches of one name.
        MismatchError: a branch's method whose picture features are not those of the gallery.
    """
    cache, benchmark = cache or FeatureCache(), seen_by(method, benchmark)
    if pseudo_targets is not None and method.uses_picture:
        branches = [pseudo_target_branch(benchmark, pseudo_targets, weight), *branches]
    if pictures is None:
        pictures = embed_pictures(method, wanted_pictures(benchmark, method, branches), cache=cache)
    embedded = embed(benchmark, method, branches, pictures, allow_missing, cache)
    return rank_embedded(benchmark, embedded, pictures, {branch.name: branch.weight for branch in branches})


def rank_embedded(
    benchmark: Benchmark,
    embedded: Embedded,
    pictures: PictureFeatures,
    weights: Mapping[str, float],
    gallery: Gallery | None = None,
) -> Ranking:
    """The gallery (indexed here, unless it is at hand), ranked by the queries at these weights of their branches."""
    unreadable = [name for name, path in benchmark.images.items() if path in pictures.failed]
    notes = {"unreadable": unreadable, "branches": embedded.lacking(weights)}
    features = embedded.fused(weights)
    gallery = gallery or index(benchmark, pictures)
    return rank(benchmark, embedded.queries, features, gallery, embedded.missing, notes)


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
        asked = features[start : start + len(chunk)]
        scores = asked @ gallery.features.T if gallery.ids else asked.new_empty(len(chunk), 0)
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
