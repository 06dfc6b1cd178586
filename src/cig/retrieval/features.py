"""Features of pictures and queries by a method: each distinct one is computed once, and cached ones not at all."""

from __future__ import annotations

import contextlib
import json
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cig.finite import naming, need_finite
from cig.io.digests import digest, digest_of, set_digest
from cig.io.feature_cache import Deferred, FeatureCache
from cig.io.images import PictureBatch, read_batches
from cig.runtime import Interrupted, batches, jsonable, progress, versions
from cig.types import Method, Query

QUERY_BATCH = 256


@dataclass(frozen=True)
class PictureFeatures:
    """Features of distinct pictures by one method."""

    rows: Mapping[Path, int]
    features: Tensor  # [N, d] float32, projected, not normalised
    failed: Mapping[Path, str]  # path -> why it has no feature
    digests: Mapping[Path, str]  # path -> sha256 of the file, or of the feature where no file was read
    no_query: Mapping[Path, str] = field(default_factory=dict)  # path -> why no query can be made of it

    def of(self, paths: Sequence[Path]) -> Tensor:
        """Return the rows [len(paths), d] of these pictures."""
        return self.features[[self.rows[path] for path in paths]]

    def have(self, path: Path | None) -> bool:
        """Return whether the picture has a feature."""
        return path in self.rows

    def can_ask(self, path: Path | None) -> bool:
        """Return whether a query can be made of the picture."""
        return path in self.rows and path not in self.no_query

    def digest(self, paths: Iterable[Path] | None = None) -> str:
        """Digest these pictures, by default all: two runs with the same digest saw the same pictures."""
        return set_digest(self.digests[path] for path in paths or self.digests if path in self.digests)


def embed_pictures(
    method: Method, paths: Iterable[Path], batch_size: int = 32, *, workers: int = 4, cache: FeatureCache | None = None
) -> PictureFeatures:
    """Embed every distinct path: cached features are read, others are decoded and encoded once.

    A feature is stored under the digest of the file's content, in the space of the method's picture model and
    preprocessing, so that moved and copied pictures hit the cache and changed ones miss it. Each batch is written as it
    comes: after an interrupt or a kill, a rerun continues from the last batch.
    """
    distinct = list(dict.fromkeys(paths))
    refused = no_query(method, distinct)
    if look_up := getattr(method, "look_up", None):
        return _looked_up(method, distinct, look_up(distinct), refused=refused)
    store = cache or FeatureCache()
    space = store.space(picture_space(method), f"pictures, {_source(_picture_model(method))}; {method.preprocess}")
    digests = store.read_digests(distinct)
    stored = dict(store.read(space, digests.values()))
    rows = {path: stored[name] for path, name in digests.items() if name in stored}
    digests = {path: name for path, name in digests.items() if path in rows}
    failed: dict[Path, str] = {}
    since, todo = time.time(), [path for path in distinct if path not in rows]
    with _warn_of_lost_features(cache):
        for batch, features in _encode(method, todo, batch_size, workers=workers):
            failed |= batch.failed
            new_digests = dict(zip(batch.paths, batch.digests, strict=True))
            digests |= new_digests
            if store.path:
                stored |= dict(store.read(space, batch.digests))
            # Copies share one feature, as they do when the cache is read: computed in other batches, two features of
            # one content differ in their last bits, and copies would change their order between two runs.
            fresh: dict[str, NDArray[np.float32]] = {}
            for name, feature in zip(batch.digests, features, strict=True):
                if name not in stored:
                    stored[name] = fresh[name] = feature
            rows |= {path: stored[name] for path, name in new_digests.items()}
            if store.path and batch.paths:
                store.write(space, fresh)
                store.write_digests(new_digests, since)
    return PictureFeatures(
        rows={path: row for row, path in enumerate(rows)},
        features=torch.from_numpy(store.stack(list(rows.values()))),
        failed=failed,
        digests=digests,
        no_query=refused,
    )


def release_pictures(method: Method) -> None:
    """Free the memory of what embeds pictures; a later use loads it again."""
    model = method.loaded if isinstance(method, Deferred) else method
    if release := getattr(model, "release_pictures", None):
        release()


