"""Phrases with a concept in them, for the losses of SEARLE and OTI, which a language model writes.

A file has a JSON line for each concept, {"concept", "phrases"}; its card, `{name}.json`, has the settings.
"""

from __future__ import annotations

import mmap
import pickle
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

from cig.errors import InputError, MismatchError, UsageError, plain, some
from cig.io.digests import fingerprints
from cig.io.files import make_folder, replacing, sweep, writing
from cig.io.json_files import append_json, read_object, write_json
from cig.io.locks import hold_file
from cig.io.pickled_names import read_pickled_lists
from cig.io.tables import each_row
from cig.runtime import progress, versions, warn
from cig.training.data.language_model import LanguageModel, Sampling
from cig.training.plan import differences

PROMPT = "a photo of {} that"


@dataclass(frozen=True)
class PhraseCounts:
    """The concepts of a file of phrases after a run."""

    concepts: int
    made: int  # concepts that this run added
    lost: tuple[str, ...]  # concepts that cannot be used


def generate_phrases(
    concepts: Iterable[str], model: LanguageModel, sampling: Sampling, *, out: Path, batch_size: int = 256
) -> PhraseCounts:
    """Append the phrases of each concept to a file, except for concepts that the file has already.

    The phrases of a concept depend on the seed and the concept alone, not on its neighbours or on batches.

    Args:
        batch_size: write so many phrases of one concept at once.

    Raises:
        UsageError: the file's suffix is not .jsonl, or the model takes fewer tokens.
        InputError: the model's numbers are not finite.
        MismatchError: the file was made with other settings.
    """
    model.check(sampling)
    settings = {"prompt": PROMPT, **asdict(sampling), "dtype": model.identity["dtype"]}
    with hold_file(out, "phrases"):
        file = PhraseFile(out, {**settings, **fingerprints({"model": model.identity})})
        todo = [concept for concept in dict.fromkeys(concepts) if concept not in file.usable]
        for concept in progress(todo, len(todo), "phrases", unit="concept"):
            phrases = model.continued(PROMPT.format(concept), sampling, batch_size)
            file.add(concept, [clean_phrase(phrase) for phrase in phrases])
        file.close(model.identity)
        return PhraseCounts(len(file.usable), len(todo), file.lost)


def clean_phrase(phrase: str) -> str:
    """Replace a run of newlines by ". " and a run of dots by one dot, as SEARLE does."""
    return re.sub(r"\.+", ".", re.sub(r"\n+", ". ", phrase))


class PhraseFile:
    """A file that grows by a line a concept, and that a rerun continues."""

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        """Open or create the file; raises UsageError, MismatchError, or InputError for lines of another form."""
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
        """Return the concepts that cannot be used."""
        return tuple(concept for concept, usable in self.usable.items() if not usable)

    def add(self, concept: str, phrases: Sequence[str]) -> None:
        append_json(self.path, {"concept": concept, "phrases": list(phrases)})
        self.usable[concept] = is_usable(concept, phrases)

    def close(self, model: Mapping[str, Any]) -> None:
        """Write the card: settings, model and counts."""
        counts = {"concepts": len(self.usable), "left out": list(self.lost)}
        card = {"settings": self.settings, "model": dict(model), **counts, "versions": versions()}
        write_json(self.card, card, indent=2)

    def _refuse_other_settings(self) -> None:
        then = read_object(self.card).get("settings") if self.card.exists() else None
        if not isinstance(then, dict):
            if self.path.exists():
                raise MismatchError(f"{self.card.name} does not say how {self.path} was made; give another --out")
            return
        if differ := differences(then, self.settings):
            raise MismatchError(f"{self.path} was made with other settings ({'; '.join(differ)}); give another --out")


def check_form(path: Path) -> None:
    """Raise UsageError for a suffix that no phrases are written as, before a model is loaded."""
    if path.suffix.lower() != ".jsonl":
        raise UsageError(f"{path}: phrases are written as .jsonl")


def _cut_torn_line(path: Path) -> None:
    """Cut the file after its last line feed, which is before the half line that a kill leaves."""
    # A rerun must end with the bytes of a run that was not killed. Half a line would make the file unreadable, and a
    # new line after it would be joined to it. The file may have gigabytes, so it is mapped and searched from the end.
    with writing(path), path.open("r+b") as file:
        size = file.seek(0, 2)
        if size:
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
                whole = view.rfind(b"\n") + 1
            if whole < size:
                file.truncate(whole)


def write_pickle(path: Path) -> Path:
    """Write a file's concepts and phrases beside it as SEARLE's programs read them; return the new path.

    A pickle of a dict of lists of texts, by Python's default protocol, with all concepts: SEARLE's programs leave out
    those that are not in all of their phrases.
    """
    pickled = path.with_name("concept_to_phrases.pkl")
    with replacing(pickled) as file:
        pickle.dump({concept: list(phrases) for concept, phrases in _each(path)}, file)
    return pickled


def read_phrases(path: Path) -> dict[str, tuple[str, ...]]:
    """Read the phrases of each concept from JSON lines ({"concept", "phrases"}) or SEARLE's `concept_to_phrases.pkl`.

    As published, a concept is left out if one of its phrases does not contain it; these are counted and named. A
    concept that comes twice has the phrases of its last line.

    Raises:
        NotFoundError: there is no such file.
        InputError: it has another form, or no concept is left; a pickle is read without running anything in it.
        UsageError: its suffix is neither .jsonl nor .pkl.
    """
    phrases = {concept: tuple(texts) for concept, texts in _each(path)}
    lost = [concept for concept, texts in phrases.items() if not is_usable(concept, texts)]
    if len(lost) == len(phrases):
        raise InputError(f"{path} has no concept that is in all of its phrases")
    if lost:
        warn(f"{path}: {describe_lost(lost)}")
    return {concept: texts for concept, texts in phrases.items() if is_usable(concept, texts)}


def is_usable(concept: str, phrases: Sequence[str]) -> bool:
    """Tell whether there are phrases, and a pseudo-word can replace the concept in each of them."""
    return bool(phrases) and all(concept in phrase for phrase in phrases)


def describe_lost(lost: Sequence[str]) -> str:
    """Return a message that counts and names the concepts that cannot be used."""
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
    """Return concept and phrases of a line; raises InputError for another form."""
    concept, phrases = row.get("concept"), row.get("phrases")
    texts = isinstance(phrases, list) and all(isinstance(phrase, str) for phrase in phrases)
    if not isinstance(concept, str) or not concept or not texts:
        form = '{"concept": "...", "phrases": ["...", ...]}'
        raise InputError(f"{path}: a line should be {form}; it is {str(row)[:120]}")
    return concept, cast(list[str], phrases)
