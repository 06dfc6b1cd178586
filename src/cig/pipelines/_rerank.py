"""Re-rank a benchmark's rankings by the verifier of a request, and say what that took."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from cig.errors import some
from cig.io.feature_cache import FeatureCache
from cig.retrieval.requests import Reranking
from cig.runtime import Compute, resolve_device, resolve_dtype, warn
from cig.types import Benchmark, Ranking


def rerank_parts(
    parts: Sequence[Benchmark],
    rankings: Sequence[Ranking],
    reranking: Reranking,
    *,
    compute: Compute,
    cache: FeatureCache,
) -> tuple[tuple[Benchmark, ...], list[Ranking], dict[str, Any]]:
    """Re-rank every part; the parts come back with the verifier in their protocol.

    Returns:
        (parts, rankings, record): the record is what --json holds under "rerank".
    """
    from cig.models.rerankers import load_verifier
    from cig.retrieval.rerank import Reranker

    device = resolve_device(compute.device)
    verifier = load_verifier(
        str(reranking.rerank),
        str(reranking.rerank_model),
        reranking.rerank_prompt,
        device=device,
        dtype=resolve_dtype(compute.dtype, device),
        cache_dir=compute.cache_dir,
    )
    reranker = Reranker(
        verifier, str(reranking.rerank), reranking.rerank_depth, weight=reranking.rerank_weight, cache=cache
    )
    done = [reranker.rerank(part, ranking) for part, ranking in zip(parts, rankings, strict=True)]
    costs = {part.part: asdict(cost) for part, (_, cost) in zip(parts, done, strict=True)}
    record = {
        **reranking.settings(),
        "model": dict(verifier.identity),
        "settings": dict(verifier.settings),
        **{key: sum(cost[key] for cost in costs.values()) for key in ("calls", "cached", "seconds")},
        **{key: {name: cost[key] for name, cost in costs.items() if cost[key]} for key in SAID},
    }
    _say(record)
    named = tuple(replace(part, protocol={**part.protocol, "rerank": reranking.title}) for part in parts)
    return named, [ranking for ranking, _ in done], record


SAID = {
    "skipped": "queries that are not re-ranked, and keep their first order",
    "unjudged": "queries with pictures that have no score, and keep their position",
    "tied": "queries with equal scores, ordered by the first ranking",
}


def _say(record: dict[str, Any]) -> None:
    for key, what in SAID.items():
        queries = [f"{part}/{query}".lstrip("/") for part, rows in record[key].items() for query in rows]
        if queries:
            warn(f"{what}: {len(queries)} ({some(queries, 5)})")


def gain_of(parts: Sequence[Benchmark], before: Sequence[Ranking], after: Sequence[Ranking]) -> dict[str, Any]:
    """Return part -> measure -> the paired difference by the verifier, in percent, with its interval and p."""
    from cig.evaluation.paired import compare_by_part

    compared = compare_by_part(parts, before, after)
    return {part: {measure: asdict(pair) for measure, pair in row.items()} for part, row in compared.items()}
