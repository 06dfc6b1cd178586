"""Run CLIP's two towers: pictures to features; prompts, which may hold pseudo-words, to text states.

Any CLIP in transformers' layout loads, by hub id or folder. OpenAI's vocabulary is part of the package.
"""

from __future__ import annotations

import contextlib
import gzip
import html
import os
from collections.abc import Callable, Iterator, Sequence
from functools import cache, cached_property
from importlib import resources
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import ftfy
import torch

from cig.config import clip_source
from cig.errors import InputError, MismatchError, NotFoundError, reason
from cig.finite import need_finite
from cig.io import hub
from cig.io.digests import identity
from cig.io.images import Preprocess
from cig.io.json_files import read_json
from cig.machine import is_out_of_memory, need_memory, short_memory
from cig.models._pretrained import explained, need_all_weights, refuse_file, unloadable, weights_option
from cig.runtime import batches, quiet_transformers, resolve_device, resolve_dtype
from cig.types import TextStates

if TYPE_CHECKING:
    from torch import Tensor

Placement = Literal["every", "first"]  # at which `$` the pseudo-word goes: stage 1 and LinCIR, or SEARLE (stage 3)
TowerName = Literal["vision", "text"]
TOWER_WEIGHTS = {"vision_config": ("vision_model.", "visual_projection."), "text_config": ("text_model.", "text_proj")}
PLACEHOLDER = "$"
TEXT_BATCH = 64


class Tokenizer:
    """Turn texts into token ids, with OpenAI's cleaning: ftfy, HTML unescaped twice, spaces collapsed, lower case."""

    def __init__(self, tokenizer: Any, context: int, pad: int) -> None:
        self.tokenizer, self.context, self.pad = tokenizer, context, pad
        self.end: int = tokenizer.eos_token_id
        self.placeholder = self._single(PLACEHOLDER)

    def __call__(self, texts: Sequence[str]) -> list[list[int]]:
        """Return each text's tokens (start, words, end), cut to the context length but never padded."""
        if not texts:
            return []
        cleaned = [_clean(text) for text in texts]
        ids = self.tokenizer(cleaned, truncation=False, padding=False, verbose=False)["input_ids"]
        return [row if len(row) <= self.context else [*row[: self.context - 1], self.end] for row in ids]

    def cut(self, text: str) -> str:
        """Return a text without the end that the context length cuts off; one that is cut is cleaned, too."""
        cleaned = _clean(text)
        encoded = self.tokenizer(cleaned, truncation=False, verbose=False, return_offsets_mapping=True)
        if len(encoded["input_ids"]) <= self.context:
            return text
        _, end = encoded["offset_mapping"][self.context - 2]  # of the last token before the end's
        return cleaned[:end]

    def padded(self, rows: Sequence[list[int]]) -> Tensor:
        """Pad rows of tokens: [B, context] int64."""
        return torch.tensor([row + [self.pad] * (self.context - len(row)) for row in rows])

    def _single(self, text: str) -> int:
        ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        if len(ids) != 1:
            raise MismatchError(f'this tokenizer splits "{text}" into {len(ids)} tokens; a pseudo-word needs one')
        return int(ids[0])


def _clean(text: str) -> str:
    encodable = text.encode("utf-8", "replace").decode()  # a lone surrogate becomes a question mark
    return " ".join(html.unescape(html.unescape(ftfy.fix_text(encodable))).lower().split())


def openai_tokenizer(context: int = 77) -> Tokenizer:
    """Return OpenAI's tokenizer; it pads with 0, as published, and SDXL's cross-attention reads the padding."""
    return Tokenizer(_openai_bpe(), context, pad=0)


@cache
def _openai_bpe() -> Any:
    """Parse the vendored vocabulary, once: it takes longer than loading a small CLIP, and nothing changes it."""
    from transformers import CLIPTokenizer

    packed = resources.files("cig").joinpath("assets/openai-clip/bpe_simple_vocab_16e6.txt.gz").read_bytes()
    lines = gzip.decompress(packed).decode().split("\n")
    merges = [(left, right) for left, right in (line.split() for line in lines[1:48895])]
    letters = list(_byte_letters())
    words = [*letters, *(f"{letter}</w>" for letter in letters), *("".join(pair) for pair in merges)]
    vocab = {word: i for i, word in enumerate([*words, "<|startoftext|>", "<|endoftext|>"])}
    return CLIPTokenizer(vocab=vocab, merges=merges, pad_token="<|endoftext|>")


