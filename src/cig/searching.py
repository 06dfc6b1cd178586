"""One search over a benchmark's parts, and what it took: rankings, branches, provenance."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cig import plugins
from cig.errors import NotFoundError, UsageError
from cig.formats import find_by_id, picture_name, write_bytes
from cig.layout import existing_part
from cig.manifest import Manifest
from cig.options import Compute, Data, Searching
from cig.preflight import need_pictures
from cig.runtime import commit, device_name, jsonable, resolve_device, say, versions
from cig.types import Benchmark, Method, Ranking, Report

if TYPE_CHECKING:
    from cig.cache import FeatureCache
    from cig.features import PictureFeatures
    from cig.methods import Source

PICTURES = (".png", ".jpg", ".jpeg", ".webp")
Targets = dict[str, Path]


@dataclass(frozen=True)
class Found:
    parts: tuple[Benchmark, ...]
    method: Method
    rankings: list[Ranking]
    alone: list[Ranking] | None  # without pseudo-targets, where they were fused
    targets: list[Targets | None]  # query id -> pseudo-target
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
    source = Source(clip=searching.clip, phi=searching.phi)
    check_flags(searching.method, source)
    if searching.weight is not None and not 0 <= searching.weight <= 1:
        raise UsageError(f"--fusion-weight {searching.weight} is the reference's share: from 0 to 1")
    weights = plugins.load("methods", family).VARIANTS[variant]
    if weights.phi:
        source.phi_file(weights)


def source_of(searching: Searching, compute: Compute) -> Source:
    from cig.methods import Source

    device = resolve_device(compute.device)
    return Source(searching.clip, searching.phi, device, compute.dtype, compute.cache_dir, searching.preprocessing)


def search_parts(
    parts: tuple[Benchmark, ...],
    data: Data,
    compute: Compute,
    searching: Searching,
    cache: FeatureCache,
    allow_missing: bool = False,
) -> Found:
    """Embeds, fuses and ranks every part; with pseudo-targets, ranks without them, too."""
    from cig.features import embed_pictures
    from cig.methods import recall_method
    from cig.retrieval import search, wanted_pictures

    started = time.monotonic()
    targets = [_pseudo_targets(part, data, searching) for part in parts]
    need_pictures(parts)
    method = recall_method(searching.method, source_of(searching, compute), cache)
    if not method.uses_picture and searching.pseudo_targets:
        say(f"{method.name} looks at no picture, so pseudo-targets change nothing; they are not fused")
        targets = [None] * len(parts)
    wanted = [path for part, own in zip(parts, targets, strict=True) for path in wanted_pictures(part, method, own)]
    pictures = embed_pictures(method, wanted, compute.batch_size, compute.workers, cache)

    def ranked(part: Benchmark, own: Targets | None) -> Ranking:
        return search(part, method, own, searching.weight, pictures, allow_missing, cache)

    fused = targets[0] is not None
    folders = [_folder(searching.pseudo_targets, part, data) for part in parts] if searching.pseudo_targets else []
    imagined = {key: own for folder in folders for key, own in Manifest.made_by(folder).items()}
    rankings = [ranked(part, own) for part, own in zip(parts, targets, strict=True)]
    alone = [ranked(part, None) for part in parts] if fused else None
    about = _provenance(parts, method, pictures, searching, compute, started)
    return Found(
        parts=parts,
        method=method,
        rankings=rankings,
        alone=alone,
        targets=targets,
        refused=[_refused(folder) for folder in folders] or [set() for _ in parts],
        branches=_branches(parts[0], searching, fused),
        provenance={**about, "imagined": imagined},
    )


def _pseudo_targets(part: Benchmark, data: Data, searching: Searching) -> Targets | None:
    if not searching.pseudo_targets:
        return None
    folder = _folder(searching.pseudo_targets, part, data)
    found = find_by_id(folder, [query.id for query in part.queries], PICTURES)
    if not found:
        expected = picture_name(part.queries[0].id) if part.queries else "00000.png"
        raise NotFoundError(f"{folder} has no pseudo-target of {part.title}; expected names such as {expected}")
    return found


def _folder(pseudo_targets: Path, part: Benchmark, data: Data) -> Path:
    return existing_part(pseudo_targets, part, len(data.categories) == 1)


def _refused(folder: Path) -> set[str]:
    """By the manifest of our own generation; elsewhere nothing is known of refusals."""
    return {name for name, line in Manifest.read(folder).items() if not line.get("accepted", True)}


def _branches(part: Benchmark, searching: Searching, fused: bool) -> list[dict[str, Any]]:
    """Which pictures were searched with, their shares, and where these come from."""
    if not fused:
        return [{"name": "reference", "weight": 1.0, "source": "no pseudo-targets"}]
    weight = part.weight if searching.weight is None else searching.weight
    source = part.weight_source if searching.weight is None else "--fusion-weight"
    pictures = str(searching.pseudo_targets)
    return [
        {"name": "reference", "weight": weight, "source": source},
        {"name": "pseudo-target", "weight": 1 - weight, "source": source, "pictures": pictures},
    ]


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
    own = dict.fromkeys(path for part in parts for path in part.images.values())
    return {
        "versions": versions(),
        "commit": commit(),
        "settings": jsonable({**vars(searching), **vars(compute), "preprocess": vars(method.preprocess)}),
        "models": jsonable(dict(method.identity)),
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
    from cig import page, report

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
