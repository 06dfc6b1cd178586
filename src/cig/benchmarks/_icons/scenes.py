"""Icons to draw: each in a few inks, asked for from a view of the same drawing and a caption.

A view may be in another ink than the picture; then the caption names the picture's. All else that a caption can ask for
(badge, style, direction, enclosure) the view shows already: there are no triplets here.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import torch
from torch import Tensor

from cig.benchmarks._icons.captions import clauses
from cig.benchmarks._icons.corpus import INKS, Icon, picture_name, read_split
from cig.benchmarks._icons.pairs import SIDE, plain, uncropped, viewed
from cig.io.digests import digest

INKS_EACH = 2  # pictures of each drawing
SHARE_SILENT = 0.15  # of captions that say nothing
SAME_INK, OTHER_INK = 0, 1  # views


class IconScenes:
    """The training split as pictures to draw; place p is drawing p // INKS_EACH of a random order.

    Args:
        limit: the first so many pictures.
    """

    views, side = 2, SIDE

    def __init__(self, limit: int | None = None) -> None:
        icons, drawings = self._corpus()
        order = Random("the order of scenes").sample(range(len(icons)), len(icons))
        self.icons, self.drawings = [icons[place] for place in order], drawings[order]
        self.count = min(limit or len(order) * INKS_EACH, len(order) * INKS_EACH)
        content = digest(drawings.numpy().tobytes() + repr((icons, INKS_EACH)).encode())
        self.identity = {"data": "icons/train, drawn", "pictures": str(self.count), "digest": content}

    def _corpus(self) -> tuple[Sequence[Icon], Tensor]:
        icons, drawings = read_split("train")
        return icons, torch.from_numpy(drawings)

    def __len__(self) -> int:
        return self.count

    def row(self, place: int) -> int:
        """Which drawing a place shows: its index among icons and drawings."""
        return place // INKS_EACH

    def names(self, places: Sequence[int]) -> list[str]:
        return [picture_name(self.icons[self.row(place)], self._inks(place)[SAME_INK]) for place in places]

    def pictures(self, places: Sequence[int]) -> Tensor:
        return plain(self._drawings(places), [self._inks(place)[SAME_INK] for place in places])

    def framing(self, places: Sequence[int]) -> Tensor:
        return uncropped(len(places))

    def seen(self, places: Sequence[int], view: int, side: int, rng: Random) -> Tensor:
        return viewed(self._drawings(places), [self._inks(place)[view] for place in places], side, rng)

    def references(self, places: Sequence[int], view: int, rng: Random) -> Tensor:
        return plain(self._drawings(places), [self._inks(place)[view] for place in places])

    def said(self, places: Sequence[int], view: int, rng: Random) -> list[str]:
        return [self._caption(place, view, rng) for place in places]

    def _caption(self, place: int, view: int, rng: Random) -> str:
        ink = self._inks(place)[SAME_INK]
        if view == SAME_INK and rng.random() < SHARE_SILENT:
            return ""
        said = clauses(self.icons[self.row(place)], ink, rng)
        if view == OTHER_INK and not any(ink in one.split() for one in said):
            said.insert(rng.randint(0, len(said)), rng.choice([f"is {ink}", f"in {ink}"]))
        return rng.choice([" and ", ", "]).join(said)

    def _drawings(self, places: Sequence[int]) -> Tensor:
        return self.drawings[[self.row(place) for place in places]]

    def _inks(self, place: int) -> tuple[str, str]:
        """The picture's own, and that of the view in another; those of one drawing's pictures differ."""
        inks = Random(f"inks of {place // INKS_EACH}").sample(list(INKS), INKS_EACH + 1)
        own = place % INKS_EACH
        return inks[own], inks[own + 1]
