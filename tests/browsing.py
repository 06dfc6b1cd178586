"""Pages in a real browser: Debian's Chromium or Google Chrome, where there is one."""

import shutil
from contextlib import contextmanager

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
QUIET = "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
QUIET += " --disable-component-update --disable-sync"


@contextmanager
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        opened = play.chromium.launch(executable_path=BROWSER, headless=True, args=QUIET.split())
        yield opened
        opened.close()


class Tab:
    """A page that is open, and everything it asked for or complained of."""

    def __init__(self, opened, file, width=1280, scheme="light", fragment="", **more):
        self.file, self.asked, self.complaints = file, [], []
        self.page = opened.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme, **more)
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.goto(file.as_uri() + fragment)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.page.close()

    @property
    def count(self):
        """(said, seen): what the page says it shows, and the cards that can be seen."""
        said = self.page.text_content("#count").split()
        return int(said[1]), self.page.locator("article:visible").count()

    def focused(self):
        return self.page.evaluate("document.activeElement.name || document.activeElement.className")

    def tab_to(self, name):
        """By the keyboard alone; says whether the focus can be seen."""
        for _ in range(40):
            self.page.keyboard.press("Tab")
            if self.focused() == name:
                return self.page.evaluate("document.activeElement.matches(':focus-visible')")
        raise AssertionError(f"Tab does not reach {name}")


SCROLL = """async () => {
  for (let y = 0; y < document.body.scrollHeight; y += 600) {
    scrollTo({ top: y, behavior: "instant" });
    await new Promise((done) => setTimeout(done, 30));
  }
  // twice: a busy browser drops a decoding now and then, and a broken picture fails again
  await Promise.all([...document.images].map((image) => image.decode().catch(() => image.decode())));
}"""
PALE = """() => {
  const numbers = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const light = (colour) => numbers(colour).slice(0, 3).map((c) => c / 255)
    .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const paper = (e) => getComputedStyle(e).backgroundColor;
  const behind = (e) => (numbers(paper(e))[3] === 0 ? behind(e.parentElement) : paper(e));
  const ratio = (a, b) => (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  const texts = [...document.body.querySelectorAll("*:not(script, style, noscript, option)")]
    .filter((e) => e.checkVisibility() && [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim()));
  const pale = texts.filter((e) => ratio(light(getComputedStyle(e).color), light(behind(e))) < 4.5);
  return [texts.length, pale.map((e) => e.outerHTML.slice(0, 80))];
}"""


TOO_WIDE = """() => [...document.body.querySelectorAll("*")]
  .filter((e) => e.checkVisibility() && e.getBoundingClientRect().right > 360)
  .map((e) => e.outerHTML.slice(0, 80))"""
