"""Evaluate: reference and pseudo-target -> rankings -> scores, where targets are public (CIG, stage 3)."""

from __future__ import annotations

from pathlib import Path

from cig.benchmarks import Data
from cig.benchmarks._requirements import need_all
from cig.errors import UsageError
from cig.io.feature_cache import FeatureCache
from cig.pipelines._composition import Subsets, labelled, subset_scores
from cig.pipelines._rerank import gain_of
from cig.pipelines._search_benchmark import (
    Evaluation,
    Outputs,
    SearchResult,
    check_searching,
    load_searcher,
    search_parts,
    write_outputs,
)
from cig.retrieval.requests import Searching
from cig.runtime import Compute


def evaluate(
    data: Data,
    compute: Compute,
    searching: Searching,
    *,
    outputs: Outputs | None = None,
    circus: Path | None = None,
) -> Evaluation:
    """Search a benchmark and score it by the official protocol; write the files that are asked for.

    A query that cannot run scores 0; `search.missing_references` of the result names it.

    Args:
        circus: CIRCUS's labels, whose subsets are scored, too.

    Raises:
        UsageError: the split's targets are hidden; no model was loaded.
    """
    parts = need_all(lambda: data.load("val"), [lambda: check_searching(searching)])
    if any(part.hidden for part in parts):
        instead = "use `cig submit`, or evaluate val" if data.has_server else "`cig run` searches without scores"
        raise UsageError(f"the targets of {parts[0].name} are hidden; {instead}")
    labels = labelled(circus, parts)
    cache = FeatureCache(searching.feature_cache)
    method = load_searcher(searching, compute, cache)
    single = len(data.categories) == 1
    result = search_parts(parts, method, searching, compute=compute, cache=cache, single=single)
    return score(result, outputs or Outputs(), cache, labels=labels)


def score(result: SearchResult, outputs: Outputs, cache: FeatureCache, *, labels: Subsets | None = None) -> Evaluation:
    """The scores of a search, and of subsets of its queries, written where they are asked for."""
    from cig.evaluation.score import evaluate as score_rankings

    report = score_rankings(result.parts, result.rankings, result.alone)
    if result.first:
        result.rerank["gain"] = gain_of(result.parts, result.first, result.rankings)
    scored = subset_scores(labels or Subsets({}), result.parts, result.rankings)
    write_outputs(result, report, outputs, cache=cache, further={"circus": scored.facts} if scored.scores else {})
    return Evaluation(result, report, subsets=scored.text)
