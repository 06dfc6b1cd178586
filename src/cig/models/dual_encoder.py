"""Load any dual tower of transformers, by hub id or folder: CLIP by clip.py, other models here.

A dual tower is a model with `get_image_features` and `get_text_features`: SigLIP, SigLIP 2, ALIGN, Chinese
CLIP, BLIP's... Its image processor prepares the pictures, and its tokenizer the texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from cig.config import clip_source
from cig.errors import MismatchError, reason
from cig.finite import need_finite
from cig.io.digests import identity
from cig.io.json_files import read_object
from cig.models._pretrained import model_folder, need_all_weights, unloadable
from cig.models.clip import TEXT_BATCH, Clip, load_clip
from cig.models.preprocessing import OwnPreprocess, load_preprocess
from cig.runtime import batches, quiet_transformers

if TYPE_CHECKING:
    from torch import Tensor

LONGEST_TEXT = 256  # tokens; some models take more, but no relative caption has as many
SIGLIP = "siglip"  # the model_type of SigLIP, and of SigLIP 2 with a fixed resolution


class DualEncoder:
    """A dual tower other than CLIP: it has picture and text features, but prompts cannot hold pseudo-words."""

    def __init__(self, model: Any, tokenizer: Any, processor: OwnPreprocess, *, identity: dict[str, Any]) -> None:
        self.model, self.tokenizer, self.processor, self.identity = model, tokenizer, processor, identity
        text = model.config.text_config
        self.is_siglip: bool = model.config.model_type == SIGLIP
        self.vocabulary: int = text.vocab_size
        self.context: int = min(text.max_position_embeddings, tokenizer.model_max_length, LONGEST_TEXT)

    def preprocess(self, pad: bool) -> OwnPreprocess:
        return replace(self.processor, pad=pad)

    @torch.no_grad()
    def embed_images(self, pixels: Tensor) -> Tensor:
        """Encode pixels [B, 3, S, S] as features [B, d], float32 on the CPU, not normalised."""
        return self._finite(self.model.get_image_features(pixel_values=pixels.to(self.model.device, self.model.dtype)))

    @torch.no_grad()
    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """Encode texts as features [B, d], float32 on the CPU, not normalised."""
        chunks = batches([text.encode("utf-8", "replace").decode() for text in texts], TEXT_BATCH)
        encode = self.model.get_text_features
        return torch.cat([self._finite(encode(**self._tokens(list(chunk))), chunk) for chunk in chunks])

    def _finite(self, out: Any, texts: Sequence[str] = ()) -> Tensor:
        model = f"the model {self.identity.get('source', 'in memory')}"
        return need_finite(_features(out), model, self.model.dtype, names=texts)

    def _tokens(self, texts: list[str]) -> dict[str, Tensor]:
        # SigLIP (Zhai et al., ICCV 2023) was trained on lower case, padded to the full length, without a mask.
        padding: bool | str = "max_length" if self.is_siglip else True
        texts = [text.lower() for text in texts] if self.is_siglip else texts
        tokens = self.tokenizer(texts, padding=padding, truncation=True, max_length=self.context, return_tensors="pt")
        if int(tokens["input_ids"].max()) >= self.vocabulary:
            raise MismatchError(f"{self.identity['source']}: its tokenizer has tokens that its text tower lacks")
        names = ("input_ids",) if self.is_siglip else ("input_ids", "attention_mask")
        return {name: tokens[name].to(self.model.device) for name in names}


Tower = Clip | DualEncoder


def _features(out: Any) -> Tensor:
    """Return the projected features from a model's output, which is a tensor or a record that holds it."""
    return (out if isinstance(out, torch.Tensor) else out.pooler_output).float().cpu()


def load_tower(source: str, device: torch.device, dtype: torch.dtype, *, cache_dir: Path | None = None) -> Tower:
    """Load a dual tower by hub id or folder.

    Raises:
        NotFoundError: the source is neither a folder nor a hub id that can be reached.
        MismatchError: the model is no dual tower, or its pictures have no fixed size (SigLIP 2 NaFlex).
        InputError: the files cannot be read, or lack weights.
    """
    from transformers import AutoTokenizer

    source = clip_source(source)
    quiet_transformers()
    folder = model_folder(source, cache_dir, "CLIP")
    config = _config(folder)
    if config is None:
        return load_clip(source, device, dtype, cache_dir=cache_dir)
    kind = _model_class(config, source)
    processor = load_preprocess(folder)
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False)
        model, info = kind.from_pretrained(str(folder), dtype=dtype, output_loading_info=True)
    except Exception as error:
        raise unloadable(config.model_type, folder, error) from error
    need_all_weights(info, source, config.model_type)
    model = model.eval().requires_grad_(False).to(device)
    return DualEncoder(model, tokenizer, processor, identity={**identity(source, cache_dir), "dtype": str(dtype)})


def _config(folder: Path) -> Any:
    """Read the configuration; None for a CLIP, and where there is none, for which load_clip has the better error."""
    from transformers import AutoConfig

    path = folder / "config.json"
    if not path.is_file():
        return None
    kind = read_object(path).get("model_type")
    if kind == "clip":
        return None
    try:
        return AutoConfig.from_pretrained(str(folder), trust_remote_code=False)
    except Exception as error:
        raise MismatchError(f'{path} is of no dual tower: its model_type is "{kind}": {reason(error)}') from error


def _model_class(config: Any, source: str) -> Any:
    from transformers import MODEL_MAPPING

    kind = MODEL_MAPPING.get(type(config), None)
    if not (hasattr(kind, "get_image_features") and hasattr(kind, "get_text_features")):
        hint = "give a CLIP, a SigLIP or another model with a picture tower and a text tower"
        raise MismatchError(f'{source} is of no dual tower: its model_type is "{config.model_type}"; {hint}')
    if config.model_type == "siglip2":
        hint = "google/siglip2-base-patch16-224 and its like have a fixed resolution"
        raise MismatchError(f"{source} is a SigLIP 2 NaFlex, whose pictures vary in size; {hint}")
    return kind
