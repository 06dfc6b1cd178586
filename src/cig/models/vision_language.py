"""Vision-language models of transformers that read several pictures and a text: LLaVA, Qwen-VL, SmolVLM, Gemma 3..."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from cig.errors import CigError, InputError
from cig.io.digests import identity
from cig.models._pretrained import explained, model_folder, need_all_weights, unloadable
from cig.runtime import quiet_transformers

if TYPE_CHECKING:
    from PIL.Image import Image

KIND = "vision-language model"


class VisionLanguage:
    """A model of pictures and text. Its weights load when it is first used: where all answers are cached, never.

    Attributes:
        identity: source, digest or revision, and precision.
    """

    def __init__(self, source: str, device: torch.device, dtype: torch.dtype, *, cache_dir: Path | None = None) -> None:
        self.source, self.device, self.dtype = source, device, dtype
        self.folder = model_folder(source, cache_dir, KIND)
        self.identity: dict[str, Any] = {**identity(source, cache_dir), "dtype": str(dtype)}

    @cached_property
    def _parts(self) -> tuple[Any, Any]:
        return _load(self.folder, self.device, self.dtype)

    @torch.no_grad()
    def next_token_logits(self, pictures: Sequence[Image], text: str) -> Tensor:
        """Return the logits [V] of the token that follows the pictures and the text.

        One prompt a call: padding would move the positions that some models count from the first token.
        """
        model, processor = self._parts
        with explained(f"{self.source}: the {KIND} fails", "it has to take several pictures in one prompt"):
            inputs = self._inputs(processor, pictures, text)
            logits: Tensor = model(**inputs).logits[0, -1].float().cpu()
        return logits

    @torch.no_grad()
    def answer(self, pictures: Sequence[Image], text: str, most: int) -> str:
        """Return what the model writes after the pictures and the text, greedily, at most so many tokens."""
        model, processor = self._parts
        with explained(f"{self.source}: the {KIND} fails", "it has to take this prompt"):
            inputs = self._inputs(processor, pictures, text)
            tokens = model.generate(**inputs, max_new_tokens=most, do_sample=False, num_beams=1)
            new = tokens[0, inputs["input_ids"].shape[1] :]
            written: str = processor.tokenizer.decode(new, skip_special_tokens=True)
        return written

    def first_tokens(self, words: Sequence[str]) -> list[int]:
        """Return the first token of each word; raises InputError where words share one, or have none of their own."""
        tokenizer = self._parts[1].tokenizer
        encoded = [tokenizer.encode(word, add_special_tokens=False) for word in words]
        tokens = [ids[0] for ids in encoded if ids and ids[0] != tokenizer.unk_token_id]
        if len(set(tokens)) < len(words):
            raise InputError(f"{self.source}: its tokenizer does not tell {' from '.join(words)}; use another model")
        return tokens

    def _inputs(self, processor: Any, pictures: Sequence[Image], text: str) -> Any:
        prompt, templated = _prompt(processor, len(pictures), text)
        begins = templated and prompt.startswith(processor.tokenizer.bos_token or "\0")
        images = [picture.convert("RGB") for picture in pictures]
        inputs = processor(images=images, text=prompt, return_tensors="pt", add_special_tokens=not begins)
        return inputs.to(self.device, self.dtype)


def _prompt(processor: Any, count: int, text: str) -> tuple[str, bool]:
    """Return the prompt, and whether the model's chat template made it."""
    mark = getattr(processor, "image_token", None)
    text = text.replace(mark, " ") if mark else text  # a caption must not pose as a picture
    if getattr(processor, "chat_template", None):
        content = [*({"type": "image"} for _ in range(count)), {"type": "text", "text": text}]
        turn = [{"role": "user", "content": content}]
        return processor.apply_chat_template(turn, add_generation_prompt=True, tokenize=False), True
    if not mark:
        raise InputError("the processor has neither a chat template nor an image token")
    return f"{mark}\n" * count + text, False


def _load(folder: Path, device: torch.device, dtype: torch.dtype) -> tuple[Any, Any]:
    """Load (model, processor), frozen; code in the folder is never run."""
    from transformers import AutoModelForImageTextToText, AutoProcessor

    quiet_transformers()
    try:
        processor = AutoProcessor.from_pretrained(folder, trust_remote_code=False)
        model, info = AutoModelForImageTextToText.from_pretrained(
            folder, output_loading_info=True, trust_remote_code=False, dtype=dtype
        )
    except Exception as error:
        if "torchvision" in str(error).lower():
            raise InputError(
                f"the processor of {folder} needs torchvision; install the one that fits this torch, or use a model "
                f"whose processor reads pictures alone, such as LLaVA's"
            ) from error
        raise unloadable(KIND, folder, error) from error
    need_all_weights(info, str(folder), KIND)
    if not hasattr(processor, "tokenizer") or not hasattr(processor, "image_processor"):
        raise _no_processor(folder)
    return model.eval().requires_grad_(False).to(device), processor


def _no_processor(folder: Path) -> CigError:
    return InputError(f"{folder} has no processor of pictures and text; compare its files with the published ones")
