"""Load any dual tower of transformers, by hub id or folder: CLIP by clip.py, other models here.

A dual tower is a model with `get_image_features` and `get_text_features`: SigLIP, SigLIP 2, ALIGN, Chinese
CLIP, BLIP's... Its image processor prepares the pictures, and its tokenizer the texts.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image

from cig.config import clip_source
from cig.errors import InputError, MismatchError, reason, some
from cig.finite import need_finite
from cig.io import hub
from cig.io.digests import identity
from cig.io.images import check_pixels, target_pad
from cig.io.json_files import read_object
from cig.models._pretrained import need_all_weights, unloadable
from cig.models.clip import TEXT_BATCH, Clip, load_clip
from cig.runtime import batches, quiet_transformers

if TYPE_CHECKING:
    from torch import Tensor

LONGEST_TEXT = 256  # tokens; some models take more, but no relative caption has as many
SIGLIP = "siglip"  # the model_type of SigLIP, and of SigLIP 2 with a fixed resolution


@dataclass(frozen=True)
class OwnPreprocess:
    """Turn a picture into [3, S, S] float32 as the model's own image processor does, without torchvision.

    The representation contains all settings: it is part of the key of cached features. So are the names of the class
    and its fields; renaming one invalidates every cache.
    """

    processor: str  # the name of a class in transformers
    settings: str  # its settings, as JSON with sorted keys
    pad: bool = False  # SEARLE's targetpad first

    def __call__(self, image: Image.Image) -> Tensor:
        image = image.convert("RGB")
        image = target_pad(image) if self.pad else image
        self._check_pixels(*image.size)
        outputs = _processor(self.processor, self.settings)(images=image, return_tensors="pt")
        pixels: Tensor = outputs["pixel_values"][0]
        if set(outputs) != {"pixel_values"} or pixels.dim() != 3:
            raise ValueError(f"{self.processor} makes {some(outputs)}, not pixels of one size alone")
        return pixels.float()

    def _check_pixels(self, width: int, height: int) -> None:
        """Limit the size of a resized picture: before the crop, a very narrow one can become huge."""
        size = json.loads(self.settings).get("size") or {}
        if edge := size.get("shortest_edge"):
            check_pixels(edge, edge * max(width, height) // min(width, height), "resized, it would be ")
        check_pixels(size.get("width") or 1, size.get("height") or 1, "resized, it would be ")


@lru_cache(maxsize=8)
def _processor(name: str, settings: str) -> Any:
    import transformers

    return getattr(transformers, name).from_dict(json.loads(settings))


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
    hub.need_source(source, cache_dir, "CLIP")
    quiet_transformers()
    config = _config(source, cache_dir)
    if config is None or config.model_type == "clip":
        return load_clip(source, device, dtype, cache_dir=cache_dir)
    kind = _model_class(config, source)
    processor = load_preprocess(source, cache_dir)
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, cache_dir=cache_dir, trust_remote_code=False)
        model, info = kind.from_pretrained(source, dtype=dtype, cache_dir=cache_dir, output_loading_info=True)
    except Exception as error:
        raise unloadable(config.model_type, source, error) from error
    need_all_weights(info, source, config.model_type)
    model = model.eval().requires_grad_(False).to(device)
    return DualEncoder(model, tokenizer, processor, identity={**identity(source, cache_dir), "dtype": str(dtype)})


def _config(source: str, cache_dir: Path | None) -> Any:
    """Read the configuration; None for a CLIP, and where there is none, for which load_clip has the better error."""
    from transformers import AutoConfig

    local = os.path.exists(source)
    path = Path(source) / "config.json"
    if local and not path.is_file():
        return None
    kind = read_object(path).get("model_type") if local else None
    if kind == "clip":
        return None
    try:
        pinned = hub.commit_of(source, cache_dir)
        return AutoConfig.from_pretrained(source, revision=pinned, cache_dir=cache_dir, trust_remote_code=False)
    except Exception as error:
        if not local:
            return None
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


def load_preprocess(source: str, cache_dir: Path | None) -> OwnPreprocess:
    """Load a model's preprocessing, and try it on two shapes: its outputs must fit into one batch."""
    from transformers import AutoImageProcessor

    try:
        processor = AutoImageProcessor.from_pretrained(
            source, backend="pil", cache_dir=cache_dir, trust_remote_code=False
        )
        preprocess = OwnPreprocess(type(processor).__name__, json.dumps(processor.to_dict(), sort_keys=True))
        shapes = {preprocess(Image.new("RGB", size)).shape for size in ((64, 48), (48, 64))}
    except Exception as error:
        raise InputError(f"the preprocessing of {source} cannot be used: {reason(error)}") from error
    if len(shapes) > 1:
        raise MismatchError(f"{source} prepares pictures to sizes that fit into no batch; give another model")
    return preprocess
