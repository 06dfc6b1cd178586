"""grid: a vision-language model sees the first k on one numbered sheet and names the best, in one call.

After SQUARE; the wording and the sheet are ours. Numbers that the model names come first, in the order in which it
names them; the other pictures keep their order behind them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image, ImageDraw

from cig.models.vision_language import VisionLanguage

if TYPE_CHECKING:
    import torch

CELL = 224  # pixels
MOST_TOKENS = 64
PROMPT = (
    "The first picture is a reference, the second is a sheet of {count} numbered candidates. The wanted change is: "
    '"{caption}". Which candidates show the reference with this change? Answer with their numbers, the best first.'
)


class Grid:
    """The order in which one answer names the candidates."""

    jointly = True

    def __init__(self, model: VisionLanguage, prompt: str | None = None) -> None:
        self.model, self.prompt, self.identity = model, prompt or PROMPT, model.identity
        self.settings: dict[str, Any] = {"prompt": self.prompt, "cell": CELL, "tokens": MOST_TOKENS}

    def __call__(self, reference: Image.Image, caption: str, candidates: Sequence[Image.Image]) -> list[float | None]:
        text = self.prompt.replace("{count}", str(len(candidates))).replace("{caption}", caption)
        answer = self.model.answer([reference, sheet(candidates)], text, MOST_TOKENS)
        return scores_of(answer, len(candidates))


def sheet(pictures: Sequence[Image.Image]) -> Image.Image:
    """Lay pictures out row by row on white, in as many columns as rows or one more, each with its number from 1."""
    columns = math.ceil(math.sqrt(len(pictures)))
    rows = math.ceil(len(pictures) / columns)
    page = Image.new("RGB", (columns * CELL, rows * CELL), "white")
    draw = ImageDraw.Draw(page)
    for i, picture in enumerate(pictures):
        left, top = i % columns * CELL, i // columns * CELL
        small = picture.convert("RGB")
        small.thumbnail((CELL, CELL))
        page.paste(small, (left, top))
        draw.rectangle((left, top, left + 34, top + 24), fill="white")
        draw.text((left + 4, top + 2), str(i + 1), fill="black", font_size=18)
    return page


def scores_of(answer: str, count: int) -> list[float | None]:
    """Score by the order of the numbers in an answer: 1 for the first, 0 for those not named; None if none is."""
    numbers = [int(word) for word in re.findall(r"\d{1,4}", answer)]
    named = list(dict.fromkeys(number for number in numbers if 1 <= number <= count))
    if not named:
        return [None] * count
    return [1 - named.index(i) / count if i in named else 0.0 for i in range(1, count + 1)]


def load(
    source: str, prompt: str | None, *, device: torch.device, dtype: torch.dtype, cache_dir: Path | None = None
) -> Grid:
    return Grid(VisionLanguage(source, device, dtype, cache_dir=cache_dir), prompt)
