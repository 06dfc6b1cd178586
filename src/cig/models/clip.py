"""Run CLIP's two towers: pictures to features; prompts, which may hold pseudo-words, to text states.

Any CLIP in transformers' layout loads, by hub id or folder, with its own tokenizer and preprocessing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from cig.config import clip_source
from cig.errors import MismatchError, NotFoundError
from cig.finite import need_finite
from cig.io.digests import identity
from cig.io.images import Preprocess
from cig.io.json_files import read_json, read_object
from cig.machine import is_out_of_memory, need_memory, short_memory
from cig.models._pretrained import (
    explained,
    model_folder,
    need_all_weights,
    refuse_file,
    unloadable,
    weights_option,
)
from cig.models.preprocessing import ClipPreprocess, OwnPreprocess, load_clip_preprocess
from cig.models.tokenizer import Tokenizer, load_tokenizer
from cig.runtime import batches, quiet_transformers, resolve_device, resolve_dtype
from cig.types import TextStates

if TYPE_CHECKING:
    from torch import Tensor

Placement = Literal["every", "first"]  # at which `$` the pseudo-word goes: stage 1 and LinCIR, or SEARLE (stage 3)
TowerName = Literal["vision", "text"]
TOWER_WEIGHTS = {"vision_config": ("vision_model.", "visual_projection."), "text_config": ("text_model.", "text_proj")}
TEXT_BATCH = 64


class Clip:
    """A CLIP: picture tower, text tower, tokenizer. A tower is loaded when it is first used, and may be released.

    Args:
        vision, text: the towers or, with `load`, their skeletons on torch's meta device.
        load: returns a tower by its name on the device.
        processor: the model's preprocessing, where it is not the published one.
    """

    def __init__(
        self,
        vision: Any,
        text: Any,
        tokenizer: Tokenizer,
        *,
        identity: dict[str, Any],
        load: Callable[[TowerName], Any] | None = None,
        device: torch.device | None = None,
        processor: OwnPreprocess | None = None,
    ) -> None:
        self.tokenizer, self.identity, self.processor = tokenizer, identity, processor
        self.skeletons: dict[TowerName, Any] = {"vision": vision, "text": text}
        self._load = load or self.skeletons.__getitem__
        self.size: int = vision.config.image_size
        self.feature_width: int = vision.config.projection_dim
        self.token_width: int = text.config.hidden_size
        self.device: torch.device = device or next(text.parameters()).device
        self.dtype: torch.dtype = next(text.parameters()).dtype

    @cached_property
    def vision(self) -> Any:
        return self._load("vision")

    @cached_property
    def text(self) -> Any:
        return self._load("text")

    def release(self, tower: TowerName) -> None:
        """Free a tower's memory; its next use loads it again."""
        self.__dict__.pop(tower, None)

    def size_of(self, tower: TowerName) -> int:
        """Return the bytes of a tower's weights."""
        return sum(tensor.nbytes for tensor in self.skeletons[tower].parameters())

    def __repr__(self) -> str:
        source = self.identity.get("source", "in memory")
        return f"<Clip {source}: {self.feature_width} wide, {self.dtype} on {self.device}>"

    def preprocess(self, pad: bool, *, rgb_first: bool = False) -> ClipPreprocess:
        """Return the model's own preprocessing of pictures, or the published one in either of its orders.

        Args:
            pad: apply SEARLE's targetpad first.
            rgb_first: stage 1's order of the published steps.
        """
        return replace(self.processor, pad=pad) if self.processor else Preprocess(self.size, pad, rgb_first)

    @torch.no_grad()
    def embed_images(self, pixels: Tensor) -> Tensor:
        """Encode pixels [B, 3, S, S] as features [B, p], float32 on the CPU: projected, not normalised."""
        with self._explained():
            features = self.vision(pixel_values=pixels.to(self.device, self.dtype)).image_embeds
        return self._finite(features.float().cpu())

    def _finite(self, values: Tensor, texts: Sequence[str] = ()) -> Tensor:
        return need_finite(values, f"the CLIP {self.identity.get('source', 'in memory')}", self.dtype, names=texts)

    def _explained(self) -> contextlib.AbstractContextManager[None]:
        return explained(f"{self!r} cannot encode", "look at its config.json")

    def text_states(self, prompts: Sequence[str], words: Tensor | None = None) -> TextStates:
        """Encode prompts at the full context length, as a generator reads them; the states are on the CPU.

        Args:
            words: [B, h] pseudo-words, one a prompt, which replace every `$`.
        """
        rows = self.tokenizer(prompts)
        with torch.no_grad():
            out, pooled = self._run(rows, self.tokenizer.padded(rows), words)
        states = (out.hidden_states[-2].float().cpu(), out.last_hidden_state.float().cpu(), pooled.cpu())
        return TextStates(*(self._finite(state, prompts) for state in states))

    @torch.no_grad()
    def embed_texts(
        self, prompts: Sequence[str], words: Tensor | None = None, placement: Placement = "every"
    ) -> Tensor:
        """Encode prompts as features [B, p], float32 on the CPU: projected end-of-text states, not normalised.

        Args:
            words: [B, h] pseudo-words, one a prompt.
        """
        # Each prompt is encoded at its real length, which is several times faster than at 77 tokens and exact:
        # attention is causal, so the state at the end token never depends on the padding after it.
        rows = self.tokenizer(prompts)
        by_length = sorted(range(len(rows)), key=lambda i: len(rows[i]))
        features = torch.empty(len(rows), self.feature_width)
        for _, group in groupby(by_length, key=lambda i: len(rows[i])):
            for chunk in batches(list(group), TEXT_BATCH):
                picked = [rows[i] for i in chunk]
                chosen = None if words is None else words[list(chunk)]
                features[list(chunk)] = self._run(picked, torch.tensor(picked), chosen, placement=placement)[1].cpu()
        return self._finite(features, prompts)

    def project_texts(
        self, prompts: Sequence[str], words: Tensor | None = None, placement: Placement = "every"
    ) -> Tensor:
        """Encode prompts in one batch as features [B, p] on the CLIP's device, with gradients for the words [B, h]."""
        rows = self.tokenizer(prompts)
        longest = max(map(len, rows))
        ids = torch.tensor([row + [self.tokenizer.end] * (longest - len(row)) for row in rows])
        return self._run(rows, ids, words, placement=placement)[1]

    def _run(
        self, rows: Sequence[list[int]], ids: Tensor, words: Tensor | None, *, placement: Placement = "every"
    ) -> tuple[Any, Tensor]:
        """Return the text tower's output and the projected end-of-text state [B, p]."""
        mask = placeholder_mask(ids, self.tokenizer.placeholder, placement).to(self.device)
        with self._explained(), pseudo_words(self.text.get_input_embeddings(), mask, words):
            out = self.text(input_ids=ids.to(self.device), output_hidden_states=True)
        # The model would look for the end by eos_token_id, which old configurations have wrong; the rows tell it.
        ends = [row.index(self.tokenizer.end) for row in rows]
        pooled = out.last_hidden_state[torch.arange(len(rows), device=self.device), ends]
        return out, self.text.text_projection(pooled).float()