def _byte_letters() -> Iterator[str]:
    """Yield GPT-2's printable letter for each byte, in the vocabulary's order: printable bytes first."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    yield from map(chr, printable)
    yield from (chr(256 + i) for i in range(256 - len(printable)))


def load_tokenizer(source: str, context: int) -> Tokenizer:
    """Load a folder's tokenizer.json if its vocabulary differs from OpenAI's; else return OpenAI's tokenizer.

    Many copies of OpenAI's tokenizer pad with the end token, which the published code does not.
    """
    from transformers import AutoTokenizer

    standard = openai_tokenizer(context)
    if not (Path(source) / "tokenizer.json").is_file():
        return standard
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    except Exception as error:
        raise InputError(f"{source}/tokenizer.json cannot be loaded: {reason(error)}") from error
    if tokenizer.get_vocab() == standard.tokenizer.get_vocab():
        return standard
    if tokenizer.eos_token_id is None:
        raise MismatchError(f"{source}/tokenizer.json names no end token (eos_token); CLIP pools there")
    return Tokenizer(tokenizer, context, pad=tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0)


class Clip:
    """A CLIP: picture tower, text tower, tokenizer. A tower is loaded when it is first used, and may be released.

    Args:
        vision, text: the towers or, with `load`, their skeletons on torch's meta device.
        load: returns a tower by its name on the device.
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
    ) -> None:
        self.tokenizer, self.identity = tokenizer, identity
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

    def preprocess(self, pad: bool) -> Preprocess:
        return Preprocess(self.size, pad)

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
    hub.need_source(source, cache_dir, "CLIP")
    quiet_transformers()
    kinds = {"vision": CLIPVisionModelWithProjection, "text": CLIPTextModelWithProjection}
    # On the meta device, transformers compares the files' names and shapes with the model, and reads no weights.
    text, vision = (
        _load_tower(kinds[name], source, dtype, cache_dir=cache_dir, device_map="meta") for name in ("text", "vision")
    )
    tokenizer = load_tokenizer(source, text.config.max_position_embeddings)
    _check_tokens(tokenizer, text.config.vocab_size, source)
    origin = {**identity(source, cache_dir), "dtype": str(dtype)}

    def load(name: TowerName) -> Any:
        need_memory(f"the {name} tower of {source} as {dtype}", clip.size_of(name), device)
        return _load_tower(kinds[name], source, dtype, cache_dir=cache_dir).to(device)

    clip = Clip(vision, text, tokenizer, identity=origin, load=load, device=device)
    return clip


def _check_tokens(tokenizer: Tokenizer, size: int, source: str) -> None:
    """Raise MismatchError if the tokenizer and the text tower, of so many tokens, do not fit each other."""
    highest = max(tokenizer.tokenizer.get_vocab().values())
    if highest >= size:
        raise MismatchError(f"{source}: its tokenizer has tokens up to {highest}, its text tower {size} of them")
    if tokenizer.end not in tokenizer(["a"])[0]:
        raise MismatchError(f"{source}/tokenizer.json does not end a text with its end token; CLIP pools there")


def _load_tower(tower: Any, source: str, dtype: torch.dtype, *, cache_dir: Path | None, **options: Any) -> Any:
    folder, local = Path(source), os.path.exists(source)
    if local:
        check_folder(folder)
        options |= weights_option(folder, "model", "CLIP", pickled="pytorch_model.bin")
    try:
        where: dict[str, Any] = {"revision": hub.commit_of(source, cache_dir), "cache_dir": cache_dir}
        where |= {"output_loading_info": True, "ignore_mismatched_sizes": True}
        model, info = tower.from_pretrained(source, dtype=dtype, **where, **options)
    except Exception as error:
        if is_out_of_memory(error):
            raise short_memory(f"the CLIP {source} cannot be loaded", torch.device("cpu")) from error
        raise unloadable("CLIP", source, error) from error
    need_all_weights(info, source, "CLIP", parts=TOWER_WEIGHTS[tower.config_class.base_config_key])
    return model.eval().requires_grad_(False)


def check_folder(folder: Path) -> None:
    """Raise NotFoundError or MismatchError unless a folder holds a CLIP; transformers would only name a key."""
    refuse_file(folder)
    if not (folder / "config.json").is_file():
        raise NotFoundError(f"{folder} has no config.json; give a CLIP in transformers' layout, or a hub id")
    config = read_json(folder / "config.json")
    kind = config.get("model_type") if isinstance(config, dict) else None
    if kind != "clip":
        raise MismatchError(f'{folder}/config.json is not a CLIP\'s: its model_type is "{kind}", not "clip"')
