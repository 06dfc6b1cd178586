"""Imagining: acceptance and retries on made pictures, resume and its refusals; the oracle on a real pipeline."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

import oracle
from cig import load_benchmark
from cig.errors import MismatchError
from cig.generators import load_generator, presets
from cig.generators._compose import ComposedConditions, ConditionsWithReferences, EmbeddingFolder, extract
from cig.generators._generate import Imagining, brightness, imagine
from cig.io.files import write_png
from cig.io.manifest import Manifest
from cig.models.composer import load_composer
from cig.pipelines._models import load_composer as composer_of
from cig.runtime import Compute, Shard
from cig.types import Benchmark, ComposedEmbedding, Query


class Painter:
    """Paints a flat grey: its level is told by the query's embedding, or by a table of seeds."""

    settings = {"painter": 1}  # noqa: RUF012
    identity = {"painter": {"sha256": "0"}}  # noqa: RUF012

    def __init__(self, level=None):
        self.level, self.calls = level or (lambda query, seed: query), []

    def __call__(self, condition, seeds):
        self.calls.append((condition.ids, list(seeds)))
        levels = [self.level(int(value), seed) for value, seed in zip(condition.pooled2[:, 0], seeds, strict=True)]
        return [Image.fromarray(np.full((8, 8, 3), level, np.uint8)) for level in levels]


class Onlooker(Painter):
    """Remembers which references it was given, by their first pixels."""

    shown = True

    def __call__(self, condition, seeds):
        self.shades = [*getattr(self, "shades", []), [own.getpixel((0, 0)) for own in condition.references]]
        return super().__call__(condition, seeds)


class Table:
    """Conditions whose only content is the query's number."""

    settings = {"table": 1}  # noqa: RUF012

    def __init__(self, missing=()):
        self.missing = dict.fromkeys(missing, "no embedding")

    def prepare(self, queries):
        pass

    def __call__(self, queries):
        ids = tuple(query.id for query in queries if query.id not in self.missing)
        numbers = torch.tensor([[float(name)] for name in ids])
        return ComposedEmbedding(ids, numbers[:, None], numbers[:, None], numbers, numbers[:, None]) if ids else None


def bench(*ids):
    queries = tuple(Query(str(i), "a", ("c",)) for i in ids)
    return Benchmark("toy/val", queries, {}, (), ("recall@1",), False, 0.5, "made up")


def lines(folder):
    return [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]


def test_a_generator_that_is_shown_references_gets_each_query_its_own(tmp_path):
    """The second query's picture is no picture, the third's is not there: both are named, and nothing is made."""
    for name, grey in (("a", 10), ("d", 40)):
        write_png(tmp_path / f"{name}.png", Image.new("L", (4, 4), grey))
    (tmp_path / "b.png").write_bytes(b"none")
    images = {name: tmp_path / f"{name}.png" for name in "abd"}
    queries = tuple(Query(str(number), name, ("c",)) for number, name in enumerate("abcd"))
    part = Benchmark("toy/val", queries, images, (), ("recall@1",), False, 0.5, "made up")
    painter = Onlooker(lambda query, seed: 0 if seed == 1600 else 50)  # all are made twice
    done = imagine(part, Table(), painter, out=tmp_path / "out")
    assert painter.shades == [[(10,) * 3, (40,) * 3]] * 2
    assert done.pictures.keys() == {"0", "3"}
    assert done.missing["2"] == "no picture for the reference c"
    assert "b.png" in done.missing["1"]


def test_dark_pictures_are_made_again_and_refused(tmp_path):
    """Query 5 is dark; 30 is bright at once; 7 becomes bright at its second retry."""
    painter = Painter(lambda query, seed: 50 if (query, seed) == (7, 1602) else query)
    done = imagine(bench(5, 30, 7), Table(), painter, out=tmp_path, how=Imagining(max_retries=3))
    assert painter.calls == [
        (("5", "30", "7"), [1600] * 3),
        (("5", "7"), [1601] * 2),
        (("5", "7"), [1602] * 2),
        (("5",), [1603]),
    ]
    assert done.refused == ("5",)
    assert {key: path.name for key, path in done.pictures.items()} == {"30": "00030.png", "7": "00007.png"}
    assert (tmp_path / "rejected/00005.png").exists()
    assert [
        (line["id"], line["seed"], line["attempts"], line["accepted"], line["file"]) for line in lines(tmp_path)
    ] == [
        ("5", 1603, 4, False, "rejected/00005.png"),
        ("30", 1600, 1, True, "00030.png"),
        ("7", 1602, 3, True, "00007.png"),
    ]


