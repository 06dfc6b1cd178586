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
from cig.training.data.pictures import PictureList, is_utf8
from cig.training.data.templates import TEMPLATES
from cig.training.data.vocabulary import Vocabulary
from cig.types import Method

K = 250  # names a picture
NOT_UTF8 = "its name is not UTF-8; rename it"  # a table of texts cannot hold it
NAMES_AT_ONCE = 64  # each in all templates
PICTURES_AT_ONCE = 1024  # 20,000 names x 1,024 pictures are 80 MB


@dataclass(frozen=True)
class PictureEncoder:
    """The part of a retrieval method that embeds pictures; `embed_pictures` needs no more.

    Its identity and preprocessing are those of a method with this tower, so both share the cached features.
    """

    tower: Tower
    preprocess: Any
    name = "concepts"  # for messages

    @property
    def identity(self) -> Mapping[str, Any]:
        return self.tower.identity

    def embed_images(self, pixels: Tensor) -> Tensor:
        return self.tower.embed_images(pixels)


def associate(
    pictures: PictureList,
    vocabulary: Vocabulary,
    tower: Tower,
    *,
    pad: bool = True,
    k: int = K,
    batch_size: int = 32,
    workers: int = 4,
    cache: FeatureCache | None = None,
) -> Concepts:
    """Find for each picture the k names whose text feature, a mean over templates, has the highest cosine with it.

    Args:
        tower: a CLIP, or another dual encoder (cig.models.dual_encoder).
        pad: apply SEARLE's targetpad before the tower's preprocessing.
        cache: keeps features of pictures and names, so that a rerun continues.

    Raises:
        UsageError: the vocabulary has fewer than k names.
        InputError: no picture can be read.
    """
    if not 1 <= k <= len(vocabulary.names):
        count = len(vocabulary.names)
        raise UsageError(f"-k {k}: {vocabulary.identity['source']} has {count} names; give 1 to {count}")
    cache = cache or FeatureCache()
    encoder = PictureEncoder(tower, tower.preprocess(pad))
    paths = dict(zip(pictures.names, pictures.paths, strict=True))
    embedded = embed_pictures(cast(Method, encoder), pictures.paths, batch_size, workers=workers, cache=cache)
    reasons = {name: embedded.failed.get(path, "") if is_utf8(name) else NOT_UTF8 for name, path in paths.items()}
    unreadable = {name: why for name, why in reasons.items() if why}
    kept = [name for name in paths if name not in unreadable]
    if not kept:
        raise InputError(f"none of the {len(paths)} pictures can be read: {next(iter(unreadable.values()))}")
    names = embed_names(vocabulary.names, tower, cache)
    ranked = _rank(embedded, [paths[name] for name in kept], names, k=k)
    inputs = {
        "pictures": dict(pictures.identity),
        "clip": dict(tower.identity),
        "preprocessing": str(encoder.preprocess),
        "vocabulary": dict(vocabulary.identity),
        "templates": list(TEMPLATES),
        "k": k,
    }
    return Concepts(tuple(kept), vocabulary.names, ranked=ranked, unreadable=unreadable, inputs=inputs)


def _rank(embedded: PictureFeatures, paths: Sequence[Path], names: Tensor, *, k: int) -> NDArray[np.int32]:
    """Return for each picture the k nearest rows of the names [V, d], nearest first: [N, k]."""
    ranked = []
    chunks = batches(paths, PICTURES_AT_ONCE)
    for chunk in progress(chunks, -(-len(paths) // PICTURES_AT_ONCE), "concepts", unit="batch"):
        cosines = normalize(embedded.of(chunk), dim=-1) @ names.T
        ranked.append(top_k(cosines, k)[1].to(torch.int32).numpy())
    return np.concatenate(ranked)


def embed_names(names: Sequence[str], tower: Tower, cache: FeatureCache) -> Tensor:
    """Return [V, d] unit rows: means of unit features over the templates, encoded or from the cache."""
    settings = {"names by": content_of(tower.identity), "templates": list(TEMPLATES)}
    space = cache.space(settings, f"names in {len(TEMPLATES)} templates, {tower.identity['source']}")
    keys = {name: digest(name.encode()) for name in names}
    features = dict(cache.read(space, keys.values()))
    todo = [name for name in names if keys[name] not in features]
    for chunk in progress(batches(todo, NAMES_AT_ONCE), -(-len(todo) // NAMES_AT_ONCE), "names", unit="batch"):
        texts = [template.format(name) for name in chunk for template in TEMPLATES]
        each = normalize(tower.embed_texts(texts), dim=-1).reshape(len(chunk), len(TEMPLATES), -1)
        means = normalize(each.mean(1), dim=-1).numpy()
        encoded = dict(zip((keys[name] for name in chunk), means, strict=True))
        cache.write(space, encoded)
        features |= encoded
    return torch.from_numpy(cache.stack([features[keys[name]] for name in names]))
