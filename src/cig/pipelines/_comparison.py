"""The table of the field: every method alone, and with each branch, on the same queries and from cached features."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cig import config
from cig.benchmarks._requirements import need_pictures
from cig.errors import CigError, OutputError, UsageError, did_you_mean
from cig.evaluation import significance
from cig.evaluation.paired import PairedComparison, compare_rankings
from cig.evaluation.score import LOWER_IS_BETTER, evaluate, score_queries
from cig.io.digests import digest_of
from cig.io.feature_cache import FeatureCache
from cig.io.manifest import read_cost
from cig.io.outputs import ANY, check_file
from cig.machine import Cost, device_name, measured
from cig.pipelines._composition import Composition, Searches, compose, labelled, unimodal_rankings
from cig.pipelines._search_benchmark import check_searching, load_searcher
from cig.retrieval.branches import Branches, need_folder
from cig.retrieval.embed import EmbeddedQueries, embed
from cig.retrieval.features import embed_pictures, embed_queries, models_digest
from cig.retrieval.frozen_weights import GRID, FrozenWeight, best, check_form, freeze
from cig.retrieval.fusion_weight import to_branch_weight
from cig.retrieval.rank import index, rank_embedded, seen_by, wanted_pictures
from cig.retrieval.requests import Branching, Comparing, Searching
from cig.runtime import Compute, commit, jsonable, resolve_device
from cig.types import Benchmark, Gallery, Method, Ranking, Report

if TYPE_CHECKING:
    from cig.retrieval.features import PictureFeatures

SAMPLE = 16  # queries that the cost of a method is measured on


@dataclass(frozen=True)
class ComparisonRow:
    method: str
    branch: str  # "" for the method alone
    weight: float  # the branch's
    source: str  # where the weight comes from
    report: Report
    versus: Mapping[str, PairedComparison]  # against the method alone, by measure; empty for the method alone
    cost: Cost  # a query's
    imagined: bool  # whether the cost has the imagining in it, where there was one
    searches: Searches  # its rankings, and its method's by one modality alone


@dataclass(frozen=True)
class Comparison:
    benchmark: str
    measure: str
    rows: tuple[ComparisonRow, ...]
    left_out: Mapping[str, str]  # method, or method + branch -> why
    composition: Composition | None = None

    @property
    def corrected(self) -> list[float | None]:
        """For each row its p under the measure, Holm-corrected over all rows of the table; None for a method alone."""
        values = iter(significance.holm([row.versus[self.measure].p for row in self.rows if row.versus]))
        return [next(values) if row.versus else None for row in self.rows]


def compare_methods(
    parts: tuple[Benchmark, ...], comparing: Comparing, *, compute: Compute, cache: FeatureCache, single: bool = False
) -> Comparison:
    """Embed everything once a method, then rank and score each row.

    Args:
        single: one category was asked for, whose pseudo-targets may lie in a flat folder.

    Raises:
        UsageError: hidden targets, an unknown measure, or a method or branch that cannot be, where comparing is strict.
    """
    measure = _measure(parts[0], comparing.measure, sweep=comparing.sweep)
    labels = labelled(comparing.circus, parts)
    _need_one_place_each(comparing)
    rows: list[ComparisonRow] = []
    left_out: dict[str, str] = {}
    for searching in comparing.methods:
        try:
            check_searching(searching)
            rows += _Contender(
                parts, searching, comparing, measure=measure, compute=compute, cache=cache, single=single
            ).rows(left_out)
        except OutputError:  # of the sweep's weights: no method's fault
            raise
        except CigError as error:
            if comparing.strict_methods:
                raise
            left_out[searching.method] = str(error).splitlines()[0]
    if not rows:
        raise UsageError(
            "no method could be run:\n  " + "\n  ".join(f"{method}: {why}" for method, why in left_out.items())
        )
    composition = compose(parts, [row.searches for row in rows], labels, with_gap=comparing.composition_gap)
    return Comparison(parts[0].name, measure, tuple(rows), left_out, composition)


def _need_one_place_each(comparing: Comparing) -> None:
    """Raises UsageError for a sweep whose weights would overwrite each other; InputError for a file of another form."""
    names = [searching.method for searching in comparing.methods]
    twice = next((name for name in names if names.count(name) > 1), None)
    if comparing.sweep and twice:
        raise UsageError(f"--sweep keeps one weight a method, and {twice} is there twice; sweep them one by one")
    if comparing.sweep:
        check_file(comparing.weights or config.path("weights"), ANY)  # check_form says what else it may be
        check_form(comparing.weights or config.path("weights"))


def _measure(part: Benchmark, measure: str | None, *, sweep: bool) -> str:
    if part.hidden:
        raise UsageError(f"the targets of {part.name} are hidden, so nothing can be compared or swept; use val")
    if measure and measure not in part.measures:
        raise UsageError(f'{part.name} has no measure "{measure}".{did_you_mean(measure, part.measures)}')
    if sweep and measure and measure.partition("@")[0] in LOWER_IS_BETTER:
        raise UsageError(f"{measure}: less of it is better, so no weight can be chosen by it; take another --measure")
    return measure or part.measures[0]


class _Contender:
    """One method, and what it needs for its rows."""

    def __init__(
        self,
        parts: tuple[Benchmark, ...],
        searching: Searching,
        comparing: Comparing,
        *,
        measure: str,
        compute: Compute,
        cache: FeatureCache,
        single: bool,
    ) -> None:
        self.compute, self.comparing, self.measure, self.cache, self.single = compute, comparing, measure, cache, single
        self.method = load_searcher(searching, compute, cache)
        self.parts = tuple(seen_by(self.method, part) for part in parts)
        need_pictures(self.parts)
        frozen = None if comparing.sweep else comparing.weights
        self.searching = replace(searching, pseudo_targets=comparing.pseudo_targets, frozen_weights=frozen)
        twice = [other.method for other in comparing.methods].count(searching.method) > 1
        options = [f"{key}={value}" for key, value in searching.options.items()] if twice else []
        self.label = " ".join([self.method.name, *options])

    def rows(self, left_out: dict[str, str]) -> Iterator[ComparisonRow]:
        wanted_branches = self._able(left_out)
        making = Branches(
            replace(self.searching, branches=wanted_branches),
            self.method,
            self.compute,
            cache=self.cache,
            single=self.single,
        )
        branches = [making.build(part) if wanted_branches else [] for part in self.parts]
        wanted = [
            path
            for part, part_branches in zip(self.parts, branches, strict=True)
            for path in wanted_pictures(part, self.method, part_branches)
        ]
        pictures = embed_pictures(
            self.method, wanted, self.compute.batch_size, workers=self.compute.num_workers, cache=self.cache
        )
        tables = [
            _EmbeddedPart(part, embed(part, self.method, part_branches, pictures=pictures, cache=self.cache), pictures)
            for part, part_branches in zip(self.parts, branches, strict=True)
        ]
        alone, cost = [table.ranked({}) for table in tables], self._cost(self.method)
        image, text = self._unimodal(pictures, left_out)
        searches = Searches(alone, image, text)
        yield ComparisonRow(self.label, "", 0.0, "", evaluate(self.parts, alone), {}, cost, True, searches)
        for branch in wanted_branches:
            shares = self._shares(branch, making, tables)
            fused = [table.ranked({branch.name: weight}) for table, (weight, _) in zip(tables, shares, strict=True)]
            shown = [made.pictures for row in branches for made in row if made.name == branch.name]
            spent, imagined = self._spent(branch, making, cost, shown=shown)
            report = evaluate(self.parts, fused, alone)
            against = compare_rankings(self.parts, alone, fused)
            searches = Searches(fused, image, text)
            yield ComparisonRow(self.label, branch.name, *shares[0], report, against, spent, imagined, searches)

    def _unimodal(
        self, pictures: PictureFeatures, left_out: dict[str, str]
    ) -> tuple[Sequence[Ranking], Sequence[Ranking]]:
        """The method's searches by image alone and by text alone, where they are asked for and it has them."""
        if not self.comparing.composition_gap:
            return (), ()
        try:
            return unimodal_rankings(self.parts, self.method, pictures, cache=self.cache)
        except CigError as error:
            left_out[f"composition gap of {self.label}"] = str(error).splitlines()[0]
            return (), ()

    def _able(self, left_out: dict[str, str]) -> tuple[Branching, ...]:
        """The branches that this method can have; the others are named."""
        able = []
        for branch in self.comparing.branches:
            try:
                making = Branches(
                    replace(self.searching, branches=(branch,)),
                    self.method,
                    self.compute,
                    cache=self.cache,
                    single=self.single,
                )
                need_folder(branch, self.searching)
                if branch.method is None and not self.method.uses_picture:
                    raise UsageError(f"{self.method.name} looks at no picture, so {branch.name} changes nothing")
                for part in self.parts:
                    making.build(part)
            except CigError as error:
                if self.comparing.strict_branches and self.method.uses_picture:
                    raise
                left_out[f"{self.method.name} + {branch.name}"] = str(error).splitlines()[0]
            else:
                able.append(branch)
        return tuple(able)

    def _shares(self, branch: Branching, making: Branches, tables: Sequence[_EmbeddedPart]) -> list[tuple[float, str]]:
        """The branch's weight in each part, and where it comes from; with sweep, the best one, frozen."""
        if not self.comparing.sweep:
            return [making.weigh(branch, part) for part in self.parts]
        scores = {f"{share:g}": self._score(branch.name, to_branch_weight(share), tables) for share in GRID}
        share, part = best(scores), self.parts[0]
        models = models_digest(self.method)
        searched = dict.fromkeys(path for part in self.parts for path in part.images.values())
        frozen = FrozenWeight(
            reference=share,
            measure=self.measure,
            scores=scores,
            split=part.name,
            picture_set=tables[0].pictures.digest(searched),
            commit=commit(),
            models=models,
        )
        path = self.comparing.weights or config.path("weights")
        freeze(path, part.name.partition("/")[0], frozen, method=self.method.name, branch=branch.name)
        source = frozen.cite(part.name, path)
        return [(round(to_branch_weight(share), 12), source)] * len(self.parts)

    def _score(self, name: str, weight: float, tables: Sequence[_EmbeddedPart]) -> float:
        column = self.parts[0].measures.index(self.measure)
        scored = (score_queries(table.part, table.ranked({name: weight})) for table in tables)
        return float(np.mean([scores[:, column].mean() for scores in scored]))

    def _cost(self, method: Method) -> Cost:
        """A query's, measured on a few that nothing is remembered of; itself remembered, where features are."""
        space = self.cache.space({"costs": 1}, "what methods cost")
        costed = {
            "models": dict(method.identity),
            "method": method.name,
            "compute": self.compute.settings(),
            "device": device_name(resolve_device(self.compute.device)),
            "benchmark": self.parts[0].title,
        }
        key = digest_of(jsonable(costed))
        kept = dict(self.cache.read_bytes(space, [key]))
        if key in kept:
            return Cost(**json.loads(kept[key]))
        cost = _measure_cost(method, self.parts[0])
        self.cache.write_bytes(space, {key: json.dumps(vars(cost)).encode()})
        return cost

    def _spent(
        self, branch: Branching, making: Branches, alone: Cost, *, shown: Sequence[Mapping[str, Sequence[Path]]]
    ) -> tuple[Cost, bool]:
        """With a branch: the query once more a picture, and the imagining where its folder tells what that took."""
        again = self._cost(making.method_of(branch))
        pictures = [len(paths) for part in shown for paths in part.values()] or [1]
        folders = [folder for part in self.parts if (folder := making.folder_of(branch, part))]
        costs = [cost for folder in folders if (cost := read_cost(folder))]
        queries = sum(each["queries"] for each in costs) or 1
        imagining = sum(each["seconds"] for each in costs) / queries
        gigabytes = [each for each in (alone.gigabytes, again.gigabytes, *(c["gigabytes"] for c in costs)) if each]
        seconds = alone.seconds + again.seconds * float(np.mean(pictures)) + imagining
        return Cost(seconds, max(gigabytes, default=None), alone.device), len(costs) == len(folders)


