"""Each picture's most similar names (SEARLE, Baldrati et al., ICCV 2023: concept association)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize

from cig.errors import InputError, UsageError
from cig.io.digests import digest
from cig.io.feature_cache import FeatureCache
from cig.models.dual_encoder import Tower
from cig.retrieval.features import PictureFeatures, content_of, embed_pictures
from cig.retrieval.rank import top_k
from cig.runtime import batches, progress
from cig.training.data.concepts import Concepts
from cig.training.data.pictures import Pictures, is_text
from cig.training.data.templates import TEMPLATES
from cig.training.data.vocabulary import Vocabulary
from cig.types import Method

K = 250  # names a picture
NAMES_AT_ONCE = 64  # of the vocabulary, each in all templates
PICTURES_AT_ONCE = 1024  # 20,000 names x 1,024 pictures are 80 MB


@dataclass(frozen=True)
class Looking:
    """What features.py asks of a method where nothing but pictures is embedded; it shares their cached features."""

    tower: Tower
    preprocess: Any

    @property
    def identity(self) -> Mapping[str, Any]:
        return self.tower.identity

    def embed_images(self, pixels: Tensor) -> Tensor:
        return self.tower.embed_images(pixels)


def associate(
    pictures: Pictures,
    vocabulary: Vocabulary,
    tower: Tower,
    pad: bool = True,
    k: int = K,
    batch_size: int = 32,
    workers: int = 4,
    cache: FeatureCache | None = None,
) -> Concepts:
    """The k names whose text feature, a mean over templates, has the highest cosine with each picture's feature.

    Args:
        tower: a CLIP, or another dual tower (towers.load_tower).
        pad: SEARLE's targetpad before the tower's own preprocessing.
        cache: keeps features of pictures and names, so that a rerun goes on from there.

    Raises:
        UsageError: the vocabulary has fewer than k names.
        InputError: no picture can be read.
    """
    if not 1 <= k <= len(vocabulary.names):
        there = len(vocabulary.names)
        raise UsageError(f"-k {k}: {vocabulary.identity['source']} has {there} names; give 1 to {there}")
    cache = cache or FeatureCache()
    looking = Looking(tower, tower.preprocess(pad))
    paths = dict(zip(pictures.names, pictures.paths, strict=True))
    found = embed_pictures(cast(Method, looking), pictures.paths, batch_size, workers, cache)
    unreadable = {name: why for name, path in paths.items() if (why := _lacking(name, path, found))}
    kept = [name for name in paths if name not in unreadable]
    if not kept:
        raise InputError(f"none of the {len(paths)} pictures can be read: {next(iter(unreadable.values()))}")
    names = embed_names(vocabulary.names, tower, cache)
    features = (found.of([paths[name] for name in chunk]) for chunk in batches(kept, PICTURES_AT_ONCE))
    total = -(-len(kept) // PICTURES_AT_ONCE)
    ranked = [_nearest(own, names, k) for own in progress(features, total, "concepts", "batch")]
    about = {
        "pictures": dict(pictures.identity),
        "clip": dict(tower.identity),
        "preprocessing": str(looking.preprocess),
        "vocabulary": dict(vocabulary.identity),
        "templates": list(TEMPLATES),
        "k": k,
    }
    return Concepts(tuple(kept), vocabulary.names, np.concatenate(ranked), unreadable, about)


def _lacking(name: str, path: Path, found: PictureFeatures) -> str:
    """Why a picture can have no row; not every byte that a disk takes in a name can be written into a table."""
    if not is_text(name):
        return "its name is not UTF-8; rename it"
    return found.failed.get(path, "")


def _nearest(features: Tensor, names: Tensor, k: int) -> NDArray[np.int32]:
    """[B, d] and unit [V, d] -> [B, k] rows of the names."""
    return top_k(normalize(features, dim=-1) @ names.T, k)[1].to(torch.int32).numpy()


def embed_names(names: Sequence[str], tower: Tower, cache: FeatureCache) -> Tensor:
    """[V, d] unit rows: means of unit features over the templates; those in the cache are not encoded again."""
    about = {"names by": content_of(tower.identity), "templates": list(TEMPLATES)}
    space = cache.space(about, f"names in {len(TEMPLATES)} templates, {tower.identity['source']}")
    keys = {name: digest(name.encode()) for name in names}
    known = dict(cache.read(space, keys.values()))
    todo = [name for name in names if keys[name] not in known]
    for chunk in progress(batches(todo, NAMES_AT_ONCE), -(-len(todo) // NAMES_AT_ONCE), "names", "batch"):
        made = dict(zip((keys[name] for name in chunk), _in_templates(chunk, tower).numpy(), strict=True))
        cache.write(space, made)
        known |= made
    return torch.from_numpy(np.stack([known[keys[name]] for name in names]))


def _in_templates(names: Sequence[str], tower: Tower) -> Tensor:
    texts = [template.format(name) for name in names for template in TEMPLATES]
    each = normalize(tower.embed_texts(texts), dim=-1)
    return normalize(each.reshape(len(names), len(TEMPLATES), -1).mean(1), dim=-1)
