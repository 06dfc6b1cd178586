"""Searching: each distinct picture is encoded once, queries are composed and fused, the gallery is ranked exactly."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from cig.cache import FeatureCache
from cig.formats import digest, set_digest
from cig.images import read_batches
from cig.runtime import batches, progress, versions
from cig.types import TARGET, Benchmark, Gallery, Method, Query, Ranking

TOP = 50  # what submissions hold and measures need
QUERY_BATCH = 256


@dataclass(frozen=True)
class PictureFeatures:
    """Features of distinct pictures by one method."""

    rows: Mapping[Path, int]
    features: Tensor  # [N, d] float32, projected, not normalised
    failed: Mapping[Path, str]  # path -> why it has no feature
    digests: Mapping[Path, str]  # path -> sha256 of the file

    def of(self, paths: Sequence[Path]) -> Tensor:
        """[len(paths), d]"""
        return self.features[[self.rows[path] for path in paths]]

    def have(self, path: Path | None) -> bool:
        return path in self.rows

    def digest(self, paths: Iterable[Path] | None = None) -> str:
        """Of these pictures, by default of all: two runs with the same digest saw the same."""
        return set_digest(self.digests[path] for path in paths or self.digests if path in self.digests)


def embed_pictures(
    method: Method, paths: Iterable[Path], batch_size: int = 32, workers: int = 4, cache: FeatureCache | None = None
) -> PictureFeatures:
    """Every distinct path is decoded once and encoded once; one whose feature is in the cache, not at all."""
    distinct = list(dict.fromkeys(paths))
    cache = cache or FeatureCache()
    space = cache.space(_picture_space(method), f"pictures, {_sources(method)}")
    digests = cache.digests(distinct)
    stored = dict(cache.read(space, digests.values()))
    rows = {path: stored[name] for path, name in digests.items() if name in stored}
    digests = {path: name for path, name in digests.items() if path in rows}
    todo = [path for path in distinct if path not in rows]
    failed: dict[Path, str] = {}
    read = read_batches(todo, [method.preprocess], batch_size, workers)
    for batch in progress(read, -(-len(todo) // batch_size), "pictures", "batch"):
        failed |= batch.failed
        if batch.paths:
            features = method.embed_images(batch.pixels[0]).numpy()
            rows |= dict(zip(batch.paths, features, strict=True))
            own = dict(zip(batch.paths, batch.digests, strict=True))
            digests |= own
            if cache.path:
                cache.write(space, dict(zip(batch.digests, features, strict=True)))
                cache.remember(own)
    table = torch.from_numpy(np.stack(list(rows.values()))) if rows else torch.empty(0, 0)
    return PictureFeatures({path: row for row, path in enumerate(rows)}, table, failed, digests)


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


def embed_queries(
    method: Method,
    queries: Sequence[Query],
    paths: Sequence[Path | None],
    pictures: PictureFeatures,
    cache: FeatureCache,
) -> Tensor:
    """[Q, d] unit rows, each by its captions with the picture at its path, or by its captions alone for None.

    What is in the cache is not encoded again: a query is known by its picture's content and its captions.
    """
    keys = [
        _query_key(pictures.digests[path] if path else "", query) for path, query in zip(paths, queries, strict=True)
    ]
    space = cache.space(_query_space(method), f"queries of {method.name}, {_sources(method)}")
    stored = dict(cache.read(space, keys))
    todo = list({key: i for i, key in enumerate(keys) if key not in stored}.items())
    for with_picture in (True, False):
        mine = [(key, i) for key, i in todo if bool(paths[i]) == with_picture]
        for chunk in batches(mine, QUERY_BATCH):
            captions = [queries[i].captions for _, i in chunk]
            if with_picture:
                images = pictures.of([path for _, i in chunk if (path := paths[i])])
                features = method.embed_queries(images, captions)
            else:
                features = method.embed_captions(captions)
            fresh = dict(zip((key for key, _ in chunk), features.numpy(), strict=True))
            cache.write(space, fresh)
            stored |= fresh
    return torch.from_numpy(np.stack([stored[key] for key in keys])) if keys else torch.empty(0, 0)


def _query_key(picture: str, query: Query) -> str:
    return digest(json.dumps([picture, query.captions]).encode())


def _picture_space(method: Method) -> dict[str, Any]:
    """What a picture's feature depends on, beside the picture."""
    model = getattr(method, "picture_model", method.identity)
    return {"pictures by": _content(model), "preprocessing": _stable(method.preprocess)}


def _query_space(method: Method) -> dict[str, Any]:
    about = {
        "queries by": method.name,
        "models": _content(method.identity),
        "preprocessing": _stable(method.preprocess),
    }
    return {**about, "cig": versions()["cig"]}


def _sources(method: Method) -> str:
    """The models' names and the preprocessing, for people."""
    models = (model["source"] for model in method.identity.values() if isinstance(model, Mapping))
    return f"{', '.join(map(str, models))}; {method.preprocess}"


def _stable(preprocess: Any) -> str:
    """Its text, unless that tells but an address: then no other run may share what it made."""
    text = repr(preprocess)
    return f"{text} {uuid.uuid4()}" if " at 0x" in text else text


def _content(model: Any) -> Any:
    """An identity without the places that its files lie in: weights that were moved are the same."""
    if not isinstance(model, Mapping):
        return model
    return {key: _content(value) for key, value in model.items() if key != "source" or "sha256" not in model}


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
