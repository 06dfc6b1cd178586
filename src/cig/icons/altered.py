"""Icons to draw from what they are not: the view is the drawing, altered by rule, and the caption asks for it back.

What separates a reference from its target in retrieval (a badge, a style, a direction, an enclosure), made from single
drawings: a corner is wiped or pasted over, an outline filled, a picture turned. For another object the view is any
other drawing, and the caption names the picture's object. Beside triplets.py, where both pictures are of one set and
differ in one thing: here nothing is known of how two drawings are related.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

import torch
from torch import Tensor
from torch.nn import functional

from cig.formats import digest
from cig.icons.captions import article, points, side_of
from cig.icons.corpus import SIDE, Icon
from cig.icons.pairs import viewed
from cig.icons.scenes import IconScenes
from cig.icons.triplets import FORMS

ALTERED = (2, 3)  # views, beside those of IconScenes
SHARE_INK = 0.25  # of altered views that are in another ink, too
CORNER = 30  # pixels: the side of what is wiped or pasted
SLASH = "slash"  # the one badge that lies across the drawing
SHARE_SLASH = 0.2  # of badges that are put on where none was
SHARE_BARE = 0.2  # of badges that are taken off, and none put in their place
STROKE = 4  # pixels
OF_OBJECTS = ("is {object}", "{object}")


@dataclass(frozen=True)
class Alteration:
    """What is done to a drawing.

    Attributes:
        kind: as in FORMS, or "object".
        put_on: the badge or enclosure that the view has and the picture has not; "" for none.
        other: the row of the drawing that lends its corner, or stands in the picture's place.
        turn: an index of TURNS.
    """

    kind: str
    put_on: str = ""
    other: int = 0
    turn: int = 0


class AlteredScenes(IconScenes):
    """IconScenes with two more views of each picture, altered independently of each other.

    Args:
        limit: the first so many pictures.
    """

    views = 4

    def __init__(self, limit: int | None = None) -> None:
        super().__init__(limit)
        ways = digest(repr([kinds_for(icon) for icon in self.icons]).encode())
        self.identity |= {"data": "icons/altered", "alterations": ways}
        self.badged = [row for row, icon in enumerate(self.icons) if icon.badge not in ("", SLASH)]

    def seen(self, places: Sequence[int], view: int, side: int, rng: Random) -> Tensor:
        if view not in ALTERED:
            return super().seen(places, view, side, rng)
        drawings = [self._altered(place, view) for place in places]
        return viewed(torch.stack(drawings), [self._seen_in(place, view) for place in places], side, rng)

    def _caption(self, place: int, view: int, rng: Random) -> str:
        if view not in ALTERED:
            return super()._caption(place, view, rng)
        said = [asking(self._alteration(place, view), self._icon(place), rng)]
        ink = self._inks(place)[0]
        if self._seen_in(place, view) != ink:
            said.insert(rng.randint(0, 1), rng.choice([f"is {ink}", f"in {ink}", f"is drawn in {ink}"]))
        return rng.choice([" and ", ", "]).join(said)

    def _altered(self, place: int, view: int) -> Tensor:
        drawing, own = self._drawings([place])[0], self._alteration(place, view)
        return apply(own, drawing, self.drawings[own.other], self._icon(place))

    def _alteration(self, place: int, view: int) -> Alteration:
        """The same whenever it is asked for."""
        rng = Random(f"alteration {view} of {place}")
        icon = self._icon(place)
        kind = rng.choices(*zip(*kinds_for(icon), strict=True))[0]
        if kind == "no badge":
            other = rng.choice(self.badged)
            return Alteration(kind, SLASH if rng.random() < SHARE_SLASH else self.icons[other].badge, other)
        if kind == "badge":
            other = rng.choice(self.badged)
            bare = rng.random() < SHARE_BARE or self.icons[other].badge == icon.badge
            return Alteration(kind, "" if bare else self.icons[other].badge, other)
        if kind == "no enclosure":
            return Alteration(kind, rng.choice(list(RINGS)))
        if kind in ("points", "side"):
            return Alteration(kind, turn=rng.choice(turns_of(icon.direction)))
        return Alteration(kind, other=rng.randrange(len(self.icons)) if kind == "object" else 0)

    def _seen_in(self, place: int, view: int) -> str:
        own, other = self._inks(place)
        return other if Random(f"ink {view} of {place}").random() < SHARE_INK else own

    def _icon(self, place: int) -> Icon:
        return self.icons[self.row(place)]


def kinds_for(icon: Icon) -> list[tuple[str, float]]:
    """What can be altered in it, and how often that is done; what few icons have, more often where it is there."""
    able = [("object", 1.0)]
    if icon.style in ("filled", "outlined"):
        able.append(("style", 1.5))
    if icon.direction:
        able.append(("points" if points(icon) else "side", 15.0))
    able.append(("badge", 9.0) if icon.badge else ("no badge", 2.0))
    able.append(("enclosure", 9.0) if icon.enclosure in RINGS else ("no enclosure", 0.7))
    return able


def asking(own: Alteration, icon: Icon, rng: Random) -> str:
    """What the picture has and the view has not, in one of training's forms; of a whole other drawing, the object."""
    words = {
        "style": icon.style,
        "badge": article(icon.badge),
        "direction": icon.direction,
        "side": side_of(icon.direction),
        "enclosure": article(icon.enclosure),
        "object": article(icon.object),
        "old_badge": own.put_on,
        "old_enclosure": own.put_on,
    }
    forms = OF_OBJECTS if own.kind == "object" else FORMS[own.kind]
    return rng.choice(forms).format_map(words)


