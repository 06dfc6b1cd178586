"""Datasets to download, one file each: `download(root, settings, ...) -> Outcome`.

The parameters of a dataset's `download` are its flags, by the names they have on the command line. Files on disk are
kept and not requested again, a rerun resumes, and what cannot be downloaded is counted and named.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cig import config, registry
from cig.benchmarks import split_name
from cig.errors import IncompleteError, NotFoundError, UsageError, at_least_1, did_you_mean, some
from cig.io.addresses import named_hosts
from cig.io.files import names_in
from cig.io.http import Rules
from cig.io.outputs import write_json_output


@dataclass(frozen=True)
class FetchSettings:
    """How to treat servers."""

    per_host: int = 8
    "Requests to one host at a time."
    at_once: int = 32
    "Requests under way in all."
    retries: int = 3
    "Further tries where another may help, with growing waits, or as long as the server asks to wait."
    patience: float = 60.0
    "Seconds for one answer; what is large takes longer."
    max_mb: int = 32
    "MB of one picture or annotation file; larger ones are refused."
    max_pixels: int = 2**26
    "Larger pictures are refused before they are decoded."

    def __post_init__(self) -> None:
        for name in ("per_host", "at_once", "max_mb", "max_pixels"):
            at_least_1(f"--{name.replace('_', '-')}", getattr(self, name))
        if self.retries < 0 or not 0 < self.patience < float("inf"):
            raise UsageError("--retries should be 0 or more, --patience more than 0 seconds")

    @property
    def most(self) -> int:
        """Bytes of one picture or annotation file."""
        return self.max_mb * 2**20

    @property
    def waits(self) -> tuple[float, ...]:
        """Seconds before each further try: 0.5, 2, 8, 32, 32, ..."""
        return tuple(min(0.5 * 4**i, 32.0) for i in range(self.retries))

    def rules(self, named: Iterable[str] = ()) -> Rules:
        """Return the rules for http and https, with the environment's proxies.

        Args:
            named: addresses that the user typed, whose hosts may be on a private network.
        """
        return Rules(
            schemes=("http", "https"),
            trusted=named_hosts(named),
            most=self.most,
            patience=self.patience,
            per_host=self.per_host,
            proxies=True,
        )


@dataclass(frozen=True)
class Outcome:
    """The state of a dataset after a download.

    Attributes:
        text: for the terminal: the table, what is missing by kind, and how to get it.
        facts: the same for --json, with every name.
        lacking: pictures or files that the dataset lacks, in a few words each; a rerun may bring them.
        wrong: what else keeps the dataset from being complete, which no download mends.
    """

    text: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    lacking: tuple[str, ...] = ()
    wrong: tuple[str, ...] = ()


def download_dataset(
    name: str,
    root: Path | None = None,
    settings: FetchSettings | None = None,
    *,
    json: Path | None = None,
    **flags: Any,
) -> Outcome:
    """Download a dataset, or the rest of it; `need_complete` of the outcome raises where something lacks.

    Args:
        name: of the dataset, or NAME/SPLIT.
        root: its folder, which is created; or the parent of a folder of its name. By default the published path.
        json: where to write the outcome's facts.
        flags: those of the dataset's own `download`; None, False and () count as not given.

    Raises:
        NotFoundError: no such dataset.
        UsageError: a flag that the dataset does not take.
    """
    family, _, split = name.partition("/")
    if split and flags.get("splits"):
        raise UsageError(f"{name} and --splits {' '.join(flags['splits'])}: give one of them")
    given = {key: value for key, value in flags.items() if value is not None and value is not False and value != ()}
    if "." not in family and family not in registry.names("download"):
        raise NotFoundError(f'no dataset "{family}" that can be had.{did_you_mean(family, registry.names("download"))}')
    download = registry.load("download", family).download
    takes = sorted(set(inspect.signature(download).parameters) - {"root", "settings"})
    if split and "splits" in takes:
        given["splits"] = (split,)
    elif split:
        split_name(name, split)  # all of it is one release; raises WrongNameError
    for key in sorted(set(given) - set(takes)):
        accepted = ", ".join(f"--{flag.replace('_', '-')}" for flag in takes)
        raise UsageError(f"download {family} takes no --{key.replace('_', '-')}; it takes {accepted or 'no flags'}")
    home = dataset_home(root or config.path(family), family)
    outcome: Outcome = download(home, settings or FetchSettings(), **given)
    if json:
        write_json_output(json, outcome.facts, indent=1)
    return outcome


def need_complete(name: str, outcome: Outcome) -> None:
    """Raise IncompleteError where a download lacks something."""
    if outcome.lacking or outcome.wrong:
        family = name.partition("/")[0]
        again = "; a rerun asks for what may still come" if outcome.lacking else ""
        raise IncompleteError(f"{family} is incomplete: {some((*outcome.lacking, *outcome.wrong))}{again}")


def dataset_home(root: Path, name: str) -> Path:
    """Return the folder to write to: the child of root with the dataset's name in any case, else root itself."""
    children = names_in(root) if os.path.isdir(root) else []
    return next((root / child for child in children if child.lower() == name and os.path.isdir(root / child)), root)
