"""Search pictures of one's own: against a search by hand; lines, filters, hostile names; from the shell."""

import io
import json
import os
import shutil
import sys

import numpy as np
import pytest
import torch
from PIL import Image

import calls
from cig import Source, load_method
from cig.errors import InputError, NotFoundError, PictureError, UsageError, printable
from cig.io.dataset_paths import is_walked
from cig.io.feature_cache import FeatureCache
from cig.io.images import limit_pixels, read_picture, upright
from cig.pipelines._index_build import list_folder
from cig.pipelines.open import open_place
from cig.pipelines.search import FolderSearch, open_gallery, parse_line, to_html
from cig.retrieval.finder import ComposedQuery, Wanted, embed_composed
from cig.retrieval.requests import OwnSearching
from cig.runtime import Compute

CPU = Compute(device="cpu")


@pytest.fixture
def shop(world, tmp_path):
    home = tmp_path / "shop"
    shutil.copytree(world / "shop", home)
    (home / "queries.json").unlink()
    return home


@pytest.fixture
def run(capsys):
    return lambda *words: calls.run(capsys, *words)


def method_of(world, name="sum"):
    return load_method(name, Source(clip=str(world / "models/clip-small")))


@pytest.fixture
def opened(world, shop, tmp_path):
    """A function that opens the shop by a method."""

    def open_by(name="sum"):
        searching = OwnSearching(name, clip=str(world / "models/clip-small"), feature_cache=tmp_path / "cache")
        return open_place(shop, searching, CPU)

    return open_by


def unit(row):
    return torch.nn.functional.normalize(row, dim=-1)


def by_hand(method, home, query):
    """Names by cosine similarity to a unit feature [d], highest first."""
    names = [listed.name for listed in list_folder(home)]
    pixels = [method.preprocess(upright(read_picture(home / name).image)) for name in names]
    scores = unit(method.embed_images(torch.stack(pixels))) @ query
    return [names[i] for i in np.argsort(-scores.numpy(), kind="stable")]


def found(index, query, k=100, **options):
    (hits,) = index.find([(query, Wanted(k))], **options)
    return hits


# Searching


@pytest.mark.parametrize("name", ["sum", "bge-vl", "image"])
def test_a_picture_and_a_text(world, shop, opened, name):
    method, index, own = method_of(world, name), opened(name), shop / "dresses/no 2.jpg"
    picture = method.embed_images(method.preprocess(read_picture(own).image)[None])[0]
    text = method.tower.embed_texts(["is red"])[0]
    query = {"sum": unit(picture) + unit(text), "bge-vl": picture + text, "image": picture}[name]
    expected = [other for other in by_hand(method, shop, unit(query)) if other != "dresses/no 2.jpg"]
    hits = index.search(own, "is red", k=60)
    assert [hit.name for hit in hits] == expected
    assert hits[0].path == shop / expected[0]
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    kept = index.search(str(own), k=1, keep_reference=True)
    assert kept[0].name == "dresses/no 2.jpg"
    assert kept[0].score == pytest.approx(1)


def test_a_text_alone_several_pictures_and_what_should_not_be_there(world, shop, opened):
    method, index = method_of(world), opened()
    paths = shop / "dresses/no 0.jpg", shop / "shirts/no 1.jpg"
    asked = [
        ComposedQuery(text="is red"),
        ComposedQuery(text="is red", without="a dog", without_weight=0.5),
        ComposedQuery(paths, "is red"),
        *(ComposedQuery((path,), "is red") for path in paths),
        ComposedQuery((paths[0],), "is red", pseudo_target=paths[1], reference_weight=0.7),
    ]
    red, without, both, one, two, fused = embed_composed(index.method, asked, FeatureCache())
    text, unwanted = (method.embed_captions([(words,)])[0] for words in ("is red", "a dog"))
    torch.testing.assert_close(red, text, atol=1e-6, rtol=0)
    torch.testing.assert_close(without, unit(text - 0.5 * unwanted), atol=1e-6, rtol=0)
    torch.testing.assert_close(both, unit(one + two), atol=1e-6, rtol=0)
    torch.testing.assert_close(fused, unit(0.7 * one + 0.3 * two), atol=1e-6, rtol=0)
    assert len(found(index, asked[2])) == 58, "neither of the pictures that were asked with"


