"""Imagine pseudo-targets: seeds, batches, acceptance, retries, resume (CIG, stage 2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cig.errors import check_members, check_type
from cig.generators import Imagining
from cig.generators._compose import (
    ComposedAhead,
    ComposedConditions,
    Conditions,
    ConditionsWithReferences,
    batches_with,
    take,
)
from cig.io.digests import fingerprints
from cig.io.files import remove, write_png
from cig.io.json_files import write_json
from cig.io.locks import hold
from cig.io.manifest import Manifest, query_digest
from cig.io.query_files import find_by_id, picture_name, stems_of
from cig.machine import Cost, free_memory, is_out_of_memory, measured
from cig.models.composer import Composer
from cig.runtime import Shard, progress, seed_of, warn
from cig.types import Benchmark, ComposedEmbedding, Generator, PseudoTarget, Query, check_benchmark

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class Imagined:
    """The outcome of `imagine`."""

    pictures: Mapping[str, Path]  # query id -> its accepted picture
    made: int  # queries that were done in this run
    refused: tuple[str, ...]  # queries without an accepted picture
    foreign: tuple[str, ...]  # queries whose picture has no line in the manifest
    missing: Mapping[str, str] = field(default_factory=dict)  # queries that were not tried, and why

    def __repr__(self) -> str:
        counts = f"{self.made} queries done in this run, {len(self.refused)} refused, {len(self.missing)} missing"
        return f"<Imagined: {len(self.pictures)} pseudo-targets, {counts}>"


def imagine(
    benchmark: Benchmark,
    composer: Composer | Conditions,
    generator: Generator,
    out: str | Path,
    *,
    how: Imagining | None = None,
    batch_size: int = 4,
    overwrite: bool = False,
    retry_rejected: bool = False,
    shard: Shard | None = None,
) -> Imagined:
    """Make one picture a query, `out/{id:05d}.png`, but for those that exist; refused ones go to `out/rejected/`.

    Args:
        composer: what conditions the generator, a Composer or a folder of embeddings (EmbeddingFolder).
        retry_rejected: go on with the seeds after the last for queries that have no accepted picture.
        shard: makes and reports a share of the queries alone.

    Raises:
        MismatchError: the folder was made with other settings and overwrite is off.
        UsageError: another process works in the folder.
    """
    _check_arguments(benchmark, composer, generator, out=out, how=how)
    with hold(Path(out), "pseudo-targets", shard):
        task = ImagineTask(
            benchmark,
            ComposedConditions(benchmark, composer) if isinstance(composer, Composer) else composer,
            generator,
            out=Path(out),
            how=how or Imagining(),
            batch_size=batch_size,
            overwrite=overwrite,
            retry_rejected=retry_rejected,
            shard=shard or Shard(),
        )
        return task.make()


class ImagineTask:
    """What is left to imagine of a benchmark; what composes may be done, and released, before the generator loads.

    Hold the folder for as long as the task lives (locks.hold).

    Raises:
        MismatchError: as `imagine`.
    """

    def __init__(
        self,
        benchmark: Benchmark,
        conditions: Conditions,
        generator: Generator,
        *,
        out: Path,
        how: Imagining,
        batch_size: int,
        overwrite: bool = False,
        retry_rejected: bool = False,
        shard: Shard = Shard(),  # noqa: B008
    ) -> None:
        self.benchmark, self.conditions, self.generator, self.how = benchmark, conditions, generator, how
        self.composing = Cost()
        self.share = shard.part(benchmark.queries)
        settings = {"benchmark": benchmark.title, **asdict(how), **generator.settings, **conditions.settings}
        settings["models"] = fingerprints(generator.identity)
        able = [query for query in self.share if query.id not in conditions.missing]
        self.manifest = Manifest(out, settings, overwrite, possible=[query.id for query in able])
        self.folder = OutputFolder(out, self.manifest, self.share, retry_rejected=retry_rejected, overwrite=overwrite)
        self.todo = batches_with({query.id for query in able if not self.folder.done(query)}, benchmark, batch_size)

    @property
    def groups(self) -> list[Sequence[Query]]:
        """The queries that are composed together."""
        return [group for batch in self.todo for group in _groups(batch, self.folder)]

    def compose(self) -> None:
        """Compose all that is left, about 0.6 MB a query for SDXL, in the groups in which it will be needed."""
        with measured() as self.composing:
            self.conditions = ComposedAhead(self.conditions, self.groups, self.benchmark.title)

    def make(self) -> Imagined:
        """Make the pictures, and say what there is now."""
        conditions, queries = self.conditions, self.share
        if getattr(self.generator, "shown", False):
            conditions = ConditionsWithReferences(self.benchmark, conditions)
        made = _make_batches(
            self.todo,
            conditions,
            self.generator,
            how=self.how,
            benchmark=self.benchmark,
            folder=self.folder,
            composing=self.composing,
        )
        refused = tuple(query.id for query in queries if self.folder.refused(query.id))
        foreign = tuple(name for name in self.folder.pictures if name not in self.manifest.lines)
        lost = [query.id for query in queries if query.id in conditions.missing and not self.folder.done(query)]
        missing = {name: conditions.missing[name] for name in lost}
        return Imagined(_pictures(self.folder.out, queries), made, refused, foreign=foreign, missing=missing)


def _check_arguments(benchmark: Any, composer: Any, generator: Any, *, out: Any, how: Any) -> None:
    """Raise WrongTypeError that names the argument of `imagine` and what it should be."""
    check_benchmark(benchmark)
    if not isinstance(composer, Composer):
        wanted = "a Composer (cig.load_composer) or a cig.EmbeddingFolder"
        check_members(composer, ("missing", "prepare"), name="composer", wanted=wanted)
    wanted = 'a Generator, such as cig.load_generator("sdxl")'
    check_members(generator, ("__call__", "settings", "identity"), name="generator", wanted=wanted)
    check_type(out, (str, Path), name="out", wanted="the path of a folder")
    check_type(how, (Imagining, type(None)), name="how", wanted="a cig.Imagining")


class OutputFolder:
    """The state of the output folder: the manifest's lines, and the pictures of earlier runs or from elsewhere."""

    # Each query's line and picture are two files, so a kill may leave one without the other. `done` decides what that
    # means: an accepted query needs its picture, a refused one needs its line only. `keep` writes in the order that
    # makes this safe. With --overwrite, a picture counts only if this or a stopped overwriting run has a line for it.

    def __init__(
        self, out: Path, manifest: Manifest, queries: Sequence[Query], *, retry_rejected: bool, overwrite: bool = False
    ) -> None:
        self.out, self.manifest, self.retry_rejected = out, manifest, retry_rejected
        trusted = [query for query in queries if not overwrite or query.id in manifest.lines]
        self.share, self.pictures = {query.id for query in queries}, _pictures(out, trusted)

    def done(self, query: Query) -> bool:
        """Tell whether nothing is to be made for a query: it has its outcome, or it is another share's."""
        if query.id not in self.share:
            return True
        if self.manifest.is_stale(query):  # its caption or reference has changed
            return False
        if self.refused(query.id):
            return not self.retry_rejected
        return query.id in self.pictures

    def refused(self, query: str) -> bool:
        return not self.manifest.lines.get(query, {}).get("accepted", True)

    def attempts(self, query: Query) -> int:
        """Return the number of refused pictures of earlier runs, after which --retry-rejected goes on."""
        goes_on = self.retry_rejected and self.refused(query.id) and not self.manifest.is_stale(query)
        return self.manifest.lines[query.id].get("attempts", 0) if goes_on else 0

    def keep(self, target: PseudoTarget, digest: str, models: Mapping[str, Any]) -> None:
        """Write a picture and its line, in an order that survives a kill between the two."""
        # An accepted picture's line goes first: without its picture it is not believed, and the query is done again.
        # A refused picture's line is believed by itself, so it goes last: before it, the query counts as not done.
        name = picture_name(target.id)
        accepted, refused = self.out / name, self.out / "rejected" / name
        file = accepted if target.accepted else refused
        line = {"id": target.id, "file": str(file.relative_to(self.out)), "query": digest, "seed": target.seed}
        line |= {"attempts": target.attempts, "accepted": target.accepted, "models": models}
        for stem in stems_of(target.id):
            remove(self.out / f"{stem}.png")  # a picture that --overwrite replaces
        if target.accepted:
            self.manifest.add(line)
            write_png(accepted, target.image)
            remove(refused)
        else:
            write_png(refused, target.image)
            self.manifest.add(line)


