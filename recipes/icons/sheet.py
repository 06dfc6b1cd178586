"""A contact sheet of queries: reference, target, up to two that are also correct; type, caption, reference's name.

    python recipes/icons/sheet.py docs/icons-val.png            # the first 60 of icons/val
    python recipes/icons/sheet.py sheet.png --start 60 --count 66

Of val alone: nobody looks at the drawings of test.
"""

from __future__ import annotations

import argparse
import textwrap
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from cig.benchmarks.icons import read
from cig.formats import write_png
from cig.types import Benchmark, Query

COLUMNS, WIDTH, HEIGHT = 6, 250, 118


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--start", type=int, default=0)
    parser.add_argument("--count", type=int, default=60)
    arguments = parser.parse_args()
    part = read("val")
    chosen = part.queries[arguments.start : arguments.start + arguments.count]
    sheet = Image.new("RGB", (COLUMNS * WIDTH, -(-len(chosen) // COLUMNS) * HEIGHT), "white")
    for number, query in enumerate(chosen):
        draw(sheet, (number % COLUMNS * WIDTH + 4, number // COLUMNS * HEIGHT + 2), query, part)
    write_png(arguments.out, sheet)


def draw(sheet: Image.Image, corner: tuple[int, int], query: Query, part: Benchmark) -> None:
    x, y = corner
    names = [query.reference, *query.relevant]
    for place, name in enumerate(names[:4]):
        side = 64 if place < 2 else 44
        picture = Image.open(part.images[name]).resize((side, side))
        sheet.paste(picture, (x + (0, 70, 146, 194)[place], y + (64 - side) // 2))
    lines = [f"{query.id} [{query.tags[0]}] +{len(names) - 2}", *textwrap.wrap(query.captions[0], 42)[:2]]
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(11)
    for row, (line, colour) in enumerate(zip(lines, ("gray", "black", "black"), strict=False)):
        pen.text((x, y + 66 + 12 * row), line, fill=colour, font=font)
    pen.text((x, y + 102), query.reference.split(".")[0][-40:], fill="blue", font=font)


if __name__ == "__main__":
    main()
