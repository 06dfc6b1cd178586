"""Embeddings of queries: each distinct reference once, resume by position, what cannot be composed is named."""

import copy
import time
from pathlib import Path

import pytest
import torch

from cig import load_benchmark, load_composer
from cig.errors import MismatchError, NotFoundError
from cig.generators._compose import ComposedConditions, EmbeddingFolder, extract
from cig.io.digests import file_digest
from cig.io.feature_cache import FeatureCache
from cig.models.composer import Composer
from cig.pipelines._models import need_embeddings
from cig.runtime import Shard
from cig.types import Benchmark


@pytest.fixture(scope="module")
def composer(world):
    models = world / "models"
    phis = {"phi": models / "phi-small.pt", "phi2": models / "phi-large.pt"}
    return load_composer(models / "clip-small", models / "clip-large", **phis)


@pytest.fixture
def benchmark(world):
    return load_benchmark("circo/val", world)


def doubled(benchmark):
    """The same references again, under other ids."""
    from dataclasses import replace

    again = tuple(replace(query, id=f"9{query.id}") for query in benchmark.queries)
    return Benchmark(**{**vars(benchmark), "queries": benchmark.queries + again})


def test_each_distinct_reference_is_encoded_once_by_each_clip(benchmark, composer, tmp_path):
    seen = []
    towers = [inverter.clip.vision for inverter in (composer.first, composer.second)]
    hooks = [
        tower.register_forward_hook(lambda m, a, k, out: seen.append(len(k["pixel_values"])), with_kwargs=True)
        for tower in towers
    ]
    extract(doubled(benchmark), composer, tmp_path)
    for hook in hooks:
        hook.remove()
    distinct = len({query.reference for query in benchmark.queries})
    assert sum(seen) == 2 * distinct
    assert len(list(tmp_path.glob("*.pt"))) == 16


def test_a_resumed_run_computes_the_batches_it_needs_alone(benchmark, composer):
    few, every = (ComposedConditions(benchmark, composer, batch_size=2) for _ in range(2))
    every.prepare(benchmark.queries)
    one, whole = few(benchmark.queries[3:4]), every(benchmark.queries)
    assert len(few.features) == 2
    assert torch.allclose(one.prompt[0], whole.prompt[3], atol=1e-6)
    names = [query.reference for query in benchmark.queries]
    assert len(every.features) == len(set(names))


def test_features_of_references_are_kept_bit_by_bit(benchmark, composer, tmp_path, monkeypatch):
    """A second source embeds no picture; one with other batches, whose last bits are others, embeds them again."""
    cache = FeatureCache(tmp_path)
    first, again, other = (ComposedConditions(benchmark, composer, size, cache=cache) for size in (4, 4, 3))
    first.embed(benchmark.queries)
    wait_for_a_tick = [path for path in first.features if path not in cache.read_digests([path])]
    cache.write_digests({path: file_digest(path) for path in wait_for_a_tick}, time.time())
    with monkeypatch.context() as patch:
        patch.setattr(Composer, "embed_images", None)
        again.embed(benchmark.queries)
        with pytest.raises(TypeError):
            other.embed(benchmark.queries)
    assert torch.equal(again(benchmark.queries).prompt, first(benchmark.queries).prompt)
    composer.release("text")
    assert torch.equal(again(benchmark.queries).prompt, first(benchmark.queries).prompt)


@pytest.mark.parametrize("shards", [2, 3])
def test_shards_side_by_side_are_one_run(benchmark, composer, tmp_path, shards):
    extract(benchmark, composer, tmp_path / "whole", batch_size=2)
    made = [
        extract(benchmark, composer, tmp_path / "parts", batch_size=2, shard=Shard(i + 1, shards)).made
        for i in reversed(range(shards))
    ]
    assert sum(made) == 8
    assert min(made) > 0
    files = [{path.name: path.read_bytes() for path in (tmp_path / name).glob("*.pt")} for name in ("whole", "parts")]
    assert files[0] == files[1]


def test_shards_of_different_batch_sizes_leave_no_hole(benchmark, composer, tmp_path):
    made = [
        extract(benchmark, composer, tmp_path, batch_size=size, shard=Shard(i, 3)).made
        for i, size in ((1, 1), (2, 3), (3, 5))
    ]
    assert sum(made) == len(list(tmp_path.glob("*.pt"))) == 8
    assert not extract(benchmark, composer, tmp_path).made