def _make_batches(
    todo: Sequence[Sequence[Query]],
    conditions: Conditions,
    generator: Generator,
    *,
    how: Imagining,
    benchmark: Benchmark,
    folder: OutputFolder,
    composing: Cost,
) -> int:
    """Make the pictures of batches into the folder, and `cost.json`; return the number of queries done."""
    made, models = 0, fingerprints(generator.identity)
    queries = {query.id: query for batch in todo for query in batch}
    conditions.prepare(list(queries.values()))
    with measured() as cost:
        for batch in progress(todo, len(todo), f"imagine {benchmark.title}", unit="batch"):
            for target in _make_batch(batch, conditions, generator, how=how, benchmark=benchmark.name, folder=folder):
                folder.keep(target, query_digest(queries[target.id]), models)
                made += 1
    if made:
        peak = cost.gigabytes and max(cost.gigabytes, composing.gigabytes or 0)
        whole = replace(cost, seconds=cost.seconds + composing.seconds, gigabytes=peak)
        write_json(folder.out / "cost.json", {"queries": made, **asdict(whole)}, indent=1)
    return made


def _make_batch(
    batch: Sequence[Query],
    conditions: Conditions,
    generator: Generator,
    *,
    how: Imagining,
    benchmark: str,
    folder: OutputFolder,
) -> list[PseudoTarget]:
    """Make the pictures of the queries of a batch that are not done."""
    wanted = {query.id for query in batch if not folder.done(query)}
    targets: list[PseudoTarget] = []
    for queries in _groups(batch, folder):
        composed = conditions(queries)
        if composed and wanted & set(composed.ids):  # if nothing wanted can be composed, do not make its neighbours
            starts = {query.id: folder.attempts(query) for query in queries}
            targets += make_pictures(composed, generator, how, benchmark=benchmark, starts=starts)
    return [target for target in targets if target.id in wanted]


