"""The composed embeddings of a benchmark's queries: computed by a composer, or read from a folder of files.

Both are called with queries and return the embeddings that condition the generator; `missing` names the queries that
cannot be composed. `ConditionsWithReferences` adds the references' pictures, for a generator that is shown them.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from cig.errors import PictureError, check_type
from cig.finite import naming
from cig.io.digests import digest_of, fingerprints
from cig.io.files import remove
from cig.io.images import PictureBatch, read_batches, read_picture
from cig.io.locks import hold
from cig.io.manifest import Manifest, is_stale, query_digest
from cig.io.query_files import find_by_id, stems_of
from cig.io.tensors import read_embedding, stack_embeddings, write_embedding
from cig.models.composer import Composer
from cig.runtime import Shard, batches, progress, versions
from cig.types import Benchmark, ComposedEmbedding, Query, check_benchmark

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from cig.io.feature_cache import FeatureCache


class Conditions(Protocol):
    """A source of composed embeddings."""

    missing: dict[str, str]  # query id -> why it has no embedding
    settings: Mapping[str, Any]  # what the embeddings depend on

    def prepare(self, queries: Sequence[Query]) -> None:
        """Announce the queries of the coming calls, in order, so that pictures can be read ahead."""
        ...

    def __call__(self, queries: Sequence[Query]) -> ComposedEmbedding | None:
        """Return the embeddings of those queries that have one, in order; None if none has."""
        ...


class ComposedConditions:
    """Embeddings by a composer: each distinct reference is decoded once and encoded once by each CLIP, when needed."""

    def __init__(
        self,
        benchmark: Benchmark,
        composer: Composer,
        batch_size: int = 32,
        *,
        workers: int = 4,
        cache: FeatureCache | None = None,
    ) -> None:
        self.benchmark, self.composer, self.batch_size, self.workers = benchmark, composer, batch_size, workers
        self.cache = cache
        without = [query for query in benchmark.queries if benchmark.images.get(query.reference) is None]
        self.missing = {query.id: benchmark.why_missing(query.reference) for query in without}
        self.settings: Mapping[str, Any] = {"compose": {**composer.settings, **fingerprints(composer.identity)}}
        self.features: dict[Path, tuple[Tensor, Tensor]] = {}
        self.failed: dict[Path, str] = {}
        self._read: Iterator[PictureBatch] = iter(())

    def prepare(self, queries: Sequence[Query]) -> None:
        paths = {self.benchmark.images.get(query.reference) for query in queries}
        chunks = _chunks_with(paths - set(self.features) - set(self.failed), self.benchmark, self.batch_size)
        preprocesses = list(dict.fromkeys(self.composer.preprocesses)) if chunks else []
        self._read = read_batches(chunks, preprocesses, self.batch_size, workers=self.workers)

    def __call__(self, queries: Sequence[Query]) -> ComposedEmbedding | None:
        import torch

        self._encode(queries)
        able = [query for query in queries if self._path(query)]
        if not able:
            return None
        rows = [self.features[path] for query in able if (path := self._path(query))]
        features = torch.stack([row[0] for row in rows]), torch.stack([row[1] for row in rows])
        ids = [query.id for query in able]
        with naming([f"query {name}" for name in ids]):
            return self.composer.compose(ids, features, [query.captions for query in able])

    def _path(self, query: Query) -> Path | None:
        path = self.benchmark.images.get(query.reference)
        if path in self.features:
            return path
        self.missing[query.id] = self.failed[path] if path else self.benchmark.why_missing(query.reference)
        return None

    def _encode(self, queries: Sequence[Query]) -> None:
        """Read on until each of their references has features, or cannot be read."""
        wanted = {path for query in queries if (path := self.benchmark.images.get(query.reference))}
        while any(path not in self.features and path not in self.failed for path in wanted):
            batch = next(self._read, None)
            if batch is None:  # a query that was not announced
                self.prepare(queries)
                continue
            self._add(batch)

    def _add(self, batch: PictureBatch) -> None:
        self.failed |= batch.failed
        if batch.paths:
            with naming(batch.paths):
                rows = zip(*self.composer.embed_images(batch.pixels), strict=True)
            self.features |= dict(zip(batch.paths, rows, strict=True))

    def embed(self, queries: Sequence[Query]) -> None:
        """Encode the references of these queries now, so that the picture towers can be released before the rest."""
        wanted = {self.benchmark.images.get(query.reference) for query in queries}
        chunks = list(batches(_chunks_with(wanted, self.benchmark, self.batch_size), self.batch_size))
        todo = [path for chunk in chunks if not self._recall(chunk) for path in chunk]
        preprocesses, since = list(dict.fromkeys(self.composer.preprocesses)), time.time()
        read = read_batches(todo, preprocesses, self.batch_size, workers=self.workers)
        for batch in progress(read, -(-len(todo) // self.batch_size), f"embed {self.benchmark.title}", unit="batch"):
            self._add(batch)
            self._keep(batch, since)

    # A batch's features are kept under the digests of all of its pictures: their last bits depend on each other.

    def _keep(self, batch: PictureBatch, since: float) -> None:
        import torch

        if self.cache and self.cache.path and batch.paths:
            rows = torch.stack([torch.cat(self.features[path]) for path in batch.paths])
            self.cache.write_bytes(self._space(), {digest_of(batch.digests): rows.numpy().tobytes()})
            self.cache.write_digests(dict(zip(batch.paths, batch.digests, strict=True)), since)

    def _recall(self, chunk: Sequence[Path]) -> bool:
        """Take a batch's features from the cache; return whether all of them are there."""
        import torch

        digests = self.cache.read_digests(chunk) if self.cache else {}
        key = digest_of([digests.get(path) for path in chunk])
        stored = dict(self.cache.read_bytes(self._space(), [key])) if self.cache and len(digests) == len(chunk) else {}
        if key not in stored:
            return False
        widths = [inverter.clip.feature_width for inverter in (self.composer.first, self.composer.second)]
        rows = torch.frombuffer(bytearray(stored[key]), dtype=torch.uint8)
        if len(rows) != 4 * len(chunk) * sum(widths) or not (rows := rows.view(torch.float32)).isfinite().all():
            return False  # a damaged cache
        rows = rows.reshape(len(chunk), -1)
        self.features |= {path: row.split(widths) for path, row in zip(chunk, rows, strict=True)}
        return True

    def _space(self) -> str:
        assert self.cache
        made_by = {**self.settings["compose"], "batch": self.batch_size, "versions": versions()}
        return self.cache.space({"references": made_by}, "references, by the composer")