def placeholder_mask(ids: Tensor, placeholder: int, placement: Placement) -> Tensor:
    """Mark the tokens that the pseudo-word replaces: [B, L] bool."""
    mask = ids == placeholder
    return mask & (mask.cumsum(1) == 1) if placement == "first" else mask


@contextlib.contextmanager
def pseudo_words(embedding: torch.nn.Module, mask: Tensor, words: Tensor | None) -> Iterator[None]:
    """Within the context, put the pseudo-words [B, h] where the mask [B, L] is set in the token embedding's output."""

    # A hook on the public model, because transformers 5 ignores the causal mask that older code passes to the text
    # encoder by hand: with the model's own forward, masks, positions and precision stay right in every version. The
    # hook belongs to the module, so two threads must not share one model.
    def replace_tokens(module: torch.nn.Module, args: Any, embedded: Tensor) -> Tensor:
        assert words is not None
        return torch.where(mask.unsqueeze(-1), words.to(embedded.device, embedded.dtype).unsqueeze(1), embedded)

    handle = embedding.register_forward_hook(replace_tokens) if words is not None else None
    try:
        yield
    finally:
        if handle:
            handle.remove()


def load_clip(
    source: str | Path,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | str = "float32",
    cache_dir: str | Path | None = None,
) -> Clip:
    """Check a CLIP's files, by hub id or folder; a tower is loaded when it is first used.

    Args:
        device: "cpu", "cuda", "cuda:1", "mps", or "auto": the GPU if the machine has one.
        dtype: "float32", "float16", "bfloat16", or "auto": float32.
        cache_dir: of the hub.

    Raises:
        NotFoundError: neither a folder nor a hub id that can be reached.
        InputError: the files cannot be read, or lack weights (transformers would fill them with noise).
    """
    from transformers import CLIPTextModelWithProjection, CLIPVisionModelWithProjection

    source, cache_dir = clip_source(source), None if cache_dir is None else Path(cache_dir)
    device = resolve_device(device)
    dtype = resolve_dtype(dtype, device)
    quiet_transformers()
    folder = model_folder(source, cache_dir, "CLIP")
    kinds = {"vision": CLIPVisionModelWithProjection, "text": CLIPTextModelWithProjection}
    # On the meta device, transformers compares the files' names and shapes with the model, and reads no weights.
    text, vision = (_load_tower(kinds[name], folder, dtype, device_map="meta") for name in ("text", "vision"))
    tokenizer = load_tokenizer(folder, text.config.max_position_embeddings)
    _check_tokens(tokenizer, text.config.vocab_size, folder)
    processor = load_clip_preprocess(folder, vision.config.image_size)
    origin = {**identity(source, cache_dir), "dtype": str(dtype)}

    def load(name: TowerName) -> Any:
        need_memory(f"the {name} tower of {source} as {dtype}", clip.size_of(name), device)
        return _load_tower(kinds[name], folder, dtype).to(device)

    clip = Clip(vision, text, tokenizer, identity=origin, load=load, device=device, processor=processor)
    return clip


