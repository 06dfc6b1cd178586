"""Frozen weights: fusion weights chosen on val and kept in a small JSON file, which test runs read and cite."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cig.errors import InputError, NotFoundError
from cig.io.json_files import read_object, write_json
from cig.io.locks import WAIT, hold_file

STEP = 0.05
GRID = tuple(round(STEP * i, 2) for i in range(21))  # reference weights of a sweep, 0 to 1


@dataclass(frozen=True)
class FrozenWeight:
    """The reference weight that scored best on a split whose targets are public; the file has these keys."""

    reference: float
    measure: str  # that chose it, "recall@1"
    scores: Mapping[str, float]  # reference weight -> score by that measure, in percent
    split: str  # "cirr/val"
    picture_set: str  # the digest of its pictures
    commit: str | None
    models: str  # the digest of the method's models and options

    def cite(self, benchmark: str, path: Path) -> str:
        """Say where the weight comes from, and warn where it is used on the split that it was chosen on."""
        warning = ", this very split, which flatters" if benchmark == self.split else ""
        return f"frozen on {self.split} by {self.measure}, {path}{warning}{self.caveat}"

    @property
    def caveat(self) -> str:
        """Say that every weight scored the same, where that is so: then the sweep chose nothing."""
        if len(set(self.scores.values())) > 1:
            return ""
        return "; every weight scored the same there, so nothing was distinguished, and this is only the middle"


def best(scores: Mapping[str, float]) -> float:
    """Return the reference weight of the highest score; of equal ones, the one nearest to the middle of them."""
    top = [float(weight) for weight, score in scores.items() if score == max(scores.values())]
    middle = (top[0] + top[-1]) / 2
    return min(top, key=lambda weight: (abs(weight - middle), weight))


def freeze(path: Path, family: str, frozen: FrozenWeight, *, method: str, branch: str) -> None:
    """Add a weight to the file, which may hold others."""
    with hold_file(path, "frozen weights", wait=WAIT):  # another sweep may add a weight at the same time
        content = check_form(path)
        content.setdefault(family, {}).setdefault(method, {})[branch] = asdict(frozen)
        write_json(path, content, indent=1)


def read_frozen_weight(path: Path, family: str, *, method: str, branch: str) -> FrozenWeight:
    """Read one weight; raise NotFoundError where the file lacks it, InputError for a file of another form."""
    content = read_object(path)
    try:
        entry = content.get(family, {}).get(method, {}).get(branch)
        if not entry:
            have = [
                f"{f}: {m} + {b}" for f, methods in content.items() for m, branches in methods.items() for b in branches
            ]
            raise NotFoundError(
                f"{path} has no weight of {family}: {method} + {branch}; it has {'; '.join(have) or 'none'}. Sweep on "
                f"val first: cig compare {family}/val --methods {method} --branches {branch} --sweep --weights {path}"
            )
        frozen = FrozenWeight(**entry)
        if not isinstance(frozen.reference, int | float) or not 0 <= frozen.reference <= 1:
            raise TypeError(frozen.reference)
        if not isinstance(frozen.scores, dict):
            raise TypeError(frozen.scores)
        return frozen
    except (AttributeError, TypeError) as error:
        raise InputError(f"{path} holds no frozen weights; `cig compare ... --sweep` writes such a file") from error


def check_form(path: Path) -> dict[str, Any]:
    """Return the content of a file that another weight can be added to; raise InputError for one of another form."""
    content = read_object(path) if os.path.exists(path) else {}
    families = [list(methods.values()) if isinstance(methods, dict) else [None] for methods in content.values()]
    if not all(isinstance(branches, dict) for family in families for branches in family):
        raise InputError(f"{path} holds no frozen weights, and is not overwritten; choose another with --weights")
    return content
