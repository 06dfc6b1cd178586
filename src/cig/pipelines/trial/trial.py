"""A blind trial on pictures of one's own: which of two lists answers a query better, base's or that of pseudo-targets?

`trial.json` holds the cases, `votes.jsonl` a line a vote. Which side is base is in the first alone, and leaves it only
when all is voted on.
"""

from __future__ import annotations

import json
import math
import os
import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cig.benchmarks import Data
from cig.errors import InputError, MismatchError, NotFoundError, some
from cig.generators import Composing, Generation
from cig.io.digests import digest_of, file_digest
from cig.io.files import read_bytes
from cig.io.json_files import append_json, read_object, write_json
from cig.io.manifest import COST_KINDS, need_kinds
from cig.pipelines._search_benchmark import branches_text
from cig.retrieval.requests import Searching
from cig.runtime import jsonable
from cig.types import Query, Ranking

if TYPE_CHECKING:
    from cig.pipelines._search_benchmark import SearchResult

FILE, VOTES = "trial.json", "votes.jsonl"
SHOWN = '{"shown": true}'  # a line among the votes
CHOICES = ("left", "right", "tie", "bad")  # bad: neither list has what was asked for
LONGEST = 86_400.0  # seconds a vote, so that a page left open over night is no outlier of days


# The trial


@dataclass(frozen=True)
class TrialRequest:
    """What a trial is asked for."""

    pictures: Path  # a folder, as the benchmark of that name takes it
    queries: Path | None = None  # a file; by default the one in the folder
    searching: Searching = field(default_factory=Searching)  # without pseudo-targets they are made
    composing: Composing = field(default_factory=Composing)
    generation: Generation = field(default_factory=Generation)
    top: int = 6  # pictures a list

    @property
    def data(self) -> Data:
        return Data("folder/val", self.pictures, queries=self.queries)

    @property
    def making(self) -> bool:
        return not self.searching.pseudo_targets

    def searching_in(self, out: Path) -> Searching:
        """With the places of what is made and remembered in the trial's folder."""
        searching = self.searching
        images, cache = searching.pseudo_targets or out / "pseudo_targets", searching.feature_cache or out / "features"
        return replace(searching, pseudo_targets=images, feature_cache=cache)

    def settings(self, queries: Sequence[Query]) -> dict[str, Any]:
        """All that moves the lists, as JSON takes it; keys are those of cig.toml's tables."""
        queries_digest = digest_of([(query.id, query.reference, query.captions) for query in queries])
        tables = {"search": replace(self.searching, feature_cache=None).settings()}
        tables |= {"compose": self.composing.settings(), "generate": self.generation.settings()} if self.making else {}
        settings_of_tables = {f"{name}.{key}": value for name, table in tables.items() for key, value in table.items()}
        pictures = self.pictures.resolve()
        settings: dict[str, Any] = jsonable(
            {"queries": queries_digest, "pictures": pictures, "top": self.top, **settings_of_tables}
        )
        return settings


@dataclass(frozen=True)
class Case:
    """One query with its two lists, as they are shown."""

    id: str  # the query's
    reference: str  # a picture's name
    captions: tuple[str, ...]
    left: tuple[str, ...]  # [k] names, nearest first
    right: tuple[str, ...]
    base: str  # "left" or "right": the side without the pseudo-target


@dataclass(frozen=True)
class Trial:
    """All that is voted on, and how it came about."""

    name: str
    seed: int  # of the sides and of the order
    settings: Mapping[str, Any]  # what it was made of, "asked" in the file; a rerun with other settings is refused
    cases: tuple[Case, ...]  # in the order in which they are shown
    same: tuple[str, ...]  # queries whose two lists are one: ties that nobody needs to see
    without: tuple[str, ...]  # queries that have no pseudo-target
    missing: Mapping[str, str]  # queries that could not run -> why
    searched: Mapping[str, Any]  # the recipe in words, provenance
    cost: Mapping[str, Any] | None  # what imagining took: queries, seconds, gigabytes, device; None: not known

    def write(self, folder: Path) -> None:
        content = {"asked" if key == "settings" else key: value for key, value in asdict(self).items()}
        write_json(folder / FILE, content, indent=1)

    @classmethod
    def read(cls, folder: Path) -> Trial:
        """Raises NotFoundError where there is none, InputError for a file that is something else."""
        path = folder / FILE
        if not os.path.isfile(path):
            raise NotFoundError(f"{folder} has no trial ({FILE}); make one with `cig trial DIR --queries FILE`")
        value = read_object(path)
        try:
            need_kinds(value, KINDS)
            need_kinds(value["cost"] or NO_COST, COST_KINDS)
            lists = {key: tuple(map(str, value[key])) for key in ("same", "without")}
            cases, settings = tuple(map(_read_case, value["cases"])), value.pop("asked")
            return cls(**{**value, **lists, "cases": cases, "settings": settings})
        except (KeyError, TypeError) as error:
            raise InputError(
                f"{path} is no trial of this version ({error}); choose another folder with --out"
            ) from error

    def need_same(self, settings: Mapping[str, Any], folder: Path) -> None:
        """Raise MismatchError, naming what differs, if this trial was made with other settings."""
        differ = [
            f"{key}: {self.settings.get(key)!r} there, {settings.get(key)!r} now"
            for key in sorted({*self.settings, *settings})
            if self.settings.get(key) != settings.get(key)
        ]
        if differ:
            raise MismatchError(f"{folder} holds a trial of something else ({some(differ)}); choose another --out")


