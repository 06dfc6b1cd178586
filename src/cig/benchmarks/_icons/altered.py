"""Icons to draw from altered views: the view is the drawing, altered by rule, and the caption asks for it back.

Alterations are what separates references from targets in retrieval (badge, style, direction, enclosure), made from
single drawings of icons/train or derived.py, without triplets: nothing says how two drawings by a designer are related.
For another object, the view is any other drawing, and the caption describes the whole picture.
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
from cig.benchmarks._icons.derived import (
    SLASH,
    badged_as,
    badges_for,
    derive_icons,
    is_mentioned,
    ringed_as,
    rings_for,
)
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
SHARE_SLASH = 0.2  # of badges added to a drawing without one
SHARE_BARE = 0.5  # of removed badges and rings that nothing replaces
SHARE_CORNERS = 0.6  # of added badges that are a designer's, with their corner
WIDEST = 9  # pixels: the widest paper around an added badge
OWN_FORMS = {
    **FORMS,
    "object": ("is {object}", "{object}"),
    "ink": (*2 * FORMS["ink"], "has a {ink} tone"),  # "has a" is not of badges alone
    "style": (*3 * FORMS["style"], "{style}, not {old_style}", "is not {old_style}, is {style}"),
}
# The order in which no alteration undoes an earlier one.
IN_TURN = ("object", "style", "enclosure", "no enclosure", "badge", "no badge", "points", "side")


@dataclass(frozen=True)
class Alteration:
    """One change of a drawing.

    Attributes:
        kind: of IN_TURN, as in FORMS.
        put_on: the badge or enclosure that the view has and the picture has not; "" for none.
        other: the row of the drawing that replaces the picture, or whose corner is the badge; None for none.
        gap: pixels of paper around the badge.
        turn: an index of TURNS.
    """

    kind: str
    put_on: str = ""
    other: int | None = None
    gap: int = GAP
    turn: int = 0


class AlteredScenes(IconScenes):
    """The drawings of IconScenes and derived ones, each with views that are altered independently of each other.

    Args:
        limit: how many pictures, from the first.
    """

    # Everything about a picture and view is drawn from seeds made of their numbers, so nothing is stored: the same
    # alterations come out for the view, its caption and its ink, in any process. Altering is slow, and a latent cache
    # needs a view three times (two CLIPs and the VAE), so the latest batch is kept.

    views = VIEWS

    def __init__(self, limit: int | None = None) -> None:
        super().__init__(limit)
        self.wearing: dict[str, list[int]] = defaultdict(list)  # badge -> rows of designers' drawings
        for row, icon in enumerate(self.icons):
            if icon not in self.before:
                self.wearing[icon.badge].append(row)
        self._latest = lru_cache(maxsize=1)(self._altered)
        self.identity |= {"data": "icons/altered", "alterations": self._views_digest()}

    def _corpus(self) -> tuple[Sequence[Icon], Tensor]:
        icons, drawings = super()._corpus()
        derived = [*derive_icons(icons, drawings)]
        # What is turned may have a designer's badge or ring: only what was added can be taken off exactly.
        self.before = {
            one.icon: drawings[one.origin]
            for one in derived
            if (one.icon.badge, one.icon.enclosure) != (icons[one.origin].badge, icons[one.origin].enclosure)
        }
        return [*icons, *(one.icon for one in derived)], torch.cat([drawings, *(one.drawing[None] for one in derived)])

    def _views(self, indices: Sequence[int], view: int) -> tuple[Tensor, list[str]]:
        return self._latest(tuple(indices), view), [self._ink(index, view) for index in indices]

    def _caption(self, index: int, view: int, rng: Random) -> str:
        icon, ink = self._icon(index), self._inks(index)[SAME_INK]
        said = [clause for change in self._alterations(index, view) for clause in change_clauses(change, icon, rng)]
        rng.shuffle(said)
        if self._ink(index, view) != ink:
            said.insert(rng.randint(0, len(said)), rng.choice(OWN_FORMS["ink"]).format(ink=ink))
        return distracted(rng.choice([" and ", ", "]).join(said), rng)

    def _altered(self, indices: Sequence[int], view: int) -> Tensor:
        """Return the altered drawings: [B, 64, 64] uint8."""
        return torch.stack([self._altered_one(index, view) for index in indices])

    def _altered_one(self, index: int, view: int) -> Tensor:
        icon, drawing, before = self._icon(index), self.drawings[self.row(index)], self._before(index)
        changes = self._alterations(index, view)
        added = "badge" if icon.badge else "enclosure"
        if before is not None and added in (change.kind for change in changes):
            icon, drawing = replace(icon, **{added: ""}), before
        for change in changes:
            drawing = self._apply(change, icon, drawing)
        return drawing

    def _apply(self, change: Alteration, icon: Icon, drawing: Tensor) -> Tensor:
        """Alter a drawing [64, 64] uint8; only what the icon's name mentions is taken off."""
        filled = icon.style == "filled"
        if change.kind == "object" and change.other is not None:
            return self.drawings[change.other]
        if change.kind == "style":
            return hollow(drawing) if filled else solid(drawing)
        if change.kind in ("points", "side"):
            return TURNS[change.turn](drawing)
        if change.kind in ("enclosure", "no enclosure"):
            if icon.enclosure and change.put_on:
                return reringed(drawing, icon.enclosure, change.put_on, filled=filled)
            if icon.enclosure:
                return magnified(drawing)
            return ringed_as(icon, drawing, change.put_on) if change.put_on else drawing
        if icon.badge:
            drawing = unslashed(drawing) if icon.badge == SLASH else wiped(drawing)
        if change.put_on == SLASH:
            return slashed(drawing)
        if change.other is not None:
            return badged(drawing, corner_of(self.drawings[change.other], change.gap))
        return badged_as(drawing, change.put_on, change.gap) if change.put_on else drawing

    def _before(self, index: int) -> Tensor | None:
        """Return the drawing [64, 64] uint8 before a badge or ring was added by rule; None if none was."""
        return self.before.get(self._icon(index))

    def _alterations(self, index: int, view: int) -> list[Alteration]:
        """Draw one or two alterations, or none where the ink alone differs; the same at every call."""
        rng = Random(f"alterations {view} of {index}")
        icon = self._icon(index)
        kinds = dict(kinds_for(icon, self._before(index) is not None))
        drawn = [_draw_kind(kinds, rng)]
        if drawn == [INK]:
            return []
        others = {name: weight for name, weight in kinds.items() if name not in (*drawn, INK, "object")}
        if drawn != ["object"] and others and rng.random() < SHARE_TWO:
            drawn.append(_draw_kind(others, rng))
        return [self._alteration(kind, icon, rng) for kind in sorted(drawn, key=IN_TURN.index)]

    def _alteration(self, kind: str, icon: Icon, rng: Random) -> Alteration:
        if kind == "object":
            return Alteration(kind, other=rng.randrange(len(self.icons)))
        if kind in ("points", "side"):
            return Alteration(kind, turn=rng.choice(turns_of(icon.direction)))
        if kind == "no badge" and rng.random() < SHARE_SLASH and not is_mentioned(SLASH, icon):
            return Alteration(kind, SLASH)
        if kind == "no badge" or (kind == "badge" and icon.badge != SLASH and rng.random() > SHARE_BARE):
            name, gap = rng.choice(badges_for(icon)), rng.randint(GAP, WIDEST)
            donors = self.wearing[name] if rng.random() < SHARE_CORNERS else []
            return Alteration(kind, name, other=rng.choice(donors) if donors else None, gap=gap)
        if kind == "no enclosure" or (kind == "enclosure" and rng.random() > SHARE_BARE):
            return Alteration(kind, rng.choice(rings_for(icon)))
        return Alteration(kind)

    def _ink(self, index: int, view: int) -> str:
        """Return the ink of a view."""
        same, other = self._inks(index)
        differs = not self._alterations(index, view) or Random(f"ink {view} of {index}").random() < SHARE_INK
        return other if differs else same

    def _icon(self, index: int) -> Icon:
        return self.icons[self.row(index)]

    def _views_digest(self) -> str:
        """Compute a digest of the first views, their inks, and the kinds of alterations of each drawing.

        It is part of the identity, so that latents cached before a change of the drawing code are not used after it.
        """
        indices = range(min(len(self), 64))
        shown = b"".join(self._altered(indices, view).numpy().tobytes() for view in range(self.views))
        inks = [[self._ink(index, view) for index in indices] for view in range(self.views)]
        return digest(shown + repr((inks, [kinds_for(icon) for icon in self.icons])).encode())


