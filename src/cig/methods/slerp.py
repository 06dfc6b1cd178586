"""Spherical interpolation between the picture feature and the caption feature (Jang et al., ECCV 2024).

This is the Slerp of "Spherical Linear Interpolation and Text-Anchoring for Zero-shot Composed Image Retrieval", without
its training of the towers. The authors' code leaves t to the caller; 0.8, towards the caption, is our choice.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from cig.errors import UsageError
from cig.methods import Option, Source
from cig.methods._dual import VARIANTS as VARIANTS
from cig.methods._dual import DualTower, unit

OPTIONS = {"t": Option("how far from the picture (0) to the caption (1); 0.8 by default")}
T = "0.8"
PARALLEL = 0.9995  # a cosine above which the authors' code interpolates linearly


class SlerpFusion(DualTower):
    family = "slerp"

    def __init__(self, variant: str, source: Source) -> None:
        self.t = _read_t(source.options.get("t", T))
        super().__init__(variant, source)
        self.identity = {**self.identity, "t": self.t}

    def embed_queries(self, image_features: Tensor, captions: Sequence[tuple[str, ...]]) -> Tensor:
        """As Method; a query without a caption is its picture's feature."""
        return slerp(unit(image_features), self.embed_captions_or(image_features, captions), self.t)


def slerp(v: Tensor, w: Tensor, t: float) -> Tensor:
    """Interpolate unit rows v and w [B, d]: sin((1 - t) a) / sin(a) v + sin(t a) / sin(a) w, where a is their angle.

    t = 0.5 gives the normalised sum. Rows that are nearly parallel, or opposite, are interpolated linearly.
    """
    cosine = (v * w).sum(-1, keepdim=True)
    angle = cosine.clamp(-PARALLEL, PARALLEL).acos()  # the clamp keeps `along` finite for rows that do not use it
    along = (torch.sin((1 - t) * angle) * v + torch.sin(t * angle) * w) / torch.sin(angle)
    return unit(torch.where(cosine.abs() > PARALLEL, (1 - t) * v + t * w, along))


def _read_t(text: str) -> float:
    try:
        t = float(text)
    except ValueError:
        t = -1.0
    if not 0 <= t <= 1:
        raise UsageError(f'slerp\'s option t is "{text}"; give a number from 0, the picture, to 1, the caption')
    return t


load = SlerpFusion
