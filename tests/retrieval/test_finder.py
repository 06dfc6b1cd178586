"""Search over a folder: against a search by hand; the index is used while nothing changed; filters; hostile names."""

import io
import json
import os
import shutil
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from cig import Source, load_method
from cig.cli.main import main
from cig.errors import CigError, InputError, NotFoundError, PictureError, UsageError, printable
from cig.io.dataset_paths import is_walked
from cig.io.feature_cache import FeatureCache
from cig.io.images import limit_pixels, read_picture
from cig.methods import load_method_lazily
from cig.pipelines.search import FolderSearch, Lookup, parse_line, to_html
from cig.retrieval.filters import Condition, Metadata, allowed
from cig.retrieval.finder import ComposedQuery, Finder
from cig.retrieval.index.exact import list_folder
from cig.retrieval.requests import Searching
from cig.runtime import Compute


def run(capsys, *words):
    with pytest.raises(SystemExit) as done:
        main([str(word) for word in words])
    shown = capsys.readouterr()
    return done.value.code or 0, shown.out, shown.err


@pytest.fixture
def shop(world, tmp_path):
    home = tmp_path / "shop"
    shutil.copytree(world / "shop", home)
    (home / "queries.json").unlink()
    return home


def method_of(world, name="sum"):
    return load_method(name, Source(clip=str(world / "models/clip-small")))


def unit(row):
    return torch.nn.functional.normalize(row, dim=-1)


def by_hand(method, home, query):
    """Names by cosine similarity to a unit feature [d], highest first."""
    names = list_folder(home).names
    pixels = [method.preprocess(read_picture(home / name).image) for name in names]
    scores = unit(method.embed_images(torch.stack(pixels))) @ query
    return [names[i] for i in np.argsort(-scores.numpy(), kind="stable")]


# Searching


def test_a_picture_and_a_text(world, shop):
    method = method_of(world)
    own = shop / "dresses/no 2.jpg"
    feature = method.embed_images(method.preprocess(read_picture(own).image)[None])
    query = unit(unit(feature) + method.embed_captions([("is red",)]))[0]
    expected = [name for name in by_hand(method, shop, query) if name != "dresses/no 2.jpg"]
    hits = Finder(shop, method).find(ComposedQuery((own,), "is red"), k=60)
    assert [hit.name for hit in hits] == expected
    assert hits[0].path == shop / expected[0]
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    kept = Finder(shop, method).find(ComposedQuery((own,)), k=1, keep_reference=True)
    assert kept[0].name == "dresses/no 2.jpg"
    assert kept[0].score == pytest.approx(1)


def test_a_text_alone_several_pictures_and_what_should_not_be_there(world, shop):
    method = method_of(world)
    finder = Finder(shop, method)
    text, unwanted = (method.embed_captions([(own,)])[0] for own in ("is red", "a dog"))
    assert torch.allclose(finder.embed(ComposedQuery(text="is red")), text, atol=1e-6)
    without = finder.embed(ComposedQuery(text="is red", without="a dog", without_weight=0.5))
    assert torch.allclose(without, unit(text - 0.5 * unwanted), atol=1e-6)
    paths = shop / "dresses/no 0.jpg", shop / "shirts/no 1.jpg"
    both = finder.embed(ComposedQuery(paths, "is red"))
    one, two = (finder.embed(ComposedQuery((path,), "is red")) for path in paths)
    assert torch.allclose(both, unit(one + two), atol=1e-6)
    found = {hit.name for hit in finder.find(ComposedQuery(paths, "is red"), k=100)}
    assert len(found) == 58, "neither of the pictures that were asked with"


def test_a_pseudo_target_is_fused_in(world, shop):
    finder = Finder(shop, method_of(world))
    image, imagined = shop / "dresses/no 0.jpg", shop / "shirts/no 1.jpg"
    fused = finder.embed(ComposedQuery((image,), "is red", pseudo_target=imagined, reference_weight=0.7))
    one, two = (finder.embed(ComposedQuery((path,), "is red")) for path in (image, imagined))
    assert torch.allclose(fused, unit(0.7 * one + 0.3 * two), atol=1e-6)


