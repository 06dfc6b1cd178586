"""Features of any encoder, from a file: no model is loaded and no picture is opened.

If the file has features of queries, a query takes its feature by its id. If not, it takes its picture's feature; the
method is then image-only retrieval, and its name says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cig.errors import InputError, UsageError, some
from cig.io.digests import identity
from cig.methods import Option, Source, Weights
from cig.methods._dual import unit
from cig.methods._feature_files import read_table
from cig.methods._picture_names import Names, is_of
from cig.types import Described, Query

VARIANTS = {"file": Weights("")}
OPTIONS = {"features": Option("an .npz or a Parquet file of names and features", is_model=True)}


@dataclass(frozen=True)
class NoPreprocess:
    """A preprocessing that refuses: the method reads no pixels."""

    def __call__(self, image: Any) -> Tensor:
        raise UsageError("precomputed looks at no pixels; use a method with an encoder for new pictures")


class Precomputed(Described):
    uses_picture = True
    asks_for_queries = True

    def __init__(self, path: Path) -> None:
        table = read_table(path)
        self.path, self.names, self._rows = path, table.names, Names.of(table.names, path)
        self.features = torch.from_numpy(table.features)
        self.query_rows = {query: row for row, query in enumerate(table.queries)}
        if len(self.query_rows) < len(table.queries):
            raise InputError(f"{path} has {len(table.queries)} queries, but only {len(self.query_rows)} different ids")
        self.query_features = torch.from_numpy(table.query_features)
        self.name = "precomputed" if self.query_rows else "precomputed, pictures alone"
        self.preprocess = NoPreprocess()
        self.identity: Mapping[str, Any] = {"features": identity(path)}

    def look_up(self, paths: Sequence[Path]) -> dict[Path, Tensor]:
        """Return the features [d] of the pictures that the file names, not normalised."""
        rows = {path: self._rows.row(path) for path in paths}
        return {path: self.features[row] for path, row in rows.items() if row is not None}

    def no_entry(self, paths: Sequence[Path], gallery: Sequence[Path], *, bare: bool = False) -> dict[Path, str]:
        return self._rows.lacking_own(paths, gallery, "feature", source=self.path, bare=bare)

    def embed_images(self, pixels: Tensor) -> Tensor:
        raise UsageError("precomputed has no picture tower; use a method with an encoder for new pictures")

    def embed_captions(self, captions: Sequence[tuple[str, ...]]) -> Tensor:
        raise UsageError("precomputed has no text tower, so captions alone cannot be searched with")

    def embed_queries(
        self,
        image_features: Tensor,
        captions: Sequence[tuple[str, ...]],
        *,
        queries: Sequence[Query],
        paths: Sequence[Path],
    ) -> Tensor:
        """As Method; a query's feature counts only with its caption and its reference, not for a pseudo-target.

        Raises:
            InputError: the file has features of queries, but not of these.
        """
        rows = unit(image_features)
        by_id = [i for i, query in enumerate(queries) if captions[i] and is_of(paths[i], query.reference)]
        if self.query_rows and by_id:
            ids = [queries[i].id for i in by_id]
            if lacking := [query for query in ids if query not in self.query_rows]:
                raise InputError(f"{self.path} has no feature of {len(lacking)} queries: {some(lacking)}")
            rows[by_id] = unit(self.query_features[[self.query_rows[query] for query in ids]])
        return rows


def load(variant: str, source: Source) -> Precomputed:
    if "features" not in source.options:
        raise UsageError("precomputed wants --method-option features=FILE, an .npz or a Parquet file")
    return Precomputed(Path(source.options["features"]))
