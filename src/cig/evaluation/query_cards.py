"""One card a query: what was asked, the target and its rank, and the first results; the report shows some of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cig.types import TARGET, Benchmark, Query, Ranking

MOST = 100  # queries on a page, whose pictures are inside it
FIRST = 10  # results of a query


@dataclass(frozen=True)
class NamedPicture:
    """A picture by its name; without a path, only the name is shown."""

    name: str
    path: Path | None
    grade: int = 0  # of relevance, as in Query.relevant


@dataclass(frozen=True)
class QueryCard:
    """One query as the page shows it: what was asked, the target, and the first results."""

    id: str
    part: str
    captions: tuple[str, ...]
    tags: tuple[str, ...]
    reference: NamedPicture
    pseudo_target: Path | None
    refused: bool  # the generator's pictures of it were all refused
    results: tuple[NamedPicture, ...]  # the first ten
    targets: tuple[NamedPicture, ...]  # empty where they are hidden
    rank: int | None  # of the target, from 1; None where it is hidden, missing, or the query could not run
    rank_alone: int | None  # the same without pseudo-targets
    missing: str  # why it could not run, or has no rank

    @property
    def moved(self) -> int | None:
        """Return how many ranks the target rose by with the pseudo-target; negative where it fell."""
        return self.rank_alone - self.rank if self.rank and self.rank_alone else None

    @property
    def gain(self) -> float:
        """Return how much 1 / rank rose: 3 to 1 counts more than 3,000 to 1,500; 0 where nothing is compared."""
        return 1 / self.rank - 1 / self.rank_alone if self.rank and self.rank_alone else 0.0

    @property
    def change(self) -> str:
        """Return "gained", "lost" or "unchanged"; "" where there is nothing to compare."""
        if self.moved is None:
            return ""
        return "gained" if self.moved > 0 else "lost" if self.moved < 0 else "unchanged"


def make_cards(
    benchmark: Benchmark,
    ranking: Ranking,
    *,
    alone: Ranking | None = None,
    pseudo_targets: Mapping[str, Path] | None = None,
    refused: Collection[str] = (),
) -> list[QueryCard]:
    """Make a card of every query of the benchmark.

    Args:
        alone: the ranking without pseudo-targets.
        pseudo_targets: query id -> picture.
        refused: ids of the queries that have no accepted picture.
    """
    ranks, ranks_alone = _ranks(ranking), _ranks(alone)
    results = dict(zip(ranking.queries, ranking.ids, strict=True))
    return [
        QueryCard(
            id=query.id,
            part=benchmark.part,
            captions=query.captions,
            tags=query.tags,
            reference=_named_picture(benchmark, query.reference),
            pseudo_target=(pseudo_targets or {}).get(query.id),
            refused=query.id in refused,
            results=tuple(_named_picture(benchmark, name, query) for name in results[query.id][:FIRST]),
            targets=tuple(
                _named_picture(benchmark, name, query) for name, grade in query.relevant.items() if grade == TARGET
            ),
            rank=ranks.get(query.id),
            rank_alone=ranks_alone.get(query.id),
            missing=ranking.missing.get(query.id) or _unranked_reason(query, ranks),
        )
        for query in benchmark.queries
    ]


def _ranks(ranking: Ranking | None) -> dict[str, int | None]:
    return dict(zip(ranking.queries, ranking.target_ranks, strict=False)) if ranking else {}


def _unranked_reason(query: Query, ranks: Mapping[str, int | None]) -> str:
    unranked = query.relevant and query.id in ranks and ranks[query.id] is None
    return "the target has no picture in the gallery" if unranked else ""


def _named_picture(benchmark: Benchmark, name: str, query: Query | None = None) -> NamedPicture:
    return NamedPicture(name, benchmark.images.get(name), query.relevant.get(name, 0) if query else 0)


def choose(cards: Sequence[QueryCard], most: int = MOST) -> list[QueryCard]:
    """Choose at most `most`, in their order: a quarter that rose most, a quarter that fell most, the rest evenly."""
    if len(cards) <= most:
        return list(cards)
    order = sorted(range(len(cards)), key=lambda i: cards[i].gain)
    fell = [i for i in order[: most // 4] if cards[i].change == "lost"]
    rose = [i for i in order[::-1][: most // 4] if cards[i].change == "gained"]
    rest = sorted(set(order) - {*fell, *rose})
    room = most - len(fell) - len(rose)
    spaced = [rest[j * len(rest) // room] for j in range(room)]
    return [cards[i] for i in sorted([*fell, *rose, *spaced])]
