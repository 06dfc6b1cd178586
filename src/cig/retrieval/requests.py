"""Requests: which method searches with which checkpoints, and which branches join the reference."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cig.errors import UsageError
from cig.generators import Generation
from cig.types import Preprocessing


@dataclass(frozen=True)
class Branching:
    """A requested branch: `--branch "name=sketch pictures=DIR method=image caption=no weight=0.3"`."""

    name: str
    weight: float | None  # the branch's share; None: the frozen or the published one
    pictures: str = ""  # a folder, a control's name, or pseudo-target; empty for a method of text alone
    method: str | None = None  # None: the one that searches; "caption captions=FILE" adds checkpoints and options
    caption: bool = True
    copies: int = 4  # of reference-augmented
    vae: str = Generation.vae_repo  # of reference-vae
    side: int = Generation.height  # of reference-vae, in pixels


@dataclass(frozen=True)
class Searching:
    """A method, its checkpoints, and the branches that join the reference."""

    method: str = "searle"
    clip: str | None = None
    phi: Path | None = None
    preprocessing: Preprocessing | None = None  # by default the method's
    options: Mapping[str, str] = field(default_factory=dict)  # of the method, such as t of slerp
    pseudo_targets: Path | None = None  # a folder of pictures by query id
    reference_weight: float | None = None  # None: the frozen or the published one
    branches: tuple[Branching, ...] = ()  # replace the published recipe
    frozen_weights: Path | None = None  # a file of fusion weights chosen on val
    cache: Path | None = None  # the folder of cached features

    def settings(self) -> dict[str, Any]:
        """Return the fields under the keys that result files use."""
        keys = {"reference_weight": "weight", "frozen_weights": "weights"}
        return {keys.get(name, name): value for name, value in vars(self).items()}


EXAMPLE = 'such as --branch "name=sketch pictures=DIR method=image caption=no weight=0.3"'


def parse_method(text: str, clip: str | None = None) -> Searching:
    """Read one of `--methods`: a name, then clip=, phi=, preprocessing= and options where given.

    Args:
        clip: the CLIP of methods that have no phi and no words of their own.
    """
    from cig.methods import weights_of

    source = f"--methods {text!r}"
    name, _, rest = text.strip().partition(" ")
    table = keys_of(rest, source)
    preprocessing = {"": None, "clip": "clip", "targetpad": "targetpad"}
    if table.get("preprocessing", "") not in preprocessing:
        raise UsageError(f"{source}: preprocessing is clip or targetpad")
    checkpoints = weights_of(name)
    shared = clip if checkpoints.clip and not checkpoints.phi and not checkpoints.words else None
    return Searching(
        method=name,
        clip=table.get("clip", shared),
        phi=Path(table["phi"]) if "phi" in table else None,
        options={key: value for key, value in table.items() if key not in ("clip", "phi", "preprocessing")},
        preprocessing=preprocessing[table.get("preprocessing", "")],  # type: ignore[arg-type]
    )


def keys_of(text: str, source: str) -> dict[str, str]:
    """Split KEY=VALUE words as a shell does; raise UsageError for a word without "="."""
    try:
        words = [word.partition("=") for word in shlex.split(text)]
    except ValueError as error:
        raise UsageError(f"{source}: {error}; {EXAMPLE}") from error
    bare = next((word for word, mark, _ in words if not mark), None)
    if bare is not None:
        raise UsageError(f'{source}: "{bare}" is no KEY=VALUE; {EXAMPLE}')
    return {key: value for key, _, value in words}
