"""Composed search of a folder: pictures, a text and an unwanted text -> the nearest pictures of the folder."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize

from cig.errors import PictureError, UsageError
from cig.io.feature_cache import FeatureCache
from cig.retrieval.features import embed_pictures, embed_queries
from cig.retrieval.fusion import fuse_pseudo_target
from cig.retrieval.index.exact import open_index
from cig.retrieval.rank import top_k
from cig.types import Method, Query

WITHOUT = 0.3  # the share of the unwanted text's feature that is subtracted; ours, no paper's
CHUNK = 2**16  # rows of the gallery at once


@dataclass(frozen=True)
class ComposedQuery:
    """One search."""

    images: tuple[Path, ...] = ()
    text: str = ""
    without: str = ""  # what should not be in the picture
    without_weight: float = WITHOUT
    pseudo_target: Path | None = None  # imagined from the images and the text
    reference_weight: float = 0.7  # the share of the images' feature; the pseudo-target has the rest


@dataclass(frozen=True)
class Hit:
    name: str  # path below the gallery
    path: Path
    score: float  # cosine similarity


class Finder:
    """A gallery, opened once, and the method that searches it.

    Raises:
        NotFoundError: a folder without pictures.
    """

    def __init__(
        self,
        gallery: Path,
        method: Method,
        cache: FeatureCache | None = None,
        *,
        batch_size: int = 32,
        workers: int = 4,
    ) -> None:
        self.method, self.cache = method, cache or FeatureCache()
        self.gallery = open_index(Path(gallery), method, self.cache, batch_size=batch_size, workers=workers)

    def find(
        self,
        query: ComposedQuery,
        k: int = 10,
        allowed: NDArray[np.bool_] | None = None,
        *,
        keep_reference: bool = False,
    ) -> list[Hit]:
        """Return the k nearest pictures, nearest first; equal ones in the gallery's order.

        Args:
            allowed: [N] true for pictures of the gallery that may be returned.
            keep_reference: the query's pictures may be returned, too.

        Raises:
            UsageError: an empty query, or pictures for a method that uses none.
            PictureError: a picture of the query cannot be read.
        """
        feature = self.embed(query)
        rows = np.arange(len(self.gallery.names)) if allowed is None else np.flatnonzero(allowed)
        if not keep_reference:
            rows = self._without_references(rows, query.images)
        best, columns = top_k(self._scores(feature, rows)[None], k)
        nearest = zip(best[0].tolist(), columns[0].tolist(), strict=True)
        return [Hit(self.gallery.names[rows[i]], self.gallery.path(rows[i]), score) for score, i in nearest]

    def embed(self, query: ComposedQuery) -> Tensor:
        """Return the query's unit feature [d]."""
        if not (query.images or query.text):
            raise UsageError("what is looked for? Give --image, --text, or both")
        need_sight(self.method, query.images)
        # look_up goes first: a method whose loading is put off answers it, and loads its models for other attributes.
        looks_up = getattr(self.method, "look_up", None)
        if query.text and looks_up and getattr(self.method, "query_rows", None):
            raise UsageError(
                f"{self.method.name} knows queries of a benchmark alone, by their ids; leave --text out, or choose "
                f"another --method"
            )
        feature = self._composed(query.images or (None,), query.text)
        if query.pseudo_target:
            imagined = self._composed((query.pseudo_target,), query.text, made=True)
            feature = fuse_pseudo_target(feature, imagined, query.reference_weight)
        if query.without:
            unwanted = self._composed((None,), query.without)
            feature = normalize(feature - query.without_weight * unwanted, dim=-1)
        return feature

    def _composed(self, images: Sequence[Path | None], text: str, *, made: bool = False) -> Tensor:
        """Return the normalised mean [d] over the images, each with the text; None stands for the text alone.

        Args:
            made: the image is a pseudo-target.
        """
        shown = [image for image in images if image]
        pictures = embed_pictures(self.method, shown, cache=self.cache)
        if troubles := {**pictures.failed, **pictures.no_query, **self._no_entry(shown, made)}:
            raise PictureError(next(iter(troubles.values())))
        references = ["" if made else str(image or "") for image in images]
        queries = [Query(str(i), name, (text,) if text else ()) for i, name in enumerate(references)]
        features = embed_queries(self.method, queries, list(images), pictures=pictures, cache=self.cache)
        return normalize(features.mean(dim=0), dim=-1)

    def _no_entry(self, images: Sequence[Path], made: bool) -> dict[Path, str]:
        """Return the images from outside of the gallery for which a method of stored entries has none."""
        no_entry = getattr(self.method, "no_entry", None)
        outside = [image for image in images if not self._inside((image,))]
        if not (no_entry and outside):
            return {}
        lacking: dict[Path, str] = no_entry(
            outside, [self.gallery.home / name for name in self.gallery.names], bare=not made
        )
        return lacking

    def _scores(self, feature: Tensor, rows: NDArray[np.int64]) -> Tensor:
        """Return cosine similarities [len(rows)], computed a bounded piece of the gallery at a time."""
        column, every = feature.numpy(), len(rows) == len(self.gallery.names)
        scores = np.empty(len(rows), np.float32)
        for start in range(0, len(rows), CHUNK):
            piece = slice(start, start + CHUNK)
            scores[piece] = (self.gallery.features[piece] if every else self.gallery.features[rows[piece]]) @ column
        return torch.from_numpy(scores)

    def _without_references(self, rows: NDArray[np.int64], images: Sequence[Path]) -> NDArray[np.int64]:
        """Leave out the rows of the query's pictures."""
        inside = self._inside(images)
        return np.array([row for row in rows if self.gallery.names[row] not in inside]) if inside else rows

    def _inside(self, images: Sequence[Path]) -> set[str]:
        """Return the names that images have in the gallery's folder, whether a link's or its target's."""
        inside = set()
        for resolve in (os.path.realpath, os.path.abspath):
            home = os.path.join(resolve(self.gallery.home), "")
            paths = (resolve(image) for image in images)
            inside |= {path.removeprefix(home).replace(os.sep, "/") for path in paths if path.startswith(home)}
        return inside


def need_sight(method: Method, images: Sequence[Path]) -> None:
    """Raise UsageError for pictures given to a method that uses none."""
    if images and not method.uses_picture:
        raise UsageError(f"{method.name} looks at no picture; leave --image out, or choose another --method")
