"""The fusion weight: every rule about it.

A `reference_weight` is the reference's share, which papers publish, `--fusion-weight` sets and a sweep freezes; a
`branch_weight` is the share of one branch. The weights of a query sum to 1, so each follows from the others; no other
file computes one from the other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from cig import config
from cig.errors import CigError, MismatchError, UsageError
from cig.io.json_files import read_object
from cig.retrieval.features import models_digest
from cig.retrieval.frozen_weights import read_frozen_weight
from cig.retrieval.requests import Branching, Searching
from cig.types import Benchmark, Branch, Method

PSEUDO_TARGET = "pseudo-target"  # the published recipe's only branch
REFERENCE = "reference"  # its weight is what the branches leave of 1


def to_branch_weight(reference_weight: float) -> float:
    """Return the weight of an only branch beside a reference of this weight."""
    return 1 - reference_weight


def to_reference_weight(branch_weights: Sequence[float]) -> float:
    """Return what the branches leave of 1; raise UsageError where a weight or their sum is out of range."""
    reference_weight = round(1 - sum(branch_weights), 12)  # 1 - (1 - 0.85) is 0.85 again
    if not all(0 <= weight <= 1 for weight in branch_weights) or reference_weight < 0:
        terms = " + ".join(f"{weight:g}" for weight in branch_weights)
        raise UsageError(
            f"branches weigh {terms}: each from 0 to 1, all together 1 at most; the rest is the reference's"
        )
    return reference_weight


def check_reference_weight(reference_weight: float | None, owner: str = "reference") -> None:
    """Raise UsageError unless `--fusion-weight` is a share.

    Args:
        owner: what the weight is the share of, for the message.
    """
    if reference_weight is not None and not 0 <= reference_weight <= 1:
        raise UsageError(f"--fusion-weight {reference_weight} is the {owner}'s share: from 0 to 1")


def check_weights(searching: Searching) -> None:
    """Raise UsageError for weights that exclude each other, lack their pseudo-targets or are out of range."""
    reference_weight, branches = searching.reference_weight, searching.branches
    if branches and reference_weight is not None:
        raise UsageError("--fusion-weight is of the published recipe; with --branch each branch has its own weight")
    if reference_weight is not None and not searching.pseudo_targets:
        raise UsageError("--fusion-weight fuses in pseudo-targets; give their folder with --generated-image-dir")
    if searching.frozen_weights:
        read_object(searching.frozen_weights)
        if reference_weight is not None or any(branch.weight is not None for branch in branches):
            raise UsageError("--weights freezes the published recipe's weight; leave --fusion-weight and --branch out")
        if not searching.pseudo_targets and not branches:
            raise UsageError("--weights fuses in pseudo-targets; give their folder with --generated-image-dir")
    check_names([branch.name for branch in branches])
    to_reference_weight([branch.weight or 0 for branch in branches])
    check_reference_weight(reference_weight)


def check_names(names: Sequence[str]) -> None:
    """Raise UsageError where two branches, or a branch and the reference, share a name: weights go by name."""
    twice = [name for name in [REFERENCE, *names] if [REFERENCE, *names].count(name) > 1]
    if twice:
        raise UsageError(f'two branches are called "{twice[0]}"; give one of them another name')


def find_branch_weight(
    branching: Branching, part: Benchmark, *, searching: Searching, searcher: Method
) -> tuple[float, str]:
    """Return a branch's weight and where it comes from.

    A weight of the branch goes first, then `--fusion-weight`, then the file of frozen weights that was named, then the
    benchmark's published one. The default file of frozen weights is never used unnamed, only mentioned: a published
    score should not change because a sweep was run in the same folder.

    Raises:
        NotFoundError: the frozen file has no weight of this branch.
        MismatchError: its weight was chosen with other models.
    """
    family, names = part.name.partition("/")[0], {"method": searcher.name, "branch": branching.name}
    if branching.weight is not None:
        return branching.weight, "--branch"
    if searching.reference_weight is not None:
        return to_branch_weight(searching.reference_weight), "--fusion-weight"
    if path := searching.frozen_weights:
        frozen = read_frozen_weight(path, family, **names)
        if frozen.models != models_digest(searcher):
            raise MismatchError(
                f"{path}: the weight of {searcher.name} + {branching.name} was frozen with other models or "
                f"options; sweep again with these"
            )
        return to_branch_weight(frozen.reference), frozen.cite(part.name, path)
    path = config.path("weights")
    try:
        frozen = read_frozen_weight(path, family, **names)
    except CigError:  # the default file is optional
        return to_branch_weight(part.weight), part.weight_source
    mention = (
        f"; on {frozen.split}, {frozen.reference:g} was frozen by {frozen.measure} (--weights {path}){frozen.caveat}"
    )
    source = part.weight_source + (mention if frozen.models == models_digest(searcher) else "")
    return to_branch_weight(part.weight), source


def pseudo_target_branch(
    benchmark: Benchmark, pictures: Mapping[str, tuple[Path, ...]], reference_weight: float | None = None
) -> Branch:
    """Make the branch of the published recipe (CIG, section 3).

    Args:
        pictures: query id -> its pseudo-targets.
        reference_weight: by default the benchmark's published one.
    """
    weight = to_branch_weight(benchmark.weight if reference_weight is None else reference_weight)
    return Branch(PSEUDO_TARGET, pictures, weight)
