"""Caption pictures with any image-to-text model of transformers that needs no prompt: BLIP, GIT, ViT-GPT2..."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from cig.io.digests import identity
from cig.models._pretrained import load_with_tokenizer, model_folder
from cig.models.preprocessing import OwnPreprocess, load_preprocess
from cig.runtime import batches, quiet_transformers

if TYPE_CHECKING:
    from PIL.Image import Image

LONGEST_CAPTION = 30  # new tokens
BATCH = 16


class Captioner:
    """A captioning model; decoding is greedy, so a picture always gets the same caption."""

    def __init__(self, model: Any, tokenizer: Any, preprocess: OwnPreprocess, *, identity: dict[str, Any]) -> None:
        self.model, self.tokenizer, self.preprocess, self.identity = model, tokenizer, preprocess, identity

    @torch.no_grad()
    def __call__(self, pictures: Sequence[Image]) -> list[str]:
        captions: list[str] = []
        for chunk in batches(pictures, BATCH):
            pixels = torch.stack([self.preprocess(picture) for picture in chunk]).to(
                self.model.device, self.model.dtype
            )
            tokens = self.model.generate(
                pixel_values=pixels, max_new_tokens=LONGEST_CAPTION, do_sample=False, num_beams=1
            )
            captions += self.tokenizer.batch_decode(tokens, skip_special_tokens=True)
        return [" ".join(caption.split()) for caption in captions]


def load_captioner(
    source: str, device: torch.device, dtype: torch.dtype, *, cache_dir: Path | None = None
) -> Captioner:
    """Load a captioner by hub id or folder.

    Raises:
        NotFoundError: the source is neither a folder nor a hub id that can be reached.
        InputError: the files cannot be read, are of another kind of model, or lack weights.
    """
    from transformers import AutoModelForImageTextToText

    quiet_transformers()
    folder = model_folder(source, cache_dir, "captioner")
    model, tokenizer = load_with_tokenizer(AutoModelForImageTextToText, str(folder), "captioner", files={}, dtype=dtype)
    origin = {**identity(source, cache_dir), "dtype": str(dtype)}
    return Captioner(model.to(device), tokenizer, load_preprocess(folder), identity=origin)
