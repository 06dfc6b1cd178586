"""The composed embeddings of a benchmark's queries: computed by a composer, or read from a folder of files.

Both are called with queries and return what conditions the generator, with the references' pictures where it is shown
them (`Shown`); what cannot be composed is named in `missing`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from cig.errors import PictureError
from cig.io.digests import fingerprints
from cig.io.files import remove
from cig.io.images import PictureBatch, read_batches, read_picture
from cig.io.manifest import Manifest, is_stale, query_digest
from cig.io.query_files import find_by_id, stems_of
from cig.io.tensors import read_embedding, stack_embeddings, write_embedding
from cig.models.composer import Composer
from cig.runtime import Shard, batches, progress
from cig.types import Benchmark, ComposedEmbedding, Query

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor


class Conditions(Protocol):
    missing: dict[str, str]  # query id -> why it has no embedding
    settings: Mapping[str, Any]  # what the embeddings depend on

    def prepare(self, queries: Sequence[Query]) -> None:
        """Tells which queries will be asked for, and in which order, so that pictures can be read ahead."""
        ...

    def __call__(self, queries: Sequence[Query]) -> ComposedEmbedding | None:
        """The embeddings of those queries that have one, in order; None if none has."""
        ...


class Composed:
    """Computed: each distinct reference is decoded once, and encoded once by each CLIP, when it is first needed."""

    def __init__(self, benchmark: Benchmark, composer: Composer, batch_size: int = 32, workers: int = 4) -> None:
        self.benchmark, self.composer, self.batch_size, self.workers = benchmark, composer, batch_size, workers
        self.missing = {own.id: _lacks(own) for own in benchmark.queries if benchmark.images.get(own.reference) is None}
        self.settings: Mapping[str, Any] = {"compose": {**composer.settings, **fingerprints(composer.identity)}}
        self.features: dict[Path, tuple[Tensor, Tensor]] = {}
        self.failed: dict[Path, str] = {}
        self._read: Iterator[PictureBatch] = iter(())

    def prepare(self, queries: Sequence[Query]) -> None:
        paths = {self.benchmark.images.get(query.reference) for query in queries}
        chunks = _chunks_of(self.benchmark, paths - set(self.features) - set(self.failed), self.batch_size)
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
        return self.composer.compose([query.id for query in able], features, [query.captions for query in able])

    def _path(self, query: Query) -> Path | None:
        path = self.benchmark.images.get(query.reference)
        if path in self.features:
            return path
        self.missing[query.id] = self.failed[path] if path else _lacks(query)
        return None

    def _encode(self, queries: Sequence[Query]) -> None:
        """Reads on until their references have features, or are known to have none."""
        wanted = {path for query in queries if (path := self.benchmark.images.get(query.reference))}
        while any(path not in self.features and path not in self.failed for path in wanted):
            batch = next(self._read, None)
            if batch is None:  # asked for what was not announced
                self.prepare(queries)
                continue
            self.failed |= batch.failed
            if batch.paths:
                rows = zip(*self.composer.embed_images(batch.pixels), strict=True)
                self.features |= dict(zip(batch.paths, rows, strict=True))


def _lacks(query: Query) -> str:
    return f"no picture for the reference {query.reference}"


def _chunks_of(benchmark: Benchmark, asked: set[Path | None], size: int) -> list[Path]:
    """Whole batches of the benchmark's references, those that hold a path asked for.

    Batches are fixed by position, so that a resumed run computes the same bits.
    """
    pictures = [benchmark.images.get(query.reference) for query in benchmark.queries]
    everything = list(dict.fromkeys(path for path in pictures if path))
    return [path for chunk in batches(everything, size) if asked & set(chunk) for path in chunk]


class EmbeddingFolder:
    """Read: `{id}.pt` files, ours or published ones, padded or not."""

    def __init__(self, benchmark: Benchmark, folder: Path) -> None:
        self.folder = folder
        lines = Manifest.read(folder)
        stale = [query.id for query in benchmark.queries if is_stale(lines.get(query.id), query)]
        self.files = find_by_id(folder, [query.id for query in benchmark.queries if query.id not in stale], [".pt"])
        absent = (query.id for query in benchmark.queries if query.id not in self.files)
        self.missing = dict.fromkeys(absent, f"no embedding in {folder}")
        self.missing |= dict.fromkeys(
            stale, f"the embedding in {folder} is of another caption; run `cig extract` again"
        )
        self.settings: Mapping[str, Any] = {"embeddings": _made_by(folder)}

    def prepare(self, queries: Sequence[Query]) -> None:
        pass

    def __call__(self, queries: Sequence[Query]) -> ComposedEmbedding | None:
        able = [query.id for query in queries if query.id in self.files]
        return stack_embeddings(able, [read_embedding(self.files[name]) for name in able]) if able else None


class Shown:
    """Conditions with the references' pictures beside them, for a generator that is shown them."""

    def __init__(self, benchmark: Benchmark, conditions: Conditions) -> None:
        self.benchmark, self.conditions = benchmark, conditions
        self.missing, self.settings = conditions.missing, conditions.settings

    def prepare(self, queries: Sequence[Query]) -> None:
        self.conditions.prepare(queries)

    def __call__(self, queries: Sequence[Query]) -> ComposedEmbedding | None:
        composed = self.conditions(queries)
        asked = {query.id: query.reference for query in queries}
        found = {row: self._picture(name, asked[name]) for row, name in enumerate(composed.ids)} if composed else {}
        pictures = {row: image for row, image in found.items() if image}
        if not composed or not pictures:
            return None
        return replace(take(composed, list(pictures)), references=tuple(pictures.values()))

    def _picture(self, query: str, reference: str) -> Image | None:
        path = self.benchmark.images.get(reference)
        try:
            if path:
                return read_picture(path).image.convert("RGB")
            self.missing[query] = f"no picture for the reference {reference}"
        except PictureError as error:
            self.missing[query] = str(error)
        return None


