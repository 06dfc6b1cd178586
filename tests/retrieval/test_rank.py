"""Ranking by hand-made features; a counter proves that each picture is encoded once."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from cig import Source, load_benchmark, load_method, search
from cig.io.feature_cache import FeatureCache
from cig.io.images import Preprocess
from cig.retrieval.features import embed_pictures
from cig.retrieval.fusion import BranchFeatures, fuse
from cig.retrieval.rank import rank, ranks_of, top_k, wanted_pictures
from cig.types import Benchmark, Gallery, Query


def bench(queries, gallery, drop_reference=False, images=()):
    pictures = {name: Path(name) for name in images or gallery}
    return Benchmark("toy/val", queries, pictures, gallery, ("recall@1",), drop_reference, 0.5, "made up")


@given(
    st.lists(st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0, -torch.inf]), min_size=9, max_size=9), max_size=5),
    st.integers(1, 12),
)
def test_top_k_is_a_stable_sort(rows, k):
    """Equal scores in column order, also where ties cross the cut."""
    scores = torch.tensor(rows).reshape(len(rows), 9)
    values, columns = top_k(scores, k)
    expected = [sorted(range(9), key=lambda i: (-row[i], i))[:k] for row in rows]
    assert columns.tolist() == expected
    assert values.tolist() == [[row[i] for i in own] for row, own in zip(rows, expected, strict=True)]


def test_an_empty_gallery_ranks_nothing():
    assert top_k(torch.empty(2, 0), 5)[1].shape == (2, 0)


def test_rank_by_hand():
    """b is nearest, then a and c alike (gallery order), then the reference r, which CIRR drops."""
    gallery = Gallery(("r", "a", "b", "c"), torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.8, 0.6], [0.6, 0.8]]))
    query = Query("7", "r", ("c",), {"c": 2, "a": 1}, subset=("c", "r", "b", "gone"))
    lost = Query("8", "x", ("c",))
    ranking = rank(
        bench((query, lost), gallery.ids, drop_reference=True), [query], torch.tensor([[1.0, 0.0]]), gallery=gallery
    )
    assert ranking.ids == (("b", "a", "c"), ())
    assert ranking.subset == (("b", "c"), ())
    assert ranking.target_ranks == (3, None), "c ties with a, which comes first"
    assert ranking.scores[0] == pytest.approx((0.8, 0.6, 0.6))
    kept = rank(bench((query,), gallery.ids), [query], torch.tensor([[1.0, 0.0]]), gallery=gallery)
    assert kept.ids[0][0] == "r"


@given(st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=12, max_size=12), st.sets(st.integers(0, 11)))
def test_ranks_of_columns_are_those_of_a_stable_sort(row, columns):
    """Few are counted, many are sorted: both give a tie its place in column order."""
    order = sorted(range(12), key=lambda column: (-row[column], column))
    expected = [order.index(column) + 1 for column in columns]
    assert ranks_of(torch.tensor(row), list(columns)) == expected


def test_galleries_of_queries_and_a_method_that_scores_over_them():
    """Each query's scores are minus the mean over the gallery that it ranks: 3 and 7 here, never 4 over all."""
    gallery = Gallery(("a", "b", "c", "d"), torch.tensor([[1.0], [5.0], [6.0], [4.0]]))
    queries = (Query("1", "r", ("c",), {"b": 2}), Query("2", "r", ("c",), {"c": 2}), Query("3", "r", ("c",), {"a": 2}))
    own = {"1": ("b", "a"), "3": ("b", "a"), "2": ("d", "c", "gone")}
    seen = []

    def scores(rows, features):
        seen.append((list(rows), features.mean().item()))
        return (features - features.mean()).T.repeat(len(rows), 1)

    part = replace(bench(queries, gallery.ids), galleries=own, measures=("trapezoid_map",))
    ranking = rank(part, queries, scores, gallery=gallery)
    assert sorted(seen) == [([0, 2], 3.0), ([1], 5.0)]
    assert ranking.ids == (("b", "a"), ("c", "d"), ("b", "a"))
    assert ranking.scores[1] == (1.0, -1.0)
    assert (ranking.target_ranks, ranking.relevant_ranks) == ((1, 1, 2), ((1,), (1,), (2,)))
    some = rank(replace(part, galleries={"1": ("b",)}), queries, gallery.features[:3] * 0, gallery=gallery)
    assert [len(names) for names in some.ids] == [1, 4, 4], "queries without a gallery of their own rank the whole"


def test_fuse_by_hand():
    reference = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    fused = fuse(reference, [(BranchFeatures(torch.tensor([0]), torch.tensor([[0.0, 1.0]])), 0.25)])
    assert torch.allclose(fused[0], torch.tensor([0.75, 0.25]) / 0.625**0.5)
    assert torch.equal(fused[1], reference[1]), "without a pseudo-target the branch is dropped"


