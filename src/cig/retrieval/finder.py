"""Composed search of an index: pictures, a text and an unwanted text -> the nearest pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize

from cig.errors import PictureError, UsageError
from cig.io.feature_cache import FeatureCache
from cig.retrieval.embed import Scorer
from cig.retrieval.features import embed_pictures, embed_queries
from cig.retrieval.filters import text_of
from cig.retrieval.fusion import fuse_pseudo_target
from cig.retrieval.index import Engine, Selection
from cig.retrieval.index._order import Candidate, first_groups, ranked
from cig.runtime import batches
from cig.types import Method, Query

WITHOUT = 0.3  # the share of the unwanted text's feature that is subtracted; ours, no paper's
REFERENCE_WEIGHT, SOURCE = 0.7, "as published for CIRCO test"  # the images' share beside a pseudo-target
ROWS = 500  # read at once, by a method that scores all of them
COPIES = 0.98  # the similarity of near-identical pictures; ours


@dataclass(frozen=True)
class ComposedQuery:
    """One search."""

    images: tuple[Path, ...] = ()
    text: str = ""
    without: str = ""  # what should not be in the picture
    without_weight: float = WITHOUT
    pseudo_target: Path | None = None  # imagined from the images and the text
    reference_weight: float = REFERENCE_WEIGHT  # the share of the images' feature; the pseudo-target has the rest


@dataclass(frozen=True)
class Wanted:
    """Which hits of a search are returned, and how many."""

    k: int = 10
    select: Selection = field(default_factory=Selection)
    group_by: str = ""  # a column of the metadata: only the nearest picture of each of its values
    min_score: float | None = None
    fold_copies: bool = False  # near-identical pictures stand behind the nearest of them


@dataclass(frozen=True)
class Found:
    """A hit, before anyone knows where its file is."""

    score: float  # cosine similarity, or the method's own score
    candidate: Candidate
    copies: tuple[str, ...] = ()  # names that stand behind it


NoEntry = Callable[[Sequence[Path], bool], Mapping[Path, str]]


def embed_composed(
    method: Method, queries: Sequence[ComposedQuery], cache: FeatureCache, *, no_entry: NoEntry = lambda *_: {}
) -> Tensor:
    """Embed queries as unit rows [Q, d]; texts and pictures of all of them go through the towers together.

    Args:
        no_entry: (pictures, whether they are pseudo-targets) -> those for which a method of stored entries has none.

    Raises:
        UsageError: an empty query, or pictures for a method that uses none.
        PictureError: a picture of a query cannot be read.
    """
    for query in queries:
        _check(method, query)
    parts = _Parts(method, cache, no_entry)
    composed = [parts.add(query.images or (None,), query.text) for query in queries]
    imagined = [query.pseudo_target and parts.add((query.pseudo_target,), query.text, made=True) for query in queries]
    unwanted = [query.without and parts.add((None,), query.without) for query in queries]
    parts.embed()
    rows = []
    for i, query in enumerate(queries):
        feature = composed[i]()
        if imagine := imagined[i]:
            feature = fuse_pseudo_target(feature, imagine(), query.reference_weight)
        if avoid := unwanted[i]:
            feature = normalize(feature - query.without_weight * avoid(), dim=-1)
        rows.append(feature)
    return torch.stack(rows)


def _check(method: Method, query: ComposedQuery) -> None:
    if not (query.images or query.text):
        raise UsageError("what is looked for? Give --image, --text, or both")
    need_sight(method, query.images)
    # look_up goes first: a method whose loading is put off answers it, and loads its models for other attributes.
    looks_up = getattr(method, "look_up", None)
    if query.text and looks_up and getattr(method, "query_rows", None):
        raise UsageError(
            f"{method.name} knows queries of a benchmark alone, by their ids; leave --text out, or choose another "
            f"--method"
        )


def need_sight(method: Method, images: Sequence[Path]) -> None:
    """Raise UsageError for pictures given to a method that uses none."""
    if images and not method.uses_picture:
        raise UsageError(f"{method.name} looks at no picture; leave --image out, or choose another --method")


class _Parts:
    """Pairs of a picture and a text, collected first and embedded together."""

    def __init__(self, method: Method, cache: FeatureCache, no_entry: NoEntry) -> None:
        self._method, self._cache, self._no_entry = method, cache, no_entry
        self._pairs: list[tuple[Path | None, str, bool]] = []  # picture, text, whether it is a pseudo-target
        self._features = torch.empty(0, 0)

    def add(self, images: Sequence[Path | None], text: str, *, made: bool = False) -> Callable[[], Tensor]:
        """Return what gives, after `embed`, the normalised mean [d] over the images, each with the text."""
        start, stop = len(self._pairs), len(self._pairs) + len(images)
        self._pairs += [(image, text, made) for image in images]
        return lambda: normalize(self._features[start:stop].mean(dim=0), dim=-1)

    def embed(self) -> None:
        paths = [path for path, _, _ in self._pairs]
        shown = [[path for path, _, made in self._pairs if path and made is which] for which in (False, True)]
        pictures = embed_pictures(self._method, shown[0] + shown[1], cache=self._cache)
        lacking = {**self._no_entry(shown[0], False), **self._no_entry(shown[1], True)}
        if troubles := {**pictures.failed, **pictures.no_query, **lacking}:
            raise PictureError(next(iter(troubles.values())))
        queries = [
            Query(str(i), "" if made else str(path or ""), (text,) if text else ())
            for i, (path, text, made) in enumerate(self._pairs)
        ]
        self._features = embed_queries(self._method, queries, paths, pictures=pictures, cache=self._cache)


def find(
    engine: Engine, features: Tensor, wanted: Sequence[Wanted], *, score: Scorer | None = None
) -> list[list[Found]]:
    """Return each query's nearest pictures, nearest first; equal ones by name.

    Args:
        features: [Q, d], unit rows.
        score: of a method whose score is no cosine similarity; all features of a selection are then read.
    """
    if score:
        return [_scored(engine, row, one, score=score) for row, one in zip(features, wanted, strict=True)]
    queries = features.numpy().astype(np.float32)
    alike: dict[tuple[Selection, int], list[int]] = {}  # queries that one pass over the rows answers
    for i, one in enumerate(wanted):
        alike.setdefault((one.select, one.k), []).append(i)
    hits: list[list[Found]] = [[] for _ in wanted]
    for (select, k), rows in alike.items():
        for i, candidates in zip(rows, engine.nearest(queries[rows], k, select), strict=True):
            hits[i] = _chosen(engine, queries[i], wanted[i], first=candidates)
    return hits


def _chosen(engine: Engine, query: NDArray[np.float32], wanted: Wanted, *, first: Sequence[Candidate]) -> list[Found]:
    """Return the hits of a query [d], whose k nearest candidates come first."""

    def propose(size: int) -> list[tuple[float, Candidate]]:
        candidates = first if size == wanted.k else engine.nearest(query[None], size, wanted.select)[0]
        return ranked(query, candidates)[:size]

    return _hits(propose, wanted)


def _scored(engine: Engine, query: Tensor, wanted: Wanted, *, score: Scorer) -> list[Found]:
    """Return the hits of a query [e] by a method's own score over the whole selection."""
    names = [entry.name for entry in engine.entries(wanted.select)]
    rows = [row for chunk in batches(names, ROWS) for row in engine.get(chunk).values()]
    candidates = [Candidate(row.entry.name, row.feature, row.entry.file, row.entry.metadata) for row in rows]
    if not candidates:
        return []
    gallery = torch.from_numpy(np.stack([one.feature for one in candidates]).astype(np.float32))
    scored = zip(score(query[None], gallery)[0].tolist(), candidates, strict=True)
    order = sorted(scored, key=lambda pair: (-pair[0], pair[1].name))
    return _hits(lambda size: order[:size], wanted)


def _hits(propose: Callable[[int], list[tuple[float, Candidate]]], wanted: Wanted) -> list[Found]:
    """Return the hits among candidates, of which `propose` gives the first n with their scores."""
    least = -np.inf if wanted.min_score is None else wanted.min_score

    def above(size: int) -> list[tuple[float, Candidate]]:
        return [(score, candidate) for score, candidate in propose(size) if score >= least]

    if not (wanted.group_by or wanted.fold_copies):
        return [Found(score, candidate) for score, candidate in above(wanted.k)]
    groups = first_groups(above, wanted.k, lambda one, other: _same(one, other, wanted))
    return [Found(score, head, tuple(one.name for one in rest)) for score, head, rest in groups]


def _same(one: Candidate, other: Candidate, wanted: Wanted) -> bool:
    if wanted.fold_copies and float(one.feature @ other.feature) >= COPIES:
        return True
    group = text_of(one.metadata.get(wanted.group_by)) if wanted.group_by else ""
    return bool(group) and group == text_of(other.metadata.get(wanted.group_by))


def leaving_out(select: Selection, names: Sequence[str]) -> Selection:
    """Return a selection without some names."""
    return replace(select, leave_out=(*select.leave_out, *names))
