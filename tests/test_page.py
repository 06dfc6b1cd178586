"""The page of results: what it holds, that nothing in it can break out, and how it behaves in a real browser.

The two pictures of it in docs/ are made again by this file, on the tiny world, so its pictures are drawn shapes:

    PYTHONPATH=src:examples python tests/test_page.py docs
"""

import random
import shutil
import sys
import tempfile
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image, ImageOps

import cig
import tiny
from cig import page
from cig.types import Benchmark, Query, Ranking, Report

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
QUIET = "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
QUIET += " --disable-component-update --disable-sync"
HOSTILE = (
    "</script><script>document.title='x'</script><img src=x onerror=document.title='x'>",
    "\"quoted\" & 'quoted' {{ 7 * 7 }} \u2028\u2029\x00",
    "half a pair \ud800 alone",
    "word " * 10_000,
    "\u202eمثل هذا ولكن باللون الأحمر",
    "同じ形で、もっと赤い",
    "w" * 2_000,
)


# A page by hand


def benchmark(count=4, hidden=False, part=""):
    """Query i asks for picture "t{i}"; everyone finds "a", then "t1", then "b"."""
    relevant = [{} if hidden else {f"t{i}": 2, "b": 1} for i in range(count)]
    queries = tuple(Query(str(i), "a", (f"caption {i}",), relevant[i], tags=("tag",)) for i in range(count))
    return Benchmark("toy/val", queries, {"a": Path("a.png")}, ("a", "b"), ("recall@1",), False, 0.5, "", part, hidden)


def ranking(bench, ranks):
    names = (("a", "t1", "b"),) * len(bench.queries)
    return Ranking(tuple(query.id for query in bench.queries), names, ((),) * len(names), ((),) * len(names), ranks)


def test_a_case_holds_what_was_found_and_how_the_target_moved():
    bench = benchmark()
    fused = replace(ranking(bench, (3, 14, 5, None)), missing={"3": "no picture for the reference a"})
    made = page.cases(bench, fused, ranking(bench, (14, 3, 5, 9)), {"0": Path("0.png")}, refused={"1"})
    assert [case.change for case in made] == ["gained", "lost", "unchanged", ""]
    assert [case.moved for case in made] == [11, -11, 0, None]
    assert [(shown.name, shown.grade) for shown in made[1].results] == [("a", 0), ("t1", 2), ("b", 1)]
    assert made[1].results[0].path == Path("a.png")
    assert made[1].targets == (page.Shown("t1", None, 2),)
    assert [(case.pseudo_target, case.refused) for case in made[:2]] == [(Path("0.png"), False), (None, True)]
    assert [case.missing for case in made] == ["", "", "", "no picture for the reference a"]


def test_nothing_is_compared_without_a_second_ranking_or_without_targets():
    for bench, ranks in ((benchmark(), (1, 2, 3, 4)), (benchmark(hidden=True), (None,) * 4)):
        made = page.cases(bench, ranking(bench, ranks))
        assert {(case.change, case.rank_alone, case.missing) for case in made} == {("", None, "")}
    assert page.cases(benchmark(2), ranking(benchmark(2), (1, None)))[1].missing == (
        "the target has no picture in the gallery"
    )


def test_only_the_first_ten_results():
    bench = benchmark(1)
    many = replace(ranking(bench, (1,)), ids=(tuple(f"p{i}" for i in range(50)),))
    assert [shown.name for shown in page.cases(bench, many)[0].results] == [f"p{i}" for i in range(10)]


def test_chosen_are_those_that_moved_most_and_evenly_spaced_others():
    bench = benchmark(100)
    ranks = {3: 1, 40: 20, 41: 45, 90: 99, 91: 98, 92: 60}  # from 50: 3 and 40 rise, 90, 91, 92 fall
    fused = ranking(bench, tuple(ranks.get(i, 50) for i in range(100)))
    every = page.cases(bench, fused, ranking(bench, (50,) * 100))
    chosen = [int(case.id) for case in page.choose(every, 8)]
    assert len(chosen) == 8
    assert chosen == sorted(chosen)
    assert {3, 40, 90, 91} <= set(chosen)
    assert sorted(set(chosen) - {3, 40, 90, 91}) == [0, 25, 50, 75]
    assert page.choose(every, 100) == every
    assert page.choose(every, 8) == page.choose(every, 8)
    assert [len(page.choose(every, most)) for most in range(5)] == [0, 1, 2, 3, 4]


def html(queries=(), bench=None, report=None, **more):
    bench = replace(bench or benchmark(), queries=tuple(queries) or (bench or benchmark()).queries)
    shown = page.cases(bench, ranking(bench, (1,) * len(bench.queries)))
    branches = [{"name": "reference", "weight": 1.0, "source": "no pseudo-targets"}]
    return page.to_html(report, shown, len(shown), "searle", branches, {"commit": None}, "toy/val", **more)


