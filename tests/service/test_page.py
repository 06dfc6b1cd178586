"""The live search page in a real browser, as a person uses it."""

import os
import subprocess
from contextlib import contextmanager
from pathlib import Path

import pytest
from PIL import Image

from browsing import PALE, Tab
from cig.pipelines.index import Hit
from cig.pipelines.search import to_html
from cig.retrieval.finder import ComposedQuery
from pageservice import draw, page_service, png


@contextmanager
def visit(opened, service, width=1280, scheme="light", locale="en-GB", fragment=""):
    """A page of the service; on leaving it, that it asked nobody else and complained of nothing."""
    phone = width < 500
    context = opened.new_context(
        viewport={"width": width, "height": 844}, color_scheme=scheme, locale=locale, has_touch=phone, is_mobile=phone
    )
    page, urls, complaints = context.new_page(), [], []
    page.set_default_timeout(10_000)
    page.on("request", lambda request: urls.append(request.url))
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(service.url + fragment)
    yield page
    context.close()
    assert [url for url in urls if not url.startswith((service.url, "blob:", "data:"))] == []
    assert [text for text in complaints if "status of 4" not in text and "status of 5" not in text] == []


@pytest.fixture(scope="module")
def service():
    with page_service(imagine=True) as service:
        yield service


@pytest.fixture
def queries(service):
    """What the service is asked in this test."""
    service.queries.clear()
    service.instead.clear()
    service.pause, service.pending = 0.0, 2
    return service.queries


DROP = """([bytes, name, kind]) => {
  const data = new DataTransfer();
  data.items.add(new File([new Uint8Array(bytes)], name, { type: kind }));
  for (const event of ["dragover", "drop"]) {
    document.body.dispatchEvent(new DragEvent(event, { dataTransfer: data, bubbles: true, cancelable: true }));
  }
}"""


def drop(page, content=None, name="mine.png", kind="image/png"):
    page.evaluate(DROP, [list(content or png(draw("red", "square"))), name, kind])


def settled(page):
    """Waits for the answer, and returns the hits' names."""
    page.locator("#hits:not([aria-busy])").wait_for(state="attached")
    page.locator("#answer .score:not(:empty), #message:visible").first.wait_for()
    return page.locator(".show .name").evaluate_all("all => all.map(name => name.title)")


def ask(page, text):
    page.fill("[name=text]", text)
    with page.expect_response("**/v1/search"):
        page.press("[name=text]", "Enter")
    return settled(page)


def take(page, index):
    with page.expect_response("**/v1/search"):
        page.locator(".take").nth(index).click(force=True)
    return settled(page)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_a_person_drops_refines_filters_opens_and_shares(opened, service, queries, width, scheme):
    with visit(opened, service, width, scheme) as page:
        page.locator(".show").first.wait_for()
        assert page.locator("h1").is_visible()
        with page.expect_response("**/v1/search"):
            drop(page)
        assert settled(page)[0] == "red-circle-0.png"
        assert ask(page, "circle")[:3] == [f"red-circle-{i}.png" for i in range(3)]
        assert queries[-1]["image"] == ["red"]
        assert queries[-1]["text"] == ["circle"]

        take(page, 0)  # red-circle-0
        assert queries[-1] == {"picture": ["shapes/red-circle-0.png"], "k": ["21"]}
        assert page.input_value("[name=text]") == ""
        assert ask(page, "blue cross")[0] == "blue-circle-0.png"
        take(page, 0)
        hits = ask(page, "cross")
        assert queries[-1]["picture"] == ["shapes/blue-circle-0.png"]
        assert hits[0] == "blue-cross-0.png"

        page.click("#refine")
        page.locator("select[aria-label=colour] option[value=red]").wait_for(
            state="attached"
        )  # of the listing's second page
        with page.expect_response("**/v1/search"):
            page.get_by_role("combobox", name="shape").select_option("square")
        hits = settled(page)
        assert queries[-1]["where"] == ["shape=square"]
        assert all("square" in name for name in hits)
        assert page.locator("#chips li").all_text_contents() == ["shape = square"]

        page.locator(".show").first.click()
        dialog = page.locator("dialog")
        assert dialog.is_visible()
        assert dialog.locator("h2").text_content() == hits[0]
        facts = dict(
            zip(dialog.locator("dt").all_text_contents(), dialog.locator("dd").all_text_contents(), strict=True)
        )
        assert (facts["shape"], facts["colour"], facts["price"]) == ("square", "blue", "210")
        page.keyboard.press("ArrowRight")
        assert dialog.locator("h2").text_content() == hits[1]
        page.keyboard.press("Escape")
        assert not dialog.is_visible()

        fragment = page.url.partition("/#")[2]
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        texts, pale = page.evaluate(PALE)
        assert (texts > 40, pale) == (True, [])
    with visit(opened, service, width, scheme, fragment=f"#{fragment}") as page:
        assert settled(page) == hits
        assert page.input_value("[name=text]") == "cross"


