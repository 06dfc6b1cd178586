"""Icons as triplets: a reference, what changes, and the target, both of one set; the view is the reference.

For what is trained with triplets, beside what is trained without (scenes.py). Captions are in training's forms.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import permutations
from random import Random

import torch
from torch import Tensor

from cig.benchmarks._icons.captions import article, points, side_of
from cig.benchmarks._icons.corpus import INKS, Icon, picture_name, read_split
from cig.benchmarks._icons.pairs import SIDE, plain, uncropped, viewed
from cig.io.digests import digest

ATTRIBUTES = ("badge", "enclosure", "direction", "style")
INK = "ink"
FROM_ONE = 4  # triplets of one reference and one kind of change, at most
FORMS = {
    "ink": ("is {ink}", "in {ink}", "is drawn in {ink}"),
    "style": ("is {style}", "{style}"),
    "badge": ("has {badge} badge", "with {badge} badge", "with {badge}"),
    "no badge": ("has no {old_badge} badge", "without the {old_badge}"),
    "points": ("points {direction}", "pointing {direction}"),
    "side": ("is on the {side}", "on the {side}"),
    "enclosure": ("is in {enclosure}", "inside {enclosure}"),
    "no enclosure": ("is not in the {old_enclosure}", "without the {old_enclosure}"),
}


@dataclass(frozen=True)
class Triplet:
    """Two places in the corpus that differ in one attribute, or one place twice, in two inks."""

    reference: int
    target: int
    change: str


class IconTriplets:
    """The training split's triplets, in a random order.

    Args:
        limit: the first so many.
    """

    views, side = 1, SIDE

    def __init__(self, limit: int | None = None) -> None:
        self.icons, drawings = read_split("train")
        rng = Random("triplets")
        triplets = [*differing(self.icons, rng), *(Triplet(place, place, INK) for place in range(len(self.icons)))]
        rng.shuffle(triplets)
        self.triplets, self.drawings = triplets[:limit], torch.from_numpy(drawings)
        content = digest(drawings.tobytes() + repr((self.icons, FROM_ONE, self.triplets)).encode())
        self.identity = {"data": "icons/triplets", "pictures": str(len(self.triplets)), "digest": content}

    def __len__(self) -> int:
        return len(self.triplets)

    def names(self, places: Sequence[int]) -> list[str]:
        return [
            picture_name(self.icons[self.triplets[place].target], inks[1])
            for place, inks in zip(places, self._inks(places), strict=True)
        ]

    def pictures(self, places: Sequence[int]) -> Tensor:
        rows = [self.triplets[place].target for place in places]
        return plain(self.drawings[rows], [inks[1] for inks in self._inks(places)])

    def framing(self, places: Sequence[int]) -> Tensor:
        return uncropped(len(places))

    def seen(self, places: Sequence[int], view: int, side: int, rng: Random) -> Tensor:
        rows = [self.triplets[place].reference for place in places]
        return viewed(self.drawings[rows], [inks[0] for inks in self._inks(places)], side, rng)

    def references(self, places: Sequence[int], view: int, rng: Random) -> Tensor:
        rows = [self.triplets[place].reference for place in places]
        return plain(self.drawings[rows], [inks[0] for inks in self._inks(places)])

    def said(self, places: Sequence[int], view: int, rng: Random) -> list[str]:
        return [self._caption(place, inks[1], rng) for place, inks in zip(places, self._inks(places), strict=True)]

    def _caption(self, place: int, ink: str, rng: Random) -> str:
        own = self.triplets[place]
        reference, target = self.icons[own.reference], self.icons[own.target]
        words = {
            "ink": ink,
            "style": target.style,
            "badge": article(target.badge),
            "old_badge": reference.badge,
            "direction": target.direction,
            "side": side_of(target.direction) if target.direction else "",
            "enclosure": article(target.enclosure),
            "old_enclosure": reference.enclosure,
        }
        return rng.choice(FORMS[form_of(own.change, target)]).format_map(words)

    def _inks(self, places: Sequence[int]) -> list[tuple[str, str]]:
        """The reference's and the target's; they differ only where ink is what changes."""
        drawn = [Random(f"inks of triplet {place}").sample(list(INKS), 2) for place in places]
        changes = [self.triplets[place].change for place in places]
        return [(one, two if change == INK else one) for change, (one, two) in zip(changes, drawn, strict=True)]


def differing(icons: Sequence[Icon], rng: Random) -> Iterator[Triplet]:
    """Ordered pairs of one set that differ in one attribute and in nothing else; a few of each reference and kind."""
    for attribute in ATTRIBUTES:
        groups: dict[Icon, list[int]] = defaultdict(list)
        for place, icon in enumerate(icons):
            groups[replace(icon, name="", **{attribute: ""})].append(place)
        kept: dict[int, int] = defaultdict(int)
        pairs = [pair for group in groups.values() for pair in permutations(group, 2)]
        rng.shuffle(pairs)
        for reference, target in pairs:
            one, other = getattr(icons[reference], attribute), getattr(icons[target], attribute)
            sayable = one != other and (attribute != "direction" or (one and other))
            if sayable and kept[reference] < FROM_ONE:
                kept[reference] += 1
                yield Triplet(reference, target, attribute)


def form_of(change: str, target: Icon) -> str:
    """Which of FORMS says a change."""
    if change == "direction":
        return "points" if points(target) else "side"
    return f"no {change}" if change in ("badge", "enclosure") and not getattr(target, change) else change