def _check_tokens(tokenizer: Tokenizer, size: int, source: Path) -> None:
    """Raise MismatchError if the tokenizer and the text tower, of so many tokens, do not fit each other."""
    highest = max(tokenizer.tokenizer.get_vocab().values())
    if highest >= size:
        raise MismatchError(f"{source}: its tokenizer has tokens up to {highest}, its text tower {size} of them")
    if tokenizer.end not in tokenizer(["a"])[0]:
        raise MismatchError(f"the tokenizer in {source} does not end a text with its end token; CLIP pools there")


def _load_tower(tower: Any, folder: Path, dtype: torch.dtype, **options: Any) -> Any:
    check_folder(folder)
    options |= weights_option(folder, "model", "CLIP", pickled="pytorch_model.bin") | projection(folder)
    try:
        how = {"output_loading_info": True, "ignore_mismatched_sizes": True}
        model, info = tower.from_pretrained(str(folder), dtype=dtype, **how, **options)
    except Exception as error:
        if is_out_of_memory(error):
            raise short_memory(f"the CLIP {folder} cannot be loaded", torch.device("cpu")) from error
        raise unloadable("CLIP", folder, error) from error
    need_all_weights(info, str(folder), "CLIP", parts=TOWER_WEIGHTS[tower.config_class.base_config_key])
    return model.eval().requires_grad_(False)


def projection(folder: Path) -> dict[str, int]:
    """Return the width of a CLIP's features as an option of from_pretrained; {} if the towers alone state it.

    The towers' own statements may lack or be defaults: transformers' CLIPModel, which wrote the weights, goes by the
    top level's.
    """
    width = read_object(folder / "config.json").get("projection_dim")
    return {"projection_dim": width} if isinstance(width, int) and not isinstance(width, bool) else {}


def check_folder(folder: Path) -> None:
    """Raise NotFoundError or MismatchError unless a folder holds a CLIP; transformers would only name a key."""
    refuse_file(folder)
    if not (folder / "config.json").is_file():
        raise NotFoundError(f"{folder} has no config.json; give a CLIP in transformers' layout, or a hub id")
    config = read_json(folder / "config.json")
    kind = config.get("model_type") if isinstance(config, dict) else None
    if kind != "clip":
        raise MismatchError(f'{folder}/config.json is not a CLIP\'s: its model_type is "{kind}", not "clip"')