def test_wrong_questions_are_told(world, shop, tmp_path):
    finder = Finder(shop, method_of(world))
    with pytest.raises(UsageError, match="what is looked for"):
        finder.find(ComposedQuery())
    (tmp_path / "bad.png").write_bytes(b"no")
    with pytest.raises(PictureError, match=r"bad\.png"):
        finder.find(ComposedQuery((tmp_path / "bad.png",)))
    with pytest.raises(UsageError, match="text looks at no picture"):
        Finder(shop, method_of(world, "text")).find(ComposedQuery((shop / "dresses/no 0.jpg",), "x"))


def test_a_known_text_is_found_without_a_model(world, shop, tmp_path):
    cache, source = FeatureCache(tmp_path), Source(clip=str(world / "models/clip-small"))
    for _ in range(2):
        method = load_method_lazily("sum", source, cache)
        Finder(shop, method, cache).find(ComposedQuery(text="is red"))
    assert method._model is None


def test_features_of_a_benchmarks_queries_answer_no_other(shop, tmp_path):
    """A search of one's own has an id, too, which may be one of the file's."""
    names = list_folder(shop).names
    rows = np.eye(len(names), dtype=np.float32)
    np.savez(tmp_path / "f.npz", names=names, features=rows, queries=["0"], query_features=rows[:1])
    method = load_method("precomputed", Source(options={"features": str(tmp_path / "f.npz")}))
    finder, image = Finder(shop, method), shop / names[5]
    assert finder.find(ComposedQuery((image,)), k=1, keep_reference=True)[0].name == names[5]
    with pytest.raises(UsageError, match="knows queries of a benchmark alone, by their ids; leave --text out"):
        finder.find(ComposedQuery((image,), "in red"))


# The index


def test_nothing_is_decoded_or_embedded_while_nothing_changes(world, shop, tmp_path, monkeypatch):
    cache = FeatureCache(tmp_path / "cache")
    first = Finder(shop, method_of(world), cache).find(ComposedQuery(text="is red"))
    method = method_of(world)
    monkeypatch.setattr(method, "embed_images", None)
    monkeypatch.setattr("cig.retrieval.index.exact.embed_pictures", None)
    again = Finder(shop, method, cache)
    assert isinstance(again.gallery.features, np.memmap)
    assert again.find(ComposedQuery(text="is red")) == first


def test_what_changed_is_embedded_again_and_nothing_else(world, shop, tmp_path):
    cache, method = FeatureCache(tmp_path / "cache"), method_of(world)
    Finder(shop, method, cache)
    (shop / "shirts/no 1.jpg").unlink()
    shutil.copy(shop / "dresses/no 0.jpg", shop / "new.jpg")
    Image.new("RGB", (40, 30), "blue").save(shop / "dresses/no 2.jpg")
    seen, embed = [], method.embed_images

    def counted(pixels):
        seen.append(len(pixels))
        return embed(pixels)

    method.embed_images = counted
    finder = Finder(shop, method, cache)
    assert sum(seen) <= 2, "the blue one, and perhaps the copy, which is known by its content"
    assert (
        finder.find(ComposedQuery((shop / "dresses/no 2.jpg",)), k=1, keep_reference=True)[0].name == "dresses/no 2.jpg"
    )
    assert "new.jpg" in finder.gallery.names
    assert "shirts/no 1.jpg" not in finder.gallery.names
    assert len(list((tmp_path / "cache/indexes").rglob("*.npy"))) == 1, "the old matrix is gone"


@pytest.mark.parametrize("damage", ["index.json", "matrix", "both"])
def test_a_damaged_index_is_made_again(world, shop, tmp_path, damage):
    cache, method = FeatureCache(tmp_path / "cache"), method_of(world)
    first = Finder(shop, method, cache).find(ComposedQuery(text="x"))
    for path in (tmp_path / "cache/indexes").rglob("*.*"):
        if damage == "both" or (path.name == "index.json") == (damage == "index.json"):
            path.write_bytes(b'{"listing": 7}' if path.name == "index.json" else b"\x93NUMPY")
    assert Finder(shop, method, cache).find(ComposedQuery(text="x")) == first


