"""Badges drawn by rule: one bold sign for each name, so that a generator can learn what a caption asks for.

icons/train has drawings of these things, too, but few of them, thin, and each in many ways.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from math import cos, pi, sin

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from cig.benchmarks._icons.corpus import SIDE

FINE = 4  # signs are drawn this many times larger, then reduced
PEN = 0.17  # width of a line; the sign fills a square of side 1, y downwards

Point = tuple[float, float]
Part = tuple[str, Sequence[Point]]  # "line" or "fill", and corners; "disc", "hole" or "ring", its middle, (radius, 0)


def _around(count: int, radii: Sequence[float], turn: float = 0.0) -> list[Point]:
    """Put points around the middle, at these radii in turn; the first is at the top."""
    polar = [(turn - pi / 2 + 2 * pi * i / count, radii[i % len(radii)]) for i in range(count)]
    return [(0.5 + radius * cos(angle), 0.5 + radius * sin(angle)) for angle, radius in polar]


def _arc(middle: Point, radius: float, angles: tuple[float, float]) -> list[Point]:
    """Draw an arc from one angle to another, in degrees, clockwise from the right."""
    start, end = angles
    radians = [(start + (end - start) * i / 24) * pi / 180 for i in range(25)]
    return [(middle[0] + radius * cos(angle), middle[1] + radius * sin(angle)) for angle in radians]


def _turned(parts: Sequence[Part], quarters: int) -> list[Part]:
    """Turn lines and fills clockwise."""
    for _ in range(quarters):
        parts = [(kind, [(1 - y, x) for x, y in points]) for kind, points in parts]
    return list(parts)


_UP: list[Part] = [("line", [(0.5, 0.95), (0.5, 0.12)]), ("line", [(0.12, 0.5), (0.5, 0.1), (0.88, 0.5)])]
_TRAY: Part = ("line", [(0.08, 0.65), (0.08, 0.92), (0.92, 0.92), (0.92, 0.65)])
_HEART = [*_arc((0.27, 0.32), 0.25, (150, 330)), *_arc((0.73, 0.32), 0.25, (210, 390)), (0.5, 0.98)]
SIGNS: dict[str, list[Part]] = {
    "plus": [("line", [(0.5, 0.05), (0.5, 0.95)]), ("line", [(0.05, 0.5), (0.95, 0.5)])],
    "minus": [("line", [(0.05, 0.5), (0.95, 0.5)])],
    "cross": [("line", [(0.12, 0.12), (0.88, 0.88)]), ("line", [(0.88, 0.12), (0.12, 0.88)])],
    "check": [("line", [(0.06, 0.55), (0.36, 0.85), (0.94, 0.18)])],
    "exclamation mark": [
        ("fill", [(0.38, 0.0), (0.62, 0.0), (0.58, 0.64), (0.42, 0.64)]),
        ("disc", [(0.5, 0.87), (0.12, 0)]),
    ],
    "question mark": [
        ("line", [*_arc((0.5, 0.3), 0.23, (180, 405)), (0.5, 0.64)]),
        ("disc", [(0.5, 0.88), (0.11, 0)]),
    ],
    "up arrow": _UP,
    "right arrow": _turned(_UP, 1),
    "down arrow": _turned(_UP, 2),
    "left arrow": _turned(_UP, 3),
    "download": [("line", [(0.5, 0.02), (0.5, 0.66)]), ("line", [(0.22, 0.4), (0.5, 0.68), (0.78, 0.4)]), _TRAY],
    "upload": [("line", [(0.5, 0.7), (0.5, 0.1)]), ("line", [(0.22, 0.34), (0.5, 0.06), (0.78, 0.34)]), _TRAY],
    "heart": [("fill", _HEART)],
    "star": [("fill", _around(10, (0.52, 0.22)))],
    "sparkle": [("fill", _around(8, (0.52, 0.16)))],
    "gear": [("fill", _around(32, (0.5, 0.5, 0.36, 0.36), -pi / 32)), ("hole", [(0.5, 0.5), (0.16, 0)])],
    "lock": [
        ("fill", [(0.12, 0.44), (0.88, 0.44), (0.88, 1.0), (0.12, 1.0)]),
        ("line", [(0.28, 0.5), *_arc((0.5, 0.3), 0.22, (180, 360)), (0.72, 0.5)]),
    ],
    "person": [("disc", [(0.5, 0.25), (0.24, 0)]), ("fill", [*_arc((0.5, 1.0), 0.44, (180, 360))])],
    "clock": [("ring", [(0.5, 0.5), (0.5, 0)]), ("line", [(0.5, 0.24), (0.5, 0.54), (0.7, 0.64)])],
    "ban": [("ring", [(0.5, 0.5), (0.5, 0)]), ("line", [(0.2, 0.2), (0.8, 0.8)])],
    "magnifier": [("ring", [(0.4, 0.4), (0.4, 0)]), ("line", [(0.68, 0.68), (0.94, 0.94)])],
    "pencil": [("fill", [(0.0, 1.0), (0.06, 0.7), (0.7, 0.06), (0.94, 0.3), (0.3, 0.94)])],
    "text": [("line", [(0.1, 0.12), (0.9, 0.12)]), ("line", [(0.5, 0.12), (0.5, 0.95)])],
    "code": [("line", [(0.32, 0.15), (0.06, 0.5), (0.32, 0.85)]), ("line", [(0.68, 0.15), (0.94, 0.5), (0.68, 0.85)])],
    "sync": [
        ("line", _arc((0.5, 0.5), 0.36, (200, 330))),
        ("line", _arc((0.5, 0.5), 0.36, (20, 150))),
        ("fill", [(0.62, 0.42), (0.98, 0.42), (0.98, 0.06)]),
        ("fill", [(0.38, 0.58), (0.02, 0.58), (0.02, 0.94)]),
    ],
    "play": [("fill", [(0.15, 0.0), (0.95, 0.5), (0.15, 1.0)])],
    "pause": [("line", [(0.27, 0.05), (0.27, 0.95)]), ("line", [(0.73, 0.05), (0.73, 0.95)])],
    "lightning": [("fill", [(0.62, 0.0), (0.1, 0.6), (0.45, 0.6), (0.36, 1.0), (0.9, 0.38), (0.54, 0.38)])],
    "music note": [("disc", [(0.3, 0.8), (0.2, 0)]), ("line", [(0.44, 0.8), (0.44, 0.08), (0.85, 0.2)])],
    "dollar": [
        (
            "line",
            [
                *_arc((0.5, 0.33), 0.2, (320, 90)),
                *_arc((0.5, 0.67), 0.17, (270, 400)),
                *_arc((0.5, 0.67), 0.2, (40, 140)),
            ],
        ),
        ("line", [(0.5, 0.0), (0.5, 1.0)]),
    ],
    "eye": [
        ("fill", [*_arc((0.5, 0.9), 0.64, (220, 320)), *_arc((0.5, 0.1), 0.64, (40, 140))]),
        ("hole", [(0.5, 0.5), (0.15, 0)]),
    ],
    "key": [
        ("ring", [(0.28, 0.72), (0.28, 0)]),
        ("line", [(0.45, 0.55), (0.95, 0.05)]),
        ("line", [(0.72, 0.28), (0.9, 0.46)]),
    ],
    "link": [
        ("line", [(0.3, 0.7), (0.7, 0.3)]),
        ("ring", [(0.25, 0.75), (0.25, 0)]),
        ("ring", [(0.75, 0.25), (0.25, 0)]),
    ],
    "pin": [
        ("disc", [(0.5, 0.36), (0.36, 0)]),
        ("fill", [(0.17, 0.5), (0.83, 0.5), (0.5, 1.0)]),
        ("hole", [(0.5, 0.36), (0.14, 0)]),
    ],
    "share": [
        ("disc", [(0.18, 0.5), (0.18, 0)]),
        ("disc", [(0.8, 0.18), (0.18, 0)]),
        ("disc", [(0.8, 0.82), (0.18, 0)]),
        ("line", [(0.8, 0.18), (0.18, 0.5), (0.8, 0.82)]),
    ],
    "picture": [
        ("line", [(0.08, 0.12), (0.92, 0.12), (0.92, 0.88), (0.08, 0.88), (0.08, 0.04)]),
        ("fill", [(0.15, 0.85), (0.45, 0.4), (0.85, 0.85)]),
    ],
    "medical cross": [
        ("fill", [(0.33, 0), (0.67, 0), (0.67, 1), (0.33, 1)]),
        ("fill", [(0, 0.33), (1, 0.33), (1, 0.67), (0, 0.67)]),
    ],
}


@cache
def sign(name: str, side: int = SIDE) -> Tensor:
    """Draw the sign of a name: [side, side] uint8, 255 = ink."""
    scale = side * FINE
    image = Image.new("L", (scale, scale))
    pen = ImageDraw.Draw(image)
    for kind, points in SIGNS[name]:
        _draw(pen, kind, [(x * scale, y * scale) for x, y in points], width=PEN * scale)
    small = image.resize((side, side), Image.Resampling.BOX)
    return torch.frombuffer(bytearray(small.tobytes()), dtype=torch.uint8).view(side, side)


def _draw(pen: ImageDraw.ImageDraw, kind: str, points: Sequence[Point], *, width: float) -> None:
    if kind == "line":
        pen.line(points, 255, round(width), joint="curve")
        for x, y in (points[0], points[-1]):
            pen.ellipse((x - width / 2, y - width / 2, x + width / 2, y + width / 2), 255)
    elif kind == "fill":
        pen.polygon(points, 255)
    else:
        (x, y), (radius, _) = points
        box = (x - radius, y - radius, x + radius, y + radius)
        if kind == "ring":
            pen.ellipse(box, outline=255, width=round(width))
        else:
            pen.ellipse(box, 255 if kind == "disc" else 0)
