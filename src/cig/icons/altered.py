"""Icons to draw from what they are not: the view is the drawing, altered by rule, and the caption asks for it back.

What separates a reference from its target in retrieval (a badge, a style, a direction, an enclosure), made from single
drawings: a corner is wiped or pasted over, an outline filled, a picture turned. For another object the view is any
other drawing, and the caption says all that the picture is. Beside triplets.py, where both pictures are of one set and
differ in one thing: here nothing is known of how two drawings are related.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random

import torch
from torch import Tensor
from torch.nn import functional

from cig.formats import digest
from cig.icons.captions import article, distracted, points, side_of
from cig.icons.corpus import SIDE, Icon
from cig.icons.pairs import plain, viewed
from cig.icons.scenes import SAME_INK, IconScenes
from cig.icons.triplets import FORMS, INK

VIEWS = 3
SHARE_INK = 0.25  # of views that are in another ink, too
SHARE_TWO = 0.2  # of views that are altered twice
CORNER = 30  # pixels: the side of what is wiped or pasted
CORNERS = {"bottom right": 7, "top right": 3}  # and how often each
SLASH = "slash"  # the one badge that lies across the drawing
SHARE_SLASH = 0.2  # of badges that are put on where none was
SHARE_BARE = 0.3  # of badges that are taken off, and nothing put in their place
SHARE_PLAIN = 0.5  # of the others: what is put there is of a drawing without a badge
STROKE = 4  # pixels
OF_OBJECTS = ("is {object}", "{object}")


@dataclass(frozen=True)
class Alteration:
    """What is done to a drawing.

    Attributes:
        kind: as in FORMS, or "object".
        put_on: the badge or enclosure that the view has and the picture has not; "" for none.
        other: the row of the drawing that lends its corner, or stands in the picture's place; None for none.
        corner: of CORNERS.
        turn: an index of TURNS.
    """

    kind: str
    put_on: str = ""
    other: int | None = None
    corner: str = "bottom right"
    turn: int = 0


class AlteredScenes(IconScenes):
    """The drawings of IconScenes, each with views that are altered independently of each other.

    Args:
        limit: the first so many pictures.
    """

    views = VIEWS

    def __init__(self, limit: int | None = None) -> None:
        super().__init__(limit)
        self.badged = [row for row, icon in enumerate(self.icons) if icon.badge not in ("", SLASH)]
        self.bare = [row for row, icon in enumerate(self.icons) if not icon.badge]
        self.identity |= {"data": "icons/altered", "alterations": self._looks()}

    def seen(self, places: Sequence[int], view: int, side: int, rng: Random) -> Tensor:
        return viewed(self._altered(places, view), self._seen_in(places, view), side, rng)

    def references(self, places: Sequence[int], view: int, rng: Random) -> Tensor:
        return plain(self._altered(places, view), self._seen_in(places, view))

    def _caption(self, place: int, view: int, rng: Random) -> str:
        icon, ink = self._icon(place), self._inks(place)[SAME_INK]
        said = [clause for own in self._alterations(place, view) for clause in asking(own, icon, rng)]
        if self._seen_in([place], view) != [ink]:
            said.insert(rng.randint(0, len(said)), rng.choice(FORMS["ink"]).format(ink=ink))
        return distracted(rng.choice([" and ", ", "]).join(said), rng)

    def _altered(self, places: Sequence[int], view: int) -> Tensor:
        """[B, 64, 64] uint8"""
        return torch.stack([self._altered_one(place, view) for place in places])

    def _altered_one(self, place: int, view: int) -> Tensor:
        drawing = self._drawings([place])[0]
        for own in self._alterations(place, view):
            other = None if own.other is None else self.drawings[own.other]
            drawing = apply(own, drawing, other, self._icon(place))
        return drawing

    def _alterations(self, place: int, view: int) -> list[Alteration]:
        """One or two, or none where the ink alone differs; the same whenever they are asked for."""
        rng = Random(f"alterations {view} of {place}")
        icon = self._icon(place)
        kinds = dict(kinds_for(icon))
        kind = _one_of(kinds, rng)
        if kind == INK:
            return []
        drawn = [self._alteration(kind, icon, rng)]
        others = {name: weight for name, weight in kinds.items() if name not in (kind, INK, "object")}
        if kind != "object" and others and rng.random() < SHARE_TWO:
            drawn.append(self._alteration(_one_of(others, rng), icon, rng))
        return drawn

    def _alteration(self, kind: str, icon: Icon, rng: Random) -> Alteration:
        corner = _one_of(CORNERS, rng)
        if kind == "no badge":
            if rng.random() < SHARE_SLASH and not _said_of(SLASH, icon):
                return Alteration(kind, SLASH)
            other = self._badged(icon, rng)
            return Alteration(kind, self.icons[other].badge, other, corner)
        if kind == "badge":
            if icon.badge == SLASH or rng.random() < SHARE_BARE:
                return Alteration(kind, corner=corner)
            other = rng.choice(self.bare) if rng.random() < SHARE_PLAIN else self._badged(icon, rng)
            return Alteration(kind, self.icons[other].badge, other, corner)
        if kind == "enclosure":
            others = ["", *(ring for ring in RINGS if ring != icon.enclosure)]
            return Alteration(kind, rng.choice(others))
        if kind == "no enclosure":
            return Alteration(kind, rng.choice([ring for ring in RINGS if not _said_of(ring, icon)]))
        if kind in ("points", "side"):
            return Alteration(kind, turn=rng.choice(turns_of(icon.direction)))
        return Alteration(kind, other=rng.randrange(len(self.icons)) if kind == "object" else None)

    def _badged(self, icon: Icon, rng: Random) -> int:
        """The row of a drawing whose badge the icon's name says nothing of."""
        while _said_of(self.icons[row := rng.choice(self.badged)].badge, icon):
            pass
        return row

    def _seen_in(self, places: Sequence[int], view: int) -> list[str]:
        return [self._ink(place, view) for place in places]

    def _ink(self, place: int, view: int) -> str:
        own, other = self._inks(place)
        differs = not self._alterations(place, view) or Random(f"ink {view} of {place}").random() < SHARE_INK
        return other if differs else own

    def _icon(self, place: int) -> Icon:
        return self.icons[self.row(place)]

    def _looks(self) -> str:
        """A digest of what the first views look like, and of what can be altered in each drawing."""
        places = range(min(len(self), 64))
        looks = b"".join(self._altered(places, view).numpy().tobytes() for view in range(self.views))
        return digest(looks + repr([kinds_for(icon) for icon in self.icons]).encode())


