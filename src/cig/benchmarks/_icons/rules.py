"""What can be done to a drawing by rule: filled, hollowed, turned, put in a ring, given a badge; and each undone.

All of [64, 64] uint8, 0 = paper, 255 = ink. Nothing here knows how two drawings are related.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from cig.benchmarks._icons.corpus import SIDE

STROKE = 4  # pixels
CORNER = 30  # pixels: the side of what is wiped, at the bottom right, where most badges lie
BADGE = 26  # pixels: the longer side of a badge that is put on
GAP = 3  # pixels: the paper around one


def hollow(drawing: Tensor) -> Tensor:
    """The outline of what is filled."""
    inside = -_pooled(-drawing.float(), 2 * STROKE + 1)
    return (drawing.float() - inside).to(torch.uint8)


def solid(drawing: Tensor) -> Tensor:
    """What is enclosed by ink becomes ink: all that is not reached from the border over paper."""
    paper = (drawing < 128).float()
    outside = torch.zeros_like(paper)
    outside[[0, -1]], outside[:, [0, -1]] = paper[[0, -1]], paper[:, [0, -1]]
    while True:
        spread = torch.maximum(_pooled(outside, (3, 1)), _pooled(outside, (1, 3))) * paper
        if torch.equal(spread, outside):
            break
        outside = spread
    return torch.where((paper > 0) & (outside == 0), 255, drawing).to(torch.uint8)


def wiped(drawing: Tensor) -> Tensor:
    """Without the corner in which a badge may lie: nothing tells where."""
    bare = drawing.clone()
    bare[-CORNER:, -CORNER:] = 0
    return bare


@dataclass(frozen=True)
class Badge:
    """What lies on a drawing [64, 64]: its ink, uint8, and where the drawing gives way to it, bool."""

    ink: Tensor
    room: Tensor


def badge_of(glyph: Tensor, gap: int = GAP) -> Badge:
    """A smaller drawing at the bottom right, and paper around it.

    Args:
        glyph: [H, W] uint8, that fills it.
        gap: pixels of paper.
    """
    return _with_room(_cornered(fitted(glyph, BADGE)), gap)


def corner_of(drawing: Tensor, gap: int) -> Badge:
    """The corner in which a badge may lie, whatever is in it."""
    return _with_room(drawing - wiped(drawing), gap)


def _with_room(ink: Tensor, gap: int) -> Badge:
    return Badge(ink.to(torch.uint8), _pooled(_spanned(ink).float(), 2 * gap + 1) >= 128)


def badged(drawing: Tensor, badge: Badge) -> Tensor:
    """With the badge on it, and paper where it gives way."""
    return torch.where(badge.room, 0, drawing).maximum(badge.ink)


def fitted(drawing: Tensor, side: int) -> Tensor:
    """[side, side]: in the middle of it, as large as it can be."""
    height, width = (max(1, round(own * side / max(drawing.shape))) for own in drawing.shape)
    top, left = (side - height) // 2, (side - width) // 2
    return functional.pad(_resized(drawing, height, width), (left, side - width - left, top, side - height - top))


def _spanned(drawing: Tensor) -> Tensor:
    """With ink between the first and the last ink of a row."""
    before, after = drawing.cummax(1).values, drawing.flip(1).cummax(1).values.flip(1)
    return torch.minimum(before, after)


def _cornered(small: Tensor) -> Tensor:
    """[64, 64]: at the bottom right."""
    rest = SIDE - len(small)
    return functional.pad(small, (rest, 0, rest, 0))


def slashed(drawing: Tensor) -> Tensor:
    """With a line across, and paper along it."""
    away = _from_diagonal()
    apart = torch.where(away.abs() < 2 * STROKE, 0, drawing)
    return torch.where(_on_line(away), 255, apart).to(torch.uint8)


def unslashed(drawing: Tensor) -> Tensor:
    return torch.where(_from_diagonal().abs() < 2 * STROKE, 0, drawing).to(torch.uint8)


def magnified(drawing: Tensor) -> Tensor:
    """Its middle alone, so large that of a ring at most corners are left."""
    edge = SIDE // 5
    return _resized(drawing[edge:-edge, edge:-edge], SIDE, SIDE)


def ringed(drawing: Tensor, name: str, filled: bool = False) -> Tensor:
    """Half as large, within a line of a shape of RINGS; or cut out of the shape."""
    edge = SIDE // 4
    return _within(functional.pad(_resized(drawing, SIDE // 2, SIDE // 2), (edge, edge, edge, edge)), name, filled)


def reringed(drawing: Tensor, before: str, name: str, filled: bool = False) -> Tensor:
    """In another ring than it is in: its middle stays, as it is."""
    middle = RINGS[before](*_grid()) < SIDE / 2 - 2.5 * STROKE
    return _within(torch.where(middle, 255 - drawing if filled else drawing, 0), name, filled)


def _within(inner: Tensor, name: str, filled: bool) -> Tensor:
    away = RINGS[name](*_grid()) - (SIDE / 2 - STROKE)
    if filled:
        return torch.where(away < STROKE / 2, 255 - inner, 0).to(torch.uint8)
    on_line = away.abs() < STROKE / 2
    if name.startswith("dashed"):
        on_line &= torch.atan2(*_grid()).mul(DASHES).cos() > -0.3
    return torch.where(on_line, 255, inner).to(torch.uint8)


def _round(rows: Tensor, columns: Tensor) -> Tensor:
    return (rows.square() + columns.square()).sqrt()


def _square(rows: Tensor, columns: Tensor) -> Tensor:
    return torch.maximum(rows.abs(), columns.abs())


RINGS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {  # distances from the middle, by rows and columns from it
    "circle": _round,
    "square": _square,
    "hexagon": lambda rows, columns: torch.maximum(columns.abs() * 1.1, columns.abs() * 0.5 + rows.abs()),
    "diamond": lambda rows, columns: rows.abs() + columns.abs(),
    "dashed circle": _round,
    "dashed square": _square,
}
DASHES = 8  # of a dashed ring
TURNS: tuple[Callable[[Tensor], Tensor], ...] = (
    lambda drawing: drawing.flip(1),
    lambda drawing: drawing.flip(0),
    lambda drawing: drawing.rot90(1),
    lambda drawing: drawing.rot90(-1),
)
TURNED = (  # where what points somewhere points then
    {"left": "right", "right": "left"},
    {"up": "down", "down": "up"},
    {"up": "left", "left": "down", "down": "right", "right": "up"},
    {"up": "right", "right": "down", "down": "left", "left": "up"},
)


def turns_of(direction: str) -> Sequence[int]:
    """Those that make it point elsewhere."""
    if " " in direction:
        return (0, 1)
    return (0, 2, 3) if direction in ("left", "right") else (1, 2, 3)


def turned(direction: str, turn: int) -> str:
    """Where it points after one of turns_of it."""
    return " ".join(TURNED[turn].get(word, word) for word in direction.split())


def _grid() -> Tensor:
    """[2, 64, 64]: rows and columns, from the middle."""
    line = torch.arange(SIDE) - (SIDE - 1) / 2
    return torch.stack(torch.meshgrid(line, line, indexing="ij"))


def _from_diagonal() -> Tensor:
    """[64, 64]: pixels to the right of the line from top left to bottom right."""
    rows, columns = _grid()
    return (columns - rows) / 2**0.5


def _on_line(away: Tensor) -> Tensor:
    return (away.abs() < STROKE / 2) & (_grid().abs().amax(0) < SIDE / 2 - STROKE)


def _pooled(values: Tensor, size: int | tuple[int, int]) -> Tensor:
    height, width = (size, size) if isinstance(size, int) else size
    return functional.max_pool2d(values[None], (height, width), 1, (height // 2, width // 2))[0]


def _resized(drawing: Tensor, height: int, width: int) -> Tensor:
    pixels = functional.interpolate(drawing[None, None].float(), size=(height, width), mode="bilinear", antialias=True)
    return pixels[0, 0].round().clamp(0, 255).to(torch.uint8)