def kinds_for(icon: Icon, derived: bool = False) -> list[tuple[str, float]]:
    """List the kinds of alterations of an icon, with their weights; derived: it has a badge or ring added by rule.

    An added badge comes off exactly, so often; a designer's seldom, as its place is unknown and the corner is wiped.
    """
    able = [("object", 0.2), (INK, 1.0)]
    if icon.style in ("filled", "outlined"):
        able.append(("style", 1.5))
    if icon.direction:
        able.append(("points" if points(icon) else "side", 4.0))
    able.append(("badge", 12.0 if derived else 1.5) if icon.badge else ("no badge", 2.5))
    if icon.enclosure in RINGS:
        able.append(("enclosure", 9.0))
    elif not icon.enclosure and rings_for(icon):
        able.append(("no enclosure", 0.3))
    return able


def change_clauses(change: Alteration, icon: Icon, rng: Random) -> list[str]:
    """Say what the picture has and the view has not, in training's forms; all that it is, if the view is another."""
    direction = "points" if points(icon) else "side"
    words = {
        "style": icon.style,
        "old_style": "outlined" if icon.style == "filled" else "filled",
        "badge": article(icon.badge),
        "direction": icon.direction,
        "side": side_of(icon.direction),
        "enclosure": article(icon.enclosure),
        "object": article(icon.object),
        "old_badge": change.put_on,
        "old_enclosure": change.put_on,
    }
    kinds = [change.kind]
    if change.kind == "object":
        has = {"style": icon.style, "badge": icon.badge, direction: icon.direction, "enclosure": icon.enclosure}
        kinds += [kind for kind, value in has.items() if value]
    return [rng.choice(OWN_FORMS[kind]).format_map(words) for kind in kinds]


def _draw_kind(weights: Mapping[str, float], rng: Random) -> str:
    return rng.choices(list(weights), list(weights.values()))[0]
