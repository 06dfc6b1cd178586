"""Take docs/search-page.png and search-page-phone.png from a running `cig serve` over the shipped icons.

python docs/_screenshots.py ADDRESS        # the address that `make serve` prints
"""

import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

import cig

DOCS = Path(__file__).parent


def shoot(address: str) -> None:
    images = cig.load_benchmark("icons/val").images
    home = next(path for name, path in images.items() if name.startswith("tabler/home.black"))
    with sync_playwright() as play:
        browser = play.chromium.launch(channel="chromium")
        for name, width, height, scheme in (("", 1280, 860, "light"), ("-phone", 390, 844, "dark")):
            page = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme).new_page()
            page.goto(address)
            page.set_input_files("input[type=file]", str(home))
            page.check("[name=imagine]", force=True)
            page.fill("[name=text]", "is filled")
            page.press("[name=text]", "Enter")
            page.get_by_text("With the imagined picture").wait_for(timeout=60_000)
            page.wait_for_timeout(1000)
            path = DOCS / f"search-page{name}.png"
            page.screenshot(path=path)
            Image.open(path).convert("RGB").quantize(128, dither=Image.Dither.NONE).save(path, optimize=True)


if __name__ == "__main__":
    shoot(sys.argv[1])
