"""Drawings made by rule from those of icons/train: with a badge, in a ring, turned. What one was made from is known.

So there are badges and rings of which the reference without them is at hand, and not a wiped corner.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from random import Random

from torch import Tensor

from cig.benchmarks._icons.corpus import Icon
from cig.benchmarks._icons.glyphs import SIGNS, sign
from cig.benchmarks._icons.rules import GAP, RINGS, TURNS, Badge, badge_of, badged, ringed, turned, turns_of

BADGED, RINGED = 23_000, 6_000  # drawings that are made of each kind, at most
SLASH = "slash"  # the one badge that lies across the drawing


@dataclass(frozen=True)
class Made:
    """A drawing [64, 64] uint8, what it is, and the row of what it was made from."""

    icon: Icon
    drawing: Tensor
    origin: int


def made(icons: Sequence[Icon], drawings: Tensor) -> Iterator[Made]:
    """Chosen at random, and always the same."""
    rng = Random("made by rule")
    bare = [row for row, icon in enumerate(icons) if not (icon.badge or icon.enclosure)]
    for row in rng.sample(bare, min(BADGED, len(bare))):
        name = rng.choice(badges_for(icons[row]))
        yield Made(_another(icons[row], badge=name), badged_as(drawings[row], name), row)
    for row in rng.sample(bare, min(RINGED, len(bare))):
        if rings := rings_for(icons[row]):
            name = rng.choice(rings)
            yield Made(_another(icons[row], enclosure=name), ringed_as(icons[row], drawings[row], name), row)
    for row, icon in enumerate(icons):
        if icon.direction:
            for turn in turns_of(icon.direction):
                yield Made(_another(icon, direction=turned(icon.direction, turn)), TURNS[turn](drawings[row]), row)


def _another(icon: Icon, **changed: str) -> Icon:
    return replace(icon, name="+".join([icon.name, *changed.values()]), **changed)


def badges_for(icon: Icon) -> list[str]:
    """Those that can be put on it: it has none of them, and is none."""
    return [name for name in SIGNS if not said_of(name, icon)]


def badged_as(drawing: Tensor, name: str, gap: int = GAP) -> Tensor:
    """With a badge of this name: one look for each, that can be learnt."""
    return badged(drawing, _badge(name, gap))


@cache
def _badge(name: str, gap: int) -> Badge:
    return badge_of(sign(name), gap)


def rings_for(icon: Icon) -> list[str]:
    """Those that it can be put in: it is in none of them, and what is filled has no dashes."""
    filled = icon.style == "filled"
    return [name for name in RINGS if not said_of(name, icon) and not (filled and name.startswith("dashed"))]


def ringed_as(icon: Icon, drawing: Tensor, name: str) -> Tensor:
    """In a ring of the icon's style."""
    return ringed(drawing, name, icon.style == "filled")


def said_of(name: str, icon: Icon) -> bool:
    """Whether a badge or an enclosure of this name, or something like it, may be in the drawing already."""
    return bool(set(name.split()) & set(" ".join([icon.object, icon.badge, icon.enclosure]).split()))