def test_back_and_forward_bring_each_query_and_its_uploads(opened, service, queries):
    with visit(opened, service) as page:
        page.locator(".show").first.wait_for()
        with page.expect_response("**/v1/search"):
            drop(page)
        first = settled(page)
        second = ask(page, "cross")
        for step, hits, text in (("back", first, ""), ("forward", second, "cross")):
            with page.expect_response("**/v1/search"):
                page.evaluate(f"history.{step}()")
            assert settled(page) == hits
            assert page.input_value("[name=text]") == text
            assert queries[-1]["image"] == ["red"]
        page.evaluate("history.go(-2)")
        page.locator("body.start .show").first.wait_for()
        page.evaluate("history.go(2)")
        assert settled(page) == second
        page.reload()
        settled(page)
        assert page.locator("#note").is_visible()  # the upload was this page's
        assert "image" not in queries[-1]


def test_several_pictures_and_what_is_not_wanted(opened, service, queries):
    with visit(opened, service, fragment="#picture=shapes/red-circle-1.png&text=cross") as page:
        settled(page)
        page.locator(".show").first.click()
        with page.expect_response("**/v1/search"):
            page.click("#join")
        settled(page)
        assert len(queries[-1]["picture"]) == 2
        page.fill("[name=without]", "orange")
        with page.expect_response("**/v1/search"):
            page.press("[name=without]", "Enter")
        assert all("orange" not in name for name in settled(page)[:9])
        with page.expect_response("**/v1/search"):
            page.locator("#pictures .remove").first.click()
        settled(page)
        assert len(queries[-1]["picture"]) == 1
        for _ in range(8):
            drop(page)
        assert page.locator("#pictures li").count() == 8
        assert page.locator("#add").is_hidden()
        drop(page, b"words", "notes.txt", "text/plain")
        assert "notes.txt" in page.text_content("#note")


def test_a_picture_is_pasted_and_chosen(opened, service, queries):
    paste = DROP.replace('for (const event of ["dragover", "drop"])', 'for (const event of ["paste"])')
    paste = paste.replace("DragEvent(event, { dataTransfer: data,", "ClipboardEvent(event, { clipboardData: data,")
    with visit(opened, service) as page:
        with page.expect_response("**/v1/search"):
            page.evaluate(paste, [list(png(draw("blue", "cross"))), "image.png", "image/png"])
        settled(page)
        chosen = {"name": "b.png", "mimeType": "image/png", "buffer": png(draw("green", "cross"))}
        with page.expect_response("**/v1/search"):
            page.set_input_files("#files", [chosen])
        settled(page)
        assert queries[-1]["image"] == ["blue", "green"]


def test_threshold_and_grouping(opened, service, queries):
    with visit(opened, service, fragment="#text=red+circle&min_score=0.5&group_by=shape") as page:
        assert settled(page) == ["red-circle-0.png", "red-cross-0.png", "red-square-0.png"]
        assert queries[-1]["min_score"] == ["0.5"]
        assert page.locator("#chips li").count() == 2
        page.click("#refine")
        page.locator("[name=least]").focus()
        with page.expect_response("**/v1/search"):
            page.keyboard.press("End")
        assert settled(page) == ["red-circle-0.png"]
        assert ask(page, "red circle elephant") == []
        assert "1.00" in page.text_content("#message h3")
        with page.expect_response("**/v1/search"):
            page.click("#message button")
        assert settled(page)[0] == "red-circle-0.png"


