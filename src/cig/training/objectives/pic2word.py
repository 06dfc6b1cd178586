"""Pic2Word's objective (Saito et al., CVPR 2023), which needs pictures alone: a contrast within a batch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from cig.models.clip import Clip
from cig.models.phi import Im2Text
from cig.models.prompts import BARE_PROMPT
from cig.training import processes
from cig.training.data.pictures import PixelSource
from cig.training.objectives.clip import contrastive
from cig.training.objectives.phi import Network, TrainingDefaults
from cig.training.plan import Plan
from cig.training.step import Step, need_whole


@dataclass(frozen=True)
class Pic2Word:
    """Train phi so that T(a photo of $) is nearest to the feature of its picture: equation 2.

    Attributes:
        scale: of the logits, the inverse temperature.
    """

    pictures: PixelSource
    scale: float = 100.0
    name = "pic2word"
    network = Im2Text
    defaults = TrainingDefaults(
        batch=1024,
        weight_decay=0.1,
        warmup=10_000,
        schedule="cosine-after-warmup",
        dropout=0.1,
        passes=30,
        beta2=0.98,
        eps=1e-6,
        decay_biases=False,
    )

    @property
    def inputs(self) -> Mapping[str, Any]:
        return {**self.pictures.identity, "scale": self.scale}

    @property
    def per_pass(self) -> int:
        return self.pictures.per_pass

    def hidden(self, width: int) -> int:
        """Return the published network's width, whatever the CLIP's."""
        return 512

    def check(self, plan: Plan) -> None:
        need_whole(plan, "Pic2Word's loss")

    def loss(self, clip: Clip, phi: Network, size: int, *, step: Step) -> Iterator[Tensor]:
        batch = self.pictures.of(step, size)
        step.ids += batch.names
        features = clip.embed_images(batch.pixels).to(clip.device)
        texts = processes.gathered(clip.project_texts([BARE_PROMPT] * len(features), phi(features)))
        same = batch.same.to(clip.device)
        yield contrastive(texts, processes.gathered(features), same, scale=self.scale) / processes.world()