def test_the_threshold_itself_is_too_dark(tmp_path):
    done = imagine(bench(10, 11), Table(), Painter(), out=tmp_path, how=Imagining(max_retries=0))
    assert done.refused == ("10",)
    assert brightness(Image.new("RGB", (2, 2), (0, 30, 0))) == 10


def test_a_rerun_keeps_what_is_done(tmp_path):
    imagine(bench(20, 3), Table(), Painter(), out=tmp_path)
    painter = Painter()
    again = imagine(bench(20, 3), Table(), painter, out=tmp_path)
    assert (painter.calls, again.made, again.refused) == ([], 0, ("3",))


def test_a_resumed_run_forms_the_same_batches_and_rewrites_nothing(tmp_path):
    first = Painter()
    imagine(bench(20, 30, 40, 50), Table(), first, out=tmp_path, batch_size=2)
    whole = {path.name: path.read_bytes() for path in tmp_path.glob("*.png")}
    (tmp_path / "00040.png").unlink()
    before = (tmp_path / "00050.png").stat().st_mtime_ns
    second = Painter()
    done = imagine(bench(20, 30, 40, 50), Table(), second, out=tmp_path, batch_size=2)
    assert second.calls == first.calls[1:]
    assert done.made == 1
    assert (tmp_path / "00050.png").stat().st_mtime_ns == before
    assert {path.name: path.read_bytes() for path in tmp_path.glob("*.png")} == whole


@pytest.mark.parametrize("after", range(8))
def test_a_kill_at_any_write_and_a_rerun_give_the_same_bytes(tmp_path, monkeypatch, after):
    """Dies at each rename and each manifest line of a run with accepted and refused pictures."""
    queries, whole = bench(20, 3, 30, 4), tmp_path / "whole"
    imagine(queries, Table(), Painter(), out=whole)

    class Killed(BaseException):
        pass

    left = [after]

    def dying(act):
        def wrapped(*args):
            left[0] -= 1
            if left[0] < 0:
                raise Killed
            return act(*args)

        return wrapped

    with monkeypatch.context() as patch:
        patch.setattr("cig.generators._generate.write_png", dying(write_png))
        patch.setattr("cig.io.manifest.Manifest.add", dying(Manifest.add))
        with pytest.raises(Killed):
            imagine(queries, Table(), Painter(), out=tmp_path / "killed")
    done = imagine(queries, Table(), Painter(), out=tmp_path / "killed")
    assert done.refused == ("3", "4")
    assert not done.foreign
    names = sorted(path.relative_to(whole) for path in whole.rglob("*.png"))
    assert names == sorted(path.relative_to(tmp_path / "killed") for path in (tmp_path / "killed").rglob("*.png"))
    assert all((whole / name).read_bytes() == (tmp_path / "killed" / name).read_bytes() for name in names)


def test_shards_side_by_side_are_one_run(tmp_path):
    queries = bench(20, 3, 30, 40, 50, 60, 4)
    imagine(queries, Table(), Painter(), out=tmp_path / "whole", batch_size=2)
    done = [
        imagine(queries, Table(), Painter(), out=tmp_path / "parts", batch_size=2, shard=Shard(i, 3)) for i in (3, 1, 2)
    ]
    assert [(set(own.pictures), own.refused) for own in done] == [
        ({"50", "60"}, ("4",)),
        ({"20"}, ("3",)),
        ({"30", "40"}, ()),
    ]
    files = [
        {path.relative_to(tmp_path / name): path.read_bytes() for path in (tmp_path / name).rglob("*.png")}
        for name in ("whole", "parts")
    ]
    assert files[0] == files[1]
    assert not imagine(queries, Table(), Painter(), out=tmp_path / "parts", batch_size=2).made


