"""CLIP's tokenizers: OpenAI's, whose vocabulary is part of the package, or the one of a model's folder."""

from __future__ import annotations

import gzip
import html
import json
from collections.abc import Iterator, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ftfy
import torch

from cig.errors import InputError, MismatchError, NotFoundError, reason
from cig.io.json_files import read_object

if TYPE_CHECKING:
    from torch import Tensor

PLACEHOLDER = "$"


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


def load_tokenizer(folder: Path, context: int) -> Tokenizer:
    """Load the tokenizer of a model's folder if it differs from OpenAI's; else return OpenAI's.

    It is tokenizer.json, or vocab.json with merges.txt; added_tokens.json, special_tokens_map.json and
    tokenizer_config.json are read beside it. Many copies of OpenAI's tokenizer pad with the end token, which the
    published code does not.

    Raises:
        NotFoundError: a file of the vocabulary is missing.
        MismatchError: the tokenizer names no end token, or splits the placeholder.
        InputError: the files cannot be read.
    """
    from transformers import AutoTokenizer

    standard = openai_tokenizer(context)
    if not _has_vocabulary(folder):
        return standard
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False)
        content = _content(tokenizer)
    except Exception as error:
        raise InputError(f"the tokenizer in {folder} cannot be loaded: {reason(error)}") from error
    if content == _openai_content():
        return standard
    if tokenizer.eos_token_id is None:
        raise MismatchError(f"the tokenizer in {folder} names no end token (eos_token); CLIP pools there")
    return Tokenizer(tokenizer, context, pad=tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0)


def _has_vocabulary(folder: Path) -> bool:
    """Return whether a folder has a tokenizer; raises NotFoundError for one that lacks a part."""
    if (folder / "tokenizer.json").is_file():
        return True
    present = [name for name in ("vocab.json", "merges.txt", "added_tokens.json") if (folder / name).is_file()]
    lacking = [name for name in ("vocab.json", "merges.txt") if name not in present]
    if not present or not lacking:
        return bool(present)
    if all(name.endswith(".json") and _is_openais(folder / name) for name in present):
        return False
    raise NotFoundError(
        f"{folder} has {' and '.join(present)}, but not {' and '.join(lacking)}: get the rest of its tokenizer"
    )


def _is_openais(file: Path) -> bool:
    """Return whether all tokens of a file are OpenAI's."""
    return read_object(file).items() <= _openai_bpe().get_vocab().items()


def _content(tokenizer: Any) -> tuple[dict[str, int], list[Any], int | None]:
    """Return what decides the tokens of a text: vocabulary, merges, and the end token."""
    model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    return tokenizer.get_vocab(), model.get("merges", []), tokenizer.eos_token_id


@cache
def _openai_content() -> tuple[dict[str, int], list[Any], int | None]:
    return _content(_openai_bpe())
