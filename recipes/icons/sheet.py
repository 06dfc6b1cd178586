"""A contact sheet of queries: reference, target, up to two that are also correct; type, caption, reference's name.

    python recipes/icons/sheet.py docs/icons-val.png            # the first 60 of icons/val
    python recipes/icons/sheet.py sheet.png --start 60 --count 66
    python recipes/icons/sheet.py sheet.png --count 40 --pseudo-targets FOLDER    # reference, pseudo-target, target

Of val alone: nobody looks at the drawings of test.
"""

from __future__ import annotations

import argparse
import textwrap
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from cig.benchmarks.icons import read
from cig.io.files import write_png
from cig.io.query_files import find_by_id
from cig.types import Benchmark, Query

COLUMNS, WIDTH, HEIGHT = 6, 250, 118


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--start", type=int, default=0)
    parser.add_argument("--count", type=int, default=60)
    parser.add_argument("--pseudo-targets", type=Path, help="a folder of one picture a query")
    arguments = parser.parse_args()
    part, imagined = read("val"), {}
    chosen = part.queries[arguments.start : arguments.start + arguments.count]
    if arguments.pseudo_targets:
        imagined = find_by_id(arguments.pseudo_targets, [query.id for query in chosen], [".png"])
    sheet = Image.new("RGB", (COLUMNS * WIDTH, -(-len(chosen) // COLUMNS) * HEIGHT), "white")
    for number, query in enumerate(chosen):
        draw(sheet, (number % COLUMNS * WIDTH + 4, number // COLUMNS * HEIGHT + 2), query, part, imagined.get(query.id))
    write_png(arguments.out, sheet)


def draw(sheet: Image.Image, corner: tuple[int, int], query: Query, part: Benchmark, imagined: Path | None) -> None:
    x, y = corner
    names = [query.reference, *query.relevant]
    reference, target, *others = [part.images[name] for name in names]
    large = [reference, *([imagined] if imagined else []), target]
    for place, path in enumerate([*large, *others[: 4 - len(large)]]):
        side, left = (64, 70 * place) if place < len(large) else (44, 50 + 48 * place)
        sheet.paste(Image.open(path).convert("RGB").resize((side, side)), (x + left, y + (64 - side) // 2))
    lines = [f"{query.id} [{query.tags[0]}] +{len(names) - 2}", *textwrap.wrap(query.captions[0], 42)[:2]]
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(11)
    for row, (line, colour) in enumerate(zip(lines, ("gray", "black", "black"), strict=False)):
        pen.text((x, y + 66 + 12 * row), line, fill=colour, font=font)
    pen.text((x, y + 102), query.reference.split(".")[0][-40:], fill="blue", font=font)


if __name__ == "__main__":
    main()