@dataclass(frozen=True)
class _EmbeddedPart:
    """One part's queries by a method and its branches, before any weight."""

    part: Benchmark
    embedded: EmbeddedQueries
    pictures: PictureFeatures

    def ranked(self, weights: Mapping[str, float]) -> Ranking:
        return rank_embedded(self.part, self.embedded, self.pictures, branch_weights=weights, gallery=self.gallery)

    @cached_property
    def gallery(self) -> Gallery:
        return index(self.part, self.pictures)


def _measure_cost(method: Method, part: Benchmark) -> Cost:
    queries = [query for query in part.queries if query.reference in part.images]
    if not queries:
        return Cost()

    def once(sample: Sequence[Any]) -> None:
        paths = [part.images[query.reference] for query in sample]
        seen = [path if method.uses_picture else None for path in paths]
        pictures = embed_pictures(method, paths if method.uses_picture else [])
        able = [
            (query, path) for query, path in zip(sample, seen, strict=True) if path is None or pictures.can_ask(path)
        ]
        embed_queries(
            method, [query for query, _ in able], [path for _, path in able], pictures=pictures, cache=FeatureCache()
        )

    once(queries[:1])  # models are loaded now
    sample = queries[:SAMPLE]
    with measured() as cost:
        once(sample)
    return Cost(cost.seconds / len(sample), cost.gigabytes, cost.device)
