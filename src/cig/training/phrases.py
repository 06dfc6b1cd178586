"""Phrases with a concept in them, for the losses of SEARLE and OTI: what a language model made, read again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from cig.errors import InputError, UsageError, plain, some
from cig.pickles import read_pickled_lists
from cig.runtime import say
from cig.tables import each_row


def read_phrases(path: Path) -> dict[str, tuple[str, ...]]:
    """Concept -> its phrases, from JSON lines ({"concept", "phrases"}) or SEARLE's `concept_to_phrases.pkl`.

    As published, a concept that one of its phrases does not have in it is left out; these are counted and named. A
    concept that comes twice has the phrases of its last line.

    Raises:
        NotFoundError: it is not there.
        InputError: it is no such file, or no concept is left; a pickle is read without running anything in it.
        UsageError: another suffix than .jsonl and .pkl.
    """
    phrases = {concept: tuple(own) for concept, own in _each(path)}
    lost = set(lost_concepts(phrases))
    if len(lost) == len(phrases):
        raise InputError(f"{path} has no concept that is in all of its phrases")
    if lost:
        say(f"{path}: {told(sorted(lost))}")
    return {concept: own for concept, own in phrases.items() if concept not in lost}


def lost_concepts(phrases: Mapping[str, Sequence[str]]) -> list[str]:
    """Concepts that cannot be replaced by a pseudo-word, because a phrase lacks them or there is none."""
    return [concept for concept, own in phrases.items() if not own or not all(concept in phrase for phrase in own)]


def told(lost: Iterable[str]) -> str:
    names = [plain(concept, 60) for concept in lost]
    return f"{len(names)} concepts are left out, because not all of their phrases have them: {some(names)}"


def _each(path: Path) -> Iterator[tuple[str, Sequence[str]]]:
    suffix = path.suffix.lower()
    if suffix == ".pkl":
        yield from read_pickled_lists(path).items()
    elif suffix == ".jsonl":
        yield from (checked(row, path) for row in each_row(path))
    else:
        raise UsageError(f"{path}: phrases come as .jsonl, or as SEARLE's concept_to_phrases.pkl")


def checked(row: Mapping[str, Any], path: Path) -> tuple[str, list[str]]:
    """(concept, phrases) of a line; raises InputError."""
    concept, phrases = row.get("concept"), row.get("phrases")
    texts = isinstance(phrases, list) and all(isinstance(phrase, str) for phrase in phrases)
    if not isinstance(concept, str) or not concept or not texts:
        form = '{"concept": "...", "phrases": ["...", ...]}'
        raise InputError(f"{path}: a line should be {form}; it is {str(row)[:120]}")
    return concept, cast(list[str], phrases)
