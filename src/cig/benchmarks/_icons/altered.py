"""Icons to draw from what they are not: the view is the drawing, altered by rule, and the caption asks for it back.

What separates a reference from its target in retrieval (a badge, a style, a direction, an enclosure), made from single
drawings: an outline filled, a badge put on, a corner wiped, a picture turned. What is drawn is of icons/train, or made
from it by rule (made.py). For another object the view is any other drawing, and the caption says all that the picture
is. Beside triplets.py, where both pictures are of one set and differ in one thing: here nothing is known of how two
drawings by a designer are related.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from random import Random

import torch
from torch import Tensor

from cig.benchmarks._icons.captions import article, distracted, points, side_of
from cig.benchmarks._icons.corpus import Icon
from cig.benchmarks._icons.derived import SLASH, badged_as, badges_for, made, ringed_as, rings_for, said_of
from cig.benchmarks._icons.pairs import plain, viewed
from cig.benchmarks._icons.rules import (
    GAP,
    RINGS,
    TURNS,
    badged,
    corner_of,
    hollow,
    magnified,
    reringed,
    slashed,
    solid,
    turns_of,
    unslashed,
    wiped,
)
from cig.benchmarks._icons.scenes import SAME_INK, IconScenes
from cig.benchmarks._icons.triplets import FORMS, INK
from cig.io.digests import digest

VIEWS = 3
SHARE_INK = 0.25  # of views that are in another ink, too
SHARE_TWO = 0.2  # of views that are altered twice
SHARE_SLASH = 0.2  # of badges that are put on where none was
SHARE_BARE = 0.5  # of badges and rings that are taken off, and nothing put in their place
SHARE_CORNERS = 0.6  # of badges that are put on which are a designer's, with the corner that they lie in
WIDEST = 9  # pixels of paper around a badge that is put on, at most
OWN_FORMS = {
    **FORMS,
    "object": ("is {object}", "{object}"),
    "ink": (*2 * FORMS["ink"], "has a {ink} tone"),  # "has a" is not of badges alone
    "style": (*3 * FORMS["style"], "{style}, not {old_style}", "is not {old_style}, is {style}"),
}
# In this order none undoes one before it.
IN_TURN = ("object", "style", "enclosure", "no enclosure", "badge", "no badge", "points", "side")


@dataclass(frozen=True)
class Alteration:
    """What is done to a drawing.

    Attributes:
        kind: of IN_TURN, as in FORMS.
        put_on: the badge or enclosure that the view has and the picture has not; "" for none.
        other: the row of the drawing that stands in the picture's place, or whose corner is the badge; None for none.
        gap: pixels of paper around the badge.
        turn: an index of TURNS.
    """

    kind: str
    put_on: str = ""
    other: int | None = None
    gap: int = GAP
    turn: int = 0


class AlteredScenes(IconScenes):
    """The drawings of IconScenes and some made from them, each with views that are altered independently of each other.

    Args:
        limit: the first so many pictures.
    """

    views = VIEWS

    def __init__(self, limit: int | None = None) -> None:
        super().__init__(limit)
        self.wearing: dict[str, list[int]] = defaultdict(list)  # rows of designers' drawings, by their badge
        for row, icon in enumerate(self.icons):
            if icon not in self.before:
                self.wearing[icon.badge].append(row)
        self._latest = lru_cache(maxsize=1)(self._drawn)  # a shelf asks for a view three times: two CLIPs and the VAE
        self.identity |= {"data": "icons/altered", "alterations": self._looks()}

    def _corpus(self) -> tuple[Sequence[Icon], Tensor]:
        icons, drawings = super()._corpus()
        more = [*made(icons, drawings)]
        self.before = {own.icon: drawings[own.origin] for own in more if _put_on(own.icon, icons[own.origin])}
        return [*icons, *(own.icon for own in more)], torch.cat([drawings, *(own.drawing[None] for own in more)])

    def seen(self, places: Sequence[int], view: int, side: int, rng: Random) -> Tensor:
        return viewed(self._altered(places, view), self._seen_in(places, view), side, rng)

    def references(self, places: Sequence[int], view: int, rng: Random) -> Tensor:
        return plain(self._altered(places, view), self._seen_in(places, view))

    def _caption(self, place: int, view: int, rng: Random) -> str:
        icon, ink = self._icon(place), self._inks(place)[SAME_INK]
        said = [clause for own in self._alterations(place, view) for clause in asking(own, icon, rng)]
        rng.shuffle(said)
        if self._seen_in([place], view) != [ink]:
            said.insert(rng.randint(0, len(said)), rng.choice(OWN_FORMS["ink"]).format(ink=ink))
        return distracted(rng.choice([" and ", ", "]).join(said), rng)

    def _altered(self, places: Sequence[int], view: int) -> Tensor:
        """[B, 64, 64] uint8"""
        return self._latest(tuple(places), view)

    def _drawn(self, places: Sequence[int], view: int) -> Tensor:
        return torch.stack([self._altered_one(place, view) for place in places])

    def _altered_one(self, place: int, view: int) -> Tensor:
        icon, drawing, before = self._icon(place), self._drawings([place])[0], self._before(place)
        drawn = self._alterations(place, view)
        undone = "badge" if icon.badge else "enclosure"
        if before is not None and undone in (own.kind for own in drawn):
            icon, drawing = replace(icon, **{undone: ""}), before
        for own in drawn:
            drawing = self._apply(own, icon, drawing)
        return drawing

    def _apply(self, own: Alteration, icon: Icon, drawing: Tensor) -> Tensor:
        """[64, 64] uint8 -> the same, altered; what the icon's name has no word of is not there to be taken off."""
        if own.kind == "object" and own.other is not None:
            return self.drawings[own.other]
        if own.kind == "style":
            return hollow(drawing) if icon.style == "filled" else solid(drawing)
        if own.kind in ("points", "side"):
            return TURNS[own.turn](drawing)
        if own.kind in ("enclosure", "no enclosure"):
            if icon.enclosure and own.put_on:
                return reringed(drawing, icon.enclosure, own.put_on, icon.style == "filled")
            if icon.enclosure:
                return magnified(drawing)
            return ringed_as(icon, drawing, own.put_on) if own.put_on else drawing
        if icon.badge:
            drawing = unslashed(drawing) if icon.badge == SLASH else wiped(drawing)
        if own.put_on == SLASH:
            return slashed(drawing)
        if own.other is not None:
            return badged(drawing, corner_of(self.drawings[own.other], own.gap))
        return badged_as(drawing, own.put_on, own.gap) if own.put_on else drawing

    def _before(self, place: int) -> Tensor | None:
        """[64, 64] uint8: what the drawing was made from by putting a badge or a ring on it; None for a designer's."""
        return self.before.get(self._icon(place))

    def _alterations(self, place: int, view: int) -> list[Alteration]:
        """One or two, or none where the ink alone differs; the same whenever they are asked for."""
        rng = Random(f"alterations {view} of {place}")
        icon = self._icon(place)
        kinds = dict(kinds_for(icon, self._before(place) is not None))
        drawn = [_one_of(kinds, rng)]
        if drawn == [INK]:
            return []
        others = {name: weight for name, weight in kinds.items() if name not in (*drawn, INK, "object")}
        if drawn != ["object"] and others and rng.random() < SHARE_TWO:
            drawn.append(_one_of(others, rng))
        return [self._alteration(kind, icon, rng) for kind in sorted(drawn, key=IN_TURN.index)]

    def _alteration(self, kind: str, icon: Icon, rng: Random) -> Alteration:
        if kind == "object":
            return Alteration(kind, other=rng.randrange(len(self.icons)))
        if kind in ("points", "side"):
            return Alteration(kind, turn=rng.choice(turns_of(icon.direction)))
        if kind == "no badge" and rng.random() < SHARE_SLASH and not said_of(SLASH, icon):
            return Alteration(kind, SLASH)
        if kind == "no badge" or (kind == "badge" and icon.badge != SLASH and rng.random() > SHARE_BARE):
            name, gap = rng.choice(badges_for(icon)), rng.randint(GAP, WIDEST)
            donors = self.wearing[name] if rng.random() < SHARE_CORNERS else []
            return Alteration(kind, name, rng.choice(donors) if donors else None, gap)
        if kind == "no enclosure" or (kind == "enclosure" and rng.random() > SHARE_BARE):
            return Alteration(kind, rng.choice(rings_for(icon)))
        return Alteration(kind)

    def _seen_in(self, places: Sequence[int], view: int) -> list[str]:
        return [self._ink(place, view) for place in places]

    def _ink(self, place: int, view: int) -> str:
        own, other = self._inks(place)
        differs = not self._alterations(place, view) or Random(f"ink {view} of {place}").random() < SHARE_INK
        return other if differs else own

    def _icon(self, place: int) -> Icon:
        return self.icons[self.row(place)]

    def _looks(self) -> str:
        """A digest of what the first views look like, in their inks, and of what can be altered in each drawing."""
        places = range(min(len(self), 64))
        looks = b"".join(self._altered(places, view).numpy().tobytes() for view in range(self.views))
        inks = [self._seen_in(places, view) for view in range(self.views)]
        return digest(looks + repr((inks, [kinds_for(icon) for icon in self.icons])).encode())


