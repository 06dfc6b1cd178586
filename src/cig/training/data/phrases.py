"""Phrases with a concept in them, for the losses of SEARLE and OTI: made by a language model, and read again.

A file has a JSON line for each concept, {"concept", "phrases"}; its card, `{name}.json`, says how it was made.
"""

from __future__ import annotations

import mmap
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

from cig.errors import InputError, MismatchError, UsageError, plain, some
from cig.io.digests import fingerprints
from cig.io.files import make_folder, sweep, writing
from cig.io.json_files import append_json, read_object, write_json
from cig.io.pickles import read_pickled_lists
from cig.io.tables import each_row
from cig.runtime import progress, say, versions
from cig.training.data.language_model import LanguageModel, Sampling

PROMPT = "a photo of {} that"


@dataclass(frozen=True)
class Outcome:
    """What a file holds now, and what this run added."""

    concepts: int
    made: int
    lost: tuple[str, ...]  # concepts that cannot be used


def generate_phrases(
    concepts: Iterable[str], model: LanguageModel, sampling: Sampling, out: Path, batch_size: int = 256
) -> Outcome:
    """The phrases of each concept, appended to a file; those that it has are not made again.

    What is drawn for a concept depends on the seed and the concept alone, not on its neighbours or on batches.

    Args:
        batch_size: phrases of one concept at once.

    Raises:
        UsageError: the file is called otherwise than .jsonl; the model takes fewer tokens.
        InputError: what the model computes is not finite.
        MismatchError: the file was made with other settings.
    """
    model.check(sampling)
    settings = {"prompt": PROMPT, **asdict(sampling), "dtype": model.identity["dtype"]}
    file = PhraseFile(out, {**settings, **fingerprints({"model": model.identity})})
    todo = [concept for concept in dict.fromkeys(concepts) if concept not in file.usable]
    for concept in progress(todo, len(todo), "phrases", "concept"):
        made = model.continued(PROMPT.format(concept), sampling, batch_size)
        file.add(concept, [mended(phrase) for phrase in made])
    file.close(model.identity)
    return Outcome(len(file.usable), len(todo), file.lost)


def mended(phrase: str) -> str:
    """SEARLE's: a run of newlines becomes ". ", a run of dots one dot."""
    return re.sub(r"\.+", ".", re.sub(r"\n+", ". ", phrase))


class PhraseFile:
    """A file that grows by a line a concept; a line that a kill tore is cut off, and its concept made again."""

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        """Raises UsageError, MismatchError, or InputError for lines that are not ours."""
        check_form(path)
        self.path, self.settings = path, dict(settings)
        self.card = path.with_name(f"{path.name}.json")
        sweep(make_folder(path.parent))
        self._refuse_other_settings()
        self.usable: dict[str, bool] = {}
        if path.exists():
            _cut_torn_line(path)
            self.usable |= {concept: is_usable(concept, phrases) for concept, phrases in _each(path)}
        elif not self.card.exists():
            write_json(self.card, {"settings": self.settings}, indent=2)

    @property
    def lost(self) -> tuple[str, ...]:
        return tuple(concept for concept, usable in self.usable.items() if not usable)

    def add(self, concept: str, phrases: Sequence[str]) -> None:
        append_json(self.path, {"concept": concept, "phrases": list(phrases)})
        self.usable[concept] = is_usable(concept, phrases)

    def close(self, model: Mapping[str, Any]) -> None:
        """Says in the card what there is now."""
        counts = {"concepts": len(self.usable), "left out": list(self.lost)}
        known = {"settings": self.settings, "model": dict(model), **counts, "versions": versions()}
        write_json(self.card, known, indent=2)

    def _refuse_other_settings(self) -> None:
        there = read_object(self.card).get("settings") if self.card.exists() else None
        if not isinstance(there, dict):
            if self.path.exists():
                raise MismatchError(f"{self.card.name} does not say how {self.path} was made; give another --out")
            return
        differ = [
            f"{key}: {there.get(key)} there, {self.settings.get(key)} now"
            for key in {**self.settings, **there}
            if there.get(key) != self.settings.get(key)
        ]
        if differ:
            raise MismatchError(f"{self.path} was made with other settings ({'; '.join(differ)}); give another --out")


def check_form(path: Path) -> None:
    """Raises UsageError for what no phrases are written as, before a model is loaded."""
    if path.suffix.lower() != ".jsonl":
        raise UsageError(f"{path}: phrases are written as .jsonl")


def _cut_torn_line(path: Path) -> None:
    """Takes away what a kill left of a line: whatever comes after the last line feed."""
    with writing(path), path.open("r+b") as file:
        size = file.seek(0, 2)
        if size:
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
                whole = view.rfind(b"\n") + 1
            if whole < size:
                file.truncate(whole)


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
    lost = [concept for concept, own in phrases.items() if not is_usable(concept, own)]
    if len(lost) == len(phrases):
        raise InputError(f"{path} has no concept that is in all of its phrases")
    if lost:
        say(f"{path}: {told(lost)}")
    return {concept: own for concept, own in phrases.items() if is_usable(concept, own)}


def is_usable(concept: str, phrases: Sequence[str]) -> bool:
    """Whether a pseudo-word can take the concept's place in every phrase, of which there are some."""
    return bool(phrases) and all(concept in phrase for phrase in phrases)


def told(lost: Sequence[str]) -> str:
    """How many concepts cannot be used, and which."""
    names = some(plain(concept, 60) for concept in lost)
    return f"{len(lost)} concepts are left out, because not all of their phrases have them: {names}"


def _each(path: Path) -> Iterator[tuple[str, Sequence[str]]]:
    suffix = path.suffix.lower()
    if suffix == ".pkl":
        yield from read_pickled_lists(path).items()
    elif suffix == ".jsonl":
        yield from (_checked(row, path) for row in each_row(path))
    else:
        raise UsageError(f"{path}: phrases come as .jsonl, or as SEARLE's concept_to_phrases.pkl")


def _checked(row: Mapping[str, Any], path: Path) -> tuple[str, list[str]]:
    """(concept, phrases) of a line; raises InputError."""
    concept, phrases = row.get("concept"), row.get("phrases")
    texts = isinstance(phrases, list) and all(isinstance(phrase, str) for phrase in phrases)
    if not isinstance(concept, str) or not concept or not texts:
        form = '{"concept": "...", "phrases": ["...", ...]}'
        raise InputError(f"{path}: a line should be {form}; it is {str(row)[:120]}")
    return concept, cast(list[str], phrases)