def test_unreadable_pictures_are_named_and_not_asked_again(world, shop, tmp_path, monkeypatch):
    (shop / "bad.png").write_bytes(b"no")
    cache, method = FeatureCache(tmp_path / "cache"), method_of(world)
    assert list(Finder(shop, method, cache).gallery.unreadable) == ["bad.png"]
    monkeypatch.setattr("cig.retrieval.index.exact.embed_pictures", None)
    assert list(Finder(shop, method, cache).gallery.unreadable) == ["bad.png"]


def test_what_can_be_read_now_is_searched(world, shop, tmp_path):
    """Nothing in the folder has changed, but what is allowed has."""
    Image.new("RGB", (600, 600)).save(shop / "large.png")
    cache, method = FeatureCache(tmp_path / "cache"), method_of(world)
    limit_pixels(200_000)
    try:
        assert list(Finder(shop, method, cache).gallery.unreadable) == ["large.png"]
    finally:
        limit_pixels(2**28)
    gallery = Finder(shop, method, cache).gallery
    assert "large.png" in gallery.names
    assert not gallery.unreadable
    cache.clear()
    assert not [*(tmp_path / "cache/indexes").rglob("*.*")]


def test_folders_without_pictures_are_told(world, tmp_path):
    with pytest.raises(NotFoundError, match="has no pictures"):
        Finder(tmp_path, method_of(world))
    (tmp_path / "bad.png").write_bytes(b"no")
    with pytest.raises(CigError, match="none of the 1 pictures"):
        Finder(tmp_path, method_of(world))


# Filters


@pytest.mark.parametrize(
    ("text", "cell", "holds"),
    [
        ("price<50", "7", True),
        ("price<50", "50", False),
        ("price<=50", 50, True),
        ("price>9", "10", True),  # as numbers: as texts "10" < "9"
        ("price>9", "", False),
        ("price<50", "1,200", False),  # no number: neither less nor more
        ("price>50", "$300", False),
        ("sale=true", True, True),
        ("price != 9", "", True),
        ("colour = red", "red", True),
        ("colour=red", "Red", False),
        ("title~SUMMER", "a summer dress", True),
        ("title~x", None, False),
    ],
)
def test_conditions(text, cell, holds):
    assert Condition.parse(text).holds(cell) == holds


def test_filters_by_hand(tmp_path):
    names = ["dresses/a.jpg", "dresses/b.jpg", "shirts/a.jpg", "new.jpg"]
    (tmp_path / "m.csv").write_text("file,price\ndresses/a.jpg,10\ndresses/b,60\nshirts/a,5\nother,1\n")
    metadata = Metadata(tmp_path / "m.csv")
    assert allowed(names).tolist() == [True] * 4
    assert allowed(names, ["dresses/*", "new*"]).tolist() == [True, True, False, True]
    cheap = [Condition.parse("price<50")]
    assert allowed(names, (), metadata, where=cheap).tolist() == [True, False, True, False], (
        "nothing is said of new.jpg"
    )
    assert (
        allowed(names, ["dresses/*"], metadata, where=[*cheap, Condition.parse("price>5")]).tolist()
        == [True] + [False] * 3
    )
    assert metadata.unused(names) == 1
    (tmp_path / "n.csv").write_text("Name ,price\n./Dresses/A.jpg,10\ndresses\\b.jpg,60\nNEW,7\nnew.JPG,8\n")
    spelt = Metadata(tmp_path / "n.csv")
    assert [spelt.row(name).get("price") for name in names] == ["10", "60", None, "8"]
    with pytest.raises(UsageError, match='Did you mean "price"'):
        allowed(names, (), metadata, where=[Condition.parse("prise<5")])
    with pytest.raises(UsageError, match="--metadata"):
        allowed(names, (), None, where=cheap)
    with pytest.raises(UsageError, match="COLUMN SIGN VALUE"):
        Condition.parse("price")
    (tmp_path / "e.csv").write_text("file,price\n,10\n")
    with pytest.raises(InputError, match="should name the pictures"):
        Metadata(tmp_path / "e.csv")
    (tmp_path / "t.csv").write_text("file,price\na,10\nb,5\na,60\n")
    with pytest.raises(InputError, match="several rows about a; give each picture one"):
        Metadata(tmp_path / "t.csv")


