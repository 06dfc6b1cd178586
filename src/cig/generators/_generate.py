"""Imagining pseudo-targets: seeds, batches, acceptance, retries, resume (CIG, stage 2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cig.generators._compose import Composed, Conditions, Shown, take
from cig.io.digests import fingerprints
from cig.io.files import remove, write_png
from cig.io.json_files import write_json
from cig.io.manifest import Manifest, query_digest
from cig.io.query_files import find_by_id, picture_name, stems_of
from cig.models.composer import Composer
from cig.runtime import Seeds, Shard, batches, free_memory, is_out_of_memory, measured, progress, say, seed_of
from cig.types import Benchmark, ComposedEmbedding, Generator, PseudoTarget, Query

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class Imagining:
    """How pictures are tried and accepted; the defaults are the published ones."""

    seed: int = 1600
    seeds: Seeds = "published"
    brightness_thresh: float = 10.0  # a picture whose mean pixel value (0..255) is not above it is made again
    max_retries: int = 5


@dataclass(frozen=True)
class Imagined:
    """What a folder of pseudo-targets holds after a run."""

    pictures: Mapping[str, Path]  # query id -> its accepted picture
    made: int  # queries that were done in this run
    refused: tuple[str, ...]  # queries without an accepted picture
    foreign: tuple[str, ...]  # queries whose picture was there, without a line in the manifest
    missing: Mapping[str, str] = field(default_factory=dict)  # queries that were not tried, and why


def imagine(
    benchmark: Benchmark,
    composer: Composer | Conditions,
    generator: Generator,
    out: str | Path,
    how: Imagining | None = None,
    batch_size: int = 4,
    overwrite: bool = False,
    retry_rejected: bool = False,
    shard: Shard | None = None,
) -> Imagined:
    """One picture a query, `out/{id:05d}.png`; refused ones go to `out/rejected/`; what is done is kept.

    Args:
        composer: what conditions the generator, a Composer or a folder of embeddings (EmbeddingFolder).
        retry_rejected: go on with the seeds after the last for queries that have no accepted picture.
        shard: which batches of queries are done; what is returned is about these alone.

    Raises:
        MismatchError: the folder was made with other settings and overwrite is off.
    """
    out, how = Path(out), how or Imagining()
    models = fingerprints(generator.identity)
    mine = (shard or Shard()).take(batches(benchmark.queries, batch_size))
    queries = [query for batch in mine for query in batch]
    conditions = Composed(benchmark, composer) if isinstance(composer, Composer) else composer
    if getattr(generator, "shown", False):
        conditions = Shown(benchmark, conditions)
    settings = {
        "benchmark": benchmark.title,
        **asdict(how),
        **generator.settings,
        **conditions.settings,
        "models": models,
    }
    possible = [query.id for query in queries if query.id not in conditions.missing]
    manifest = Manifest(out, settings, overwrite, possible=possible)
    believed = [query for query in queries if not overwrite or query.id in manifest.lines]
    shelf = Shelf(out, manifest, _pictures(out, believed), retry_rejected)
    todo = [batch for batch in mine if any(not shelf.done(own) and own.id not in conditions.missing for own in batch)]
    conditions.prepare([query for batch in todo for query in batch])
    made = 0
    known = {query.id: query for query in queries}
    with measured() as cost:
        for batch in progress(todo, len(todo), f"imagine {benchmark.title}", "batch"):
            for target in _try(batch, conditions, generator, how, benchmark.name, shelf):
                shelf.keep(target, query_digest(known[target.id]), models)
                made += 1
    if made:
        write_json(out / "cost.json", {"queries": made, **asdict(cost)}, indent=1)
    refused = (query.id for query in queries if shelf.refused(query.id))
    foreign = tuple(name for name in shelf.pictures if name not in manifest.lines)
    lost = [query for query in queries if query.id in conditions.missing and not shelf.done(query)]
    missing = {query.id: conditions.missing[query.id] for query in lost}
    return Imagined(_pictures(out, queries), made, tuple(refused), foreign, missing)


class Shelf:
    """What the output folder holds: the manifest's lines, and the pictures that were there at the start."""

    def __init__(self, out: Path, manifest: Manifest, pictures: Mapping[str, Path], retry_rejected: bool) -> None:
        self.out, self.manifest, self.pictures, self.retry_rejected = out, manifest, pictures, retry_rejected

    def done(self, query: Query) -> bool:
        if self.manifest.is_stale(query):  # its caption or reference is another now
            return False
        if self.refused(query.id):
            return not self.retry_rejected
        return query.id in self.pictures

    def refused(self, query: str) -> bool:
        return not self.manifest.lines.get(query, {}).get("accepted", True)

    def attempts(self, query: Query) -> int:
        """Pictures made for it before this run, to be added to."""
        goes_on = self.retry_rejected and self.refused(query.id) and not self.manifest.is_stale(query)
        return self.manifest.lines[query.id].get("attempts", 0) if goes_on else 0

    def keep(self, target: PseudoTarget, asked: str, models: Mapping[str, Any]) -> None:
        """In an order that a kill cannot hurt: a line that says accepted is believed only with its picture beside it,
        one that says refused is believed as it is, so there the picture goes first."""
        name = picture_name(target.id)
        accepted, refused = self.out / name, self.out / "rejected" / name
        file = accepted if target.accepted else refused
        line = {"id": target.id, "file": str(file.relative_to(self.out)), "query": asked, "seed": target.seed}
        line |= {"attempts": target.attempts, "accepted": target.accepted, "models": models}
        for stem in stems_of(target.id):
            remove(self.out / f"{stem}.png")  # one that --overwrite replaces
        if target.accepted:
            self.manifest.add(line)
            write_png(accepted, target.image)
            remove(refused)
        else:
            write_png(refused, target.image)
            self.manifest.add(line)