def test_nothing_in_a_caption_a_name_or_a_tag_breaks_out(tmp_path):
    queries = [Query(text, text, (text,), {text: 2}, tags=(text,)) for text in HOSTILE]
    text = html(queries)
    (tmp_path / "report.html").write_text(text, encoding="utf-8")
    assert text.count("<script") == 2
    assert "onerror=document" not in text.replace("&lt;img src=x onerror=document", "")
    assert "49" not in text.split('id="cards"')[1].split("</h3>")[1]
    assert "half a pair \ufffd alone" in text


def test_a_hidden_split_has_no_scores_and_no_hits():
    text = html(bench=benchmark(hidden=True))
    assert "The targets are not public" in text
    assert 'id="scores"' not in text
    assert '<b class="mark' not in text
    told = Report("toy/test", {"gallery": "all"}, {}, {}, {}, {"gallery": {"": ["b"]}}, {})
    assert "1 gallery pictures missing, not ranked: b" in html(bench=benchmark(hidden=True), report=told)


def test_thumbnails_are_small_whole_and_there_once(tmp_path):
    for name, mode, size in (("a.png", "P", (900, 300)), ("b.png", "LA", (30, 50)), ("c.jpg", "CMYK", (400, 400))):
        Image.new(mode, size).save(tmp_path / name)
    (tmp_path / "broken.png").write_bytes((tmp_path / "a.png").read_bytes()[:40])
    names = ["a.png", "b.png", "c.jpg", "a.png", "broken.png", "absent.png"]
    made = page.thumbnails(tmp_path / name for name in names)
    assert [path.name for path in made] == ["a.png", "b.png", "c.jpg"]
    assert all(url.startswith("data:image/webp;base64,") and len(url) < 2_000 for url in made.values())


# A run on the tiny world


def imagine(bench, folder, seed=0):
    """Stand-ins for pseudo-targets: the target mirrored and in other colours, or, every third time, anything."""
    rng, made = random.Random(seed), {}
    for i, query in enumerate(bench.queries):
        made[query.id] = folder / f"{i:05d}.png"
        tiny.draw(rng, made[query.id])
        if i % 3:
            target = next(name for name, grade in query.relevant.items() if grade == 2)
            picture = ImageOps.mirror(Image.open(bench.images[target]).convert("RGB"))
            Image.merge("RGB", picture.split()[::-1]).save(made[query.id])
    return made


def searched(world, name, folder, captions=(), tags=()):
    """A real run with and without pseudo-targets: what `to_html` takes."""
    models = world / "models"
    method = cig.load_method("searle", cig.Source(str(models / "clip-small"), models / "phi-small.pt"))
    parts = [spiced(part, captions, tags) for part in cig.load_benchmarks(name, world)]
    made = [imagine(part, folder / (part.part or "all")) for part in parts]
    fused = [cig.search(part, method, own, 0.5) for part, own in zip(parts, made, strict=True)]
    alone = [cig.search(part, method) for part in parts]
    every = [case for each in zip(parts, fused, alone, made, strict=True) for case in page.cases(*each)]
    branches = [
        {"name": "reference", "weight": 0.5, "source": "--fusion-weight"},
        {"name": "pseudo-target", "weight": 0.5, "source": "--fusion-weight", "pictures": "runs/tiny/images"},
    ]
    provenance = {"commit": "0" * 40, "settings": {"device": "cpu"}, "models": dict(method.identity), "seconds": 1.5}
    return cig.evaluate(parts, fused, alone), page.choose(every), len(every), method.name, branches, provenance


def spiced(part, captions, tags):
    """The first queries with these captions, and every query with a tag in turn."""
    captions = [*captions, *(None,) * len(part.queries)]
    return replace(
        part,
        queries=tuple(
            replace(
                query,
                captions=(captions[i],) if captions[i] else query.captions,
                tags=(tags[i % len(tags)],) if tags else query.tags,
            )
            for i, query in enumerate(part.queries)
        ),
    )


@contextmanager
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        opened = play.chromium.launch(executable_path=BROWSER, headless=True, args=QUIET.split())
        yield opened
        opened.close()


def screenshots(folder):
    """report-desktop.png and report-phone.png, in few colours so that they stay small."""
    home = Path(tempfile.mkdtemp())
    world = tiny.make(home / "world", seed=7, queries=24)
    shots = [
        ("desktop", "circo/val", ("addition", "viewpoint", "cardinality"), {"width": 1280, "height": 1440}, "light"),
        ("phone", "fashioniq/val", (), {"width": 390, "height": 1400}, "dark"),
    ]
    with browser() as opened:
        for name, data, tags, size, scheme in shots:
            file = home / f"{name}.html"
            file.write_text(page.to_html(*searched(world, data, home / name, tags=tags)), encoding="utf-8")
            tab = opened.new_page(viewport=size, color_scheme=scheme)
            tab.goto(f"{file.as_uri()}")
            tab.wait_for_timeout(300)
            tab.screenshot(path=home / f"{name}.png")
            small = Image.open(home / f"{name}.png").convert("RGB").quantize(128, dither=Image.Dither.NONE)
            small.save(Path(folder) / f"report-{name}.png", optimize=True)
    shutil.rmtree(home)


if __name__ == "__main__":
    screenshots(sys.argv[1])
