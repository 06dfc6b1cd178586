"""yes-no: a vision-language model sees reference, candidate and change, and says yes or no.

WISER (CVPR 2026) scores a candidate by P(yes), the softmax over the logits of the two words. The wording is ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from cig.models.vision_language import VisionLanguage

if TYPE_CHECKING:
    from PIL.Image import Image

ANSWERS = ("yes", "no")
PROMPT = (
    'The first picture is a reference, the second is a candidate. The wanted change is: "{caption}". '
    "Does the candidate show the reference with this change? Answer yes or no."
)


class YesNo:
    """P(yes), one call a candidate."""

    jointly = False

    def __init__(self, model: VisionLanguage, prompt: str | None = None) -> None:
        self.model, self.prompt, self.identity = model, prompt or PROMPT, model.identity
        self.settings: dict[str, Any] = {"prompt": self.prompt, "answers": list(ANSWERS)}

    def __call__(self, reference: Image, caption: str, candidates: Sequence[Image]) -> list[float | None]:
        text = self.prompt.replace("{caption}", caption)
        return [self._yes([reference, candidate], text) for candidate in candidates]

    def _yes(self, pictures: Sequence[Image], text: str) -> float:
        logits = self.model.next_token_logits(pictures, text)[self._tokens]
        return float(torch.softmax(logits, 0)[0])

    @cached_property
    def _tokens(self) -> list[int]:
        return self.model.first_tokens(ANSWERS)


def load(
    source: str, prompt: str | None, *, device: torch.device, dtype: torch.dtype, cache_dir: Path | None = None
) -> YesNo:
    return YesNo(VisionLanguage(source, device, dtype, cache_dir=cache_dir), prompt)