def _try(
    batch: Sequence[Query], conditions: Conditions, generator: Generator, how: Imagining, benchmark: str, shelf: Shelf
) -> list[PseudoTarget]:
    """The whole batch is made again, finished pictures too: a picture depends, in its last bits, on its neighbours.

    Retried queries alone go on from their last seed; what was done is not returned.
    """
    wanted = {query.id for query in batch if not shelf.done(query)}
    retried = [query for query in batch if query.id in wanted and shelf.attempts(query)]
    targets: list[PseudoTarget] = []
    for queries in ([query for query in batch if query not in retried], retried):
        composed = conditions(queries) if wanted & {query.id for query in queries} else None
        if composed and wanted & set(composed.ids):  # for what cannot be composed its neighbours are not made again
            starts = {query.id: shelf.attempts(query) for query in queries}
            targets += make_pictures(composed, generator, how, benchmark, starts)
    return [target for target in targets if target.id in wanted]


def make_pictures(
    composed: ComposedEmbedding, generator: Generator, how: Imagining, benchmark: str, starts: Mapping[str, int]
) -> list[PseudoTarget]:
    """One accepted picture a query, or the last refused one after max_retries more attempts.

    Args:
        starts: query id -> attempts before this call; seeds go on from there.
    """
    targets: dict[str, PseudoTarget] = {}
    for attempt in range(how.max_retries + 1):
        rows = [row for row, name in enumerate(composed.ids) if name not in targets or not targets[name].accepted]
        if not rows:
            break
        names = [composed.ids[row] for row in rows]
        seeds = [seed_of(how.seeds, how.seed, benchmark, name, starts[name] + attempt) for name in names]
        for name, seed, image in zip(names, seeds, paint(generator, take(composed, rows), seeds), strict=True):
            bright = brightness(image) > how.brightness_thresh
            targets[name] = PseudoTarget(name, image, seed, starts[name] + attempt + 1, bright)
    return list(targets.values())


def paint(generator: Generator, composed: ComposedEmbedding, seeds: Sequence[int]) -> list[Image]:
    """The generator's pictures; a batch that does not fit into memory is halved, and halved again."""
    try:
        return generator(composed, seeds)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error) or len(seeds) == 1:
            raise
    half = len(seeds) // 2
    say(f"out of memory with {len(seeds)} pictures at once: going on with {len(seeds) - half}; lower --batch-size")
    free_memory()
    parts = (range(half), range(half, len(seeds)))
    return [image for rows in parts for image in paint(generator, take(composed, rows), [seeds[row] for row in rows])]


def brightness(image: Image) -> float:
    """The mean over all pixels and channels, 0..255."""
    return float(np.asarray(image).mean())


def _pictures(out: Path, queries: Sequence[Query]) -> dict[str, Path]:
    return find_by_id(out, [query.id for query in queries], [".png"]) if out.is_dir() else {}
