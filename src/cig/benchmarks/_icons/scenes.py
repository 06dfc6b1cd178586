"""Icons to draw: each in a few inks, conditioned on a view of the same drawing and a caption.

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


class DrawnScenes:
    """`Scenes` of painted drawings; a subclass says what each picture and view shows, and what a caption says."""

    side = SIDE
    icons: Sequence[Icon]
    drawings: Tensor  # [N, 64, 64] uint8, in the order of icons

    def _picture(self, index: int) -> tuple[int, str]:
        """Return the row of the drawing, and its ink."""
        raise NotImplementedError

    def _views(self, indices: Sequence[int], view: int) -> tuple[Tensor, list[str]]:
        """Return the drawings [B, 64, 64] uint8 that a view shows, and their inks."""
        raise NotImplementedError

    def _caption(self, index: int, view: int, rng: Random) -> str:
        raise NotImplementedError

    def names(self, indices: Sequence[int]) -> list[str]:
        return [picture_name(self.icons[row], ink) for row, ink in map(self._picture, indices)]

    def pictures(self, indices: Sequence[int]) -> Tensor:
        shown = [self._picture(index) for index in indices]
        return plain(self.drawings[[row for row, _ in shown]], [ink for _, ink in shown])

    def framing(self, indices: Sequence[int]) -> Tensor:
        return uncropped(len(indices))

    def seen(self, indices: Sequence[int], view: int, side: int, *, rng: Random) -> Tensor:
        return viewed(*self._views(indices, view), side, rng=rng)

    def references(self, indices: Sequence[int], view: int, rng: Random) -> Tensor:
        return plain(*self._views(indices, view))

    def said(self, indices: Sequence[int], view: int, rng: Random) -> list[str]:
        return [self._caption(index, view, rng) for index in indices]


class IconScenes(DrawnScenes):
    """The training split as pictures to draw; picture i shows drawing i // INKS_EACH of a random order.

    Args:
        limit: how many pictures, from the first.
    """

    views = 2

    def __init__(self, limit: int | None = None) -> None:
        icons, drawings = self._corpus()
        order = Random("the order of scenes").sample(range(len(icons)), len(icons))
        self.icons, self.drawings = [icons[row] for row in order], drawings[order]
        self.count = min(limit or len(order) * INKS_EACH, len(order) * INKS_EACH)
        content = digest(drawings.numpy().tobytes() + repr((icons, INKS_EACH)).encode())
        self.identity = {"data": "icons/train, drawn", "pictures": str(self.count), "digest": content}

    def _corpus(self) -> tuple[Sequence[Icon], Tensor]:
        icons, drawings = read_split("train")
        return icons, torch.from_numpy(drawings)

    def __len__(self) -> int:
        return self.count

    def row(self, index: int) -> int:
        """Return which drawing a picture shows: its index among icons and drawings."""
        return index // INKS_EACH

    def _picture(self, index: int) -> tuple[int, str]:
        return self.row(index), self._inks(index)[SAME_INK]

    def _views(self, indices: Sequence[int], view: int) -> tuple[Tensor, list[str]]:
        return self.drawings[[self.row(index) for index in indices]], [self._inks(index)[view] for index in indices]

    def _caption(self, index: int, view: int, rng: Random) -> str:
        ink = self._inks(index)[SAME_INK]
        if view == SAME_INK and rng.random() < SHARE_SILENT:
            return ""
        said = clauses(self.icons[self.row(index)], ink, rng)
        if view == OTHER_INK and not any(ink in clause.split() for clause in said):
            said.insert(rng.randint(0, len(said)), rng.choice([f"is {ink}", f"in {ink}"]))
        return rng.choice([" and ", ", "]).join(said)

    def _inks(self, index: int) -> tuple[str, str]:
        """Return the picture's ink, and that of its view in another; those of one drawing's pictures differ."""
        inks = Random(f"inks of {index // INKS_EACH}").sample(list(INKS), INKS_EACH + 1)
        first = index % INKS_EACH
        return inks[first], inks[first + 1]
