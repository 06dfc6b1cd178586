"""Datasets that can be had, one file each: `download(root, asking, ...) -> Outcome`.

The parameters of a dataset's `download` are the flags it takes, by the names they have on the command line. What is
there is kept and not asked for again; a rerun goes on; what cannot be had is counted and named.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cig import config, registry
from cig.errors import IncompleteError, NotFoundError, UsageError, did_you_mean, some
from cig.io.files import names_in
from cig.io.http import Rules, named_hosts
from cig.io.json_files import write_json


@dataclass(frozen=True)
class Asking:
    """The manners in which servers are asked.

    Attributes:
        per_host: requests to one host at a time.
        at_once: requests under way in all.
        retries: further tries where another may help, with growing waits.
        patience: seconds for one answer, its body included; what is large has a patience of its own.
        most: bytes of one picture or annotation file.
    """

    per_host: int = 8
    at_once: int = 32
    retries: int = 3
    patience: float = 60.0
    most: int = 32 * 2**20

    @property
    def waits(self) -> tuple[float, ...]:
        """Seconds before each further try: 0.5, 2, 8, 32, 32, ..."""
        return tuple(min(0.5 * 4**i, 32.0) for i in range(self.retries))

    def rules(self, named: Iterable[str] = ()) -> Rules:
        """Rules for http and https.

        Args:
            named: addresses that the user typed, whose hosts may be on a private network.
        """
        return Rules(
            schemes=("http", "https"),
            trusted=named_hosts(named),
            most=self.most,
            patience=self.patience,
            per_host=self.per_host,
        )


@dataclass(frozen=True)
class Outcome:
    """What there is, once nothing more can be had.

    Attributes:
        text: for the terminal: the table, what is lacking by kind, and what to do about it.
        facts: the same for --json, with every name.
        lacking: what keeps the dataset from being whole, in a few words each; empty where it is.
    """

    text: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    lacking: tuple[str, ...] = ()


def download_dataset(
    name: str, root: Path | None = None, asking: Asking | None = None, json: Path | None = None, **flags: Any
) -> Outcome:
    """Gets a dataset, or the rest of it, and prints what there is.

    Args:
        name: the dataset's, or NAME/SPLIT.
        root: its folder, which is made; or the parent of a folder of its name. By default the published place.
        flags: those of the dataset's own `download`; None, False and () are flags that were not given.

    Raises:
        NotFoundError: no such dataset.
        UsageError: a flag that the dataset does not take.
        IncompleteError: something is lacking, after all was printed and written.
    """
    family, _, split = name.partition("/")
    if split and flags.get("splits"):
        raise UsageError(f"{name} and --splits {' '.join(flags['splits'])}: give one of them")
    given = {key: value for key, value in flags.items() if value is not None and value is not False and value != ()}
    if split:
        given["splits"] = (split,)
    if "." not in family and family not in registry.names("download"):
        raise NotFoundError(f'no dataset "{family}" that can be had.{did_you_mean(family, registry.names("download"))}')
    get = registry.load("download", family).download
    takes = sorted(set(inspect.signature(get).parameters) - {"root", "asking"})
    for key in sorted(set(given) - set(takes)):
        known = ", ".join(f"--{own.replace('_', '-')}" for own in takes)
        raise UsageError(f"download {family} takes no --{key.replace('_', '-')}; it takes {known or 'no flags'}")
    place = home_of(root or config.path(family), family)
    outcome: Outcome = get(place, asking or Asking(), **given)
    if json:
        write_json(json, outcome.facts, indent=1)
    print(outcome.text)
    if outcome.lacking:
        raise IncompleteError(f"{family} is incomplete: {some(outcome.lacking)}; a rerun asks for what may still come")
    return outcome


def convert_list(source: Path, target: Path) -> None:
    """Turns a list of addresses into its other form, and prints how many there are.

    Raises:
        UsageError: another suffix than .txt and .json.
        InputError: nothing in it is valid; nothing was written.
        IncompleteError: lines that are not valid, after the others were written.
    """
    from cig.download._url_lists import convert

    found = convert(source, target)
    print(f"{target}: {len(found.urls):,} ids of {found.lines:,} lines")
    if found.refused:
        raise IncompleteError(f"{len(found.refused):,} lines of {source} are not valid: {some(found.refused)}")


def home_of(root: Path, name: str) -> Path:
    """The folder to write to: the child of root that bears the dataset's name in any case, else root itself."""
    children = names_in(root) if os.path.isdir(root) else []
    return next((root / child for child in children if child.lower() == name and os.path.isdir(root / child)), root)
