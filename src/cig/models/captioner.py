"""Caption pictures with any image-to-text model of transformers that needs no prompt: BLIP, GIT, ViT-GPT2..."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from cig.errors import InputError, NotFoundError, reason
from cig.io.digests import identity
from cig.models._pretrained import need_all_weights
from cig.models.dual_encoder import OwnPreprocess, load_preprocess
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
    from transformers import AutoModelForImageTextToText, AutoTokenizer

    quiet_transformers()
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, cache_dir=cache_dir, trust_remote_code=False)
        model, info = AutoModelForImageTextToText.from_pretrained(
            source, dtype=dtype, cache_dir=cache_dir, output_loading_info=True, trust_remote_code=False
        )
    except Exception as error:
        if os.path.exists(source):
            raise InputError(f"the captioner in {source} cannot be loaded: {reason(error)}") from error
        hint = "give the folder of a copy, or check --cache-dir"
        raise NotFoundError(f"no captioner {source}: it is not a folder, and {reason(error)}; {hint}") from error
    need_all_weights(info, source, "captioner")
    model = model.eval().requires_grad_(False).to(device)
    origin = {**identity(source, cache_dir), "dtype": str(dtype)}
    return Captioner(model, tokenizer, load_preprocess(source, cache_dir), identity=origin)
