"""Keywords of captions, and the captions with pseudo-words in their place (LinCIR, Gu et al., CVPR 2024, section 3.2).

LinCIR masks every longest run of nouns, proper nouns, adjectives and determiners, found by a tagger (`taggers.py`). The
chunker here needs none: a run is of words that are not in a list of English function words and common verbs,
determiners before it included.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from random import Random
from typing import NamedTuple, Protocol

from cig.models.clip import PLACEHOLDER
from cig.models.prompts import BARE_PROMPT


class Word(NamedTuple):
    text: str
    space: str  # what follows it: " ", or nothing
    key: bool  # whether it belongs to a keyword


class Tagger(Protocol):
    """What finds keywords."""

    name: str  # with versions, for results

    def __call__(self, texts: Sequence[str]) -> list[list[Word]]:
        """The words of each text, in order."""


def mask_keywords(captions: Sequence[str], tagger: Tagger, rng: Random) -> list[str]:
    """ "a photo of a red folder that has a lock" -> "$ of $ that has $".

    A caption without keywords loses one word at random; an empty one is `a photo of $`.
    """
    return [_masked(words, rng) if words else BARE_PROMPT for words in tagger([clean_caption(own) for own in captions])]


def clean_caption(caption: str) -> str:
    """In lower case, without what would stand for a pseudo-word (LinCIR's loader, by the same name)."""
    return " ".join(caption.lower().replace(PLACEHOLDER, " ").split())


def _masked(words: Sequence[Word], rng: Random) -> str:
    if not any(word.key for word in words):
        lost = rng.randrange(len(words))
        words = [word._replace(key=place == lost) for place, word in enumerate(words)]
    parts: list[str] = []
    for key, run in groupby(words, key=lambda word: word.key):
        own = list(run)
        parts += [f" {PLACEHOLDER} "] if key else [part for word in own for part in word[:2]]
    return " ".join("".join(parts).split())  # apart from punctuation: CLIP's tokenizer reads "$." as one token


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
    """Keywords without a tagger."""

    name = "runs of words outside a stop-word list"

    def __call__(self, texts: Sequence[str]) -> list[list[Word]]:
        return [self._words(text.split()) for text in texts]

    def _words(self, words: Sequence[str]) -> list[Word]:
        keys = [_bare(word) not in STOP_WORDS for word in words]
        for place in reversed(range(len(words) - 1)):
            if keys[place + 1] and _bare(words[place]) in DETERMINERS:
                keys[place] = True
        return [Word(word, " ", key) for word, key in zip(words, keys, strict=True)]


def _bare(word: str) -> str:
    return word.strip(".,;:!?\"'()")