def kinds_for(icon: Icon) -> list[tuple[str, float]]:
    """What can be altered in it, and how often that is done; what few icons have, more often where it is there."""
    able = [("object", 0.7), (INK, 1.0)]
    if icon.style in ("filled", "outlined"):
        able.append(("style", 1.5))
    if icon.direction:
        able.append(("points" if points(icon) else "side", 15.0))
    able.append(("badge", 12.0) if icon.badge else ("no badge", 2.0))
    if icon.enclosure in RINGS:
        able.append(("enclosure", 9.0))
    elif not icon.enclosure and not all(_said_of(ring, icon) for ring in RINGS):
        able.append(("no enclosure", 0.7))
    return able


def asking(own: Alteration, icon: Icon, rng: Random) -> list[str]:
    """What the picture has and the view has not, in training's forms; of a whole other drawing, all that it is."""
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
    kinds = ["object", *_attributes(icon)] if own.kind == "object" else [own.kind]
    return [rng.choice(OF_OBJECTS if kind == "object" else FORMS[kind]).format_map(words) for kind in kinds]


def _attributes(icon: Icon) -> list[str]:
    """Kinds of FORMS that can be said of it."""
    direction = "points" if points(icon) else "side"
    has = {"style": icon.style, "badge": icon.badge, direction: icon.direction, "enclosure": icon.enclosure}
    return [kind for kind, value in has.items() if value]


def _said_of(name: str, icon: Icon) -> bool:
    """Whether a badge or an enclosure of this name, or something like it, may be in the drawing already."""
    return bool(set(name.split()) & set(" ".join([icon.object, icon.badge, icon.enclosure]).split()))


def _one_of(weights: Mapping[str, float], rng: Random) -> str:
    return rng.choices(list(weights), list(weights.values()))[0]


def apply(own: Alteration, drawing: Tensor, other: Tensor | None, icon: Icon) -> Tensor:
    """[64, 64] uint8, 0 = paper -> the same, altered; `other` is the drawing that the alteration names."""
    if own.kind == "object" and other is not None:
        return other
    if own.kind == "style":
        return hollow(drawing) if icon.style == "filled" else solid(drawing)
    if own.kind in ("points", "side"):
        return TURNS[own.turn](drawing)
    if own.kind == "enclosure":
        freed = magnified(drawing)
        return RINGS[own.put_on](freed) if own.put_on else freed
    if own.kind == "no enclosure":
        return RINGS[own.put_on](drawing)
    if SLASH in (own.put_on, icon.badge):
        return slashed(drawing) if own.put_on else unslashed(drawing)
    return wiped(drawing, own.corner) if other is None else pasted(drawing, other, own.corner)


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


def wiped(drawing: Tensor, corner: str) -> Tensor:
    """Without a corner, in which a badge may lie: nothing tells where."""
    bare = drawing.clone()
    bare[_within(corner)] = 0
    return bare


def pasted(drawing: Tensor, other: Tensor, corner: str) -> Tensor:
    """With another drawing's corner."""
    worn, within = drawing.clone(), _within(corner)
    worn[within] = other[within]
    return worn


def _within(corner: str) -> tuple[slice, slice]:
    near, far = slice(None, CORNER), slice(-CORNER, None)
    return far if "bottom" in corner else near, far if "right" in corner else near


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
