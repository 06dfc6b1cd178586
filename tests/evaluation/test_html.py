"""The page of results: what it holds, that nothing in it can break out, and how it behaves in a real browser.

The two pictures of it in docs/ are made again by this file, on the tiny world, so its pictures are drawn shapes:

    PYTHONPATH=src:examples:tests python tests/evaluation/test_html.py docs
"""

import random
import shutil
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image, ImageOps

import cig
import tiny
from browsing import PALE, SCROLL, TOO_WIDE, Tab, browser
from cig.evaluation import html as page
from cig.evaluation.outcome import highlights, outcome
from cig.evaluation.paired import PairedComparison, compare_by_part
from cig.evaluation.query_cards import NamedPicture, choose, make_cards
from cig.types import Benchmark, Query, Ranking, Report

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
    made = make_cards(
        bench, fused, alone=ranking(bench, (14, 3, 5, 9)), pseudo_targets={"0": Path("0.png")}, refused={"1"}
    )
    assert [case.change for case in made] == ["gained", "lost", "unchanged", ""]
    assert [case.moved for case in made] == [11, -11, 0, None]
    assert [(shown.name, shown.grade) for shown in made[1].results] == [("a", 0), ("t1", 2), ("b", 1)]
    assert made[1].results[0].path == Path("a.png")
    assert made[1].targets == (NamedPicture("t1", None, 2),)
    assert [(case.pseudo_target, case.refused) for case in made[:2]] == [(Path("0.png"), False), (None, True)]
    assert [case.missing for case in made] == ["", "", "", "no picture for the reference a"]


def test_nothing_is_compared_without_a_second_ranking_or_without_targets():
    for bench, ranks in ((benchmark(), (1, 2, 3, 4)), (benchmark(hidden=True), (None,) * 4)):
        made = make_cards(bench, ranking(bench, ranks))
        assert {(case.change, case.rank_alone, case.missing) for case in made} == {("", None, "")}
    assert make_cards(benchmark(2), ranking(benchmark(2), (1, None)))[1].missing == (
        "the target has no picture in the gallery"
    )


def test_only_the_first_ten_results():
    bench = benchmark(1)
    many = replace(ranking(bench, (1,)), ids=(tuple(f"p{i}" for i in range(50)),))
    assert [shown.name for shown in make_cards(bench, many)[0].results] == [f"p{i}" for i in range(10)]


def test_chosen_are_those_that_moved_most_and_evenly_spaced_others():
    bench = benchmark(100)
    ranks = {3: 1, 40: 20, 41: 45, 90: 99, 91: 98, 92: 60}  # from 50: 3 and 40 rise, 90, 91, 92 fall
    fused = ranking(bench, tuple(ranks.get(i, 50) for i in range(100)))
    every = make_cards(bench, fused, alone=ranking(bench, (50,) * 100))
    chosen = [int(case.id) for case in choose(every, 8)]
    assert len(chosen) == 8
    assert chosen == sorted(chosen)
    assert {3, 40, 90, 91} <= set(chosen)
    assert sorted(set(chosen) - {3, 40, 90, 91}) == [0, 25, 50, 74]  # every 24th of the other 96
    assert choose(every, 100) == every
    assert choose(every, 8) == choose(every, 8)
    assert [len(choose(every, most)) for most in range(5)] == [0, 1, 2, 3, 4]


def test_a_rise_to_the_top_counts_more_than_a_long_one_below():
    bench = benchmark(5)
    fused, alone = ranking(bench, (1, 1500, 40, 2, 7)), ranking(bench, (3, 3000, 2, 2, 1))
    cards = make_cards(bench, fused, alone=alone)
    shown = {title: [card.id for card in found] for title, found in highlights(cards).items()}
    assert shown == {"Helped most": ["0", "1"], "Harmed most": ["4", "2"]}  # 1/7 - 1 and 1/40 - 1/2
    single = make_cards(bench, fused)
    assert [card.id for card in highlights(single)["Best"]] == ["0", "3", "4"]
    assert [card.id for card in highlights(single)["Worst"]] == ["2", "1"]