def test_wrong_questions_are_told(shop, opened, tmp_path):
    index = opened()
    with pytest.raises(UsageError):
        index.search()
    (tmp_path / "bad.png").write_bytes(b"no")
    with pytest.raises(PictureError, match=r"bad\.png"):
        index.search(tmp_path / "bad.png")
    with pytest.raises(UsageError, match="text"):
        opened("text").search(shop / "dresses/no 0.jpg", "x")
    with pytest.raises(TypeError):
        index.search(7, "x")
    with pytest.raises(TypeError):
        index.search(text="x", k="7")


def test_a_known_text_is_found_without_a_model(opened):
    opened().search(text="is red")
    index = opened()
    index.search(text="is red")
    assert index.method._model is None


def test_features_of_a_benchmarks_queries_answer_no_other(shop, tmp_path):
    """A search of one's own has an id, too, which may be one of the file's."""
    names = [listed.name for listed in list_folder(shop)]
    rows = np.eye(len(names), dtype=np.float32)
    np.savez(tmp_path / "f.npz", names=names, features=rows, queries=["0"], query_features=rows[:1])
    options = (f"features={tmp_path / 'f.npz'}",)
    searching = OwnSearching("precomputed", method_option=options, feature_cache=tmp_path / "cache")
    index = open_place(shop, searching, CPU)
    assert index.search(shop / names[5], k=1, keep_reference=True)[0].name == names[5]
    with pytest.raises(UsageError, match="leave --text out"):
        index.search(shop / names[5], "in red")


# Following the folder


def test_nothing_is_decoded_or_embedded_while_nothing_changes(opened, monkeypatch):
    first = opened().search(text="is red")
    monkeypatch.setattr("cig.pipelines._index_build.embed_pictures", None)
    assert opened().search(text="is red") == first


def test_what_changed_is_embedded_again_and_nothing_else(shop, opened, monkeypatch):
    opened()
    (shop / "shirts/no 1.jpg").unlink()
    shutil.copy(shop / "dresses/no 0.jpg", shop / "new.jpg")
    Image.new("RGB", (40, 30), "blue").save(shop / "dresses/no 2.jpg")
    os.rename(shop / "shirts", shop / "tops")
    seen = []
    from cig.pipelines import _index_build

    def counted(method, paths, *args, embed=_index_build.embed_pictures, **options):
        seen.extend(paths)
        return embed(method, paths, *args, **options)

    monkeypatch.setattr(_index_build, "embed_pictures", counted)
    index = opened()
    assert seen == [shop / "dresses/no 2.jpg"], "all others are known by their content"
    assert (index.changes.added, index.changes.replaced, index.changes.removed) == (30, 1, 30)
    assert index.search(shop / "dresses/no 2.jpg", k=1, keep_reference=True)[0].name == "dresses/no 2.jpg"
    assert index.get("new.jpg")
    assert not index.get("shirts/no 1.jpg")


@pytest.mark.parametrize("damage", ["index.json", "rows.sqlite", "features-0.f32"])
def test_a_damaged_index_of_a_folder_is_made_again(opened, tmp_path, damage):
    first = opened().search(text="x")
    (path,) = (tmp_path / "cache/indexes").rglob(damage)
    for beside in path.parent.glob(f"{damage}-*"):
        beside.unlink()
    path.write_bytes(b'{"format": 7}')
    assert opened().search(text="x") == first


def test_unreadable_pictures_are_named_and_searched_once_they_can_be_read(shop, opened):
    (shop / "bad.png").write_bytes(b"no")
    Image.new("RGB", (600, 600)).save(shop / "large.png")
    limit_pixels(200_000)
    try:
        index = opened()
    finally:
        limit_pixels(2**28)
    assert sorted(index.changes.unreadable) == ["bad.png", "large.png"]
    assert len(index) == 60
    again = opened()
    assert sorted(again.changes.unreadable) == ["bad.png"]
    assert again.get("large.png")


def test_folders_without_pictures_are_told(world, tmp_path):
    searching = OwnSearching("sum", clip=str(world / "models/clip-small"), feature_cache=tmp_path / "cache")
    (tmp_path / "empty").mkdir()
    with pytest.raises(NotFoundError, match="no pictures"):
        open_place(tmp_path / "empty", searching, CPU)
    (tmp_path / "empty/bad.png").write_bytes(b"no")
    with pytest.raises(InputError, match=r"bad\.png"):
        open_place(tmp_path / "empty", searching, CPU)
    with pytest.raises(NotFoundError):
        open_place(tmp_path / "none", searching, CPU)


