"""What methods with pseudo-words share: a prompt with the word in it, in every order of the captions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from cig.io.images import Preprocess
from cig.models.clip import Clip, Placement
from cig.models.phi import Inverter
from cig.models.prompts import prompts

if TYPE_CHECKING:
    from torch import Tensor


class WordMethod:
    """Search by T(prompt with a pseudo-word), however the word was found."""

    uses_picture = True

    def __init__(
        self, name: str, clip: Clip, preprocess: Preprocess, placement: Placement, identity: Mapping[str, Any]
    ) -> None:
        self.name, self.clip, self.preprocess = name, clip, preprocess
        self.placement, self.identity = placement, identity
        self.picture_model = clip.identity

    def embed_images(self, pixels: Tensor) -> Tensor:
        return self.clip.embed_images(pixels)

    def embed_captions(self, captions: Sequence[tuple[str, ...]]) -> Tensor:
        """Raises UsageError for a query without a caption."""
        return over_orders([prompts(own, "{caption}", None) for own in captions], self.clip.embed_texts)

    def embed_words(self, words: Tensor, captions: Sequence[tuple[str, ...]]) -> Tensor:
        """Pseudo-words [B, h] and captions -> [B, d] unit rows: `a photo of $ that {caption}`, or `a photo of $`."""

        def embed(texts: Sequence[str], own: Tensor) -> Tensor:
            return self.clip.embed_texts(texts, own, self.placement)

        return over_orders([prompts(own) for own in captions], embed, words)


class InversionMethod(WordMethod):
    """The word is phi(picture): SEARLE, LinCIR, Pic2Word, and whatever shares their form."""

    def __init__(
        self,
        name: str,
        inverter: Inverter,
        preprocess: Preprocess,
        placement: Placement,
        identity: Mapping[str, Any],
    ) -> None:
        super().__init__(name, inverter.clip, preprocess, placement, identity)
        self.inverter = inverter

    def embed_queries(self, image_features: Tensor, captions: Sequence[tuple[str, ...]]) -> Tensor:
        return self.embed_words(self.inverter(image_features), captions)


def over_orders(texts: Sequence[tuple[str, ...]], embed: Callable[..., Tensor], words: Tensor | None = None) -> Tensor:
    """[B, d] unit rows: every order of a query's captions is encoded, unit features are averaged and normalised.

    Args:
        texts: for each query, its texts in every order.
        embed: (texts) -> [N, d], or (texts, the words of their queries).
        words: [B, h], or None.
    """
    owner = [i for i, own in enumerate(texts) for _ in own]
    flat = [text for own in texts for text in own]
    features = nn.functional.normalize(embed(flat) if words is None else embed(flat, words[owner]), dim=-1)
    total = torch.zeros(len(texts), features.shape[-1]).index_add_(0, torch.tensor(owner, dtype=torch.long), features)
    return nn.functional.normalize(total, dim=-1)