def test_shards_of_different_batch_sizes_leave_no_hole(tmp_path):
    queries = bench(20, 30, 3, 40, 50, 60, 70)
    for i, size in ((1, 3), (2, 2), (3, 4)):
        imagine(queries, Table(), Painter(), out=tmp_path, batch_size=size, shard=Shard(i, 3))
    assert {path.stem for path in tmp_path.glob("*.png")} == {f"{i:05d}" for i in (20, 30, 40, 50, 60, 70)}
    whole = imagine(queries, Table(), Painter(), out=tmp_path, batch_size=5)
    assert (whole.made, whole.refused, whole.foreign) == (0, ("3",), ())


@pytest.mark.slow
def test_a_batch_that_does_not_fit_is_halved(tmp_path, capsys):
    class Small(Painter):
        def __call__(self, condition, seeds):
            if len(seeds) > 2:
                raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")
            return super().__call__(condition, seeds)

    done = imagine(bench(20, 30, 40, 50, 60), Table(), Small(), out=tmp_path, batch_size=5)
    assert done.made == 5
    assert [brightness(Image.open(path)) for path in done.pictures.values()] == [20, 30, 40, 50, 60]
    assert "out of memory with 5 pictures at once: going on with 3" in capsys.readouterr().err

    class Broken(Painter):
        def __call__(self, condition, seeds):
            raise RuntimeError("CUDA out of memory" if len(seeds) == 1 else "something else")

    with pytest.raises(RuntimeError, match="out of memory"):
        imagine(bench(20), Table(), Broken(), out=tmp_path / "b", batch_size=1)
    with pytest.raises(RuntimeError, match="something else"):
        imagine(bench(20, 30), Table(), Broken(), out=tmp_path / "c", batch_size=2)


def test_other_settings_need_overwrite(tmp_path):
    imagine(bench(20), Table(), Painter(), out=tmp_path)
    with pytest.raises(MismatchError, match="seed: 1600 there, 7 now"):
        imagine(bench(20), Table(), Painter(), out=tmp_path, how=Imagining(seed=7))
    done = imagine(bench(20), Table(), Painter(lambda q, s: 99), out=tmp_path, how=Imagining(seed=7), overwrite=True)
    assert done.made == 1
    assert brightness(Image.open(tmp_path / "00020.png")) == 99


def test_an_overwriting_that_was_stopped_goes_on(tmp_path):
    part, other = bench(20, 30, 40), Imagining(seed=7)
    imagine(part, Table(), Painter(), out=tmp_path, batch_size=1)

    def stopped(query, seed):
        if query == 40:
            raise KeyboardInterrupt
        return 99

    with pytest.raises(KeyboardInterrupt):
        imagine(part, Table(), Painter(stopped), out=tmp_path, how=other, batch_size=1, overwrite=True)
    with pytest.raises(MismatchError, match="seed: 1600 there, 7 now"):
        imagine(part, Table(), Painter(), out=tmp_path, how=other, batch_size=1)
    painter = Painter(lambda query, seed: 50)
    assert imagine(part, Table(), painter, out=tmp_path, how=other, batch_size=1, overwrite=True).made == 1
    assert [brightness(Image.open(tmp_path / f"000{query}.png")) for query in (20, 30, 40)] == [99, 99, 50]
    assert imagine(part, Table(), painter, out=tmp_path, how=other, batch_size=1, overwrite=True).made == 3, (
        "all, once more"
    )
    fewer = bench(20, 30)
    imagine(fewer, Table(), painter, out=tmp_path, how=Imagining(seed=8), batch_size=1, overwrite=True)
    again = imagine(fewer, Table(), painter, out=tmp_path, how=Imagining(seed=8), batch_size=1, overwrite=True)
    assert again.made == 2, "40, which nobody asks for, is of other settings for good"


def test_retry_rejected_goes_on_with_the_next_seeds(tmp_path):
    imagine(bench(3, 20), Table(), Painter(), out=tmp_path, how=Imagining(max_retries=1))
    painter = Painter(lambda query, seed: 200 if seed == 1603 else 0)
    done = imagine(bench(3, 20), Table(), painter, out=tmp_path, how=Imagining(max_retries=1), retry_rejected=True)
    assert painter.calls == [(("3",), [1602]), (("3",), [1603])]
    assert not done.refused
    assert not (tmp_path / "rejected/00003.png").exists()
    assert lines(tmp_path)[-1]["attempts"] == 4