def test_pictures_are_seen_as_people_see_them(world, tmp_path):
    """Turned as EXIF says, and on white where they are transparent."""
    folder = tmp_path / "own"
    folder.mkdir()
    picture = Image.new("RGB", (60, 60), "white")
    picture.paste("red", (0, 0, 60, 30))
    picture.save(folder / "plain.png")
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    picture.rotate(180).save(folder / "turned.png", exif=exif)
    clear = Image.new("RGBA", (60, 60), (0, 255, 0, 0))
    clear.paste((255, 0, 0, 255), (0, 0, 60, 30))
    clear.save(folder / "clear.png")
    searching = OwnSearching("image", clip=str(world / "models/clip-small"), feature_cache=tmp_path / "cache")
    hits = open_place(folder, searching, CPU).search(folder / "plain.png", keep_reference=True)
    assert [hit.name for hit in hits] == ["clear.png", "plain.png", "turned.png"]
    assert [hit.score for hit in hits] == pytest.approx([1, 1, 1], abs=1e-6)


def test_every_form_of_picture_is_searched(world, tmp_path):
    pytest.importorskip("pillow_heif")
    folder = tmp_path / "own"
    folder.mkdir()
    picture = Image.new("RGB", (60, 60), "red")
    forms = ["avif", "bmp", "gif", "ico", "jfif", "jp2", "jpe", "jpg", "png", "ppm", "tif", "webp"]
    for form in forms:
        picture.save(folder / f"a.{form}", format={"jpe": "JPEG", "jfif": "JPEG"}.get(form))
    from pillow_heif import from_pillow

    from_pillow(picture).save(folder / "a.HEIC")
    (folder / "notes.txt").write_text("no picture")
    (folder / "a.svg").write_text("<svg/>")
    searching = OwnSearching("image", clip=str(world / "models/clip-small"), feature_cache=tmp_path / "cache")
    index = open_place(folder, searching, CPU)
    assert sorted(entry.name for entry in index.entries()) == sorted(["a.HEIC", *(f"a.{form}" for form in forms)])
    assert ".svg" in str(index.changes.passed)
    assert not index.changes.unreadable


# Lines, and showing


def test_lines(shop, opened):
    known = ComposedQuery(reference_weight=0.5)
    assert parse_line("is red", known) == ComposedQuery((), "is red", reference_weight=0.5)
    assert [str(path) for path in parse_line("a.jpg, b.jpg | is red", known).images] == ["a.jpg", "b.jpg"]
    assert parse_line(" | red | dog", known).without == "dog"
    assert parse_line("a.jpg |", known).text == ""
    with pytest.raises(UsageError):
        parse_line("a|b|c|d", known)
    hits = opened().search(text="red", k=3)
    assert parse_line("3, x.jpg | but blue", known, hits).images[0] == hits[2].path
    with pytest.raises(UsageError, match="4"):
        parse_line("4 | but blue", known, hits)


def test_hostile_names_stay_text(shop, opened):
    hostile = shop / "<img src=x onerror=alert(1)>\x1b[31m.jpg"
    os.rename(shop / "shirts/no 1.jpg", hostile)
    asked = ComposedQuery(text='<script>alert("x")</script>')
    hits = opened().search(text=asked.text, k=60)
    page = to_html(asked, hits, {"method": "<b>"})
    assert "<script>alert" not in page
    assert "<img src=x" not in page + hits._repr_html_()
    assert "default-src &#39;none&#39;" in page or "default-src 'none'" in page
    assert printable("a\x1b[31m\n") == "a\\x1b[31m\\n"


