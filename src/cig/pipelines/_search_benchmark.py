"""One search over a benchmark's parts, and what it took: rankings, branches, provenance."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cig import registry
from cig.benchmarks import Data
from cig.benchmarks._requirements import need_pictures
from cig.errors import UsageError
from cig.io.files import write_bytes
from cig.io.manifest import Manifest
from cig.retrieval.branches import Branches, refused
from cig.retrieval.branches import check as check_branches
from cig.retrieval.requests import Searching
from cig.runtime import Compute, commit, device_name, jsonable, resolve_device, say, versions
from cig.types import Benchmark, Branch, Method, Ranking, Report

if TYPE_CHECKING:
    from cig.io.feature_cache import FeatureCache
    from cig.methods import Source
    from cig.retrieval.features import PictureFeatures

Targets = dict[str, Path]


@dataclass(frozen=True)
class Found:
    parts: tuple[Benchmark, ...]
    method: Method
    rankings: list[Ranking]
    alone: list[Ranking] | None  # by the reference alone, where branches were fused in
    targets: list[Targets | None]  # query id -> the picture of its first branch: the pseudo-target
    refused: list[set[str]]  # ids of queries whose pictures were all refused
    branches: list[dict[str, Any]]
    provenance: dict[str, Any]

    @property
    def missing_references(self) -> dict[str, str]:
        """Queries that could not run, by benchmark and id -> why."""
        pairs = zip(self.parts, self.rankings, strict=True)
        return {f"{part.title}/{query}": why for part, ranking in pairs for query, why in ranking.missing.items()}

    @property
    def names(self) -> dict[str, dict[str, list[str]]]:
        """What --rankings writes: part -> query id -> the first 50 names."""
        pairs = zip(self.parts, self.rankings, strict=True)
        return {part.part: dict(zip(own.queries, map(list, own.ids), strict=True)) for part, own in pairs}


def check_searching(searching: Searching) -> None:
    """Raises UsageError for flags that do not go together, NotFoundError for weights that are not there."""
    from cig.methods import Source, check_flags, split_method

    family, variant = split_method(searching.method)
    source = Source(clip=searching.clip, phi=searching.phi, options=searching.options)
    check_flags(searching.method, source)
    check_branches(searching)
    if searching.weight is not None and not 0 <= searching.weight <= 1:
        raise UsageError(f"--fusion-weight {searching.weight} is the reference's share: from 0 to 1")
    weights = registry.load("methods", family).VARIANTS[variant]
    if weights.phi:
        source.phi_file(weights)


def source_of(searching: Searching, compute: Compute) -> Source:
    from cig.methods import Source

    device = resolve_device(compute.device)
    return Source(
        clip=searching.clip,
        phi=searching.phi,
        device=device,
        dtype=compute.dtype,
        cache_dir=compute.cache_dir,
        preprocessing=searching.preprocessing,
        options=searching.options,
    )


def search_parts(
    parts: tuple[Benchmark, ...],
    data: Data,
    compute: Compute,
    searching: Searching,
    cache: FeatureCache,
    allow_missing: bool = False,
) -> Found:
    """Embeds, fuses and ranks every part; with pseudo-targets, ranks without them, too."""
    from cig.methods import recall_method
    from cig.retrieval.features import embed_pictures
    from cig.retrieval.rank import search, seen_by, wanted_pictures

    started = time.monotonic()
    method = recall_method(searching.method, source_of(searching, compute), cache)
    parts = tuple(seen_by(method, part) for part in parts)
    need_pictures(parts)
    if not method.uses_picture and searching.pseudo_targets and not searching.branches:
        say(f"{method.name} looks at no picture, so pseudo-targets change nothing; they are not fused")
        searching = replace(searching, pseudo_targets=None)
    making = Branches(searching, method, compute, cache, len(data.categories) == 1)
    branches = [making.of(part) for part in parts]
    wanted = [path for part, own in zip(parts, branches, strict=True) for path in wanted_pictures(part, method, own)]
    pictures = embed_pictures(method, wanted, compute.batch_size, compute.workers, cache)

    def ranked(part: Benchmark, own: Sequence[Branch]) -> Ranking:
        return search(part, method, branches=own, pictures=pictures, allow_missing=allow_missing, cache=cache)

    rankings = [ranked(part, own) for part, own in zip(parts, branches, strict=True)]
    folders = [making.folders(part) for part in parts]
    imagined = {key: own for places in folders for folder in places for key, own in Manifest.made_by(folder).items()}
    about = _provenance(parts, method, pictures, searching, compute, started)
    return Found(
        parts=parts,
        method=method,
        rankings=rankings,
        alone=[ranked(part, ()) for part in parts] if branches[0] else None,
        targets=[_shown(own) for own in branches],
        refused=[{query for folder in places for query in refused(folder)} for places in folders],
        branches=making.describe(parts[0]),
        provenance={**about, "imagined": {name: _with_licences(own) for name, own in imagined.items()}},
    )


def _with_licences(made_by: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of pseudo-targets, which know a model by its digest or as ID@COMMIT, and the licences of hub ids."""
    from cig.methods import licence_of

    composed = made_by.get("compose", {})
    models = {name: composed[name] for name in ("clip", "clip2", "phi", "phi2") if name in composed}
    models |= made_by.get("models", {})
    return {**made_by, "licences": {name: licence_of(str(own).partition("@")[0]) for name, own in models.items()}}


def _shown(branches: Sequence[Branch]) -> Targets | None:
    """The picture that a page shows beside each query: the first of the first branch that has pictures."""
    first = next((branch for branch in branches if branch.pictures), None)
    return {query: paths[0] for query, paths in first.pictures.items()} if first else None


def branches_text(branches: Sequence[Mapping[str, Any]]) -> str:
    return ", ".join(f"{branch['name']} {branch['weight']:.2f}" for branch in branches) + f" ({branches[0]['source']})"


def _provenance(
    parts: Sequence[Benchmark],
    method: Method,
    pictures: PictureFeatures,
    searching: Searching,
    compute: Compute,
    started: float,
) -> dict[str, Any]:
    from cig.methods import licensed

    own = dict.fromkeys(path for part in parts for path in part.images.values())
    return {
        "versions": versions(),
        "commit": commit(),
        "settings": jsonable({**vars(searching), **vars(compute), "preprocess": vars(method.preprocess)}),
        "models": jsonable(licensed(method.identity)),
        "picture_set": pictures.digest(own),
        "counts": {"pictures": len(pictures.rows), "unreadable": len(pictures.failed)},
        "seconds": round(time.monotonic() - started, 3),
        "device": device_name(resolve_device(compute.device)),
    }


# Reports


def need_known_forms(reports: Sequence[Path]) -> None:
    for path in reports:
        if path.suffix not in (".html", ".md"):
            raise UsageError(f"--report {path}: end it in .html for a page with pictures, or in .md for Markdown")


def write_reports(found: Found, result: Report, paths: Sequence[Path], cache: FeatureCache) -> None:
    """Each in the form that its suffix asks for."""
    from cig.evaluation import html as page
    from cig.evaluation import report

    about = found.method.name, found.branches, found.provenance
    for path in paths:
        if path.suffix == ".md":
            write_bytes(path, report.to_markdown(result, *about).encode())
            continue
        alone: Sequence[Ranking | None] = found.alone or [None] * len(found.parts)
        columns = zip(found.parts, found.rankings, alone, found.targets, found.refused, strict=True)
        cases = [case for column in columns for case in page.cases(*column)]
        html = page.to_html(result, page.choose(cases), len(cases), *about, cache=cache)
        write_bytes(path, html.encode())
