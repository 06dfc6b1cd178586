"""A cell of `cig reproduce` on this machine: its run, and the commands that it stands for."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from cig import config
from cig.benchmarks import Data
from cig.generators import Composing, Generation
from cig.io.files import remove
from cig.io.json_files import read_object
from cig.pipelines._models import complaint
from cig.pipelines._search_benchmark import Evaluation, Outputs
from cig.pipelines.evaluate import evaluate
from cig.pipelines.reproduce.published import Cell
from cig.pipelines.run import run
from cig.pipelines.submit import submit
from cig.retrieval.requests import Searching
from cig.runtime import Compute

IMAGINED_AT_ONCE = 4


@dataclass(frozen=True)
class Places:
    """Where things lie and how they are computed: what a machine is free to choose."""

    dataset: Path | None = None  # by default the published place
    clip: str | None = None  # that searches; by default the method's
    phi: Path | None = None
    pseudo_targets: Path | None = None  # made before; by default they are imagined
    composing: Composing = field(default_factory=Composing)
    generation: Generation = field(default_factory=Generation)
    compute: Compute = field(default_factory=lambda: Compute(batch_size=IMAGINED_AT_ONCE))
    search_batch: int = Compute.batch_size  # pictures embedded at once
    out: Path = Path("outputs/reproduce")


@dataclass(frozen=True)
class CellRun:
    """Cells of one benchmark share a folder: features are computed, and pseudo-targets made, once."""

    cell: Cell
    places: Places

    @property
    def imagines(self) -> bool:
        return self.cell.imagined and not self.places.pseudo_targets

    @property
    def verb(self) -> str:
        return "run" if self.imagines else "submit" if self.cell.server else "evaluate"

    @property
    def dataset(self) -> Path:
        return self.places.dataset or config.path(self.cell.family)

    @property
    def folder(self) -> Path:
        return self.places.out / self.cell.benchmark.replace("/", "_")

    @property
    def record(self) -> Path:
        """What the verb writes of scores and provenance."""
        if self.imagines:
            return self.folder / ("record.json" if self.cell.server else "scores.json")
        return self.folder / f"{self.cell.short}.json"

    @property
    def submission(self) -> Path:
        return self.folder / "submission" / f"{self.cell.short}.json"

    @property
    def data(self) -> Data:
        return Data(self.cell.benchmark, self.places.dataset)

    @property
    def searching(self) -> Searching:
        return Searching(
            method=self.cell.method,
            clip=self.places.clip,
            phi=self.places.phi,
            pseudo_targets=self.places.pseudo_targets if self.cell.imagined else None,
            feature_cache=self.folder / "features",
        )

    def run(self) -> tuple[dict[str, Any], str]:
        """What the verb wrote, and which queries could not run, in words, if any."""
        remove(self.record)  # an earlier attempt may have left one
        missing = self._evaluation().search.missing_references
        return read_object(self.record), complaint(missing, "could not run and score 0") if missing else ""

    def _evaluation(self) -> Evaluation:
        places, name = self.places, self.cell.short
        compute, outputs = replace(places.compute, batch_size=places.search_batch), Outputs(json=self.record)
        if self.imagines:
            return run(
                self.data,
                places.compute,
                places.composing,
                generation=places.generation,
                searching=self.searching,
                out=self.folder,
                name=name,
                search_batch=places.search_batch,
            )
        if self.cell.server:
            return submit(self.data, compute, self.searching, name=name, out=self.submission.parent, outputs=outputs)
        return evaluate(self.data, compute, self.searching, outputs=outputs)


# What a person would type


def commands(attempt: CellRun) -> list[str]:
    """The command lines that an attempt stands for, where no cig.toml says otherwise."""
    flags = {**_search_flags(attempt), **_place_flags(attempt), **_compute_flags(attempt)}
    words = [word for flag, value in flags.items() if value is not None for word in _words(flag, value)]
    lines = [[attempt.verb, attempt.cell.benchmark, *words]]
    if attempt.cell.server:
        lines.append(["validate-submission", f"{attempt.submission}", "--dataset-path", f"{attempt.dataset}"])
    return [shlex.join(["cig", *line]) for line in lines]


def _search_flags(attempt: CellRun) -> dict[str, object]:
    searching, kind = attempt.searching, _kind(attempt)
    models = {"method": searching.method, f"{kind}clip": searching.clip, f"{kind}phi": searching.phi}
    return {"dataset_path": attempt.places.dataset, **models, "generated_image_dir": searching.pseudo_targets}


def _place_flags(attempt: CellRun) -> dict[str, object]:
    server, places = attempt.cell.server, attempt.places
    name = {"submission_name": attempt.cell.short if server else None}
    if attempt.imagines:
        return {**_changed(places.composing), **_changed(places.generation), "out": attempt.folder, **name}
    outputs = {"output_dir": attempt.submission.parent if server else None, "json": attempt.record}
    return {**name, **outputs, "feature_cache": attempt.searching.feature_cache}


def _compute_flags(attempt: CellRun) -> dict[str, object]:
    places = attempt.places
    one, two = places.compute.batch_size, places.search_batch
    sizes = {"batch_size": (one, IMAGINED_AT_ONCE), "search_batch_size": (two, Compute.batch_size)}
    if not attempt.imagines:
        sizes = {"batch_size": (two, Compute.batch_size)}
    changed = {flag: size for flag, (size, default) in sizes.items() if size != default}
    return {**_changed(replace(places.compute, batch_size=Compute.batch_size)), **changed}


def _changed(record: Composing | Generation | Compute) -> dict[str, object]:
    """Flag -> value, of what is not the default."""
    return {name: value for name, value in vars(record).items() if value != getattr(type(record), name)}


def _words(flag: str, value: object) -> list[str]:
    name = f"--{flag.replace('_', '-')}"
    return [name] if value is True else [name, str(value)]


def _kind(attempt: CellRun) -> str:
    """`run` has two CLIPs that compose, and calls the one that searches so."""
    return "search_" if attempt.imagines else ""