@pytest.mark.slow
def test_from_the_shell(run, world, shop, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    line = "search", shop, "--method", "sum", "--clip", world / "models/clip-small", "--device", "cpu"
    reference = shop / "dresses/no 2.jpg"
    code, out, err = run(*line, "--image", reference, "--text", "red", "-k", 3, "--html", "h.html", "--json", "h.json")
    assert (code, len(out.splitlines())) == (0, 3), err
    assert "60 pictures" in err
    assert (tmp_path / "xdg/cig/features.sqlite").exists(), "features are kept where the user's caches are"
    told = json.loads((tmp_path / "h.json").read_text())
    assert [hit["name"] for hit in told["hits"]] == [own.split(maxsplit=2)[-1] for own in out.splitlines()]
    assert (tmp_path / "h.html").read_text().count("data:image/webp") == 4
    code, out, err = run(*line, "--text", "red", "--name", "shirts/*", "-k", 100)
    assert (code, len(out.splitlines())) == (0, 30), err
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"red\n{reference} | is red\nnone.png | x\n1 | but blue\n"))
    code, out, err = run(*line, "-k", 2)
    assert (code, len(out.splitlines())) == (0, 6), err
    assert "none.png" in err
    assert run(*line, "--text", "red", "--fusion-weight", "0.4")[0] == 0
    monkeypatch.setattr(sys, "stdin", io.StringIO("red\n"))
    without = run(*line, "--without", "a dog")[1]
    monkeypatch.setattr(sys, "stdin", io.StringIO(" | red | a dog\n"))
    assert run(*line)[1] == without, "what should not be there holds for every line"
    latin = io.TextIOWrapper(io.BytesIO(b"red\nr\xe9d\nred\n"), encoding="utf-8")
    monkeypatch.setattr(sys, "stdin", latin)
    code, out, err = run(*line, "-k", 2)
    assert (code, len(out.splitlines()), "UTF-8" in err) == (0, 4, True), err
    assert run(*line, "--json", "l.json")[0] == 2


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--text", "x", "-k", "0"], "-k"),
        (["--image", "none.png"], "none.png"),
        (["--image", "is red and " * 400], "--image"),
        (["--text", "x", "--where", "price<5"], "--metadata"),
        (["--text", "x", "--imagine"], "--image"),
        (["--text", "x", "--gallery", "nowhere"], "nowhere"),
    ],
)
def test_wrong_calls_exit_2(run, world, shop, tmp_path, monkeypatch, words, named):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    gallery = [] if "--gallery" in words else ["--gallery", shop]
    code, _, err = run("search", *gallery, "--method", "sum", "--clip", world / "models/clip-small", *words)
    assert (code, named in err) == (2, True), err
    assert "Traceback" not in err


def test_wrong_calls_are_told_before_the_gallery_is_embedded(world, shop, tmp_path, monkeypatch):
    (tmp_path / "t.csv").write_text("name,price\ndresses/no 0.jpg,5\n")
    monkeypatch.setattr("cig.pipelines._index_build.embed_pictures", lambda *args: pytest.fail("embedded"))
    searching = OwnSearching("text", clip=str(world / "models/clip-small"), feature_cache=tmp_path / "cache")
    for asked, named in (
        ({"where": ("price>1",)}, "--metadata"),
        ({"where": ("pirce>1",), "metadata": tmp_path / "t.csv"}, '"price"'),
        ({"image": (shop / "dresses/no 0.jpg",)}, "text"),
    ):
        with pytest.raises(UsageError, match=named):
            open_gallery(FolderSearch(gallery=shop, **asked), CPU, searching)


def test_what_is_imagined_may_lie_where_nobody_walks(tmp_path):
    home = tmp_path / "home"
    walked = [is_walked(home / place, home) for place in ("cache", ".cache/cig", "a/.b/c", "../cache")]
    assert walked == [True, False, False, False]


@pytest.mark.slow
def test_imagining_makes_one_picture_and_keeps_it(run, world, shop, tmp_path, monkeypatch):
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
    words = ["search", shop, *(word for pair in flags.items() for word in pair)]
    asked = "--image", shop / "dresses/no 2.jpg", "--text", "is red", "--imagine", "--json", "h.json"
    code, out, err = run(*words, *asked)
    assert code == 0, err
    (picture,) = (tmp_path / "cache/imagined").rglob("[!.]*.png")
    before = picture.stat().st_mtime_ns
    assert json.loads((tmp_path / "h.json").read_text())["pseudo_target"] == str(picture.relative_to(tmp_path))
    again = run(*words, *asked)
    assert again[1] == out, again[2]
    assert picture.stat().st_mtime_ns == before
    code, _, err = run(*words, *asked, "--dtype", "bfloat16")
    assert code == 0, "other numbers are another picture's, not a wrong call: " + err
    assert len([*(tmp_path / "cache/imagined").rglob("[!.]*.png")]) == 2
    code, _, err = run(*[word if word != "cache" else shop / "cache" for word in words], *asked)
    assert (code, "what is imagined would be searched, too" in err) == (2, True), err
    code, _, err = run(*[word if word != models / "phi-large.pt" else "none.pt" for word in words], *asked)
    assert (code, "none.pt is not there" in err) == (2, True), err
    (tmp_path / "bad.png").write_bytes(b"no")
    code, _, err = run(*words, "--image", "bad.png", "--text", "is red", "--imagine")
    assert (code, "bad.png: not a whole picture" in err, "refused" in err) == (1, True, False), err
