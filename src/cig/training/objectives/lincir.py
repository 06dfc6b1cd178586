"""LinCIR's objective (Gu et al., CVPR 2024): from captions alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from cig.models.clip import Clip
from cig.models.phi import Phi
from cig.training.data.captions import Captions
from cig.training.data.keywords import Chunker, Tagger, clean_caption, mask_keywords
from cig.training.objectives.phi import Network, Pace
from cig.training.plan import Plan
from cig.training.step import Step


@dataclass(frozen=True)
class Lincir:
    """T(caption with phi(T(caption) + noise) for its keywords) is to be T(caption): equation 4, a mean over captions.

    The noise is U(0, 1) a caption times N(0, 1) an element; features are not normalised.
    """

    captions: Captions
    tagger: Tagger = field(default_factory=Chunker)
    name = "lincir"
    network = Phi
    pace = Pace()

    @property
    def about(self) -> Mapping[str, Any]:
        return {**self.captions.identity, "keywords": self.tagger.name}

    @property
    def per_pass(self) -> int:
        return self.captions.per_pass

    def hidden(self, width: int) -> int:
        return 4 * width

    def check(self, plan: Plan) -> None:
        """Any plan will do."""

    def loss(self, clip: Clip, phi: Network, size: int, step: Step) -> Iterator[Tensor]:
        captions = [clean_caption(own) for own in self.captions.of(step, size)]
        masked = mask_keywords(captions, self.tagger, step.rng)
        noise = torch.rand(size, 1) * torch.randn(size, clip.feature_width)
        for places, share in step.shares(size):
            own = [captions[place] for place in places]
            step.ids += own
            wanted = clip.embed_texts(own).to(clip.device)
            words = phi(wanted + noise[places].to(clip.device))
            yield share * functional.mse_loss(clip.project_texts([masked[place] for place in places], words), wanted)