def _put_on(icon: Icon, origin: Icon) -> bool:
    """Whether it was made by putting a badge or a ring on it: what is turned may have one of its own."""
    return (icon.badge, icon.enclosure) != (origin.badge, origin.enclosure)


def kinds_for(icon: Icon, made: bool = False) -> list[tuple[str, float]]:
    """What can be altered in it, and how often that is done; what was made on it, most of the time.

    A designer's badge, which each draws otherwise and nobody knows where, seldom: of it the corner is wiped.
    """
    able = [("object", 0.2), (INK, 1.0)]
    if icon.style in ("filled", "outlined"):
        able.append(("style", 1.5))
    if icon.direction:
        able.append(("points" if points(icon) else "side", 4.0))
    able.append(("badge", 12.0 if made else 1.5) if icon.badge else ("no badge", 2.5))
    if icon.enclosure in RINGS:
        able.append(("enclosure", 9.0))
    elif not icon.enclosure and rings_for(icon):
        able.append(("no enclosure", 0.3))
    return able


def asking(own: Alteration, icon: Icon, rng: Random) -> list[str]:
    """What the picture has and the view has not, in training's forms; of a whole other drawing, all that it is."""
    words = {
        "style": icon.style,
        "old_style": "outlined" if icon.style == "filled" else "filled",
        "badge": article(icon.badge),
        "direction": icon.direction,
        "side": side_of(icon.direction),
        "enclosure": article(icon.enclosure),
        "object": article(icon.object),
        "old_badge": own.put_on,
        "old_enclosure": own.put_on,
    }
    kinds = ["object", *_attributes(icon)] if own.kind == "object" else [own.kind]
    return [rng.choice(OWN_FORMS[kind]).format_map(words) for kind in kinds]


def _attributes(icon: Icon) -> list[str]:
    """Kinds of FORMS that can be said of it."""
    direction = "points" if points(icon) else "side"
    has = {"style": icon.style, "badge": icon.badge, direction: icon.direction, "enclosure": icon.enclosure}
    return [kind for kind, value in has.items() if value]


def _one_of(weights: Mapping[str, float], rng: Random) -> str:
    return rng.choices(list(weights), list(weights.values()))[0]