def test_the_imagined_picture_comes_beside_the_reference(opened, service, queries):
    with visit(opened, service, fragment="#picture=shapes/red-circle-1.png&text=cross") as page:
        before = settled(page)
        with page.expect_response("**/v1/search"):
            page.check("[name=imagine]")
        page.locator("#imagined.pending").wait_for()
        assert settled(page) == before  # hits come first
        page.locator("#imagined.done").wait_for()
        sizes = [page.locator(css).bounding_box() for css in ("#pictures li", "#imagined")]
        assert [sizes[0][side] for side in ("width", "height", "y")] == [
            sizes[1][side] for side in ("width", "height", "y")
        ]
        assert settled(page) == before[::-1]
        page.click("#first")
        assert settled(page) == before
        assert queries[-1]["imagine"] == ["true"]
        assert service.cancelled == []
        service.pending = 99
        ask(page, "square")
        page.locator("#imagined.pending").wait_for()
        with page.expect_response("**/v1/search/7"):
            page.uncheck("[name=imagine]")
        settled(page)
        assert page.locator("#imagined").is_hidden()
        assert service.cancelled == ["/v1/search/7"]


def test_trouble_is_told_and_tried_again(opened, service, queries):
    problem = {"title": "A field is wrong", "detail": "where: there is no column <b>x</b>"}
    with visit(opened, service) as page:
        service.instead[:] = [(422, {}, problem)]
        assert ask(page, "red") == []
        assert page.locator("#message h3").text_content() == problem["title"]
        assert problem["detail"] in page.locator("#message p").text_content()
        with page.expect_response("**/v1/search"):
            page.click("#message button")
        assert settled(page)
        service.instead[:] = [(429, {"Retry-After": "1"}, {"title": "Too many at once"})]
        ask(page, "green")
        page.locator(".show").first.wait_for()  # by itself, after the second
        service.instead[:] = [(401, {}, {})]
        assert ask(page, "blue") == []
        assert "address" in page.text_content("#message")
        page.route("**/v1/search", lambda route: route.fulfill(status=502, body="<html>"))
        assert ask(page, "orange") == []
        assert "502" in page.text_content("#message h3")


def test_only_the_last_of_two_quick_queries_is_shown(opened, service, queries):
    with visit(opened, service) as page:
        service.pause = 0.6
        page.fill("[name=text]", "red")
        page.press("[name=text]", "Enter")
        page.locator("#hits[aria-busy]").wait_for()
        service.pause = 0.0
        assert ask(page, "blue")[0] == "blue-circle-0.png"
        page.wait_for_timeout(900)
        assert settled(page)[0] == "blue-circle-0.png"


def test_more_are_shown_on_request(opened, service, queries):
    with visit(opened, service, fragment="#text=red") as page:
        assert len(settled(page)) == 20
        with page.expect_response("**/v1/search"):
            page.click("#more")
        page.locator(".show").nth(35).wait_for()
        assert page.locator("#more").is_hidden()
        assert page.evaluate("document.activeElement.matches('.show')")


def test_the_keyboard_is_enough(opened, service, queries):
    with visit(opened, service) as page:
        page.locator(".show").first.wait_for()
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.id") == "skip"
        page.keyboard.press("/")
        page.keyboard.type("red circle")
        with page.expect_response("**/v1/search"):
            page.keyboard.press("Enter")
        settled(page)
        for _ in range(30):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement.matches('.show')"):
                break
        outline = "getComputedStyle(document.activeElement).outlineStyle"
        assert page.evaluate(f"document.activeElement.matches(':focus-visible') && {outline}") == "solid"
        page.keyboard.press("Enter")
        assert page.locator("dialog").is_visible()
        page.keyboard.press("Escape")
        assert page.evaluate("document.activeElement.matches('.show')")
        page.keyboard.press("Tab")
        with page.expect_response("**/v1/search"):
            page.keyboard.press("Enter")
        settled(page)
        assert queries[-1]["picture"] == ["shapes/red-circle-0.png"]
        assert page.evaluate("document.activeElement.name") == "text"


