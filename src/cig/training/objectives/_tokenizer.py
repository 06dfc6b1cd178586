"""Train a small byte-level BPE tokenizer in CLIP's form on captions: start, words, end; the end token pads."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from cig.models.tokenizer import PLACEHOLDER

START, END = "<|startoftext|>", "<|endoftext|>"


def train_tokenizer(captions: Iterable[str], words: int, context: int) -> Any:
    """Train a transformers tokenizer of at most `words` tokens, to save beside a CLIP.

    `$` is one token, whatever the captions contain, because a pseudo-word takes its place in a prompt.
    """
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.WhitespaceSplit(),
            pre_tokenizers.Punctuation(),
            pre_tokenizers.ByteLevel(False, use_regex=False),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=words,
        special_tokens=[START, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    tokenizer.train_from_iterator([*captions, PLACEHOLDER], trainer)
    tokenizer.model = _renumbered(json.loads(tokenizer.to_str())["model"])
    ids = [(token, tokenizer.token_to_id(token)) for token in (START, END)]
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{START} $A {END}", special_tokens=ids)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=START, eos_token=END, pad_token=END, model_max_length=context
    )


def _renumbered(trained: dict[str, Any]) -> Any:
    """Return the same vocabulary with ids in the order of letters and merges."""
    from tokenizers import models

    # The trainer numbers the letters in the order of a hash table, which differs from run to run. With ids in a fixed
    # order, the same captions and seed train the same CLIP, byte by byte.
    merges = [(left, right) for left, right in trained["merges"]]
    merged = dict.fromkeys(left + right for left, right in merges)
    letters = sorted(set(trained["vocab"]) - set(merged) - {START, END})
    vocabulary = {word: number for number, word in enumerate([START, END, *letters, *merged])}
    return models.BPE(vocab=vocabulary, merges=merges, end_of_word_suffix="</w>")
