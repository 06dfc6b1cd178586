"""Search: encode each distinct picture once, compose and fuse the queries, rank the gallery exactly."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from numbers import Real
from pathlib import Path
from types import NoneType

import torch
from torch import Tensor
from torch.nn.functional import normalize

from cig.errors import check_members, check_type
from cig.finite import need_finite
from cig.io.feature_cache import FeatureCache
from cig.retrieval.branches import PseudoTargets, pseudo_target_pictures
from cig.retrieval.embed import EmbeddedQueries, embed
from cig.retrieval.features import PictureFeatures, embed_pictures
from cig.retrieval.fusion_weight import pseudo_target_branch, to_reference_weight
from cig.types import TARGET, Benchmark, Branch, Gallery, Method, Query, Ranking, check_benchmark

TOP = 50  # what submissions hold and measures need
QUERY_BATCH = 256
WHOLE_LISTS = {"trapezoid_map"}  # measures that read the ranks of all relevant pictures
SORTED_FROM = 8  # relevant pictures from which one sort is faster than counting for each
Scores = Callable[[Sequence[int], Tensor], Tensor]  # rows of queries, unit rows of a gallery [N, d] -> [B, N]


@dataclass(frozen=True)
class RankedQuery:
    """One query's row of a ranking; see types.Ranking."""

    ids: tuple[str, ...]
    scores: tuple[float, ...]
    subset: tuple[str, ...]
    target_rank: int | None
    relevant_ranks: tuple[int, ...]


NOT_RANKED = RankedQuery((), (), (), None, ())


def wanted_pictures(benchmark: Benchmark, method: Method, branches: Iterable[Branch] = ()) -> list[Path]:
    """List the pictures that a search embeds: the gallery, the references if the method uses them, the branches'."""
    references = [query.reference for query in benchmark.queries] if method.uses_picture else []
    names = dict.fromkeys((*benchmark.gallery, *references))
    present = [benchmark.images[name] for name in names if name in benchmark.images]
    queries = {query.id for query in benchmark.queries}
    of_branches = [paths for branch in branches for query, paths in branch.pictures.items() if query in queries]
    return present + [path for paths in of_branches for path in paths]


def seen_by(method: Method, benchmark: Benchmark) -> Benchmark:
    """Add pictures without a file to the benchmark, where the method stores their features by name."""
    look_up = getattr(method, "look_up", None)
    if not look_up:
        return benchmark
    paths = {name: Path(name) for name in benchmark.missing_images}
    stored = look_up(list(paths.values()))
    added = {name: path for name, path in paths.items() if path in stored}
    return replace(benchmark, images={**benchmark.images, **added})


def search(
    benchmark: Benchmark,
    method: Method,
    pseudo_targets: PseudoTargets | None = None,
    weight: float | None = None,
    *,
    branches: Sequence[Branch] = (),
    pictures: PictureFeatures | None = None,
    allow_missing: bool = False,
    cache: FeatureCache | None = None,
) -> Ranking:
    """Search one benchmark: embed, fuse, rank.

    Args:
        pseudo_targets: the branch of the published recipe: what `cig.imagine` returned, query id -> picture, or a
            folder of pictures by query id.
        weight: the reference's weight beside the pseudo-targets; by default the benchmark's published one.
        branches: any others; without branches, the reference searches alone.
        pictures: their features; by default they are computed here.
        allow_missing: rank queries without a reference by their caption alone.
        cache: where features of pictures and queries are read and written.

    Raises:
        UsageError: weights that do not sum to 1 at most, or branches of one name.
        MismatchError: a branch's method whose picture features are not those of the gallery.
    """
    check_benchmark(benchmark)
    check_members(method, ["uses_picture"], name="method", wanted='a Method, such as cig.load_method("searle/b32")')
    check_type(weight, (Real, NoneType), name="weight", wanted="a number from 0 to 1")
    for branch in branches:
        check_type(branch, Branch, name="each of branches", wanted="a cig.Branch")
    cache, benchmark = cache or FeatureCache(), seen_by(method, benchmark)
    shown = None if pseudo_targets is None else pseudo_target_pictures(pseudo_targets, benchmark)
    if shown is not None and method.uses_picture:
        branches = [pseudo_target_branch(benchmark, shown, weight), *branches]
    to_reference_weight([branch.weight for branch in branches])  # fails before hours of embedding
    if pictures is None:
        pictures = embed_pictures(method, wanted_pictures(benchmark, method, branches), cache=cache)
    embedded = embed(benchmark, method, branches, pictures=pictures, allow_missing=allow_missing, cache=cache)
    return rank_embedded(benchmark, embedded, pictures, branch_weights={each.name: each.weight for each in branches})


