"""What the print of duplicates.py may miss: training drawings that the shipped CLIP holds to be like held-out ones.

    python recipes/icons/likeness.py                                      # counts, by threshold
    python recipes/icons/likeness.py --sheet pairs.png --at 0.98          # and 30 pairs of train and val to look at

Drawings are compared in black, by the cosine of image features. The CLIP learnt to hold drawings of one object
together, so a high cosine is not yet a redrawn icon: look at pairs. Of test only counts are told.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from random import Random

import numpy as np
import torch
from PIL import Image, ImageDraw

from cig.benchmarks._icons.corpus import Icon, paint, read_split
from cig.io.files import write_png
from cig.methods import load_method
from cig.runtime import batches
from duplicates import near_duplicates, nearest_rows

THRESHOLDS = (0.95, 0.98, 0.99)
HELD = ("val", "test")
PAIRS, COLUMNS, WIDTH, HEIGHT = 30, 5, 220, 84


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sheet", type=Path, help="a picture of pairs of train and val")
    parser.add_argument("--at", type=float, default=THRESHOLDS[0], help="the least cosine of a pair on the sheet")
    arguments = parser.parse_args()
    drawings = read_split("train")[1]
    held = {split: read_split(split)[1] for split in HELD}
    own = features(drawings)
    near = {split: nearest_rows(own, features(others)) for split, others in held.items()}
    printed = near_duplicates(drawings, np.concatenate(list(held.values())))
    print("\n".join(table({split: cosines for split, (cosines, _) in near.items()}, printed)))
    if arguments.sheet:
        cosines, places = near["val"]
        write_png(arguments.sheet, sheet(chosen(cosines, arguments.at), cosines, places))


def features(drawings: np.ndarray) -> np.ndarray:
    """[N, 64, 64] uint8 -> [N, d] float32 unit rows of the shipped CLIP."""
    method = load_method("image/icons")
    parts = [
        method.embed_images(torch.stack([method.preprocess(paint(drawing, "black")) for drawing in chunk]))
        for chunk in batches(drawings, 256)
    ]
    rows: np.ndarray = torch.nn.functional.normalize(torch.cat(parts), dim=-1).numpy()
    return rows


def table(cosines: dict[str, np.ndarray], printed: np.ndarray) -> list[str]:
    """A line a threshold and split: how many training drawings pass, and of how many the print did not say so.

    Args:
        cosines: [N] by split, with the nearest drawing of it.
        printed: [N] bool.
    """
    cosines = {**cosines, "either": np.maximum.reduce(list(cosines.values()))}
    lines = [
        f"of {len(printed):,} training drawings, like one of:",
        f"{'cosine':8}{'split':8}{'drawings':>9}{'missed':>9}",
    ]
    for threshold in THRESHOLDS:
        for split, own in cosines.items():
            near = own > threshold
            lines.append(f"{threshold:<8}{split:8}{near.sum():9,}{(near & ~printed).sum():9,}")
    return lines


def chosen(cosines: np.ndarray, least: float) -> list[int]:
    """Training drawings at random, of those that pass."""
    near = np.flatnonzero(cosines > least).tolist()
    return Random("pairs to look at").sample(near, min(PAIRS, len(near)))


def sheet(rows: list[int], cosines: np.ndarray, places: np.ndarray) -> Image.Image:
    """Each pair with its cosine and names: the training drawing, the one of val."""
    (own, drawings), (held, others) = read_split("train"), read_split("val")
    picture = Image.new("RGB", (COLUMNS * WIDTH, -(-len(rows) // COLUMNS) * HEIGHT), "white")
    pen = ImageDraw.Draw(picture)
    for number, row in enumerate(rows):
        place = int(places[row])
        x, y = number % COLUMNS * WIDTH + 4, number // COLUMNS * HEIGHT + 4
        picture.paste(paint(drawings[row], "black"), (x, y))
        picture.paste(paint(others[place], "black"), (x + 68, y))
        words = (f"{number + 1}: {cosines[row]:.3f}", *map(_named, (own[row], held[place])))
        for line, text in enumerate(words):
            pen.text((x + 136, y + 12 * line), text, fill="black")
    return picture


def _named(icon: Icon) -> str:
    return icon.name[:13]


if __name__ == "__main__":
    main()