def test_vietnamese_by_the_browser_and_every_text_in_both(opened, service, queries):
    with visit(opened, service, locale="vi-VN", fragment="#text=red") as page:
        settled(page)
        assert page.evaluate("document.documentElement.lang") == "vi"
        assert page.get_by_role("button", name="Tìm").is_visible()
        english, vietnamese = page.evaluate("[Object.keys(TEXTS.en), Object.keys(TEXTS.vi)]")
        assert english == vietnamese
    with visit(opened, service, locale="de-DE", fragment="#text=red") as page:
        settled(page)
        assert page.evaluate("document.documentElement.lang") == "en"


def test_names_stay_text(opened):
    hostile = "shapes/<img src=x onerror=alert(1)>-circle-1.png"
    with page_service() as service:
        service.metadata = {hostile: {"colour": "<b>", "shape": "circle", "price": 1}}
        with visit(opened, service, fragment="#text=circle") as page:
            assert settled(page) == [hostile.rpartition("/")[2]]
            page.locator(".show").first.click()
            assert page.locator("dialog dd").nth(1).text_content() == "<b>"
            assert page.locator("dialog img").count() == 1


def test_the_page_in_a_file_enlarges_a_picture_and_names_its_file_from_anywhere(tmp_path, monkeypatch, opened):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shop").mkdir()
    path = Path("shop/a long name of a picture, in blue.png")
    Image.new("RGB", (30, 20), "blue").save(path)
    hits = [Hit(f"dir/{path.name}", 0.5, path, {"price": 7})]
    page = to_html(ComposedQuery(text="blue"), hits, {"method": "sum"})
    assert str(path.resolve()) in page
    assert path.resolve().as_uri() in page
    (tmp_path / "found.html").write_text(page)
    with Tab(opened, tmp_path / "found.html", 390) as tab:
        tab.page.click(".show")
        assert tab.page.locator("dialog h2").text_content() == path.name
        assert tab.page.locator("dialog #path").text_content() == str(path.resolve())
        assert tab.page.locator("dialog dd").all_text_contents() == ["7"]
        assert tab.page.evaluate("document.documentElement.scrollWidth") == 390
        tab.page.keyboard.press("Escape")
        assert tab.page.evaluate("document.activeElement.className") == "show"
        assert tab.complaints == []


@pytest.fixture(scope="module")
def axe(tmp_path_factory):
    """axe-core's script, by npm."""
    folder = tmp_path_factory.mktemp("axe")
    try:
        line = ["npm", "pack", "axe-core@4", "--silent"]
        done = subprocess.run(
            line, cwd=folder, capture_output=True, text=True, timeout=60, env={**os.environ}, check=True
        )
        subprocess.run(["tar", "xzf", done.stdout.strip()], cwd=folder, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        pytest.skip(f"npm gives no axe-core: {error}")
    return (folder / "package" / "axe.min.js").read_text()


FAULTS = """async () => (await axe.run()).violations.filter((each) => ["serious", "critical"].includes(each.impact))
  .map((each) => [each.id, each.nodes[0].html])"""


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (1280, "dark"), (390, "light"), (390, "dark")])
def test_axe_finds_no_serious_fault(opened, service, queries, axe, width, scheme):
    with visit(opened, service, width, scheme) as page:
        page.locator(".show").first.wait_for()
        page.evaluate(axe)
        assert page.evaluate(FAULTS) == []
        page.goto(f"{service.url}#picture=shapes/red-circle-1.png&text=cross&where=shape%3Dcross&imagine=true")
        page.locator("#imagined.done").wait_for()
        page.click("#refine")
        page.evaluate("document.activeElement.blur()")
        assert page.evaluate(FAULTS) == []
        page.locator(".show").first.click()
        assert page.evaluate(FAULTS) == []
        page.keyboard.press("Escape")
        ask(page, "nothing")
        service.instead[:] = [(503, {}, {"title": "Not ready", "detail": "The index is opening."})]
        ask(page, "else")
        assert page.evaluate(FAULTS) == []
