"""Captions whose keywords are replaced by pseudo-words (LinCIR, Gu et al., CVPR 2024, section 3.2).

LinCIR masks every longest run of nouns, proper nouns, adjectives and determiners, which a tagger marks (`taggers.py`).
The chunker here needs no tagger: it masks runs of words outside a list of English function words and common verbs, and
the determiners before them.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from random import Random
from typing import NamedTuple, Protocol

from cig.models.prompts import BARE_PROMPT
from cig.models.tokenizer import PLACEHOLDER


class Word(NamedTuple):
    text: str
    space: str  # the space after it: " ", or nothing
    key: bool  # whether it belongs to a keyword


class Tagger(Protocol):
    """A model that marks keywords."""

    name: str  # with versions, for model cards

    def __call__(self, texts: Sequence[str]) -> list[list[Word]]:
        """Return the words of each text, in order."""


def mask_keywords(captions: Sequence[str], tagger: Tagger, rng: Random) -> list[str]:
    """ "a photo of a red folder that has a lock" -> "$ of $ that has $".

    A caption without keywords loses one word at random; an empty one is `a photo of $`.
    """
    texts = [clean_caption(caption) for caption in captions]
    return [_masked(words, rng) if words else BARE_PROMPT for words in tagger(texts)]


def clean_caption(caption: str) -> str:
    """Return the caption in lower case, as LinCIR's function of this name does.

    `$`, which marks pseudo-words, is removed, and a name that CC12M has masked becomes a word.
    """
    return " ".join(caption.replace("<PERSON>", "person").lower().replace(PLACEHOLDER, "").split())


def _masked(words: Sequence[Word], rng: Random) -> str:
    if not any(word.key for word in words):
        spoken = [word for word in words if any(map(str.isalnum, word.text))]  # a tagger makes commas words, too
        lost = rng.choice(spoken or words)
        words = [word._replace(key=word is lost) for word in words]
    parts: list[str] = []
    for key, run in groupby(words, key=lambda word: word.key):
        parts += [f" {PLACEHOLDER} "] if key else [part for word in run for part in word[:2]]
    return " ".join("".join(parts).split())  # spaces around "$": CLIP's tokenizer reads "$." as one token


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


DETERMINERS = _words("a an the this these those some any no every each all both its his her their my our your")
STOP_WORDS = DETERMINERS | _words(
    "that about above across after against along among and are around as at be because been before behind below beside "
    "between but by can could did do does down drawn during for from had has have having he how if in inside into "
    "is it like more most near not of off on onto or out outside over she should so than then there they through to "
    "toward under until up upon was we were what when where which while who with within without would you carrying "
    "eating facing flying going hanging holding laying looking lying made making playing pointing points riding "
    "running sits sitting standing stands taking talking using walking watching wearing"
)


class Chunker:
    """A chunker: it marks runs of words outside a stop-word list, with the determiners before them."""

    name = "runs of words outside a stop-word list"

    def __call__(self, texts: Sequence[str]) -> list[list[Word]]:
        return [self._words(text.split()) for text in texts]

    def _words(self, words: Sequence[str]) -> list[Word]:
        keys = [_bare(word) not in STOP_WORDS for word in words]
        for i in reversed(range(len(words) - 1)):
            if keys[i + 1] and _bare(words[i]) in DETERMINERS:
                keys[i] = True
        return [Word(word, " ", key) for word, key in zip(words, keys, strict=True)]


def _bare(word: str) -> str:
    return word.strip(".,;:!?\"'()")