def test_batch_1_equals_batch_7(benchmark, composer):
    source = ComposedConditions(benchmark, composer)
    seven = source(benchmark.queries[:7])
    for row, query in enumerate(benchmark.queries[:7]):
        one = ComposedConditions(benchmark, composer, batch_size=1)([query])
        assert torch.allclose(one.prompt[0], seven.prompt[row], atol=1e-5)
        assert torch.allclose(one.pooled2[0], seven.pooled2[row], atol=1e-5)


def test_missing_and_unreadable_references_are_named(benchmark, composer, tmp_path):
    first, second = benchmark.queries[:2]
    (tmp_path / "bad.jpg").write_bytes(b"no")
    images = {name: path for name, path in benchmark.images.items() if name != first.reference}
    images[second.reference] = tmp_path / "bad.jpg"
    done = extract(Benchmark(**{**vars(benchmark), "images": images}), composer, tmp_path / "out")
    assert "no picture for the reference" in done.missing[first.id]
    assert "bad.jpg" in done.missing[second.id]
    lost = {query.id for query in benchmark.queries if query.reference in (first.reference, second.reference)}
    assert set(done.missing) == lost
    assert done.made == 8 - len(lost)


def test_embeddings_of_other_models_are_not_mixed_in(benchmark, composer, tmp_path):
    extract(benchmark, composer, tmp_path)
    other = copy.copy(composer)
    other.settings = {**composer.settings, "dtype": "torch.float16"}
    with pytest.raises(MismatchError, match=r"dtype: 'torch.float32' there, 'torch.float16' now"):
        extract(benchmark, other, tmp_path)


def test_a_folder_of_embeddings_names_what_it_lacks(benchmark, composer, tmp_path):
    extract(benchmark, composer, tmp_path)
    (tmp_path / "3.pt").unlink()
    (tmp_path / "5.pt").rename(tmp_path / "00005.pt")
    folder = EmbeddingFolder(benchmark, tmp_path)
    assert list(folder.missing) == ["3"]
    composed = folder(benchmark.queries[2:6])
    assert composed.ids == ("2", "4", "5")
    assert folder(benchmark.queries[3:4]) is None
    assert len(folder.settings["embeddings"]) == 1


def test_foreign_files_are_kept_and_named(benchmark, composer, tmp_path):
    (tmp_path / "00003.pt").write_bytes(b"theirs")
    done = extract(benchmark, composer, tmp_path)
    assert (done.made, done.kept, done.foreign) == (7, 1, ("3",))
    assert (tmp_path / "00003.pt").read_bytes() == b"theirs"
    assert extract(benchmark, composer, tmp_path, overwrite=True).made == 8
    assert len(EmbeddingFolder(benchmark, tmp_path).files) == 8, "none is there twice"


def test_an_overwriting_that_was_stopped_goes_on(world, benchmark, composer, tmp_path):
    extract(benchmark, composer, tmp_path)
    other = load_benchmark("circo/test", world)
    assert extract(other, composer, tmp_path, overwrite=True, shard=Shard(1, 2)).made == 4
    assert [extract(other, composer, tmp_path, overwrite=True).made for _ in range(2)] == [4, 8], "then all, once more"


def test_two_benchmarks_do_not_share_a_folder(world, benchmark, composer, tmp_path):
    """CIRCO's val and test both number their queries from 0."""
    extract(benchmark, composer, tmp_path)
    with pytest.raises(MismatchError, match="benchmark: 'circo/val' there, 'circo/test' now"):
        extract(load_benchmark("circo/test", world), composer, tmp_path)


def test_a_category_may_be_a_part_of_a_folders_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out").mkdir()
    for place in ("out", "out/emb_{category}", "out/{category}", "{category}/emb", f"{tmp_path}/out/{{category}}/emb"):
        need_embeddings(Path(place))
    for place in ("none", "none/emb_{category}", "none/{category}"):
        with pytest.raises(NotFoundError, match="is not a folder of embeddings"):
            need_embeddings(Path(place))
