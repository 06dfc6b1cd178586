"""Search: encode each distinct picture once, compose and fuse the queries, rank the gallery exactly."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
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
        partial(embedded.scores, gallery=gallery.features, branch_weights=branch_weights)
        if own_scores
        else embedded.fused(branch_weights),
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
    features: Tensor | Callable[[slice], Tensor],
    *,
    gallery: Gallery,
    missing: Mapping[str, str] | None = None,
    notes: Mapping[str, object] | None = None,
) -> Ranking:
    """Rank the first 50 of the gallery and the whole of each query's picture set; ties go in gallery order.

    Scores are exact and hold a batch of queries at a time, so memory does not grow with the benchmark. The target's
    rank is counted over the whole gallery, not the first 50.

    Args:
        queries: those that could run, one for each row of features; the benchmark's others get empty rows.
        features: unit rows [Q, d], scored by cosine similarity, or what scores a slice of the queries: [B, N].
    """
    if isinstance(features, Tensor):
        need_finite(features, "the method", features.dtype, names=[f"query {query.id}" for query in queries])
    need_finite(gallery.features, "the method", gallery.features.dtype, names=gallery.ids)
    column_of = {name: column for column, name in enumerate(gallery.ids)}
    rows: dict[str, tuple] = {}
    for start in range(0, len(queries), QUERY_BATCH):
        chunk = queries[start : start + QUERY_BATCH]
        scores = _scores(features, slice(start, start + len(chunk)), gallery)
        if not isinstance(features, Tensor):
            need_finite(scores, "the method", scores.dtype, names=[f"query {query.id}" for query in chunk])
        for row, query in enumerate(chunk):
            if benchmark.drop_reference and query.reference in column_of:
                scores[row, column_of[query.reference]] = -torch.inf
            if query.id in benchmark.galleries:
                _keep_only(
                    scores[row], [column_of[name] for name in benchmark.galleries[query.id] if name in column_of]
                )
        nearest, columns = (each.tolist() for each in top_k(scores, TOP))
        for row, query in enumerate(chunk):
            top = [(gallery.ids[c], v) for c, v in zip(columns[row], nearest[row], strict=True) if v != -torch.inf]
            rows[query.id] = _ranking_row(query, scores[row], top, column_of=column_of)
    in_order = [rows.get(query.id, ((), (), (), None)) for query in benchmark.queries]
    ids, top_scores, subsets, ranks = zip(*in_order, strict=True) if in_order else ((), (), (), ())
    return Ranking(
        queries=tuple(query.id for query in benchmark.queries),
        ids=ids,
        scores=top_scores,
        subset=subsets,
        target_ranks=ranks,
        missing=dict(missing or {}),
        notes=dict(notes or {}),
    )


def _keep_only(scores: Tensor, columns: list[int]) -> None:
    kept = scores[columns]
    scores.fill_(-torch.inf)
    scores[columns] = kept


def _scores(features: Tensor | Callable[[slice], Tensor], rows: slice, gallery: Gallery) -> Tensor:
    if not gallery.ids:
        return torch.empty(rows.stop - rows.start, 0)
    return features[rows] @ gallery.features.T if isinstance(features, Tensor) else features(rows)


def _ranking_row(
    query: Query, scores: Tensor, top: Sequence[tuple[str, float]], *, column_of: Mapping[str, int]
) -> tuple[tuple[str, ...], tuple[float, ...], tuple[str, ...], int | None]:
    """Return one query's names, their scores, its ranked picture set, and the annotated target's rank, from 1.

    The rank is None where the target is hidden or not in the gallery.
    """
    members = [name for name in dict.fromkeys(query.subset) if name in column_of and name != query.reference]
    subset = sorted(members, key=lambda name: (-scores[column_of[name]].item(), column_of[name]))
    targets = [column_of[name] for name, grade in query.relevant.items() if grade == TARGET and name in column_of]
    ahead = [int((scores > scores[c]).sum() + (scores[:c] == scores[c]).sum()) for c in targets]
    rank_of_target = min(ahead) + 1 if ahead else None
    return tuple(name for name, _ in top), tuple(score for _, score in top), tuple(subset), rank_of_target


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
