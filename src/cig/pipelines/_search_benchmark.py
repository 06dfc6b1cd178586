"""Search a benchmark's parts once, and keep what it took: rankings, branches, provenance.

evaluate, submit and run all search through this room; they differ in what they do with the result.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cig import registry
from cig.benchmarks._requirements import need_pictures
from cig.errors import UsageError
from cig.io.manifest import Manifest
from cig.io.outputs import check_distinct, write_json_output, write_output
from cig.machine import device_name
from cig.models.prompts import NAMED
from cig.retrieval.branches import Branches, refused_queries
from cig.retrieval.branches import check as check_branches
from cig.retrieval.requests import Searching
from cig.runtime import Compute, commit, jsonable, resolve_device, versions, warn
from cig.types import Benchmark, Branch, Method, Ranking, Report

if TYPE_CHECKING:
    from cig.io.feature_cache import FeatureCache
    from cig.methods import Source
    from cig.retrieval.features import PictureFeatures

Targets = dict[str, Path]


@dataclass(frozen=True)
class SearchResult:
    """The rankings of a benchmark's parts, by one method and its branches."""

    parts: tuple[Benchmark, ...]
    method: Method
    rankings: list[Ranking]
    alone: list[Ranking] | None  # by the reference alone, where branches were fused in
    targets: list[Targets | None]  # query id -> the picture of its first branch: the pseudo-target
    refused: list[set[str]]  # ids of queries whose pictures were all refused
    branches: list[dict[str, Any]]
    provenance: dict[str, Any]
    first: list[Ranking] | None = None  # before a verifier re-ranked them
    rerank: dict[str, Any] = field(default_factory=dict)  # the verifier, its cost, what it could not judge

    @property
    def missing_references(self) -> dict[str, str]:
        """Queries that could not run, by benchmark and id -> why."""
        pairs = zip(self.parts, self.rankings, strict=True)
        return {f"{part.title}/{query}": why for part, ranking in pairs for query, why in ranking.missing.items()}

    @property
    def names(self) -> dict[str, dict[str, list[str]]]:
        """What --rankings writes: part -> query id -> the first 50 names."""
        pairs = zip(self.parts, self.rankings, strict=True)
        return {part.part: dict(zip(ranking.queries, map(list, ranking.ids), strict=True)) for part, ranking in pairs}

    @property
    def recipe(self) -> str:
        """The method and its branches' weights, in words."""
        return f"{self.method.name}: {branches_text(self.branches)}{self._verifier}"

    @property
    def _verifier(self) -> str:
        protocol = self.parts[0].protocol.get("rerank") if self.rerank else None
        cost = "{calls} calls, {cached} from the cache, {seconds:.1f} s".format(**self.rerank) if protocol else ""
        return f"; re-ranked: {protocol}; {cost}" if protocol else ""


@dataclass(frozen=True)
class Evaluation:
    """A search, its report, and the official files that were written, if any."""

    search: SearchResult
    report: Report  # without scores where the targets are hidden
    submissions: tuple[Path, ...] = ()
    subsets: str = ""  # a table of scores on subsets of the queries, where there are labels


@dataclass(frozen=True)
class Outputs:
    """The files that a search writes, each where it is asked for."""

    json: Path | None = None  # scores, intervals, per-query values, what was missing, provenance
    rankings: Path | None = None  # the first 50 names of each query
    reports: Sequence[Path] = ()  # FILE.html, a page with pictures, or FILE.md, a summary
    run: Path | None = None  # a TREC run
    qrels: Path | None = None  # TREC qrels

    def __post_init__(self) -> None:
        for path in self.reports:
            if path.suffix not in (".html", ".md"):
                raise UsageError(f"--report {path}: end it in .html for a page with pictures, or in .md for Markdown")
        check_distinct([self.json, self.rankings, *self.reports, self.run, self.qrels])


def check_searching(searching: Searching) -> None:
    """Raises UsageError for flags that do not go together, NotFoundError for weights that are not there."""
    from cig.methods import Source, check_flags, split_method

    family, variant = split_method(searching.method)
    source = Source(clip=searching.clip, phi=searching.phi, options=searching.options)
    check_flags(searching.method, source)
    check_branches(searching)
    if searching.reranking:
        registry.load("models.rerankers", str(searching.reranking.rerank))
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
        preprocessing=searching.preprocess_type,
        options=searching.options,
    )


def load_searcher(searching: Searching, compute: Compute, cache: FeatureCache) -> Method:
    """The method that searches; its models are loaded now only if the cache does not know them."""
    from cig.methods import load_method_lazily

    return load_method_lazily(searching.method, source_of(searching, compute), cache)


