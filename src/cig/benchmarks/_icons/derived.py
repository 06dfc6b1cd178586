"""Drawings derived by rule from those of icons/train: with a badge, in a ring, turned. The original of each is known.

So their badges and rings can be taken off exactly, where a designer's badge leaves a wiped corner.
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

BADGED, RINGED = 23_000, 6_000  # the largest number of derived drawings of each kind
SLASH = "slash"  # the one badge that crosses the whole drawing


@dataclass(frozen=True)
class DerivedIcon:
    """A drawing [64, 64] uint8, what it shows, and the row of its original."""

    icon: Icon
    drawing: Tensor
    origin: int


def derive_icons(icons: Sequence[Icon], drawings: Tensor) -> Iterator[DerivedIcon]:
    """Derive drawings at random, the same at every call."""
    rng = Random("made by rule")
    bare = [row for row, icon in enumerate(icons) if not (icon.badge or icon.enclosure)]
    for row in rng.sample(bare, min(BADGED, len(bare))):
        name = rng.choice(badges_for(icons[row]))
        yield DerivedIcon(_another(icons[row], badge=name), badged_as(drawings[row], name), row)
    for row in rng.sample(bare, min(RINGED, len(bare))):
        if rings := rings_for(icons[row]):
            name = rng.choice(rings)
            yield DerivedIcon(_another(icons[row], enclosure=name), ringed_as(icons[row], drawings[row], name), row)
    for row, icon in enumerate(icons):
        if icon.direction:
            for turn in turns_of(icon.direction):
                yield DerivedIcon(
                    _another(icon, direction=turned(icon.direction, turn)), TURNS[turn](drawings[row]), row
                )


def _another(icon: Icon, **changed: str) -> Icon:
    return replace(icon, name="+".join([icon.name, *changed.values()]), **changed)


def badges_for(icon: Icon) -> list[str]:
    """List the badges that can be added: the icon neither has them nor shows them."""
    return [name for name in SIGNS if not is_mentioned(name, icon)]


def badged_as(drawing: Tensor, name: str, gap: int = GAP) -> Tensor:
    """Add the badge of a name, which always looks the same, so that it can be learnt."""
    return badged(drawing, _badge(name, gap))


@cache
def _badge(name: str, gap: int) -> Badge:
    return badge_of(sign(name), gap)


def rings_for(icon: Icon) -> list[str]:
    """List the rings that can be added: the icon is in none like it, and a filled ring has no dashes."""
    filled = icon.style == "filled"
    return [name for name in RINGS if not is_mentioned(name, icon) and not (filled and name.startswith("dashed"))]


def ringed_as(icon: Icon, drawing: Tensor, name: str) -> Tensor:
    """Put a drawing into a ring of the icon's style."""
    return ringed(drawing, name, icon.style == "filled")


def is_mentioned(name: str, icon: Icon) -> bool:
    """Tell whether the drawing may show a badge or an enclosure of this name, or something like it, already."""
    return bool(set(name.split()) & set(" ".join([icon.object, icon.badge, icon.enclosure]).split()))