def rank_embedded(
    benchmark: Benchmark,
    embedded: EmbeddedQueries,
    pictures: PictureFeatures,
    *,
    branch_weights: Mapping[str, float],
    gallery: Gallery | None = None,
) -> Ranking:
    """Fuse the queries at these weights of their branches and rank the gallery, which is indexed here unless given."""
    unreadable = [name for name, path in benchmark.images.items() if path in pictures.failed]
    notes = {"unreadable": unreadable, "branches": embedded.lacking(branch_weights)}
    if embedded.without_text:
        notes["lacks"] = "texts"
    notes["unused"] = {name: dict(embedded.unused.get(name, {})) for name in branch_weights}
    gallery = gallery or index(benchmark, pictures)
    own_scores = embedded.scorers.keys() & {"", *branch_weights}
    return rank(
        benchmark,
        embedded.queries,
        partial(embedded.scores, branch_weights=branch_weights) if own_scores else embedded.fused(branch_weights),
        gallery=gallery,
        missing=embedded.missing,
        notes=notes,
    )


def index(benchmark: Benchmark, pictures: PictureFeatures) -> Gallery:
    """Collect the gallery's pictures that have a feature, in the gallery's order."""
    names = tuple(name for name in benchmark.gallery if pictures.have(benchmark.images.get(name)))
    features = pictures.of([benchmark.images[name] for name in names])
    return Gallery(names, normalize(features, dim=-1))


def rank(
    benchmark: Benchmark,
    queries: Sequence[Query],
    features: Tensor | Scores,
    *,
    gallery: Gallery,
    missing: Mapping[str, str] | None = None,
    notes: Mapping[str, object] | None = None,
) -> Ranking:
    """Rank the first 50 of the gallery and the whole of each query's picture set; ties go in gallery order.

    Scores are exact and hold a batch of queries at a time, so memory does not grow with the benchmark. The target's
    rank is counted over the whole gallery, not the first 50. Queries with a gallery of their own are scored against
    that one alone: a method that scores over the gallery sees no other picture.

    Args:
        queries: those that could run, one for each row of features; the benchmark's others get empty rows.
        features: unit rows [Q, d], scored by cosine similarity, or what scores some of the queries over a gallery.
    """
    if isinstance(features, Tensor):
        need_finite(features, "the method", features.dtype, names=[f"query {query.id}" for query in queries])
    need_finite(gallery.features, "the method", gallery.features.dtype, names=gallery.ids)
    whole_lists = WHOLE_LISTS & set(benchmark.measures)
    rows: dict[str, RankedQuery] = {}
    for searched, members in _searches(benchmark, queries, gallery):
        column_of = {name: column for column, name in enumerate(searched.ids)}
        for start in range(0, len(members), QUERY_BATCH):
            batch = members[start : start + QUERY_BATCH]
            chunk = [queries[row] for row in batch]
            scores = _scores(features, batch, searched)
            if not isinstance(features, Tensor):
                need_finite(scores, "the method", scores.dtype, names=[f"query {query.id}" for query in chunk])
            for row, query in enumerate(chunk):
                if benchmark.drop_reference and query.reference in column_of:
                    scores[row, column_of[query.reference]] = -torch.inf
            nearest, columns = (each.tolist() for each in top_k(scores, TOP))
            for row, query in enumerate(chunk):
                top = [(searched.ids[c], v) for c, v in zip(columns[row], nearest[row], strict=True) if v != -torch.inf]
                rows[query.id] = _rank_query(query, scores[row], top, column_of=column_of, whole=bool(whole_lists))
    ranked = [rows.get(query.id, NOT_RANKED) for query in benchmark.queries]
    return Ranking(
        queries=tuple(query.id for query in benchmark.queries),
        ids=tuple(row.ids for row in ranked),
        scores=tuple(row.scores for row in ranked),
        subset=tuple(row.subset for row in ranked),
        target_ranks=tuple(row.target_rank for row in ranked),
        relevant_ranks=tuple(row.relevant_ranks for row in ranked) if whole_lists else (),
        missing=dict(missing or {}),
        notes=dict(notes or {}),
    )