def test_the_outcome_names_what_chance_could_do():
    report = Report("toy/val", {}, {"": {"recall@1": 40.0}}, {"": {"recall@1": (30.0, 50.0)}}, {}, {}, {})

    def said(p, difference=12.5):
        compared = PairedComparison(difference, (1.0, 20.0), p, 3, 1, 2)
        return outcome(report, {"": {"recall@1": compared}})

    assert all(number in said(0.01) for number in ("raise", "27.50", "40.00", "+12.50", "+1.00", "0.0100"))
    assert "lower" in said(0.01, -2.0)
    assert "chance" in said(0.2)
    assert "30.00 to 50.00" in outcome(report, {})
    assert outcome(Report("toy/test", {}, {}, {}, {}, {}, {}), {}) == ""


def test_scores_stand_beside_those_without_pseudo_targets():
    report = Report("toy/val", {}, {"": {"recall@1": 40.0}}, {"": {"recall@1": (30.0, 50.0)}}, {}, {}, {})
    text = html(report=report, paired={"": {"recall@1": PairedComparison(12.5, (1.0, 20.0), 0.01, 3, 1, 2)}})
    row = text[text.index("<tbody>") : text.index("</tbody>")]
    assert [row.index(number) for number in ("27.50", "40.00", "+12.50", "0.0100", "30.00")] == sorted(
        row.index(number) for number in ("27.50", "40.00", "+12.50", "0.0100", "30.00")
    )


def html(queries=(), bench=None, report=None, **more):
    bench = replace(bench or benchmark(), queries=tuple(queries) or (bench or benchmark()).queries)
    shown = make_cards(bench, ranking(bench, (1,) * len(bench.queries)))
    branches = [{"name": "reference", "weight": 1.0, "source": "no pseudo-targets"}]
    return page.to_html(
        report or Report("toy/val", {}, {}, {}, {}, {}, {}),
        shown,
        len(shown),
        method="searle",
        branches=branches,
        provenance={"commit": None},
        **more,
    )


def test_nothing_in_a_caption_a_name_or_a_tag_breaks_out(tmp_path):
    queries = [Query(text, text, (text,), {text: 2}, tags=(text,)) for text in HOSTILE]
    text = html(queries)
    (tmp_path / "report.html").write_text(text, encoding="utf-8")
    assert text.count("<script") == 2
    assert "<img src=x" not in text
    assert "{{ 7 * 7 }}" in text
    assert "half a pair \ufffd alone" in text


def test_a_hidden_split_has_no_scores_and_no_hits():
    text = html(bench=benchmark(hidden=True))
    assert "The targets are not public" in text
    assert 'id="scores"' not in text
    assert '<b class="mark' not in text
    told = Report("toy/test", {"gallery": "all"}, {}, {}, {}, {"gallery": {"": ["b"]}}, {})
    assert "gallery pictures missing, not ranked: 1 (b)" in html(bench=benchmark(hidden=True), report=told)


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
    """A real run with and without pseudo-targets: what `to_html` takes, by position and by keyword."""
    models = world / "models"
    method = cig.load_method("image", cig.Source(str(models / "clip-small")))
    parts = [spiced(part, captions, tags) for part in cig.load_benchmarks(name, world)]
    made = [imagine(part, folder / (part.part or "all")) for part in parts]
    fused = [cig.search(part, method, own, weight=0.4) for part, own in zip(parts, made, strict=True)]
    alone = [cig.search(part, method) for part in parts]
    searches = zip(parts, fused, alone, made, strict=True)
    every = [
        card
        for part, found, before, targets in searches
        for card in make_cards(part, found, alone=before, pseudo_targets=targets)
    ]
    branches = [
        {"name": "reference", "weight": 0.4, "source": "--fusion-weight"},
        {"name": "pseudo-target", "weight": 0.6, "source": "--fusion-weight", "pictures": "runs/tiny/images"},
    ]
    provenance = {"commit": "0" * 40, "settings": {"device": "cpu"}, "models": dict(method.identity), "seconds": 1.5}
    paired = compare_by_part(parts, alone, fused)
    named = {"method": method.name, "branches": branches, "provenance": provenance, "paired": paired}
    return (cig.evaluate(parts, fused, alone), choose(every), len(every)), named


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


