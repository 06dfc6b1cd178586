"""Composed search over anyone's pictures: some pictures, a text, and what should not be there -> the nearest ones."""

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
from cig.retrieval.index.exact import open_gallery
from cig.retrieval.rank import top_k
from cig.types import Method, Query

WITHOUT = 0.3  # how much of the unwanted text's feature is taken away; ours, no paper's
CHUNK = 2**16  # rows of the gallery at once


@dataclass(frozen=True)
class Asked:
    """One search."""

    images: tuple[Path, ...] = ()
    text: str = ""
    without: str = ""  # what should not be in the picture
    without_weight: float = WITHOUT
    pseudo_target: Path | None = None  # imagined from the images and the text
    weight: float = 0.7  # of the images' feature against the pseudo-target's


@dataclass(frozen=True)
class Hit:
    name: str  # path below the gallery
    path: Path
    score: float  # cosine similarity


class Finder:
    """A gallery, opened once, and a method to search it by.

    Raises:
        NotFoundError: a folder without pictures.
    """

    def __init__(
        self,
        gallery: Path,
        method: Method,
        cache: FeatureCache | None = None,
        batch_size: int = 32,
        workers: int = 4,
    ) -> None:
        self.method, self.cache = method, cache or FeatureCache()
        self.gallery = open_gallery(Path(gallery), method, self.cache, batch_size, workers)

    def find(
        self, asked: Asked, k: int = 10, allowed: NDArray[np.bool_] | None = None, keep_reference: bool = False
    ) -> list[Hit]:
        """The k nearest pictures, nearest first; equal ones in the gallery's order.

        Args:
            allowed: [N] of the gallery's pictures, those that may be found.
            keep_reference: a picture that is asked with may be found, too.

        Raises:
            UsageError: nothing is asked, or pictures of a method that looks at none.
            PictureError: a picture that is asked with cannot be read.
        """
        feature = self.embed(asked)
        rows = np.arange(len(self.gallery.names)) if allowed is None else np.flatnonzero(allowed)
        if not keep_reference:
            rows = self._without_asked(rows, asked.images)
        best, columns = top_k(self._scores(feature, rows)[None], k)
        picked = zip(best[0].tolist(), columns[0].tolist(), strict=True)
        return [Hit(self.gallery.names[rows[i]], self.gallery.path(rows[i]), score) for score, i in picked]

    def embed(self, asked: Asked) -> Tensor:
        """[d] the unit feature of what is asked."""
        if not (asked.images or asked.text):
            raise UsageError("what is looked for? Give --image, --text, or both")
        need_sight(self.method, asked.images)
        looks_up = getattr(self.method, "look_up", None)  # asked first: for the rest, one that is put off is loaded
        if asked.text and looks_up and getattr(self.method, "query_rows", None):
            raise UsageError(
                f"{self.method.name} knows queries of a benchmark alone, by their ids; leave --text out, or choose "
                f"another --method"
            )
        feature = self._composed(asked.images or (None,), asked.text)
        if asked.pseudo_target:
            imagined = self._composed((asked.pseudo_target,), asked.text)
            feature = normalize(asked.weight * feature + (1 - asked.weight) * imagined, dim=-1)
        if asked.without:
            unwanted = self._composed((None,), asked.without)
            feature = normalize(feature - asked.without_weight * unwanted, dim=-1)
        return feature

    def _composed(self, images: Sequence[Path | None], text: str) -> Tensor:
        """[d] the normalised mean over the images, each with the text; None is the text alone."""
        own = [image for image in images if image]
        pictures = embed_pictures(self.method, own, cache=self.cache)
        if troubles := {**pictures.failed, **pictures.no_query}:
            raise PictureError(next(iter(troubles.values())))
        queries = [Query(str(i), str(image or ""), (text,) if text else ()) for i, image in enumerate(images)]
        features = embed_queries(self.method, queries, list(images), pictures, self.cache)
        return normalize(features.mean(dim=0), dim=-1)

    def _scores(self, feature: Tensor, rows: NDArray[np.int64]) -> Tensor:
        """[len(rows)] cosine similarities, a bounded piece of the gallery at a time."""
        query, every = feature.numpy(), len(rows) == len(self.gallery.names)
        scores = np.empty(len(rows), np.float32)
        for start in range(0, len(rows), CHUNK):
            piece = slice(start, start + CHUNK)
            scores[piece] = (self.gallery.features[piece] if every else self.gallery.features[rows[piece]]) @ query
        return torch.from_numpy(scores)

    def _without_asked(self, rows: NDArray[np.int64], images: Sequence[Path]) -> NDArray[np.int64]:
        inside = set()
        for same in (os.path.realpath, os.path.abspath):  # as it is, and as it is called
            home = os.path.join(same(self.gallery.home), "")
            paths = (same(image) for image in images)
            inside |= {path.removeprefix(home).replace(os.sep, "/") for path in paths if path.startswith(home)}
        return np.array([row for row in rows if self.gallery.names[row] not in inside]) if inside else rows


def need_sight(method: Method, images: Sequence[Path]) -> None:
    """Raises UsageError for pictures of a method that looks at none."""
    if images and not method.uses_picture:
        raise UsageError(f"{method.name} looks at no picture; leave --image out, or choose another --method")
