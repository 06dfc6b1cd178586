"""The data of trainings: a benchmark's, or the user's files.

A CLIP and a phi learn from a benchmark's `pairs()`, a VAE and a generator from its `scenes()`.
"""

from __future__ import annotations

import os
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, cast

from cig import registry
from cig.errors import NotFoundError, UsageError
from cig.types import Pairs, Scenes

if TYPE_CHECKING:
    from cig.training.data.framing import Frame
    from cig.training.data.scenes import Example


def load_pairs(name: str) -> Pairs:
    """Load the (picture, caption) pairs of a benchmark, by NAME/SPLIT: icons/train.

    Raises:
        UsageError: the benchmark has no pairs.
    """
    family, _, split = name.partition("/")
    module = registry.load("benchmarks", family)
    if not hasattr(module, "pairs"):
        raise UsageError(f"{family} has no pictures with captions of their own to train on; icons/train has")
    return cast(Pairs, module.pairs(split or "train"))


def has_pairs(name: str) -> bool:
    """Tell whether the name is that of a benchmark with (picture, caption) pairs."""
    try:
        return hasattr(registry.load("benchmarks", name.partition("/")[0]), "pairs")
    except NotFoundError:
        return False


def load_scenes(
    data: str,
    limit: int | None = None,
    frame: Frame | None = None,
    *,
    root: Path | None = None,
    ledger: Path | None = None,
) -> Scenes:
    """Load pictures with the views and captions that condition the generator.

    Args:
        data: icons/train; a benchmark's training split (fashioniq/train, cirr/train, folder/train); a table of
            pictures with captions, or of triplets; a folder of pictures, with captions in .txt files, or in
            InstructPix2Pix's form.
        limit: take the first so many.
        frame: turns pictures into squares; by default SDXL's 1024 pixels. The icons have their size.
        root: the benchmark's folder, or the folder that a table's pictures are relative to.
        ledger: a file that remembers which pictures were checked.

    Raises:
        UsageError: the data has no pictures to train on, or their size is not free.
    """
    path = Path(data)
    if has_own_size(data):
        if frame:
            raise UsageError(f"{data} has pictures of its own size: no --resolution, no --crop")
        return cast(Scenes, _benchmark(data).scenes(data.partition("/")[2] or "train", limit))
    from cig.training.data.framing import Frame
    from cig.training.data.scenes import FileScenes

    examples, missing = _examples(path, data, root)
    return FileScenes(data, examples[:limit], frame or Frame(), ledger=ledger, missing=missing)


def has_own_size(data: str) -> bool:
    """Tell whether the data is a benchmark whose pictures are drawn in one size; raises NotFoundError for neither."""
    return not os.path.exists(data) and hasattr(_benchmark(data), "scenes")


def _benchmark(data: str) -> ModuleType:
    try:
        return registry.load("benchmarks", data.partition("/")[0])
    except NotFoundError as error:
        raise NotFoundError(f"{data} is neither a table nor a folder nor a benchmark; {error}") from error


def _examples(path: Path, data: str, root: Path | None) -> tuple[list[Example], list[str]]:
    """Return the examples, and the names of those that lack a file."""
    from cig.training.data import captioned_pictures, triplets

    if os.path.isdir(path):
        if root:
            raise UsageError(f"{data} is a folder, whose pictures lie in it: no --dataset-path")
        return triplets.of_edits(path) if triplets.is_edits(path) else (captioned_pictures.of_folder(path), [])
    return (captioned_pictures.of_table(path, root), []) if os.path.exists(path) else triplets.of_benchmark(data, root)