@pytest.fixture(scope="module")
def pages(world, tmp_path_factory):
    """Two files: CIRCO's with hostile captions, and FashionIQ's with a picture that cannot be read."""
    folder = tmp_path_factory.mktemp("pages")
    circo, named = searched(world, "circo/val", folder / "circo", HOSTILE, ("addition", "viewpoint"))
    (folder / "circo.html").write_text(page.to_html(*circo, **named), encoding="utf-8")
    (report, chosen, total), named = searched(world, "fashioniq/val", folder / "fashioniq")
    chosen[0] = replace(chosen[0], pseudo_target=None, reference=NamedPicture("gone", folder / "gone.jpg"))
    (folder / "fashioniq.html").write_text(page.to_html(report, chosen[:9], total, **named), encoding="utf-8")
    return folder


@pytest.mark.parametrize("name", ["circo", "fashioniq"])
def test_the_page_needs_nothing_else_and_shows_every_picture(opened, pages, name):
    with Tab(opened, pages / f"{name}.html") as tab:
        tab.page.evaluate(SCROLL)
        assert tab.page.evaluate("[...document.images].filter((image) => !image.naturalWidth).length") == 0
        assert tab.page.locator("img:not([alt]), img[alt='']").count() == 0
        absent = [] if name == "circo" else ["gone", "none"]
        assert tab.page.locator("article .frame.none").all_text_contents() == absent
        assert tab.complaints == []
        assert tab.asked[0] == tab.file.as_uri()
        assert all(url.startswith("data:") for url in tab.asked[1:])


def test_strangers_words_stay_words(opened, pages):
    with Tab(opened, pages / "circo.html") as tab:
        assert tab.page.title() == "circo/val · image"
        shown = tab.page.locator("article h3").all_text_contents()
        assert shown[0] == HOSTILE[0]
        assert shown[1].startswith("\"quoted\" & 'quoted' {{ 7 * 7 }} \u2028\u2029")
        assert page.LONG - 10 < len(shown[3]) <= page.LONG
        assert tab.page.locator("article details").count() == 2
        assert tab.page.locator("script").count() == 2


def test_the_policy_holds_even_where_escaping_would_fail(opened, pages):
    bad = "<script>document.title='x'</script><img src='http://127.0.0.1:9/x.png' onerror=\"document.title='x'\">"
    file = pages / "bad.html"
    file.write_text((pages / "circo.html").read_text().replace("</main>", f"{bad}</main>"))
    with Tab(opened, file) as tab:
        tab.page.wait_for_timeout(200)
        assert tab.page.title() == "circo/val · image"
        for directive in ("script-src", "img-src"):
            assert any(directive in complaint for complaint in tab.complaints)


def test_filters_change_what_is_shown_and_the_address_remembers(opened, pages):
    with Tab(opened, pages / "circo.html") as tab:
        assert tab.count == (8, 8)
        tab.page.select_option("[name=tag]", "viewpoint")
        assert tab.count == (4, 4)
        tab.page.fill("[name=find]", "もっと赤い")
        assert tab.count == (1, 1)
        tab.page.reload()
        assert tab.count == (1, 1)
        tab.page.fill("[name=find]", "no such words")
        assert tab.count == (0, 0)
        tab.page.click("text=Show all of them")
        tab.page.locator("article:visible").nth(7).wait_for()
        moved = [int(rise) for rise in tab.page.locator("article").evaluate_all("all => all.map(e => e.dataset.rise)")]
        for change, expected in (("gained", sum(m > 0 for m in moved)), ("lost", sum(m < 0 for m in moved))):
            tab.page.check(f"[name=change][value={change}]", force=True)
            assert tab.count == (expected, expected)
        tab.page.check("[name=change][value='']", force=True)
        tab.page.select_option("[name=sort]", "loss")
        sorted_ = tab.page.locator("article").evaluate_all("all => all.map(e => Number(e.dataset.rise))")
        assert sorted_ == sorted(moved)
        assert tab.complaints == []
    with Tab(opened, pages / "fashioniq.html", fragment="#part=shirt&sort=nonsense&change=nothing&x=y") as tab:
        assert tab.page.input_value("[name=sort]") == "order"
        assert "9 of 24 queries are shown" in tab.page.text_content(".chosen")