def test_nothing_to_fuse_or_to_find():
    nothing = fuse(torch.empty(0, 0), [(BranchFeatures(torch.tensor([], dtype=torch.long), torch.empty(0, 2)), 0.25)])
    assert nothing.shape == (0, 0)
    query = Query("7", "r", ("c",), {"c": 2})
    ranking = rank(bench((query,), ("c",)), [query], torch.tensor([[1.0, 0.0]]), gallery=Gallery((), torch.empty(0, 0)))
    assert (ranking.ids, ranking.target_ranks) == (((),), (None,))


def counted(method):
    """Counts decoded pictures through the method's preprocessing, and encoded ones through its picture tower."""
    counts = {"decoded": 0, "encoded": 0}
    preprocess, embed = method.preprocess, method.embed_images

    def count_decoded(image):
        counts["decoded"] += 1
        return preprocess(image)

    def count_encoded(pixels):
        counts["encoded"] += len(pixels)
        return embed(pixels)

    method.preprocess, method.embed_images = count_decoded, count_encoded
    return counts


def searle(world):
    models = world / "models"
    return load_method("searle", Source(clip=str(models / "clip-small"), phi=models / "phi-small.pt"))


def test_each_distinct_picture_is_decoded_and_encoded_once(world):
    benchmark = load_benchmark("cirr/val", world)
    targets = {query.id: benchmark.images[query.reference] for query in benchmark.queries}  # shared with the gallery
    method = searle(world)
    counts = counted(method)
    search(benchmark, method, targets)
    assert counts == {"decoded": 60, "encoded": 60}


def test_batches_of_1_and_7_agree(world):
    benchmark, method = load_benchmark("circo/val", world), searle(world)
    paths = wanted_pictures(benchmark, method)[:14]
    one, seven = (embed_pictures(method, paths, size) for size in (1, 7))
    assert torch.allclose(one.of(paths), seven.of(paths), atol=1e-5)
    assert one.digest() == seven.digest()


def test_preprocessing_is_the_methods(world):
    models = world / "models"
    source = Source(clip=str(models / "clip-small"), phi=models / "phi-small.pt")
    assert load_method("searle", source).preprocess == Preprocess(224, pad=True)
    assert load_method("lincir", source).preprocess == Preprocess(224)


@pytest.mark.slow
def test_unreadable_pictures_are_named_not_ranked(world, tmp_path):
    benchmark = load_benchmark("cirr/val", world)
    query = benchmark.queries[0]
    (tmp_path / "bad.png").write_bytes(b"no")
    images = {**benchmark.images, query.reference: tmp_path / "bad.png"}
    broken = Benchmark(**{**vars(benchmark), "images": images})
    ranking = search(broken, searle(world))
    assert "bad.png" in ranking.missing[query.id]
    assert ranking.ids[0] == ()
    assert not any(query.reference in names for names in ranking.ids)
    assert ranking.notes["unreadable"] == [query.reference]
    allowed = search(broken, searle(world), allow_missing=True)
    assert len(allowed.ids[0]) == 50, "ranked by its caption"
    assert allowed.ids[1:] == ranking.ids[1:]
    shown = {query.id: next(iter(benchmark.images.values())) for query in benchmark.queries}
    fused = search(broken, searle(world), shown, allow_missing=True)
    assert fused.ids[0] == allowed.ids[0], "by its caption alone, whatever was imagined"
    assert fused.ids[1:] != allowed.ids[1:]
    assert fused.notes["branches"] == {"pseudo-target": []}, "it has one, and no reference"
    assert query.id in allowed.missing


class Drifting:
    """A method whose features depend on the number of pictures before, as those of a batch do by rounding."""

    name, identity, uses_picture, made = "drifting", {"source": "here"}, True, 0

    @staticmethod
    def preprocess(image):
        return torch.zeros(3, 2, 2)

    def embed_images(self, pixels):
        self.made += len(pixels)
        return torch.arange(self.made - len(pixels), self.made).float()[:, None].expand(-1, 4).contiguous()


@pytest.mark.parametrize("folder", ["cache", None])
def test_copies_have_one_feature_in_a_cold_and_a_warm_cache(tmp_path, folder):
    for name, color in {"a": "red", "b": "blue", "c": "red", "d": "red", "e": "red"}.items():
        Image.new("RGB", (4, 4), color).save(tmp_path / f"{name}.png")
    paths = [tmp_path / f"{name}.png" for name in "abcd"]

    def features(paths):
        cache = FeatureCache(folder and tmp_path / folder)
        return embed_pictures(Drifting(), paths, 2, cache=cache).of(paths)[:, 0].tolist()

    assert features(paths) == [0, 1, 0, 0]
    if folder:
        later = [*paths, tmp_path / "e.png"]
        assert features(later) == [0, 1, 0, 0, 0]