def test_foreign_pictures_are_kept_and_named(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "20.png")
    done = imagine(bench(20, 30), Table(), Painter(), out=tmp_path)
    assert (done.foreign, done.made) == (("20",), 1)
    assert brightness(Image.open(tmp_path / "20.png")) == 0


def test_queries_without_an_embedding_are_named(tmp_path):
    done = imagine(bench(20, 30), Table(missing=["30"]), Painter(), out=tmp_path)
    assert done.missing == {"30": "no embedding"}
    assert set(done.pictures) == {"20"}


class Late(Table):
    """Knows what it lacks when it is asked for it, as what has to read a picture does."""

    def __init__(self, lacking):
        super().__init__()
        self.lacking = lacking

    def __call__(self, queries):
        self.missing |= dict.fromkeys((query.id for query in queries if query.id in self.lacking), "no picture")
        return super().__call__(queries)


@pytest.mark.parametrize("conditions", [Table, Late])
def test_for_what_cannot_be_composed_its_neighbours_are_not_made_again(tmp_path, conditions):
    imagine(bench(20, 30), conditions(["30"]), Painter(), out=tmp_path)
    painter = Painter()
    again = imagine(bench(20, 30), conditions(["30"]), painter, out=tmp_path)
    assert (painter.calls, again.made, set(again.missing)) == ([], 0, {"30"})


def test_what_was_imagined_before_its_reference_went_is_not_missing(tmp_path):
    imagine(bench(20, 30), Table(), Painter(), out=tmp_path)
    assert imagine(bench(20, 30), Table(["30"]), Painter(), out=tmp_path).missing == {}


def test_overwrite_replaces_names_without_zeros(tmp_path):
    """As published folders have them; one that is refused now leaves no old picture behind."""
    for name in ("20", "3"):
        Image.new("RGB", (8, 8), (90,) * 3).save(tmp_path / f"{name}.png")
    done = imagine(bench(20, 3), Table(), Painter(), out=tmp_path, overwrite=True)
    assert (set(done.pictures), done.refused) == ({"20"}, ("3",))
    assert sorted(path.name for path in tmp_path.glob("*.png")) == ["00020.png"]


def test_seeds_per_query_do_not_depend_on_neighbours(tmp_path):
    painter = Painter()
    imagine(bench(20, 30), Table(), painter, out=tmp_path / "a", how=Imagining(seeds="per-query"))
    alone = Painter()
    imagine(bench(30), Table(), alone, out=tmp_path / "b", how=Imagining(seeds="per-query"))
    assert painter.calls[0][1][1] == alone.calls[0][1][0] != painter.calls[0][1][0]


# The real pipeline, in miniature


@pytest.fixture(scope="module")
def embeddings(world, tmp_path_factory):
    models, out = world / "models", tmp_path_factory.mktemp("embeddings")
    phis = {"phi": models / "phi-small.pt", "phi2": models / "phi-large.pt"}
    composer = load_composer(models / "clip-small", models / "clip-large", **phis)
    extract(load_benchmark("cirr/test1", world), composer, out)
    return out


def sdxl(world, **options):
    home = world / "models/sdxl"
    repos = {"model_path": home, "sdxl_repo": str(home), "vae_repo": str(home / "vae"), "device": "cpu"}
    return load_generator("sdxl", **repos, **{"height": 64, "width": 64, "steps": 4} | options)


@pytest.mark.slow
def test_pictures_are_the_oracles_retries_included(world, embeddings, tmp_path):
    benchmark = load_benchmark("cirr/test1", world)
    pipe = oracle.pipeline(world / "models")
    files = {query.id: torch.load(embeddings / f"{query.id}.pt", weights_only=True) for query in benchmark.queries}
    truth = {(name, seed): oracle.picture(pipe, file, seed) for name, file in files.items() for seed in (1600, 1601)}
    levels = sorted(brightness(truth[name, 1600]) for name in files)
    threshold = (levels[3] + levels[4]) / 2  # half of the queries are tried again
    how = Imagining(brightness_thresh=threshold, max_retries=1)
    done = imagine(benchmark, EmbeddingFolder(benchmark, embeddings), sdxl(world), out=tmp_path, how=how)
    accepted = {name: next((s for s in (1600, 1601) if brightness(truth[name, s]) > threshold), None) for name in files}
    assert set(done.pictures) == {name for name, seed in accepted.items() if seed}
    assert len(done.pictures) > 0
    for name, path in done.pictures.items():
        theirs = np.asarray(truth[name, accepted[name]], dtype=float)
        assert np.abs(np.asarray(Image.open(path), dtype=float) - theirs).mean() < 0.01