def _searches(
    benchmark: Benchmark, queries: Sequence[Query], gallery: Gallery
) -> Iterator[tuple[Gallery, Sequence[int]]]:
    """Yield each gallery and the rows of the queries that rank it: one for all, or those of the queries."""
    groups: dict[tuple[str, ...] | None, list[int]] = {}
    for row, query in enumerate(queries):
        groups.setdefault(benchmark.galleries.get(query.id), []).append(row)
    column_of = {name: column for column, name in enumerate(gallery.ids)} if benchmark.galleries else {}
    for names, rows in groups.items():
        if names is None:
            yield gallery, rows
        else:
            columns = sorted(column_of[name] for name in names if name in column_of)
            yield Gallery(tuple(gallery.ids[column] for column in columns), gallery.features[columns]), rows


def _scores(features: Tensor | Scores, rows: Sequence[int], gallery: Gallery) -> Tensor:
    if not gallery.ids:
        return torch.empty(len(rows), 0)
    if isinstance(features, Tensor):
        return features[list(rows)] @ gallery.features.T
    return features(rows, gallery.features)


def _rank_query(
    query: Query, scores: Tensor, top: Sequence[tuple[str, float]], *, column_of: Mapping[str, int], whole: bool
) -> RankedQuery:
    """Rank one query: its first names, its picture set, its target and, where asked, all its relevant pictures.

    The target's rank is None where it is hidden or not in the gallery.
    """
    members = [name for name in dict.fromkeys(query.subset) if name in column_of and name != query.reference]
    subset = sorted(members, key=lambda name: (-scores[column_of[name]].item(), column_of[name]))
    columns = {
        name: column_of[name] for name in query.relevant if name in column_of and (whole or _is_target(query, name))
    }
    ranks = dict(zip(columns, ranks_of(scores, [*columns.values()]), strict=True))
    return RankedQuery(
        tuple(name for name, _ in top),
        tuple(score for _, score in top),
        tuple(subset),
        min((rank for name, rank in ranks.items() if _is_target(query, name)), default=None),
        tuple(sorted(ranks.values())) if whole else (),
    )


def _is_target(query: Query, name: str) -> bool:
    return query.relevant[name] == TARGET


def ranks_of(scores: Tensor, columns: Sequence[int]) -> list[int]:
    """Return the ranks, from 1, of some columns among all scores [N]; equal scores are ranked in column order."""
    if len(columns) > SORTED_FROM:
        ranks = torch.empty(len(scores), dtype=torch.long)
        ranks[scores.argsort(descending=True, stable=True)] = torch.arange(1, len(scores) + 1)
        return ranks[list(columns)].tolist()
    return [int((scores > scores[c]).sum() + (scores[:c] == scores[c]).sum()) + 1 for c in columns]


def top_k(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Select the k highest of each row, equal scores in column order.

    torch.topk breaks ties as it likes, so the same scores could rank differently on another device. Sorting its columns
    first and then stably by value orders ties within the first k; a row whose k-th value also lies past the cut takes
    the first of its tied columns instead of those that topk chose. No row is sorted in full.

    Returns:
        (values, columns), each [Q, min(k, N)].
    """
    k = min(k, scores.shape[1])
    if not k:
        return scores[:, :0], torch.empty(len(scores), 0, dtype=torch.long)
    values, columns = scores.topk(k, dim=1)
    columns, order = columns.sort(dim=1)
    values, again = values.gather(1, order).sort(dim=1, descending=True, stable=True)
    columns = columns.gather(1, again)
    last = values[:, -1:]
    for row in ((scores >= last).sum(1) > k).nonzero().flatten().tolist():
        tied = (scores[row] == last[row]).nonzero().flatten()
        above = int((values[row] > last[row]).sum())
        columns[row, above:] = tied[: k - above]
    return values, columns