def _encode(
    method: Method, paths: Sequence[Path], batch_size: int, *, workers: int
) -> Iterator[tuple[PictureBatch, Sequence[NDArray[np.float32]]]]:
    """Decode and encode pictures, and yield each batch with its features; a batch may have none that decodes."""
    decoded = read_batches(paths, [method.preprocess], batch_size, workers=workers)
    for batch in progress(decoded, -(-len(paths) // batch_size), "pictures", unit="batch"):
        with naming(batch.paths):
            yield batch, _finite(method.embed_images(batch.pixels[0]), method).numpy() if batch.paths else []


def _finite(features: Tensor, method: Method) -> Tensor:
    """Raise NotFiniteError for features of a method that does not check them itself."""
    return need_finite(features, f"the method {method.name}", features.dtype)


@contextlib.contextmanager
def _warn_of_lost_features(cache: FeatureCache | None) -> Iterator[None]:
    """On interrupt, warn that features in memory are lost, where a cache folder would have kept them."""
    try:
        yield
    except Interrupted as stop:
        if cache and not cache.path:
            stop.lost = "give --feature-cache FOLDER, and features of pictures are"
        raise


def _looked_up(
    method: Method, paths: Sequence[Path], stored: Mapping[Path, Tensor], *, refused: Mapping[Path, str]
) -> PictureFeatures:
    file = _source(method.identity)
    return PictureFeatures(
        rows={path: row for row, path in enumerate(stored)},
        features=torch.stack(list(stored.values())) if stored else torch.empty(0, 0),
        failed={path: f"no feature of {path.stem} in {file}" for path in paths if path not in stored},
        digests={path: digest(row.numpy().tobytes()) for path, row in stored.items()},
        no_query=refused,
    )


def embed_queries(
    method: Method,
    queries: Sequence[Query],
    paths: Sequence[Path | None],
    *,
    pictures: PictureFeatures,
    cache: FeatureCache,
) -> Tensor:
    """Embed each query by its captions and the picture at its path, or by its captions alone for None.

    A cached query is not encoded again. Its key is its picture's content and its captions, and its id and its picture's
    name for a method that asks for queries, since such a method may look either up.

    Returns:
        Unit rows [Q, d].
    """
    asks = bool(getattr(method, "asks_for_queries", False))
    keys = [
        _query_key(pictures, path, query, asks=asks and bool(path or not method.uses_picture))
        for path, query in zip(paths, queries, strict=True)
    ]
    space = cache.space(
        _query_space(method), f"queries of {method.name}, {_source(method.identity)}; {method.preprocess}"
    )
    stored = dict(cache.read(space, keys))
    todo = list({key: i for i, key in enumerate(keys) if key not in stored}.items())
    for with_picture in (True, False):
        alike = [(key, i) for key, i in todo if bool(paths[i]) == with_picture]
        for chunk in batches(alike, QUERY_BATCH):
            captions = [queries[i].captions for _, i in chunk]
            with naming([f"query {queries[i].id}" for _, i in chunk]):
                if with_picture:
                    shown = [path for _, i in chunk if (path := paths[i])]
                    more = {"queries": [queries[i] for _, i in chunk], "paths": shown} if asks else {}
                    features = _finite(method.embed_queries(pictures.of(shown), captions, **more), method)
                else:
                    by_id = {"queries": [queries[i] for _, i in chunk]} if asks and not method.uses_picture else {}
                    features = _finite(method.embed_captions(captions, **by_id), method)
            fresh = dict(zip((key for key, _ in chunk), features.numpy(), strict=True))
            cache.write(space, fresh)
            stored |= fresh
    return torch.from_numpy(cache.stack([stored[key] for key in keys]))


def _query_key(pictures: PictureFeatures, path: Path | None, query: Query, *, asks: bool) -> str:
    parts: list[Any] = [pictures.digests[path] if path else "", query.captions]
    parts += [query.id, query.reference, path.name if path else ""] if asks else []
    return digest(json.dumps(parts).encode())


def picture_space(method: Method) -> dict[str, Any]:
    """Return what a picture's feature depends on, beside the picture."""
    return {"pictures by": content_of(_picture_model(method)), "preprocessing": _stable(method.preprocess)}


def _query_space(method: Method) -> dict[str, Any]:
    return {
        "queries by": method.name,
        "models": content_of(method.identity),
        "preprocessing": _stable(method.preprocess),
        "cig": versions()["cig"],
    }


def models_digest(method: Method) -> str:
    """Digest a method's models and options, wherever their files are."""
    return digest_of(jsonable(content_of(method.identity)))


def no_query(method: Method, paths: Sequence[Path]) -> Mapping[Path, str]:
    """Return path -> why this method can rank the picture, but make no query of it."""
    refuse = getattr(method, "no_query", None)
    return refuse(paths) if refuse else {}


def same_pictures(one: Method, other: Method) -> bool:
    """Return whether two methods compute the same features of pictures, so that one gallery serves both."""
    return one is other or picture_space(one) == picture_space(other)


def _picture_model(method: Method) -> Any:
    return getattr(method, "picture_model", method.identity)


def _source(identity: Any) -> str:
    """Name the models of an identity, for people."""
    if not isinstance(identity, Mapping):
        return ""
    return str(identity.get("source") or ", ".join(filter(None, map(_source, identity.values()))))


def _stable(preprocess: Any) -> str:
    """Return the preprocessing as text; one that prints an address gets a unique text: no run shares its features."""
    text = repr(preprocess)
    return f"{text} {uuid.uuid4()}" if " at 0x" in text else text


def content_of(model: Any) -> Any:
    """Return an identity without its files' paths: a checkpoint that was moved is the same."""
    if not isinstance(model, Mapping):
        return model
    return {key: content_of(value) for key, value in model.items() if key != "source" or "sha256" not in model}
