"""Icons as triplets: a reference, a change, and the target, both of one set; the view is the reference.

They train a generator with triplets, to compare with one trained without (scenes.py). Captions are in training's forms.
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
from cig.benchmarks._icons.corpus import INKS, Icon, read_split
from cig.benchmarks._icons.scenes import DrawnScenes
from cig.io.digests import digest

ATTRIBUTES = ("badge", "enclosure", "direction", "style")
INK = "ink"
FROM_ONE = 4  # the largest number of triplets of one reference and one kind of change
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
    """The rows of two drawings that differ in one attribute, or the same row twice, for two inks."""

    reference: int
    target: int
    change: str


class IconTriplets(DrawnScenes):
    """The training split's triplets, in a random order.

    Args:
        limit: how many, from the first.
    """

    views = 1

    def __init__(self, limit: int | None = None) -> None:
        self.icons, drawings = read_split("train")
        rng = Random("triplets")
        triplets = [*differing(self.icons, rng), *(Triplet(row, row, INK) for row in range(len(self.icons)))]
        rng.shuffle(triplets)
        self.triplets, self.drawings = triplets[:limit], torch.from_numpy(drawings)
        content = digest(drawings.tobytes() + repr((self.icons, FROM_ONE, self.triplets)).encode())
        self.identity = {"data": "icons/triplets", "pictures": str(len(self.triplets)), "digest": content}

    def __len__(self) -> int:
        return len(self.triplets)

    def _picture(self, index: int) -> tuple[int, str]:
        return self.triplets[index].target, self._inks(index)[1]

    def _views(self, indices: Sequence[int], view: int) -> tuple[Tensor, list[str]]:
        rows = [self.triplets[index].reference for index in indices]
        return self.drawings[rows], [self._inks(index)[0] for index in indices]

    def _caption(self, index: int, view: int, rng: Random) -> str:
        triplet = self.triplets[index]
        reference, target = self.icons[triplet.reference], self.icons[triplet.target]
        words = {
            "ink": self._inks(index)[1],
            "style": target.style,
            "badge": article(target.badge),
            "old_badge": reference.badge,
            "direction": target.direction,
            "side": side_of(target.direction) if target.direction else "",
            "enclosure": article(target.enclosure),
            "old_enclosure": reference.enclosure,
        }
        return rng.choice(FORMS[form_of(triplet.change, target)]).format_map(words)

    def _inks(self, index: int) -> tuple[str, str]:
        """Return the reference's ink and the target's; they differ only where the ink is what changes."""
        first, second = Random(f"inks of triplet {index}").sample(list(INKS), 2)
        return first, second if self.triplets[index].change == INK else first


def differing(icons: Sequence[Icon], rng: Random) -> Iterator[Triplet]:
    """Yield ordered pairs of one set that differ in one attribute only; a few of each reference and attribute."""
    for attribute in ATTRIBUTES:
        groups: dict[Icon, list[int]] = defaultdict(list)
        for row, icon in enumerate(icons):
            groups[replace(icon, name="", **{attribute: ""})].append(row)
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
    """Return the key of FORMS that says a change."""
    if change == "direction":
        return "points" if points(target) else "side"
    return f"no {change}" if change in ("badge", "enclosure") and not getattr(target, change) else change
