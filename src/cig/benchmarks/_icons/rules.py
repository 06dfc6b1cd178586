"""Alter drawings by rule: fill, hollow, turn, put into a ring, add a badge; and undo each.

Drawings are [64, 64] uint8, 0 = paper, 255 = ink. Nothing here knows how two drawings are related.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from cig.benchmarks._icons.corpus import SIDE

STROKE = 4  # pixels
CORNER = 30  # pixels: the side of the corner that is wiped, at the bottom right, where most badges are
BADGE = 26  # pixels: the longer side of an added badge
GAP = 3  # pixels: the paper around a badge


def hollow(drawing: Tensor) -> Tensor:
    """Reduce filled shapes to their outline."""
    inside = -_pooled(-drawing.float(), 2 * STROKE + 1)
    return (drawing.float() - inside).to(torch.uint8)


def solid(drawing: Tensor) -> Tensor:
    """Fill what ink encloses: the paper that no path over paper connects to the border."""
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
    """Wipe the corner that may hold a badge, as nothing says where a badge is."""
    bare = drawing.clone()
    bare[-CORNER:, -CORNER:] = 0
    return bare


@dataclass(frozen=True)
class Badge:
    """Ink [64, 64] uint8 to lay over a drawing, and the room [64, 64] bool where the drawing gives way to it."""

    ink: Tensor
    room: Tensor


def badge_of(glyph: Tensor, gap: int = GAP) -> Badge:
    """Put a glyph [H, W] uint8 at the bottom right, with `gap` pixels of paper around it."""
    rest = SIDE - BADGE
    return _with_room(functional.pad(fitted(glyph, BADGE), (rest, 0, rest, 0)), gap)


def corner_of(drawing: Tensor, gap: int) -> Badge:
    """Cut out the corner that may hold a badge, whatever is in it."""
    return _with_room(drawing - wiped(drawing), gap)


def _with_room(ink: Tensor, gap: int) -> Badge:
    # The inside of an outlined badge belongs to it, so each row counts as ink from its first to its last.
    before, after = ink.cummax(1).values, ink.flip(1).cummax(1).values.flip(1)
    spanned = torch.minimum(before, after)
    return Badge(ink.to(torch.uint8), _pooled(spanned.float(), 2 * gap + 1) >= 128)


def badged(drawing: Tensor, badge: Badge) -> Tensor:
    """Lay a badge over a drawing."""
    return torch.where(badge.room, 0, drawing).maximum(badge.ink)


def fitted(drawing: Tensor, side: int) -> Tensor:
    """Scale a drawing to fit into the middle of [side, side]."""
    height, width = (max(1, round(length * side / max(drawing.shape))) for length in drawing.shape)
    top, left = (side - height) // 2, (side - width) // 2
    return functional.pad(_resized(drawing, height, width), (left, side - width - left, top, side - height - top))


def slashed(drawing: Tensor) -> Tensor:
    """Draw a line across, with paper along it."""
    distance = _from_diagonal()
    apart = torch.where(distance.abs() < 2 * STROKE, 0, drawing)
    on_line = (distance.abs() < STROKE / 2) & (_grid().abs().amax(0) < SIDE / 2 - STROKE)
    return torch.where(on_line, 255, apart).to(torch.uint8)


def unslashed(drawing: Tensor) -> Tensor:
    """Wipe the line across, and the paper along it."""
    return torch.where(_from_diagonal().abs() < 2 * STROKE, 0, drawing).to(torch.uint8)


def magnified(drawing: Tensor) -> Tensor:
    """Enlarge the middle until at most the corners of a ring are left."""
    edge = SIDE // 5
    return _resized(drawing[edge:-edge, edge:-edge], SIDE, SIDE)


def ringed(drawing: Tensor, name: str, filled: bool = False) -> Tensor:
    """Halve a drawing and put it into a shape of RINGS: within its line, or, if filled, cut out of it."""
    edge = SIDE // 4
    return _within(functional.pad(_resized(drawing, SIDE // 2, SIDE // 2), (edge, edge, edge, edge)), name, filled)


def reringed(drawing: Tensor, before: str, name: str, *, filled: bool = False) -> Tensor:
    """Exchange the ring of a drawing, and leave its middle as it is."""
    middle = RINGS[before](*_grid()) < SIDE / 2 - 2.5 * STROKE
    return _within(torch.where(middle, 255 - drawing if filled else drawing, 0), name, filled)


def _within(inner: Tensor, name: str, filled: bool) -> Tensor:
    distance = RINGS[name](*_grid()) - (SIDE / 2 - STROKE)
    if filled:
        return torch.where(distance < STROKE / 2, 255 - inner, 0).to(torch.uint8)
    on_line = distance.abs() < STROKE / 2
    if name.startswith("dashed"):
        on_line &= torch.atan2(*_grid()).mul(DASHES).cos() > -0.3
    return torch.where(on_line, 255, inner).to(torch.uint8)


def _round(rows: Tensor, columns: Tensor) -> Tensor:
    return (rows.square() + columns.square()).sqrt()


def _square(rows: Tensor, columns: Tensor) -> Tensor:
    return torch.maximum(rows.abs(), columns.abs())


RINGS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {  # rows and columns from the middle -> distance from it
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
TURNED = (  # direction -> direction after each of TURNS
    {"left": "right", "right": "left"},
    {"up": "down", "down": "up"},
    {"up": "left", "left": "down", "down": "right", "right": "up"},
    {"up": "right", "right": "down", "down": "left", "left": "up"},
)


def turns_of(direction: str) -> Sequence[int]:
    """List the turns that change a direction."""
    if " " in direction:
        return (0, 1)
    return (0, 2, 3) if direction in ("left", "right") else (1, 2, 3)


def turned(direction: str, turn: int) -> str:
    """Return the direction after one of its turns_of."""
    return " ".join(TURNED[turn].get(word, word) for word in direction.split())


def _grid() -> Tensor:
    """Return rows and columns from the middle: [2, 64, 64]."""
    line = torch.arange(SIDE) - (SIDE - 1) / 2
    return torch.stack(torch.meshgrid(line, line, indexing="ij"))


def _from_diagonal() -> Tensor:
    """Return the distance to the line from top left to bottom right, positive above it: [64, 64], in pixels."""
    rows, columns = _grid()
    return (columns - rows) / 2**0.5


def _pooled(values: Tensor, size: int | tuple[int, int]) -> Tensor:
    height, width = (size, size) if isinstance(size, int) else size
    return functional.max_pool2d(values[None], (height, width), 1, (height // 2, width // 2))[0]


def _resized(drawing: Tensor, height: int, width: int) -> Tensor:
    pixels = functional.interpolate(drawing[None, None].float(), size=(height, width), mode="bilinear", antialias=True)
    return pixels[0, 0].round().clamp(0, 255).to(torch.uint8)
