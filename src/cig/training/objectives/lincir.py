"""LinCIR's objective (Gu et al., CVPR 2024), which needs captions alone."""

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
from cig.training.objectives.phi import Network, TrainingDefaults
from cig.training.plan import Plan
from cig.training.step import Step


@dataclass(frozen=True)
class Lincir:
    """Train phi so that T(caption with phi(T(caption) + noise) as its keywords) is T(caption): equation 4.

    The loss is a mean over captions. The noise is U(0, 1) a caption times N(0, 1) an element; features are not
    normalised.
    """

    captions: Captions
    tagger: Tagger = field(default_factory=Chunker)
    name = "lincir"
    network = Phi
    defaults = TrainingDefaults()

    @property
    def inputs(self) -> Mapping[str, Any]:
        return {**self.captions.identity, "keywords": self.tagger.name}

    @property
    def per_pass(self) -> int:
        return self.captions.per_pass

    def hidden(self, width: int) -> int:
        return 4 * width

    def check(self, plan: Plan) -> None:
        """Accept any plan."""

    def loss(self, clip: Clip, phi: Network, size: int, *, step: Step) -> Iterator[Tensor]:
        # Captions are cut before their keywords are masked: a masked one has fewer tokens, so the CLIP would read words
        # in it that the target lacks.
        captions = [clip.tokenizer.cut(clean_caption(caption)) for caption in self.captions.of(step, size)]
        masked = mask_keywords(captions, self.tagger, step.rng)
        noise = torch.rand(size, 1) * torch.randn(size, clip.feature_width)
        for rows, share in step.shares(size):
            texts = [captions[row] for row in rows]
            step.ids += texts
            targets = clip.embed_texts(texts).to(clip.device)
            words = phi(targets + noise[rows].to(clip.device))
            yield share * functional.mse_loss(clip.project_texts([masked[row] for row in rows], words), targets)