def take(composed: ComposedEmbedding, rows: Sequence[int]) -> ComposedEmbedding:
    """Some rows of a batch."""
    index = list(rows)
    return ComposedEmbedding(
        ids=tuple(composed.ids[row] for row in index),
        conditioning=composed.conditioning[index],
        conditioning2=composed.conditioning2[index],
        pooled2=composed.pooled2[index],
        last=composed.last[index],
        references=tuple(composed.references[row] for row in index) if composed.references else (),
    )


def _made_by(folder: Path) -> list[str]:
    """The settings digests of an extraction's manifest; ["foreign"] for files that came without one."""
    manifest = Manifest.read(folder)
    return sorted({line.get("settings", "foreign") for line in manifest.values()}) or ["foreign"]


@dataclass(frozen=True)
class Extracted:
    made: int
    kept: int  # files that were there
    foreign: tuple[str, ...] = ()  # queries whose file was there, without a line in the manifest
    missing: Mapping[str, str] = field(default_factory=dict)  # query id -> why it has no embedding


def extract(
    benchmark: Benchmark,
    composer: Composer,
    out: Path,
    batch_size: int = 4,
    overwrite: bool = False,
    workers: int = 4,
    shard: Shard | None = None,
) -> Extracted:
    """One `{id}.pt` a query (CIG, stage 1). What exists is kept; a rerun computes the same batches.

    Raises:
        MismatchError: the folder was made with other settings.
    """
    models = fingerprints(composer.identity)
    mine = (shard or Shard()).take(batches(benchmark.queries, batch_size))
    source = Composed(benchmark, composer, workers=workers)
    able = [{query.id for query in batch if query.id not in source.missing} for batch in mine]
    settings = {**composer.settings, "benchmark": benchmark.title, "models": models}
    manifest = Manifest(out, settings, overwrite, possible=set().union(*able))
    fresh = [query.id for batch in mine for query in batch if not manifest.is_stale(query)]
    there = find_by_id(out, [name for name in fresh if not overwrite or name in manifest.lines], [".pt"])
    todo = [batch for batch, own in zip(mine, able, strict=True) if own - set(there)]
    source.prepare([query for batch in todo for query in batch])
    made = 0
    for batch in progress(todo, len(todo), f"extract {benchmark.title}", "batch"):
        composed = source(batch)
        queries = {query.id: query for query in batch}
        for row, name in enumerate(composed.ids if composed else ()):
            if composed and name not in there:
                for stem in stems_of(name):  # those that --overwrite replaces, or that were made for another caption
                    remove(out / f"{stem}.pt")
                line = {"id": name, "file": f"{name}.pt", "query": query_digest(queries[name]), "models": models}
                manifest.add(line)
                write_embedding(out / f"{name}.pt", composed, row)
                made += 1
    foreign = tuple(name for name in there if name not in manifest.lines)
    lost = [query.id for batch in mine for query in batch if query.id in source.missing and query.id not in there]
    return Extracted(made, len(there), foreign, {name: source.missing[name] for name in lost})