def _chunks_with(wanted: set[Path | None], benchmark: Benchmark, size: int) -> list[Path]:
    """Return the whole batches of the benchmark's references that hold a wanted path."""
    # A feature depends, in its last bits, on the other pictures of its batch. Batches are therefore fixed by position
    # in the benchmark, whatever is done already, so that a resumed run computes the same bits as an unbroken one.
    pictures = [benchmark.images.get(query.reference) for query in benchmark.queries]
    distinct = list(dict.fromkeys(path for path in pictures if path))
    return [path for chunk in batches(distinct, size) if wanted & set(chunk) for path in chunk]


def batches_with(ids: set[str], benchmark: Benchmark, size: int) -> list[Sequence[Query]]:
    """Return the whole batches of the benchmark's queries that hold one of these; they are fixed by position."""
    return [batch for batch in batches(benchmark.queries, size) if not ids.isdisjoint(query.id for query in batch)]


class ComposedAhead:
    """The embeddings of groups of queries, composed now: what composed them can then leave the memory."""

    def __init__(self, conditions: Conditions, groups: Sequence[Sequence[Query]], title: str) -> None:
        self.missing, self.settings = conditions.missing, conditions.settings
        conditions.prepare([query for group in groups for query in group])
        loop = progress(groups, len(groups), f"compose {title}", unit="batch")
        self.composed = {_ids(group): conditions(group) for group in loop}

    def prepare(self, queries: Sequence[Query]) -> None:
        pass

    def __call__(self, queries: Sequence[Query]) -> ComposedEmbedding | None:
        return self.composed.pop(_ids(queries))


def _ids(queries: Sequence[Query]) -> tuple[str, ...]:
    return tuple(query.id for query in queries)


class EmbeddingFolder:
    """Embeddings from `{id}.pt` files, ours or published ones, with or without leading zeros in the id."""

    def __init__(self, benchmark: Benchmark, folder: str | Path) -> None:
        check_benchmark(benchmark)
        check_type(folder, (str, Path), name="folder", wanted="the path of a folder of embeddings")
        self.folder = folder = Path(folder)
        lines = Manifest.read(folder)
        stale = [query.id for query in benchmark.queries if is_stale(lines.get(query.id), query)]
        self.files = find_by_id(folder, [query.id for query in benchmark.queries if query.id not in stale], [".pt"])
        absent = (query.id for query in benchmark.queries if query.id not in self.files)
        self.missing = dict.fromkeys(absent, f"no embedding in {folder}")
        self.missing |= dict.fromkeys(
            stale, f"the embedding in {folder} is of another caption; run `cig extract` again"
        )
        digests = sorted({line.get("settings", "foreign") for line in lines.values()})
        self.settings: Mapping[str, Any] = {"embeddings": digests or ["foreign"]}

    def __repr__(self) -> str:
        return f"<EmbeddingFolder {self.folder}: {len(self.files)} embeddings, {len(self.missing)} missing>"

    def prepare(self, queries: Sequence[Query]) -> None:
        pass

    def __call__(self, queries: Sequence[Query]) -> ComposedEmbedding | None:
        able = [query.id for query in queries if query.id in self.files]
        return stack_embeddings(able, [read_embedding(self.files[name]) for name in able]) if able else None