def apply(own: Alteration, drawing: Tensor, other: Tensor, icon: Icon) -> Tensor:
    """[64, 64] uint8, 0 = paper -> the same, altered."""
    if own.kind == "object":
        return other
    if own.kind == "style":
        return hollow(drawing) if icon.style == "filled" else solid(drawing)
    if own.kind in ("points", "side"):
        return TURNS[own.turn](drawing)
    if own.kind == "enclosure":
        return magnified(drawing)
    if own.kind == "no enclosure":
        return RINGS[own.put_on](drawing)
    if own.kind == "badge":
        bare = unslashed(drawing) if icon.badge == SLASH else wiped(drawing)
        return pasted(bare, other) if own.put_on else bare
    return slashed(drawing) if own.put_on == SLASH else pasted(drawing, other)


def turns_of(direction: str) -> Sequence[int]:
    """Those that make it point elsewhere."""
    if " " in direction:
        return (0, 1)
    return (0, 2, 3) if direction in ("left", "right") else (1, 2, 3)


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
    """Without its bottom right: no other corner holds as many badges, if only a third of them."""
    bare = drawing.clone()
    bare[-CORNER:, -CORNER:] = 0
    return bare


def pasted(drawing: Tensor, other: Tensor) -> Tensor:
    """With another drawing's corner."""
    worn = drawing.clone()
    worn[-CORNER:, -CORNER:] = other[-CORNER:, -CORNER:]
    return worn


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
    return _resized(drawing[edge:-edge, edge:-edge], SIDE)


def circled(drawing: Tensor) -> Tensor:
    return _surrounded(drawing, _grid().square().sum(0).sqrt())


def boxed(drawing: Tensor) -> Tensor:
    return _surrounded(drawing, _grid().abs().amax(0))


RINGS: dict[str, Callable[[Tensor], Tensor]] = {"circle": circled, "square": boxed}
TURNS: tuple[Callable[[Tensor], Tensor], ...] = (
    lambda drawing: drawing.flip(1),
    lambda drawing: drawing.flip(0),
    lambda drawing: drawing.rot90(1),
    lambda drawing: drawing.rot90(-1),
)


def _surrounded(drawing: Tensor, distance: Tensor) -> Tensor:
    """Smaller, within a line at one distance from the middle."""
    inner = SIDE // 2
    edge = (SIDE - inner) // 2
    framed = functional.pad(_resized(drawing, inner), (edge, edge, edge, edge))
    radius = SIDE / 2 - STROKE
    return torch.where((distance - radius).abs() < STROKE / 2, 255, framed).to(torch.uint8)


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


def _resized(drawing: Tensor, side: int) -> Tensor:
    pixels = functional.interpolate(drawing[None, None].float(), size=(side, side), mode="bilinear", antialias=True)
    return pixels[0, 0].round().clamp(0, 255).to(torch.uint8)
