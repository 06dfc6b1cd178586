"""What is said of a picture with its pseudo-word: templates, and phrases in which the word stands for a concept.

Both are SEARLE's (Baldrati et al., ICCV 2023, section 3); the templates are PALAVRA's (Cohen et al., ECCV 2022).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from random import Random

import torch
from torch import Tensor
from torch.nn import functional

from cig.io.digests import digest, set_digest
from cig.models.clip import PLACEHOLDER, Clip

TEMPLATES = (  # PALAVRA's (Cohen et al., ECCV 2022), as SEARLE released them
    "This is a photo of a {}",
    "This photo contains a {}",
    "A photo of a {}",
    "This is an illustration of a {}",
    "This illustration contains a {}",
    "An illustrations of a {}",
    "This is a sketch of a {}",
    "This sketch contains a {}",
    "A sketch of a {}",
    "This is a diagram of a {}",
    "This diagram contains a {}",
    "A diagram of a {}",
    "A {}",
    "We see a {}",
    "{}",
    "We see a {} in this photo",
    "We see a {} in this image",
    "We see a {} in this illustration",
    "We see a {} photo",
    "We see a {} image",
    "We see a {} illustration",
    "{} photo",
    "{} image",
    "{} illustration",
)
FIRST, EVERY = 1, -1  # occurrences of a concept that are replaced: by OTI, by phi's training
Said = tuple[str, str]  # a concept, and a phrase that has it


class Phrasebook:
    """Phrases about what pictures look like.

    A concept that is not found again in each of its phrases is passed over, as published: it could not be replaced.

    Args:
        concepts: a picture's name -> what it looks like, best first.
        phrases: a concept -> phrases with it.
        top: so many of a picture's concepts are used.
    """

    def __init__(self, concepts: Mapping[str, Sequence[str]], phrases: Mapping[str, Sequence[str]], top: int) -> None:
        self.concepts, self.phrases, self.top = concepts, phrases, top
        self._usable: dict[str, tuple[str, ...]] = {}  # phrases of concepts that were asked for
        self._chosen: dict[str, list[str]] = {}  # concepts of pictures that were

    def draw(self, name: str, rng: Random) -> Said | None:
        """One of a picture's concepts, and one of its phrases; None where it has none that can be used."""
        choices = self._choices(name)
        if not choices:
            return None
        concept = rng.choice(choices)
        return concept, rng.choice(self._phrases(concept))

    def lacking(self, names: Iterable[str]) -> dict[str, str]:
        """Picture -> why nothing can be said of it."""
        return {name: self._why(name) for name in names if not self._choices(name)}

    def identity(self, names: Iterable[str]) -> str:
        """A digest of all that can be drawn for these pictures."""
        own = {name: self._choices(name) for name in names}
        phrases = {concept: self._phrases(concept) for choices in own.values() for concept in choices}
        rows = (*own.items(), *phrases.items())
        return set_digest(digest(json.dumps(row).encode()) for row in rows)[:16]

    def _choices(self, name: str) -> list[str]:
        if name not in self._chosen:
            best = list(dict.fromkeys(map(_plain, self.concepts.get(name, ()))))[: self.top]
            self._chosen[name] = [concept for concept in best if self._phrases(concept)]
        return self._chosen[name]

    def _phrases(self, concept: str) -> tuple[str, ...]:
        """Empty where one does not have the concept."""
        if concept not in self._usable:
            own = tuple(map(_without_placeholder, self.phrases.get(concept, ())))
            self._usable[concept] = own if concept and all(concept in phrase for phrase in own) else ()
        return self._usable[concept]

    def _why(self, name: str) -> str:
        own = self.concepts.get(name, ())
        return f"none of {', '.join(own[:3])}... has phrases with it" if own else "it has no concepts"


def _plain(concept: str) -> str:
    return _without_placeholder(concept).strip()


def _without_placeholder(text: str) -> str:
    """A dollar in a phrase is no pseudo-word."""
    return text.replace(PLACEHOLDER, "")


def templated(template: str) -> str:
    """ "A photo of a  $ " """
    return template.format(f" {PLACEHOLDER} ")


def with_word(said: Said, times: int) -> str:
    """The phrase with `$` for its concept: FIRST or EVERY, wherever its letters are, in a longer word, too."""
    concept, phrase = said
    return phrase.replace(concept, f" {PLACEHOLDER} ", times)


def apart(found: Tensor, wanted: Tensor) -> Tensor:
    """[B] 1 - cosine, of rows."""
    return 1 - functional.cosine_similarity(found, wanted.to(found.device))


def phrase_losses(clip: Clip, words: Tensor, said: Sequence[Said], times: int) -> Tensor:
    """[B] how far T(phrase with the word for its concept) is from T(phrase): equation 2, for each word [B, h]."""
    with torch.no_grad():
        wanted = clip.project_texts([phrase for _, phrase in said])
    return apart(clip.project_texts([with_word(own, times) for own in said], words), wanted)