@given(st.text(max_size=20), st.text(max_size=10))
def test_any_condition_is_one_or_told(text, cell):
    try:
        condition = Condition.parse(text)
    except UsageError:
        return
    assert condition.holds(cell) in (True, False)


# Lines, and showing


def test_lines():
    known = ComposedQuery(reference_weight=0.5)
    assert parse_line("is red", known) == ComposedQuery((), "is red", reference_weight=0.5)
    assert [str(path) for path in parse_line("a.jpg, b.jpg | is red", known).images] == ["a.jpg", "b.jpg"]
    assert parse_line(" | red | dog", known).without == "dog"
    assert parse_line("a.jpg |", known).text == ""
    with pytest.raises(UsageError):
        parse_line("a|b|c|d", known)


def test_hostile_names_stay_text(world, shop, tmp_path):
    hostile = shop / "<img src=x onerror=alert(1)>\x1b[31m.jpg"
    os.rename(shop / "shirts/no 1.jpg", hostile)
    finder = Finder(shop, method_of(world))
    asked = ComposedQuery(text='<script>alert("x")</script>')
    hits = finder.find(asked, k=60)
    page = to_html(asked, hits, {"method": "<b>"})
    assert "<script>alert" not in page
    assert "<img src=x" not in page
    assert "default-src &#39;none&#39;" in page or "default-src 'none'" in page
    assert printable("a\x1b[31m\n") == "a\\x1b[31m\\n"