def _groups(batch: Sequence[Query], folder: OutputFolder) -> list[Sequence[Query]]:
    """Return the queries of a batch that are made together, where one of them is wanted."""
    # A picture depends, in its last bits, on its neighbours in the batch. So a batch of which some queries are done is
    # made again as a whole, and only the rest of it is returned: a resumed run then writes the same bytes as one that
    # was never stopped. Retried queries go on from their last seed, and therefore form a batch of their own.
    wanted = {query.id for query in batch if not folder.done(query)}
    retried = [query for query in batch if query.id in wanted and folder.attempts(query)]
    groups = [query for query in batch if query not in retried], retried
    return [group for group in groups if wanted & {query.id for query in group}]


def make_pictures(
    composed: ComposedEmbedding, generator: Generator, how: Imagining, *, benchmark: str, starts: Mapping[str, int]
) -> list[PseudoTarget]:
    """Make one accepted picture a query, or its last refused one after max_retries more attempts.

    Args:
        starts: query id -> attempts before this call; seeds go on from there.
    """
    targets: dict[str, PseudoTarget] = {}
    for attempt in range(how.max_retries + 1):
        rows = [row for row, name in enumerate(composed.ids) if name not in targets or not targets[name].accepted]
        if not rows:
            break
        names = [composed.ids[row] for row in rows]
        seeds = [
            seed_of(how.seeds, how.seed, benchmark=benchmark, query=name, attempt=starts[name] + attempt)
            for name in names
        ]
        images = generate_in_memory(generator, take(composed, rows), seeds)
        for name, seed, image in zip(names, seeds, images, strict=True):
            attempts, accepted = starts[name] + attempt + 1, brightness(image) > how.brightness_thresh
            targets[name] = PseudoTarget(name, image, seed, attempts=attempts, accepted=accepted)
    return list(targets.values())


def generate_in_memory(generator: Generator, composed: ComposedEmbedding, seeds: Sequence[int]) -> list[Image]:
    """Call the generator; a batch that does not fit into memory is halved, and halved again."""
    try:
        return generator(composed, seeds)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error) or len(seeds) == 1:
            raise
    # Out of the except block: there, the exception would keep the failed call's tensors alive.
    half = len(seeds) // 2
    warn(f"out of memory with {len(seeds)} pictures at once: going on with {len(seeds) - half}; lower --batch-size")
    free_memory()
    halves = (range(half), range(half, len(seeds)))
    parts = [generate_in_memory(generator, take(composed, rows), [seeds[row] for row in rows]) for rows in halves]
    return [image for part in parts for image in part]


def brightness(image: Image) -> float:
    """Return the mean over all pixels and channels, 0..255."""
    return float(np.asarray(image).mean())


def _pictures(out: Path, queries: Sequence[Query]) -> dict[str, Path]:
    return find_by_id(out, [query.id for query in queries], [".png"]) if out.is_dir() else {}