def search_parts(
    parts: tuple[Benchmark, ...],
    method: Method,
    searching: Searching,
    *,
    compute: Compute,
    cache: FeatureCache,
    single: bool = False,
    allow_missing: bool = False,
) -> SearchResult:
    """Embed, fuse and rank every part; with pseudo-targets, rank without them, too.

    Args:
        single: one category was asked for, whose pseudo-targets may lie in a flat folder.
        allow_missing: queries without a reference are ranked by their caption alone.
    """
    from cig.retrieval.features import embed_pictures, release_pictures
    from cig.retrieval.rank import search, seen_by, wanted_pictures

    started = time.monotonic()
    prompt = searching.options.get("prompt")
    prompted = {"prompt": NAMED.get(prompt, prompt)} if prompt else {}
    parts = tuple(replace(part, protocol={**part.protocol, **prompted}) for part in parts)
    parts = tuple(seen_by(method, part) for part in parts)
    need_pictures(parts)
    if not method.uses_picture and searching.pseudo_targets and not searching.branches:
        warn(f"{method.name} looks at no picture, so pseudo-targets change nothing; they are not fused")
        searching = replace(searching, pseudo_targets=None)
    making = Branches(searching, method, compute, cache=cache, single=single)
    branches = [making.build(part) for part in parts]
    wanted = [path for part, row in zip(parts, branches, strict=True) for path in wanted_pictures(part, method, row)]
    pictures = embed_pictures(method, wanted, compute.batch_size, workers=compute.num_workers, cache=cache)
    release_pictures(method)

    def ranked(part: Benchmark, branches: Sequence[Branch]) -> Ranking:
        return search(part, method, branches=branches, pictures=pictures, allow_missing=allow_missing, cache=cache)

    folders = [making.folders(part) for part in parts]
    imagined = {
        name: line for row in folders for folder in row for name, line in Manifest.settings_used(folder).items()
    }
    provenance = _provenance(parts, method, pictures, searching=searching, compute=compute, started=started)
    result = SearchResult(
        parts=parts,
        method=method,
        rankings=[ranked(part, row) for part, row in zip(parts, branches, strict=True)],
        alone=[ranked(part, ()) for part in parts] if branches[0] else None,
        targets=[_shown(row) for row in branches],
        refused=[{query for folder in row for query in refused_queries(folder)} for row in folders],
        branches=making.describe(parts[0]),
        provenance={**provenance, "imagined": {name: _with_licences(line) for name, line in imagined.items()}},
    )
    return _verified(result, searching, compute, cache=cache) if searching.reranking else result


def _verified(result: SearchResult, searching: Searching, compute: Compute, *, cache: FeatureCache) -> SearchResult:
    """Re-rank by the verifier; the reference alone is not re-ranked, so it is left out of the comparison."""
    from cig.pipelines._rerank import rerank_parts

    assert searching.reranking
    first = result.rankings
    parts, rankings, record = rerank_parts(result.parts, first, searching.reranking, compute=compute, cache=cache)
    return replace(result, parts=parts, rankings=rankings, alone=None, first=first, rerank=record)


def _with_licences(made_by: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of pseudo-targets, which know a model by its digest or as ID@COMMIT, and the licences of hub ids."""
    from cig.methods import licence_of

    composed = made_by.get("compose", {})
    models = {name: composed[name] for name in ("clip", "clip2", "phi", "phi2") if name in composed}
    models |= made_by.get("models", {})
    return {**made_by, "licences": {name: licence_of(str(source).partition("@")[0]) for name, source in models.items()}}


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
    *,
    searching: Searching,
    compute: Compute,
    started: float,
) -> dict[str, Any]:
    from cig.methods import licensed

    paths = dict.fromkeys(path for part in parts for path in part.images.values())
    return {
        "versions": versions(),
        "commit": commit(),
        "settings": jsonable({**searching.settings(), **compute.settings(), "preprocess": vars(method.preprocess)}),
        "models": jsonable(licensed(method.identity)),
        "picture_set": pictures.digest(paths),
        "counts": {"pictures": len(pictures.rows), "unreadable": len(pictures.failed)},
        "seconds": round(time.monotonic() - started, 3),
        "device": device_name(resolve_device(compute.device)),
    }


# Files


def write_outputs(
    result: SearchResult, report: Report, outputs: Outputs, *, cache: FeatureCache, further: Mapping[str, Any] = {}
) -> None:
    """Write what was asked for.

    Args:
        further: what the JSON holds besides.
    """
    from cig.evaluation.report import to_json
    from cig.evaluation.trec import write_qrels, write_run

    if outputs.json:
        content = to_json(report, result.method.name, result.branches, provenance=result.provenance)
        rerank = {"rerank": jsonable(result.rerank)} if result.rerank else {}
        write_json_output(outputs.json, {**content, **rerank, **further})
    if outputs.rankings:
        write_json_output(outputs.rankings, result.names)
    if outputs.run:
        write_run(outputs.run, result.parts, result.rankings, tag=result.method.name)
    if outputs.qrels:
        write_qrels(outputs.qrels, result.parts)
    write_reports(result, report, outputs.reports, cache=cache)


def write_reports(result: SearchResult, report: Report, paths: Sequence[Path], *, cache: FeatureCache) -> None:
    """Each in the form that its suffix asks for."""
    from cig.evaluation import html, query_cards
    from cig.evaluation.paired import compare_by_part
    from cig.evaluation.report import to_markdown

    method, branches, provenance = result.method.name, result.branches, result.provenance
    compared = bool(report.scores) and result.alone is not None
    paired = compare_by_part(result.parts, result.alone or [], result.rankings) if compared else None
    for path in paths:
        if path.suffix == ".md":
            write_output(path, to_markdown(report, method, branches, provenance=provenance).encode())
            continue
        alone: Sequence[Ranking | None] = result.alone or [None] * len(result.parts)
        columns = zip(result.parts, result.rankings, alone, result.targets, result.refused, strict=True)
        cards = [
            card
            for part, ranking, without, pseudo_targets, refused in columns
            for card in query_cards.make_cards(
                part, ranking, alone=without, pseudo_targets=pseudo_targets, refused=refused
            )
        ]
        page = html.to_html(
            report,
            query_cards.choose(cards),
            len(cards),
            method=method,
            branches=branches,
            provenance=provenance,
            paired=paired,
            cache=cache,
        )
        write_output(path, page.encode())


def without_scores(result: SearchResult) -> Report:
    """The report of queries whose targets nobody knows: what was there, and what was missing."""
    from cig.evaluation.score import counts_of, missing_of, unused_of

    first = result.parts[0]
    missing, counts = missing_of(result.parts, result.rankings), counts_of(result.parts, result.rankings)
    unused = unused_of(result.parts, result.rankings)
    return Report(first.name, first.protocol, {}, {}, {}, missing, counts, unused=unused)
