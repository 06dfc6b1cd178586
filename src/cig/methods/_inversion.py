"""Methods with pseudo-words: prompts that hold the word, in every order of the captions; families with a phi."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from cig.errors import UsageError
from cig.io.digests import identity
from cig.io.images import ToPixels
from cig.methods import Option, Source, Weights
from cig.models.clip import Clip, Placement
from cig.models.phi import Inverter
from cig.models.prompts import PROMPT, prompts, read_template
from cig.types import Described, Preprocessing

if TYPE_CHECKING:
    from torch import Tensor


class WordMethod(Described):
    """Search by T(prompt with a pseudo-word), where T is the text tower; subclasses supply the words."""

    uses_picture = True
    template = PROMPT

    def __init__(
        self, name: str, clip: Clip, preprocess: ToPixels, *, placement: Placement, identity: Mapping[str, Any]
    ) -> None:
        self.name, self.clip, self.preprocess = name, clip, preprocess
        self.placement, self.identity = placement, identity
        self.picture_model = clip.identity

    def embed_images(self, pixels: Tensor) -> Tensor:
        return self.clip.embed_images(pixels)

    def release_pictures(self) -> None:
        self.clip.release("vision")

    def embed_captions(self, captions: Sequence[tuple[str, ...]]) -> Tensor:
        """Captions -> [B, d] unit rows; raises UsageError for a query without a caption."""
        return over_orders([prompts(texts, "{caption}", None) for texts in captions], self.clip.embed_texts)

    def embed_words(self, words: Tensor, captions: Sequence[tuple[str, ...]]) -> Tensor:
        """Pseudo-words [B, h] and captions -> [B, d] unit rows: the template with both, or `a photo of $`."""

        def embed(texts: Sequence[str], words: Tensor) -> Tensor:
            return self.clip.embed_texts(texts, words, self.placement)

        return over_orders([prompts(texts, self.template) for texts in captions], embed, words)


class InversionMethod(WordMethod):
    """Search with the word phi(picture): SEARLE, LinCIR, Pic2Word, and other networks of their form."""

    unit_features = False  # True: phi sees features of unit length

    def __init__(
        self,
        name: str,
        inverter: Inverter,
        preprocess: ToPixels,
        *,
        placement: Placement,
        identity: Mapping[str, Any],
    ) -> None:
        super().__init__(name, inverter.clip, preprocess, placement=placement, identity=identity)
        self.inverter = inverter

    def embed_queries(self, image_features: Tensor, captions: Sequence[tuple[str, ...]]) -> Tensor:
        seen = nn.functional.normalize(image_features, dim=-1) if self.unit_features else image_features
        return self.embed_words(self.inverter(seen), captions)


PROMPTED = {"prompt": Option('the prompt, with $ and {caption}; as --prompt. "a photo of $ that {caption}" by default')}
UNIT_FEATURES = {"l2_normalize": Option("yes: features have unit length before phi, as by LinCIR's --l2_normalize")}


@dataclass(frozen=True)
class PhiFamily:
    """A family of methods with a phi, as its paper searches.

    Attributes:
        targetpad: pictures are padded to 1.25, else preprocessed as by CLIP, unless the user says otherwise.
        on_gpu: dtype of the CLIP on a GPU.
    """

    name: str
    variants: Mapping[str, Weights]
    placement: Placement
    targetpad: bool = False
    on_gpu: str = "float32"

    def load(self, variant: str, source: Source) -> InversionMethod:
        weights = self.variants[variant]
        inverter = source.load_inverter(weights, self.on_gpu)
        models: dict[str, Any] = {
            "clip": inverter.clip.identity,
            "phi": identity(source.phi_file(weights)),
            "licence": "unknown" if source.phi else weights.licence,
        }
        name = self.name if source.phi else f"{self.name}/{variant}"
        unit_features = _yes("l2_normalize", source.options.get("l2_normalize", "no"))
        models |= {"l2_normalize": True} if unit_features else {}
        template = template_of(source)
        models |= {"prompt": template} if template != PROMPT else {}
        method = self.with_phi(inverter, name, models, preprocessing=source.preprocessing)
        method.template = template
        method.unit_features = unit_features
        return method

    def with_phi(
        self, inverter: Inverter, name: str, models: Mapping[str, Any], *, preprocessing: Preprocessing | None = None
    ) -> InversionMethod:
        """Build the method around a phi in memory, for example one that is being trained."""
        pad = self.targetpad if preprocessing is None else preprocessing == "targetpad"
        preprocess = inverter.clip.preprocess(pad)
        return InversionMethod(name, inverter, preprocess, placement=self.placement, identity=models)


def template_of(source: Source) -> str:
    """Return the template that the option `prompt` asks for, or the published one."""
    return read_template(source.options["prompt"]) if "prompt" in source.options else PROMPT


def _yes(key: str, value: str) -> bool:
    if value.lower() not in ("yes", "no"):
        raise UsageError(f"--method-option {key}={value}: yes or no")
    return value.lower() == "yes"


def over_orders(texts: Sequence[tuple[str, ...]], embed: Callable[..., Tensor], words: Tensor | None = None) -> Tensor:
    """Encode every order of a query's captions, then average and normalise the unit features: [B, d] unit rows.

    Args:
        texts: for each query, its texts in every order.
        embed: (texts) -> [N, d], or (texts, the words of their queries) -> [N, d].
        words: [B, h], or None.
    """
    owner = [query for query, orders in enumerate(texts) for _ in orders]
    flat = [text for orders in texts for text in orders]
    features = nn.functional.normalize(embed(flat) if words is None else embed(flat, words[owner]), dim=-1)
    total = torch.zeros(len(texts), features.shape[-1]).index_add_(0, torch.tensor(owner, dtype=torch.long), features)
    return nn.functional.normalize(total, dim=-1)