@pytest.mark.slow
def test_from_the_shell(world, shop, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    clip = "--method", "sum", "--clip", world / "models/clip-small", "--device", "cpu"
    line = "search", "--gallery", shop, *clip
    reference = shop / "dresses/no 2.jpg"
    code, out, err = run(
        capsys, *line, "--image", reference, "--text", "red", "-k", 3, "--html", "h.html", "--json", "h.json"
    )
    assert (code, len(out.splitlines())) == (0, 3), err
    assert (tmp_path / "xdg/cig/features.sqlite").exists(), "features are kept where the user's caches are"
    told = json.loads((tmp_path / "h.json").read_text())
    assert [hit["name"] for hit in told["hits"]] == [own.split(maxsplit=2)[-1] for own in out.splitlines()]
    page = (tmp_path / "h.html").read_text()
    assert page.count("data:image/webp") == 4
    code, out, err = run(capsys, *line, "--text", "red", "--name", "shirts/*", "-k", 100)
    assert (code, len(out.splitlines())) == (0, 30), err
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"red\n{reference} | is red\nnone.png | x\n"))
    code, out, err = run(capsys, *line, "-k", 2)
    assert (code, len(out.splitlines())) == (0, 4), err
    assert "none.png is not there" in err
    assert run(capsys, *line, "--text", "red", "--fusion-weight", "0.4")[0] == 0
    monkeypatch.setattr(sys, "stdin", io.StringIO("red\n"))
    without = run(capsys, *line, "--without", "a dog")[1]
    monkeypatch.setattr(sys, "stdin", io.StringIO(" | red | a dog\n"))
    assert run(capsys, *line)[1] == without, "what should not be there holds for every line"
    latin = io.TextIOWrapper(io.BytesIO(b"red\nr\xe9d\nred\n"), encoding="utf-8")
    monkeypatch.setattr(sys, "stdin", latin)
    code, out, err = run(capsys, *line, "-k", 2)
    assert (code, len(out.splitlines()), "is not UTF-8" in err) == (0, 4, True), err
    code, _, err = run(capsys, *line, "--json", "l.json")
    assert (code, "of one search" in err) == (2, True), err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--text", "x", "-k", "0"], "at least 1"),
        (["--image", "none.png"], "none.png is not a file"),
        (["--image", "is red and " * 400], "is not a file"),
        (["--text", "x", "--where", "price<5"], "give it with --metadata"),
        (["--text", "x", "--imagine"], "give both"),
        (["--text", "x", "--gallery", "nowhere"], "is not a folder"),
    ],
)
def test_wrong_calls_exit_2(world, shop, tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    gallery = [] if "--gallery" in words else ["--gallery", shop]
    code, _, err = run(capsys, "search", *gallery, "--method", "sum", "--clip", world / "models/clip-small", *words)
    assert (code, message in err) == (2, True), err
    assert "Traceback" not in err


def test_wrong_calls_are_told_before_the_gallery_is_embedded(world, shop, tmp_path, monkeypatch):
    (tmp_path / "t.csv").write_text("name,price\ndresses/no 0.jpg,5\n")
    monkeypatch.setattr("cig.pipelines.search.Finder", lambda *args: pytest.fail("embedded"))
    searching = Searching(method="text", clip=str(world / "models/clip-small"), feature_cache=tmp_path / "cache")
    for asked, words in (
        ({"where": ("price>1",)}, "give it with --metadata"),
        ({"where": ("pirce>1",), "metadata": tmp_path / "t.csv"}, 'no column "pirce".*Did you mean "price"'),
        ({"image": (shop / "dresses/no 0.jpg",)}, "text looks at no picture"),
    ):
        with pytest.raises(UsageError, match=words):
            Lookup(FolderSearch(gallery=shop, **asked), Compute(device="cpu"), searching)


def test_what_is_imagined_may_lie_where_nobody_walks(tmp_path):
    home = tmp_path / "home"
    assert [is_walked(home / own, home) for own in ("cache", ".cache/cig", "a/.b/c", "../cache")] == [
        *(True, False),
        *(False, False),
    ]


@pytest.mark.slow
def test_imagining_makes_one_picture_and_keeps_it(world, shop, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    models = world / "models"
    flags = {
        "--method": "searle",
        "--clip": models / "clip-small",
        "--phi": models / "phi-small.pt",
        "--compose-clip": models / "clip-small",
        "--compose-clip2": models / "clip-large",
        "--compose-phi": models / "phi-small.pt",
        "--compose-phi2": models / "phi-large.pt",
        "--model-path": models / "sdxl",
        "--sdxl-repo": models / "sdxl",
        "--vae-repo": models / "sdxl/vae",
        "--height": 64,
        "--width": 64,
        "--steps": 1,
        "--feature-cache": "cache",
        "--device": "cpu",
    }
    words = ["search", "--gallery", shop, *(word for pair in flags.items() for word in pair)]
    asked = "--image", shop / "dresses/no 2.jpg", "--text", "is red", "--imagine", "--json", "h.json"
    code, out, err = run(capsys, *words, *asked)
    assert code == 0, err
    (picture,) = (tmp_path / "cache/imagined").rglob("[!.]*.png")
    before = picture.stat().st_mtime_ns
    assert json.loads((tmp_path / "h.json").read_text())["pseudo_target"] == str(picture.relative_to(tmp_path))
    again = run(capsys, *words, *asked)
    assert again[1] == out, again[2]
    assert picture.stat().st_mtime_ns == before
    code, _, err = run(capsys, *words, *asked, "--dtype", "bfloat16")
    assert code == 0, "other numbers are another picture's, not a wrong call: " + err
    assert len([*(tmp_path / "cache/imagined").rglob("[!.]*.png")]) == 2
    code, _, err = run(capsys, *[word if word != "cache" else shop / "cache" for word in words], *asked)
    assert (code, "what is imagined would be searched, too" in err) == (2, True), err
    code, _, err = run(capsys, *[word if word != models / "phi-large.pt" else "none.pt" for word in words], *asked)
    assert (code, "none.pt is not there" in err) == (2, True), err
    (tmp_path / "bad.png").write_bytes(b"no")
    code, _, err = run(capsys, *words, "--image", "bad.png", "--text", "is red", "--imagine")
    assert (code, "bad.png: not a whole picture" in err, "refused" in err) == (1, True, False), err
