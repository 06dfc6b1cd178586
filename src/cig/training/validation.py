"""Validation during training: the phi searches a benchmark by the method that it is trained for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cig import registry
from cig.benchmarks import load_benchmarks
from cig.benchmarks._requirements import need_pictures
from cig.errors import UsageError, did_you_mean, some
from cig.evaluation.score import evaluate
from cig.io.digests import digest_of
from cig.methods._inversion import InversionMethod
from cig.models.clip import Clip
from cig.models.phi import Im2Text, Inverter, Phi
from cig.retrieval.features import PictureFeatures, embed_pictures
from cig.retrieval.rank import search, wanted_pictures
from cig.runtime import warn
from cig.types import Benchmark

AVERAGE = ("recall@5", "subset_recall@1")  # CIRR's average is of these; evaluation adds it


@dataclass(frozen=True)
class Validation:
    """A benchmark, or the first of its queries, and the measure that decides which checkpoint is the best."""

    parts: tuple[Benchmark, ...]
    measure: str

    @property
    def identity(self) -> dict[str, Any]:
        queries, gallery = (sum(len(getattr(part, field)) for part in self.parts) for field in ("queries", "gallery"))
        counts = {"queries": queries, "gallery": gallery, "digest": digest_of([_content(part) for part in self.parts])}
        return {"benchmark": self.parts[0].name, **counts, "measure": self.measure}

    def scores(self, method: InversionMethod, pictures: PictureFeatures) -> dict[str, float]:
        """Return the scores over all parts in percent, `measure` first."""
        rankings = [search(part, method, pictures=pictures) for part in self.parts]
        scores = evaluate(self.parts, rankings).scores
        whole = scores["average"] if len(self.parts) > 1 else next(iter(scores.values()))
        return {self.measure: whole[self.measure], **whole}


def _content(part: Benchmark) -> list[Any]:
    """Return the queries with their targets, and the gallery: what scores depend on."""
    queries = [[query.id, query.reference, *query.captions, dict(query.relevant)] for query in part.queries]
    return [queries, list(part.gallery)]


def load_validation(
    name: str, measure: str | None = None, root: Path | None = None, *, limit: int | None = None
) -> Validation:
    """Load a benchmark to validate on, by NAME/SPLIT.

    Args:
        measure: of which more is better; by default the benchmark's first.
        limit: take the first so many queries of each part; the gallery stays whole.

    Raises:
        UsageError: its targets are hidden, or it has no such measure.
        NotFoundError: there is no such benchmark, or none of its pictures.
    """
    parts = tuple(replace(part, queries=part.queries[:limit]) for part in load_benchmarks(name, root))
    if any(part.hidden for part in parts):
        raise UsageError(f"the targets of {parts[0].name} are hidden; validate on val")
    measures = [*parts[0].measures, *(("average",) if {*AVERAGE} <= {*parts[0].measures} else ())]
    if measure and measure not in measures:
        raise UsageError(f'{parts[0].name} has no measure "{measure}".{did_you_mean(measure, measures)}')
    need_pictures(parts)
    for part in parts:
        if part.missing_list:
            warn(
                f"{part.missing_list} is not there: {part.title} is validated on the {len(part.gallery):,} pictures "
                f"found, and these scores compare with no others"
            )
    return Validation(parts, measure or measures[0])


def validator(
    validation: Validation, family: str, clip: Clip, *, phi: Phi | Im2Text, batch: int = 64, workers: int = 4
) -> Callable[[], Mapping[str, float]]:
    """Return a function that scores the phi in training; encode the benchmark's pictures here, once.

    Args:
        family: of methods, which fixes prompt, preprocessing and the pseudo-word's position.
        phi: scored as fp16, as the file holds it, so that `cig evaluate` gets the same scores.
        batch: encode so many pictures at a time.
        workers: threads that decode pictures.
    """
    with_phi = registry.load("methods", family).with_phi

    def method(network: Phi | Im2Text) -> InversionMethod:
        built: InversionMethod = with_phi(Inverter(clip, network), family, {"clip": clip.identity})
        return built

    wanted = [path for part in validation.parts for path in wanted_pictures(part, method(phi))]
    pictures = embed_pictures(method(phi), wanted, batch, workers=workers)
    if pictures.failed:
        warn(f"{len(pictures.failed)} pictures cannot be read, and are not found: {some(pictures.failed.values(), 3)}")
    return lambda: validation.scores(method(deepcopy(phi).half().float().eval()), pictures)
