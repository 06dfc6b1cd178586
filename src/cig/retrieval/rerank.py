"""Re-rank the first pictures of each query by a verifier; what lies below the depth stays where it is."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL.Image import Image

from cig.errors import CigError, NotFiniteError, PictureError
from cig.io.feature_cache import FeatureCache
from cig.io.images import read_picture, upright
from cig.types import TARGET, Benchmark, Query, Ranking

if TYPE_CHECKING:
    from cig.models.rerankers import Verifier

SIDE = 768  # pixels: the longer side of what a verifier sees, at most
Scores = dict[int, float]  # position in the first ranking, from 0 -> the verifier's score


@dataclass
class RerankCost:
    """What re-ranking took, and what it could not do."""

    calls: int = 0  # of the model; a joint verifier has one a query
    cached: int = 0  # scores that were in the cache
    seconds: float = 0.0
    skipped: dict[str, str] = field(default_factory=dict)  # query -> why it is not re-ranked
    unjudged: dict[str, dict[str, str]] = field(default_factory=dict)  # query -> picture -> why it has no score
    tied: list[str] = field(default_factory=list)  # queries with equal scores, which keep the first ranking's order


@dataclass(frozen=True)
class Reranker:
    """A verifier, and how far and how much it counts.

    Attributes:
        depth: so many of the first pictures are re-ranked.
        weight: the verifier's share of the score, 0 to 1; the rest is the first score, scaled to 0..1 over the judged
            pictures of the query.
    """

    verifier: Verifier
    name: str
    depth: int = 50
    weight: float = 1.0
    cache: FeatureCache = field(default_factory=FeatureCache)

    def rerank(self, benchmark: Benchmark, ranking: Ranking) -> tuple[Ranking, RerankCost]:
        """Re-rank every query's first pictures. The picture set of CIRR follows the new order of those.

        A candidate without a score (its file is missing or broken, or the model refuses) keeps its position. The
        scores of judged pictures become the mixed ones; the others, and all below the depth, keep their first score.

        Raises:
            NotFiniteError: the model makes numbers that are not finite.
        """
        cost, started = RerankCost(), time.monotonic()
        by_id = {query.id: query for query in benchmark.queries}
        rows = [
            self._row(benchmark, by_id[name], ranking, row=row, cost=cost) for row, name in enumerate(ranking.queries)
        ]
        ids, scores, subset, ranks = zip(*rows, strict=True) if rows else ((), (), (), ())
        cost.seconds = round(time.monotonic() - started, 3)
        ranks = ranks if ranking.target_ranks else ()
        relevant = tuple(
            _relevant_ranks(by_id[name], *row)
            for name, *row in zip(ranking.queries, ids, ranking.relevant_ranks, strict=False)
        )
        return replace(
            ranking, ids=ids, scores=scores, subset=subset, target_ranks=ranks, relevant_ranks=relevant
        ), cost

    def _row(self, benchmark: Benchmark, query: Query, ranking: Ranking, *, row: int, cost: RerankCost) -> tuple:
        ids, scores = ranking.ids[row], ranking.scores[row]
        rank = ranking.target_ranks[row] if ranking.target_ranks else None
        head = ids[: self.depth]
        judged = self._judge(benchmark, query, head, cost=cost) if head else {}
        mixed = _mix(judged, scores, self.weight)
        if len(set(mixed.values())) < len(mixed):
            cost.tied.append(query.id)
        order = dict(zip(mixed, sorted(mixed, key=lambda position: (-mixed[position], position)), strict=True))
        source = [order.get(position, position) for position in range(len(ids))]
        new = tuple(ids[position] for position in source)
        new_scores = tuple(mixed.get(position, scores[position]) for position in source)
        return new, new_scores, _subset(ranking.subset[row], new[: self.depth]), _rank(query, new[: self.depth], rank)

    def _judge(self, benchmark: Benchmark, query: Query, head: Sequence[str], *, cost: RerankCost) -> Scores:
        """Score the first pictures, each once for all runs of one cache."""
        reference = benchmark.images.get(query.reference)
        if reference is None:
            cost.skipped[query.id] = benchmark.why_missing(query.reference)
            return {}
        paths = {position: benchmark.images[name] for position, name in enumerate(head) if name in benchmark.images}
        failed = {name: "no file" for name in head if name not in benchmark.images}
        try:
            digest = self.cache.file_digest(reference)
        except CigError as error:
            cost.skipped[query.id] = str(error)
            return {}
        keys = self._keys(query, digest, _digests(self.cache, paths, head, failed=failed))
        space = self.cache.space(self._settings(), f"re-ranking, {self.name}: {self.verifier.identity['source']}")
        stored = {key: float(value[0]) for key, value in self.cache.read(space, keys.values())}
        wanted = [position for position, key in keys.items() if key not in stored]
        wanted = list(keys) if wanted and self.verifier.jointly else wanted
        try:
            fresh = self._ask(query, reference, {one: paths[one] for one in wanted}, cost=cost) if wanted else {}
        except PictureError as error:  # the reference's
            cost.skipped[query.id] = str(error)
            return {}
        cost.cached += len(keys) - len(wanted)
        failed |= {head[position]: why for position, why in fresh.items() if isinstance(why, str)}
        if failed:
            cost.unjudged[query.id] = failed
        # As the cache holds them, so that a rerun orders as this run does.
        scores = {one: np.float32(score) for one, score in fresh.items() if isinstance(score, float)}
        self.cache.write(space, {keys[one]: score.reshape(1) for one, score in scores.items()})
        kept = {one: stored[key] for one, key in keys.items() if one not in fresh}
        return dict(sorted({**kept, **{one: float(score) for one, score in scores.items()}}.items()))

    def _ask(
        self, query: Query, reference: Path, paths: Mapping[int, Path], *, cost: RerankCost
    ) -> dict[int, float | str]:
        """Return a score for each position, or why there is none."""
        shown = _shown(reference)
        answers: dict[int, float | str] = {}
        pictures: dict[int, Image] = {}
        for position, path in paths.items():
            try:
                pictures[position] = _shown(path)
            except PictureError as error:
                answers[position] = str(error)
        if not pictures:
            return answers
        cost.calls += 1 if self.verifier.jointly else len(pictures)
        scores = self.verifier(shown, _text(query), list(pictures.values()))
        bad = [row for row, score in enumerate(scores) if score is not None and not math.isfinite(score)]
        if bad:
            raise NotFiniteError(self.name, str(self.verifier.identity.get("dtype", "")), bad)
        for position, score in zip(pictures, scores, strict=True):
            answers[position] = "the model did not judge it" if score is None else float(score)
        return answers

    def _settings(self) -> dict[str, object]:
        identity = {key: value for key, value in self.verifier.identity.items() if key != "source"}
        if "sha256" not in identity:
            identity["source"] = self.verifier.identity["source"]
        return {"reranker": self.name, "model": identity, "settings": dict(self.verifier.settings), "side": SIDE}

    def _keys(self, query: Query, reference: str, digests: Mapping[int, str]) -> dict[int, str]:
        """Key each candidate by reference, caption and content; of a joint verifier, by all the others, too."""
        others = "\n".join(digests.values()) if self.verifier.jointly else ""
        return {
            position: hashlib.sha256("\0".join((reference, _text(query), others, content)).encode()).hexdigest()
            for position, content in digests.items()
        }


def _digests(
    cache: FeatureCache, paths: Mapping[int, Path], head: Sequence[str], *, failed: dict[str, str]
) -> dict[int, str]:
    digests = {}
    for position, path in paths.items():
        try:
            digests[position] = cache.file_digest(path)
        except CigError as error:
            failed[head[position]] = str(error)
    return digests


def _text(query: Query) -> str:
    return " and ".join(query.captions)


def _shown(path: Path) -> Image:
    """Read a picture as people see it, at most SIDE pixels high and wide."""
    picture = read_picture(path).image
    try:
        picture = upright(picture)
        picture.thumbnail((SIDE, SIDE))
    except (OSError, ValueError) as error:
        raise PictureError(f"{path}: cannot be converted ({picture.mode})") from error
    return picture


def _mix(judged: Scores, first: Sequence[float], weight: float) -> Scores:
    """Return weight * verifier + (1 - weight) * first score, the latter scaled to 0..1 over what is judged."""
    if weight == 1 or not judged:
        return judged
    least, most = (f(first[position] for position in judged) for f in (min, max))
    span = (most - least) or 1.0
    return {
        position: weight * score + (1 - weight) * (first[position] - least) / span for position, score in judged.items()
    }


def _subset(subset: tuple[str, ...], head: Sequence[str]) -> tuple[str, ...]:
    """Order the members within the depth as they are now; the others follow as before."""
    position = {name: i for i, name in enumerate(head)}
    return tuple(sorted(subset, key=lambda name: position.get(name, len(head))))


def _relevant_ranks(query: Query, names: Sequence[str], before: Sequence[int]) -> tuple[int, ...]:
    """Return the ranks of the relevant pictures: new among the names of the ranking, and below these as before."""
    return (
        *(rank for rank, name in enumerate(names, 1) if name in query.relevant),
        *(rank for rank in before if rank > len(names)),
    )


def _rank(query: Query, head: Sequence[str], rank: int | None) -> int | None:
    """Return the annotated target's new rank: within the depth it is what it is now, below it is what it was."""
    if rank is None or rank > len(head):
        return rank
    return 1 + min(head.index(name) for name, grade in query.relevant.items() if grade == TARGET and name in head)
