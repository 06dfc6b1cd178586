"""Keywords of a caption, and the caption with pseudo-words in their place (LinCIR, Gu et al., CVPR 2024, section 3.2).

LinCIR masks every longest run of nouns, proper nouns, adjectives and determiners, found by a tagger. Ours needs none: a
run is of words that are not in a list of English function words and common verbs, determiners before it included.
"""

from __future__ import annotations

from random import Random

from cig.encoders import PLACEHOLDER
from cig.inversion import BARE_PROMPT

CHUNKER = "runs of words outside a stop-word list"


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


def mask_keywords(caption: str, rng: Random) -> str:
    """ "a photo of a red folder that has a lock" -> "$ of $ that has $".

    A caption without keywords loses one word at random; an empty one is `a photo of $`.
    """
    words = caption.lower().replace(PLACEHOLDER, " ").split()
    if not words:
        return BARE_PROMPT
    keys = [_bare(word) not in STOP_WORDS for word in words]
    if not any(keys):
        place = rng.randrange(len(words))
        return " ".join([*words[:place], PLACEHOLDER, *words[place + 1 :]])
    for place in reversed(range(len(words) - 1)):
        if keys[place + 1] and _bare(words[place]) in DETERMINERS:
            keys[place] = True
    masked: list[str] = []
    for word, is_key in zip(words, keys, strict=True):
        if not is_key:
            masked.append(word)
        elif not masked or masked[-1] != PLACEHOLDER:
            masked.append(PLACEHOLDER)
    return " ".join(masked)


def _bare(word: str) -> str:
    return word.strip(".,;:!?\"'()")