def test_the_keyboard_is_enough(opened, pages):
    with Tab(opened, pages / "circo.html") as tab:
        press = tab.page.keyboard.press
        press("Tab")
        assert tab.focused() == "skip"
        assert tab.tab_to("change")
        press("ArrowRight")
        assert tab.page.evaluate("document.activeElement.value") == "gained"
        said, seen = tab.count
        assert said == seen == tab.page.locator("article[data-change=gained]").count() > 0
        press("ArrowLeft")
        assert tab.tab_to("tag")
        press("ArrowDown")
        assert tab.count == (4, 4)
        press("ArrowUp")
        assert tab.tab_to("find")
        tab.page.keyboard.type("QUOTED")
        assert tab.count == (1, 1)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["circo", "fashioniq"])
def test_a_phone_in_light_and_dark(opened, pages, name, scheme):
    with Tab(opened, pages / f"{name}.html", 360, scheme, has_touch=True) as tab:
        tab.page.evaluate("document.querySelectorAll('details').forEach((each) => (each.open = true))")
        assert tab.page.evaluate("document.documentElement.scrollWidth") == 360
        assert tab.page.evaluate(TOO_WIDE) == []
        texts, pale = tab.page.evaluate(PALE)
        assert texts > 100
        assert pale == []
        paper = tab.page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (int(paper[4:].split(",")[0]) > 128) == (scheme == "light")


def test_a_click_enlarges_a_picture(opened, pages):
    with Tab(opened, pages / "circo.html") as tab:
        picture = tab.page.locator("article button.frame").first
        picture.click()
        assert tab.page.locator("dialog img").get_attribute("src") == picture.locator("img").get_attribute("src")
        assert tab.page.locator("dialog p").text_content() == picture.locator("img").get_attribute("alt")
        tab.page.keyboard.press("Escape")
        assert tab.page.locator("dialog").is_hidden()


def test_the_first_screen_shows_the_outcome_and_pictures(opened, pages):
    with Tab(opened, pages / "circo.html") as tab:
        bottoms = tab.page.locator("img").evaluate_all("all => all.map(e => e.getBoundingClientRect().bottom)")
        assert sum(bottom < 900 for bottom in bottoms) >= 3
        assert tab.page.locator("header .outcome").is_visible()
        tab.page.locator(".highlights a").first.click()
        arrived = "() => document.querySelector(location.hash).getBoundingClientRect().top < innerHeight / 2"
        tab.page.wait_for_function(arrived)


def test_numbers_are_there_without_javascript(opened, pages):
    with Tab(opened, pages / "fashioniq.html", java_script_enabled=False) as tab:
        assert tab.page.locator("noscript p").is_visible()
        assert tab.page.locator("#filters").is_hidden()
        assert tab.page.locator("table").count() == 4


def screenshots(folder):
    """report-desktop.png and report-phone.png, in few colours so that they stay small."""
    home = Path(tempfile.mkdtemp())
    world = tiny.make(home / "world", seed=7, queries=24)
    shots = [
        ("desktop", "circo/val", ("addition", "viewpoint", "cardinality"), {"width": 1280, "height": 1760}, "light"),
        ("phone", "fashioniq/val", (), {"width": 390, "height": 1280}, "dark"),
    ]
    with browser() as opened:
        for name, data, tags, size, scheme in shots:
            file = home / f"{name}.html"
            run, named = searched(world, data, home / name, tags=tags)
            file.write_text(page.to_html(*run, **named), encoding="utf-8")
            tab = opened.new_page(viewport=size, color_scheme=scheme)
            tab.goto(f"{file.as_uri()}#sort={'gain' if name == 'phone' else 'order'}")
            if name == "phone":  # its first screens are numbers alone
                tab.evaluate("document.getElementById('queries').scrollIntoView({ behavior: 'instant' })")
            tab.wait_for_timeout(300)
            tab.screenshot(path=home / f"{name}.png")
            small = Image.open(home / f"{name}.png").convert("RGB").quantize(128, dither=Image.Dither.NONE)
            small.save(Path(folder) / f"report-{name}.png", optimize=True)
    shutil.rmtree(home)


if __name__ == "__main__":
    screenshots(sys.argv[1])
