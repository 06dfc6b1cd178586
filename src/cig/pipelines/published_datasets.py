"""The torch datasets of the CIG release: the same names and keys, over our readers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset

from cig.benchmarks import load_benchmark, load_benchmarks
from cig.errors import InputError
from cig.generators._compose import EmbeddingFolder
from cig.io.images import read_picture
from cig.models.prompts import join_captions
from cig.types import Benchmark, Query

Item = dict[str, Any]


class _References(Dataset):
    def __init__(self, parts: Sequence[Benchmark], preprocess: Callable[..., Any] | None) -> None:
        self.preprocess = preprocess
        self.items: list[tuple[Benchmark, Query]] = [(part, query) for part in parts for query in part.queries]

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Item:
        """Raises InputError if the reference is missing, PictureError if it cannot be decoded."""
        part, query = self.items[index]
        if query.reference not in part.images:
            raise InputError(f"{part.name} query {query.id}: {part.why_missing(query.reference)}")
        image = read_picture(part.images[query.reference]).image.convert("RGB")
        return {
            "reference_image": _preprocessed(image, self.preprocess),
            "relative_caption": next(iter(join_captions(query.captions)), ""),
            "pairid": int(query.id) if query.id.isdecimal() else query.id,
        }


class CIRRDataset(_References):
    """The queries of CIRR as {reference_image, relative_caption, pairid}.

    Args:
        dataset_path: CIRR's folder or its parent.
        split: train, val or test1.
        preprocess: a transformers image processor, or any function of a PIL picture; None yields the picture.
    """

    def __init__(
        self, dataset_path: str | Path, split: str = "test1", preprocess: Callable[..., Any] | None = None
    ) -> None:
        super().__init__([load_benchmark(f"cirr/{split}", dataset_path)], preprocess)


class FashionIQDataset(_References):
    """The queries of FashionIQ, category by category, as {reference_image, relative_caption, pairid}.

    relative_caption joins the two captions, `c1 and c2`; pairid is the position in its category's caption file.
    """

    def __init__(
        self,
        dataset_path: str | Path,
        split: str = "test",
        dress_types: Sequence[str] = ("dress", "shirt", "toptee"),
        preprocess: Callable[..., Any] | None = None,
    ) -> None:
        parts = load_benchmarks(f"fashioniq/{split}", dataset_path, categories=tuple(dress_types))
        super().__init__(parts, preprocess)


class ComposedEmbedsDataset(Dataset):
    """The composed embeddings of CIRR as {pairid, prompt_embeds [L, d1 + d2], pooled2 [d2]}, in the queries' order.

    As in the release, queries without a file are left out; `missing` lists them.
    """

    def __init__(self, dataset_path: str | Path, text_embeddings_dir: str | Path, split: str = "val") -> None:
        benchmark = load_benchmark(f"cirr/{split}", dataset_path)
        self.folder = EmbeddingFolder(benchmark, Path(text_embeddings_dir))
        self.missing = tuple(self.folder.missing)
        self.queries = [query for query in benchmark.queries if query.id in self.folder.files]

    def __len__(self) -> int:
        return len(self.queries)

    def __getitem__(self, index: int) -> Item:
        """Raises InputError if the file is not such an embedding."""
        composed = self.folder([self.queries[index]])
        assert composed is not None
        return {"pairid": composed.ids[0], "prompt_embeds": composed.prompt[0], "pooled2": composed.pooled2[0]}


def _preprocessed(image: Any, preprocess: Callable[..., Any] | None) -> Any:
    """Apply the processor and unpack its pixel values, as the release's class does."""
    if preprocess is None:
        return image
    out = preprocess(image)
    if isinstance(out, torch.Tensor):
        return out
    return torch.as_tensor(out["pixel_values"][0])
