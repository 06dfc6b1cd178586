"""Texts with a picture's pseudo-word: templates, and phrases whose concept the word replaces.

Both are SEARLE's (Baldrati et al., ICCV 2023, section 3); the templates are PALAVRA's (Cohen et al., ECCV 2022).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from random import Random

import torch
from torch import Tensor
from torch.nn import functional

from cig.errors import UsageError
from cig.io.digests import digest, set_digest
from cig.methods._picture_names import Names, repeated_names
from cig.models.clip import Clip, Placement
from cig.models.tokenizer import PLACEHOLDER

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
FIRST, EVERY = 1, -1  # occurrences of a concept that are replaced: in OTI, in the training of phi
ConceptPhrase = tuple[str, str]  # a concept, and a phrase with it


class Phrasebook:
    """The concepts of pictures, and phrases with these concepts.

    As published, a concept is skipped if one of its phrases does not contain it: it could not be replaced there.

    Args:
        concepts: a picture's name -> its concepts, best first.
        phrases: a concept -> phrases with it.
        top: use so many of a picture's concepts.
    """

    def __init__(self, concepts: Mapping[str, Sequence[str]], phrases: Mapping[str, Sequence[str]], top: int) -> None:
        self.concepts, self.phrases, self.top = concepts, phrases, top
        self._usable: dict[str, tuple[str, ...]] = {}  # concept -> its phrases, once computed
        self._chosen: dict[str, list[str]] = {}  # picture -> its usable concepts, once computed

    def draw(self, name: str, rng: Random) -> ConceptPhrase | None:
        """Draw one of a picture's concepts and one of its phrases; None if no concept can be used."""
        choices = self._choices(name)
        if not choices:
            return None
        concept = rng.choice(choices)
        return concept, rng.choice(self._phrases(concept))

    def lacking(self, names: Iterable[str]) -> dict[str, str]:
        """Return the pictures without a usable concept, and why."""
        reasons = {}
        for name in names:
            if not self._choices(name):
                best = self._concepts(name)[:3]
                reasons[name] = f"none of {', '.join(best)}... has phrases with it" if best else "it has no concepts"
        return reasons

    def identity(self, names: Iterable[str]) -> str:
        """Return a digest of all that can be drawn for these pictures."""
        concepts = {name: self._choices(name) for name in names}
        phrases = {concept: self._phrases(concept) for choices in concepts.values() for concept in choices}
        rows = (*concepts.items(), *phrases.items())
        return set_digest(digest(json.dumps(row).encode()) for row in rows)[:16]

    def _choices(self, name: str) -> list[str]:
        if name not in self._chosen:
            concepts = (_without_placeholder(concept).strip() for concept in self._concepts(name))
            best = list(dict.fromkeys(concepts))[: self.top]
            self._chosen[name] = [concept for concept in best if self._phrases(concept)]
        return self._chosen[name]

    def _concepts(self, name: str) -> Sequence[str]:
        """Return a picture's concepts, whose table may name it with other folders or another suffix."""
        if name in self.concepts or (row := self._names.row(Path(name))) is None:
            return self.concepts.get(name, ())
        return self._rows[row]

    def need_distinct(self, names: Iterable[str]) -> None:
        """Raise UsageError if the table names by its file alone a picture whose file name another one has, too."""
        first: dict[int, str] = {}
        for name in names:
            row = None if name in self.concepts else self._names.row(Path(name))
            if row is not None and first.setdefault(row, name) != name:
                raise UsageError(
                    f"the concepts name {first[row]} and {name} alike; make them from these folders with "
                    f"cig train concepts, which names pictures with their folders"
                )

    @cached_property
    def _names(self) -> Names:
        """The names that mean one picture each, by row."""
        return Names.of(self.concepts, Path(), repeats=True).without(repeated_names(self.concepts))

    @cached_property
    def _rows(self) -> list[Sequence[str]]:
        return list(self.concepts.values())

    def _phrases(self, concept: str) -> tuple[str, ...]:
        """Return a concept's phrases; none if one of them does not contain the concept."""
        if concept not in self._usable:
            phrases = tuple(map(_without_placeholder, self.phrases.get(concept, ())))
            self._usable[concept] = phrases if concept and all(concept in phrase for phrase in phrases) else ()
        return self._usable[concept]


def _without_placeholder(text: str) -> str:
    """Remove dollar signs, which would be read as pseudo-words."""
    return text.replace(PLACEHOLDER, "")


def fill_template(template: str) -> str:
    """ "A photo of a {}" -> "A photo of a  $ "."""
    return template.format(f" {PLACEHOLDER} ")


def replace_concept(pair: ConceptPhrase, occurrences: int) -> str:
    """Replace the concept by `$` in its phrase, FIRST or EVERY occurrence, as published even inside a longer word."""
    concept, phrase = pair
    return phrase.replace(concept, f" {PLACEHOLDER} ", occurrences)


def cosine_distance(rows: Tensor, targets: Tensor) -> Tensor:
    """[B, p], [B, p] -> [B]: 1 - cosine."""
    return 1 - functional.cosine_similarity(rows, targets.to(rows.device))


def phrase_losses(
    clip: Clip, words: Tensor, pairs: Sequence[ConceptPhrase], *, occurrences: int, placement: Placement = "every"
) -> Tensor:
    """Words [B, h] -> [B]: the distance of T(phrase with the word for its concept) from T(phrase), equation 2.

    Args:
        placement: which `$` take the word; the others are read as dollars.
    """
    with torch.no_grad():
        targets = clip.project_texts([phrase for _, phrase in pairs])
    replaced = [replace_concept(pair, occurrences) for pair in pairs]
    return cosine_distance(clip.project_texts(replaced, words, placement), targets)
