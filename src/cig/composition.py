"""The composed embeddings of a benchmark's queries: computed by a composer, or read from a folder of files.

Both are called with queries and return what conditions the generator; what cannot be composed is named in `missing`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from cig.formats import Manifest, find_by_id, fingerprints, read_embedding, stack_embeddings, write_embedding
from cig.images import read_batches
from cig.inversion import Composer
from cig.runtime import batches, progress
from cig.types import Benchmark, ComposedEmbedding, Query

if TYPE_CHECKING:
    from torch import Tensor


class Conditions(Protocol):
    missing: dict[str, str]  # query id -> why it has no embedding
    settings: Mapping[str, Any]  # what the embeddings depend on

    def __call__(self, queries: Sequence[Query]) -> ComposedEmbedding | None:
        """The embeddings of those queries that have one, in order; None if none has."""
        ...


class Composed:
    """Computed: each distinct reference is decoded once, and encoded once by each CLIP."""

    def __init__(
        self,
        benchmark: Benchmark,
        composer: Composer,
        queries: Sequence[Query] | None = None,
        batch_size: int = 32,
        workers: int = 4,
    ) -> None:
        """Encodes the references of these queries (by default all)."""
        self.composer = composer
        self.missing: dict[str, str] = {}
        self.settings: Mapping[str, Any] = {"compose": fingerprints(composer.identity)}
        wanted = benchmark.queries if queries is None else queries
        self.paths = {query.id: benchmark.images.get(query.reference) for query in wanted}
        self.features: dict[Path, tuple[Tensor, Tensor]] = {}
        self.failed: dict[Path, str] = {}
        self._encode(_chunks_of(benchmark, self.paths, batch_size), batch_size, workers)

    def __call__(self, queries: Sequence[Query]) -> ComposedEmbedding | None:
        import torch

        able = [query for query in queries if self._path(query)]
        if not able:
            return None
        rows = [self.features[path] for query in able if (path := self._path(query))]
        features = torch.stack([row[0] for row in rows]), torch.stack([row[1] for row in rows])
        return self.composer.compose([query.id for query in able], features, [query.captions for query in able])

    def _path(self, query: Query) -> Path | None:
        path = self.paths[query.id]
        if path in self.features:
            return path
        reason = self.failed[path] if path else f"no picture for the reference {query.reference}"
        self.missing[query.id] = reason
        return None

    def _encode(self, paths: Sequence[Path], batch_size: int, workers: int) -> None:
        preprocesses = list(dict.fromkeys(self.composer.preprocesses))
        read = read_batches(paths, preprocesses, batch_size, workers)
        for batch in progress(read, -(-len(paths) // batch_size), "references", "batch"):
            self.failed |= batch.failed
            if batch.paths:
                rows = zip(*self.composer.embed_images(batch.pixels), strict=True)
                self.features |= dict(zip(batch.paths, rows, strict=True))


def _chunks_of(benchmark: Benchmark, paths: Mapping[str, Path | None], size: int) -> list[Path]:
    """Whole batches of the benchmark's references, those that hold a path asked for.

    Batches are fixed by position, so that a resumed run computes the same bits.
    """
    pictures = [benchmark.images.get(query.reference) for query in benchmark.queries]
    everything = list(dict.fromkeys(path for path in pictures if path))
    asked = set(paths.values())
    return [path for chunk in batches(everything, size) if asked & set(chunk) for path in chunk]


class EmbeddingFolder:
    """Read: `{id}.pt` files, ours or published ones, padded or not."""

    def __init__(self, benchmark: Benchmark, folder: Path) -> None:
        self.folder = folder
        self.files = find_by_id(folder, [query.id for query in benchmark.queries], [".pt"])
        absent = (query.id for query in benchmark.queries if query.id not in self.files)
        self.missing = dict.fromkeys(absent, f"no embedding in {folder}")
        self.settings: Mapping[str, Any] = {"embeddings": _made_by(folder)}

    def __call__(self, queries: Sequence[Query]) -> ComposedEmbedding | None:
        able = [query.id for query in queries if query.id in self.files]
        return stack_embeddings(able, [read_embedding(self.files[name]) for name in able]) if able else None


def _made_by(folder: Path) -> list[str]:
    """The settings digests of an extraction's manifest; ["foreign"] for files that came without one."""
    manifest = Manifest.read(folder)
    return sorted({str(line["settings"]) for line in manifest.values()}) or ["foreign"]


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
    settings: Mapping[str, Any] | None = None,
) -> Extracted:
    """One `{id}.pt` a query (CIG, stage 1). What exists is kept; a rerun computes the same batches.

    Raises:
        MismatchError: the folder was made with other settings.
    """
    models = fingerprints(composer.identity)
    manifest = Manifest(out, {**(settings or {}), "benchmark": benchmark.title, "models": models}, overwrite)
    there = {} if overwrite else find_by_id(out, [query.id for query in benchmark.queries], [".pt"])
    todo = [batch for batch in batches(benchmark.queries, batch_size) if any(query.id not in there for query in batch)]
    source = Composed(benchmark, composer, [query for batch in todo for query in batch], workers=workers)
    made = 0
    for batch in progress(todo, len(todo), f"extract {benchmark.title}", "batch"):
        composed = source(batch)
        for row, name in enumerate(composed.ids if composed else ()):
            if composed and name not in there:
                (out / f"{name}.pt").unlink(missing_ok=True)  # one that --overwrite replaces
                manifest.add({"id": name, "file": f"{name}.pt", "models": models})
                write_embedding(out / f"{name}.pt", composed, row)
                made += 1
    foreign = tuple(name for name in there if name not in manifest.lines)
    return Extracted(made, len(there), foreign, source.missing)