@pytest.mark.slow
def test_batch_size_moves_no_picture_by_more_than_a_grey_level(world, embeddings, tmp_path):
    benchmark = load_benchmark("cirr/test1", world)
    for size in (1, 4):
        imagine(
            benchmark, EmbeddingFolder(benchmark, embeddings), sdxl(world), out=tmp_path / str(size), batch_size=size
        )
    for path in (tmp_path / "1").glob("*.png"):
        one, four = (np.asarray(Image.open(tmp_path / n / path.name), dtype=float) for n in "14")
        assert np.abs(one - four).max() <= 1
        assert np.abs(one - four).mean() <= 0.01


@pytest.mark.parametrize("option", ["vae_slicing", "attention_slicing"])
def test_memory_options_change_no_picture_much(world, embeddings, tmp_path, option):
    benchmark = load_benchmark("cirr/test1", world)
    condition = EmbeddingFolder(benchmark, embeddings)(benchmark.queries[:2])
    frugal = sdxl(world, **{option: True})
    sliced = [type(own).__name__ for own in frugal.pipeline.unet.attn_processors.values()]
    assert (frugal.pipeline.vae.use_slicing, "SlicedAttnProcessor" in sliced) == (
        option == "vae_slicing",
        option == "attention_slicing",
    )
    plain, saving = sdxl(world)(condition, [1, 2]), frugal(condition, [1, 2])
    for a, b in zip(plain, saving, strict=True):
        assert np.abs(np.asarray(a, dtype=float) - np.asarray(b, dtype=float)).max() <= 1


def test_where_memory_runs_out_in_decoding_the_vae_is_as_it_was(world, embeddings, monkeypatch):
    """diffusers raises a VAE that asks for it to float32, and takes it back after decoding alone."""
    benchmark, generator = load_benchmark("cirr/test1", world), sdxl(world)
    condition, vae = EmbeddingFolder(benchmark, embeddings)(benchmark.queries[:1]), generator.pipeline.vae

    def full(*args, **options):
        vae.to(dtype=torch.float64)
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(vae, "decode", full)
        with pytest.raises(MemoryError):
            generator(condition, [1])
    assert vae.dtype == torch.float32
    assert generator(condition, [1])


def test_tiling_moves_pixels_and_so_is_a_setting(world):
    assert sdxl(world).settings != sdxl(world, vae_tiling=True).settings
    assert sdxl(world).settings != sdxl(world, vae_slicing=True).settings


@pytest.mark.slow
def test_the_shipped_generator_draws_the_same_again():
    part = load_benchmark("icons/val", limit=2)
    composing, generation = presets("sdxl/icons")
    condition = ConditionsWithReferences(part, ComposedConditions(part, composer_of(composing, Compute(device="cpu"))))(
        part.queries
    )
    first, again, other = (
        load_generator("sdxl/icons", device="cpu")(condition, seeds) for seeds in ([1, 2], [1, 2], [3, 4])
    )
    assert [picture.size for picture in first] == [(64, 64)] * 2
    assert [picture.tobytes() for picture in first] == [picture.tobytes() for picture in again]
    assert first[0].tobytes() != other[0].tobytes()
    few = load_generator("sdxl/icons", device="cpu", steps=1).settings
    assert few["steps"] == 1
    assert few | {"steps": generation.steps} == load_generator("sdxl/icons", device="cpu").settings


def test_embeddings_that_do_not_fit_the_unet_name_both_widths(world, embeddings):
    benchmark = load_benchmark("cirr/test1", world)
    condition = EmbeddingFolder(benchmark, embeddings)(benchmark.queries[:1])
    narrow = ComposedEmbedding(
        condition.ids, condition.conditioning, condition.conditioning, condition.pooled2, condition.last
    )
    with pytest.raises(MismatchError, match=r"width 64 and pooled width 56.*UNet reads 80 and 56"):
        sdxl(world)(narrow, [1])