class ConditionsWithReferences:
    """Conditions and the references' pictures, for a generator that is shown them."""

    def __init__(self, benchmark: Benchmark, conditions: Conditions) -> None:
        self.benchmark, self.conditions = benchmark, conditions
        self.missing, self.settings = conditions.missing, conditions.settings

    def prepare(self, queries: Sequence[Query]) -> None:
        self.conditions.prepare(queries)

    def __call__(self, queries: Sequence[Query]) -> ComposedEmbedding | None:
        composed = self.conditions(queries)
        if not composed:
            return None
        references = {query.id: query.reference for query in queries}
        images = [self._picture(name, references[name]) for name in composed.ids]
        pictures = {row: image for row, image in enumerate(images) if image}
        return replace(take(composed, list(pictures)), references=tuple(pictures.values())) if pictures else None

    def _picture(self, query: str, reference: str) -> Image | None:
        path = self.benchmark.images.get(reference)
        try:
            if path:
                return read_picture(path).image.convert("RGB")
            self.missing[query] = self.benchmark.why_missing(reference)
        except PictureError as error:
            self.missing[query] = str(error)
        return None


def take(composed: ComposedEmbedding, rows: Sequence[int]) -> ComposedEmbedding:
    """Select rows of a batch."""
    index = list(rows)
    return ComposedEmbedding(
        ids=tuple(composed.ids[row] for row in index),
        conditioning=composed.conditioning[index],
        conditioning2=composed.conditioning2[index],
        pooled2=composed.pooled2[index],
        last=composed.last[index],
        references=tuple(composed.references[row] for row in index) if composed.references else (),
    )


@dataclass(frozen=True)
class Extraction:
    """The outcome of `extract`."""

    made: int
    kept: int  # files of earlier runs, or from elsewhere
    foreign: tuple[str, ...] = ()  # queries whose file has no line in the manifest
    missing: Mapping[str, str] = field(default_factory=dict)  # query id -> why it has no embedding


def extract(
    benchmark: Benchmark,
    composer: Composer,
    out: Path,
    *,
    batch_size: int = 4,
    overwrite: bool = False,
    workers: int = 4,
    shard: Shard | None = None,
) -> Extraction:
    """Write the embedding of each query to `{id}.pt` (CIG, stage 1), but for those that exist.

    Raises:
        MismatchError: the folder was made with other settings.
        UsageError: another process works in the folder.
    """
    with hold(out, "embeddings", shard):
        models = fingerprints(composer.identity)
        share = {query.id for query in (shard or Shard()).part(benchmark.queries)}
        source = ComposedConditions(benchmark, composer, workers=workers)
        possible = share - set(source.missing)
        settings = {**composer.settings, "benchmark": benchmark.title, "models": models}
        manifest = Manifest(out, settings, overwrite, possible=possible)
        fresh = [query.id for query in benchmark.queries if query.id in share and not manifest.is_stale(query)]
        kept = find_by_id(out, [name for name in fresh if not overwrite or name in manifest.lines], [".pt"])
        # A batch with one query left is composed whole, with the queries that are done: a text state depends, in its
        # last bits, on the other rows of its batch, so a resumed run writes the same bytes as an unbroken one.
        todo = batches_with(possible - set(kept), benchmark, batch_size)
        if todo:
            composer.need_memory("vision", "text")
        source.prepare([query for batch in todo for query in batch])
        made = 0
        for batch in progress(todo, len(todo), f"extract {benchmark.title}", unit="batch"):
            composed = source(batch)
            queries = {query.id: query for query in batch}
            for row, name in enumerate(composed.ids if composed else ()):
                if composed and name in share and name not in kept:
                    for stem in stems_of(name):  # a file that --overwrite replaces, or of another caption
                        remove(out / f"{stem}.pt")
                    line = {"id": name, "file": f"{name}.pt", "query": query_digest(queries[name]), "models": models}
                    manifest.add(line)
                    write_embedding(out / f"{name}.pt", composed, row)
                    made += 1
        foreign = tuple(name for name in kept if name not in manifest.lines)
        without = share & set(source.missing) - set(kept)
        lost = [query.id for query in benchmark.queries if query.id in without]
        return Extraction(made, len(kept), foreign, missing={name: source.missing[name] for name in lost})