KINDS: dict[str, Any] = {"name": str, "seed": int, "asked": dict, "cases": list, "same": list, "without": list}
KINDS |= {"missing": dict, "searched": dict, "cost": dict | None}
CASE_KINDS = {"id": str, "reference": str, "captions": list, "left": list, "right": list, "base": str}
NO_COST: dict[str, Any] = {"queries": 0, "seconds": 0, "gigabytes": None, "device": ""}


def _read_case(value: dict[str, Any]) -> Case:
    need_kinds(value, CASE_KINDS)
    if value["base"] not in ("left", "right"):
        raise TypeError("base is neither left nor right")
    lists = {key: tuple(map(str, value[key])) for key in ("captions", "left", "right")}
    return Case(**{**value, **lists})


def make(trying: TrialRequest, result: SearchResult, *, seed: int, cost: Mapping[str, Any] | None) -> Trial:
    """The cases of a search with and without pseudo-targets, shuffled, each with base on the side that a coin says.

    The coins are independent of each other: then the sign test is exact even for somebody who always prefers left.

    Args:
        result: a search with pseudo-targets, of one part.
        cost: as of read_cost.
    """
    top, part = trying.top, result.parts[0]
    fused, alone = result.rankings[0], (result.alone or result.rankings)[0]
    without, same, differ = _without(fused), [], []
    for query, base, pseudo in zip(part.queries, alone.ids, fused.ids, strict=True):
        if query.id not in without and query.id not in fused.missing:
            differ.append((query, base[:top], pseudo[:top])) if base[:top] != pseudo[:top] else same.append(query.id)
    coins = random.Random(seed)
    coins.shuffle(differ)
    return Trial(
        name=trying.pictures.resolve().name,
        seed=seed,
        settings=trying.settings(part.queries),
        cases=tuple(_case(*pair, base_left=coins.random() < 0.5) for pair in differ),
        same=tuple(same),
        without=without,
        missing=fused.missing,
        searched={"recipe": f"{result.method.name}: {branches_text(result.branches)}", "provenance": result.provenance},
        cost=cost,
    )


def _case(query: Query, base: tuple[str, ...], pseudo: tuple[str, ...], *, base_left: bool) -> Case:
    left, right = (base, pseudo) if base_left else (pseudo, base)
    return Case(query.id, query.reference, query.captions, left, right, "left" if base_left else "right")


def _without(fused: Ranking) -> tuple[str, ...]:
    """Queries that lack the pictures of every branch: they were searched by their reference alone."""
    lacking: Any = fused.notes.get("branches", {})
    return tuple(query for query in fused.queries if lacking and all(query in queries for queries in lacking.values()))


# Votes


class Votes:
    """What was voted, a line each on the disk; of several votes of a case the last one counts."""

    def __init__(self, folder: Path, trial: Trial) -> None:
        self.path, self.case_ids = folder / VOTES, {case.id for case in trial.cases}
        self.trial_file = folder / FILE
        self.trial_digest = self._digest()
        self.read()

    def read(self) -> None:
        """Read the votes again, which another process may have added to: a drive may be without locks.

        Raises:
            MismatchError: trial.json has changed, so votes on what is shown here would be counted as others.
        """
        if self._digest() != self.trial_digest:
            raise MismatchError(f"{self.trial_file} has changed; start the trial again")
        self.choices: dict[str, str] = {}  # case -> choice, in the order of voting
        self.shown = False  # the page has shown the result: no vote counts after that
        self.strange = 0  # lines that a kill tore, or that are no votes of this trial
        for line in read_bytes(self.path).splitlines() if os.path.isfile(self.path) else ():
            vote = _read_vote(line)
            if vote and vote["case"] in self.case_ids:
                self._count(vote)
            elif line == SHOWN.encode():
                self.shown = True
            else:
                self.strange += 1

    def add(self, case: str, choice: str, seconds: float) -> None:
        """Raises OutputError where the line cannot be written; then the vote does not count."""
        vote = {"case": case, "choice": choice, "seconds": round(min(seconds, LONGEST), 2)}
        append_json(self.path, {**vote, "time": datetime.now(UTC).isoformat(timespec="seconds")})
        self._count(vote)

    def _digest(self) -> str:
        return file_digest(self.trial_file) if self.trial_file.exists() else ""

    def close(self) -> None:
        """The result is shown, and that is kept, too."""
        if not self.shown:
            append_json(self.path, json.loads(SHOWN))
        self.shown = True

    def _count(self, vote: Mapping[str, Any]) -> None:
        self.choices.pop(vote["case"], None)
        self.choices[vote["case"]] = vote["choice"]


def _read_vote(line: bytes) -> dict[str, Any] | None:
    try:
        return checked_vote(json.loads(line))
    except (ValueError, RecursionError):
        return None


def checked_vote(vote: Any) -> dict[str, Any]:
    """A vote from outside; raises ValueError unless it has a case, one of the choices, and seconds."""
    if not isinstance(vote, dict) or not isinstance(vote.get("case"), str) or vote.get("choice") not in CHOICES:
        raise ValueError(f"a vote has a case and a choice: {', '.join(CHOICES)}")
    seconds = vote.get("seconds")
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds < math.inf:
        raise ValueError("a vote has its seconds")
    return vote
