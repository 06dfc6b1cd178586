"""Fusion weights that were chosen on val and frozen in a small file, so that test runs read and cite them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cig.errors import InputError, NotFoundError
from cig.io.json_files import read_object, write_json

STEP = 0.05
GRID = tuple(round(STEP * i, 2) for i in range(21))  # the reference's share, 0 to 1


@dataclass(frozen=True)
class Frozen:
    """The reference's share that scored best on a split whose targets are public."""

    reference: float
    measure: str  # it was chosen by, "recall@1"
    scores: Mapping[str, float]  # the reference's share -> that measure, in percent
    split: str  # "cirr/val"
    picture_set: str  # the digest of its pictures
    commit: str | None
    models: str  # the digest of the method's models and options

    def cite(self, benchmark: str, path: Path) -> str:
        """Where a weight comes from, for people; a weight chosen on the very split it is used on flatters."""
        own = ", this very split, which flatters" if benchmark == self.split else ""
        return f"frozen on {self.split} by {self.measure}, {path}{own}"


def best(scores: Mapping[str, float]) -> float:
    """The share of the highest score; of equal ones, the one nearest to the middle of them."""
    top = [float(share) for share, score in scores.items() if score == max(scores.values())]
    middle = (top[0] + top[-1]) / 2
    return min(top, key=lambda share: (abs(share - middle), share))


def freeze(path: Path, family: str, method: str, branch: str, frozen: Frozen) -> None:
    """Adds one to the file, which may hold others."""
    known = check_form(path)
    own = known.setdefault(family, {}).setdefault(method, {})
    own[branch] = asdict(frozen)
    write_json(path, known, indent=1)


def frozen(path: Path, family: str, method: str, branch: str) -> Frozen:
    """Raises NotFoundError for a file without that method and branch, InputError for one of another form."""
    known = read_object(path)
    try:
        own = known.get(family, {}).get(method, {}).get(branch)
        made = Frozen(**own) if own else _absent(path, known, family, method, branch)
        if not isinstance(made.reference, int | float) or not 0 <= made.reference <= 1:
            raise TypeError(made.reference)
        return made
    except (AttributeError, TypeError) as error:
        raise InputError(f"{path} holds no frozen weights; `cig compare ... --sweep` writes such a file") from error


def _absent(path: Path, known: dict[str, Any], family: str, method: str, branch: str) -> Frozen:
    there = [f"{f}: {m} + {b}" for f, methods in known.items() for m, branches in methods.items() for b in branches]
    raise NotFoundError(
        f"{path} has no weight of {family}: {method} + {branch}; it has {'; '.join(there) or 'none'}. "
        f"Sweep on val first: cig compare {family}/val --methods {method} --branches {branch} --sweep --weights {path}"
    )


def check_form(path: Path) -> dict[str, Any]:
    """What a file holds that another weight can be added to; raises InputError for one of another form."""
    known = read_object(path) if os.path.exists(path) else {}
    inner = [own for methods in known.values() for own in (methods.values() if isinstance(methods, dict) else [None])]
    if not all(isinstance(own, dict) for own in inner):
        raise InputError(f"{path} holds no frozen weights, and is not overwritten; choose another with --weights")
    return known
