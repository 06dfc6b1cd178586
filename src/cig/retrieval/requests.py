"""What a search is asked: a method with its weights, and what it searches with beside the reference."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cig.errors import UsageError
from cig.generators import Generation
from cig.io.images import Preprocessing


@dataclass(frozen=True)
class Branching:
    """A branch as it is asked for: `--branch "name=sketch pictures=DIR method=image caption=no weight=0.3"`."""

    name: str
    weight: float | None  # None: the frozen or the published one
    pictures: str = ""  # a folder, a control's name, or pseudo-target; none for a method that looks at none
    method: str | None = None  # by default the one that searches; "caption captions=FILE" has its weights and options
    caption: bool = True
    copies: int = 4  # of reference-augmented
    vae: str = Generation.vae_repo  # of reference-vae
    side: int = Generation.height  # of reference-vae, in pixels


@dataclass(frozen=True)
class Searching:
    """A method, its weights, and what it searches with beside the reference."""

    method: str = "searle"
    clip: str | None = None
    phi: Path | None = None
    preprocessing: Preprocessing | None = None  # by default the method's
    options: Mapping[str, str] = field(default_factory=dict)  # of the method, such as t of slerp
    pseudo_targets: Path | None = None  # a folder of pictures by query id
    weight: float | None = None  # the reference's share; by default the published one
    branches: tuple[Branching, ...] = ()  # in the place of the published recipe
    weights: Path | None = None  # a file of weights frozen on val
    cache: Path | None = None  # a folder where features are remembered


EXAMPLE = 'such as --branch "name=sketch pictures=DIR method=image caption=no weight=0.3"'


def parse_method(text: str, clip: str | None = None) -> Searching:
    """One of `--methods`: a name, perhaps clip=, phi=, preprocessing= and options; clip is for those without a phi."""
    from cig.methods import weights_of

    source = f"--methods {text!r}"
    name, _, rest = text.strip().partition(" ")
    table = keys_of(rest, source)
    preprocessing = {"": None, "clip": "clip", "targetpad": "targetpad"}
    if table.get("preprocessing", "") not in preprocessing:
        raise UsageError(f"{source}: preprocessing is clip or targetpad")
    weights = weights_of(name)
    shared = clip if weights.clip and not weights.phi and not weights.words else None
    return Searching(
        method=name,
        clip=table.get("clip", shared),
        phi=Path(table["phi"]) if "phi" in table else None,
        options={key: own for key, own in table.items() if key not in ("clip", "phi", "preprocessing")},
        preprocessing=preprocessing[table.get("preprocessing", "")],  # type: ignore[arg-type]
    )


def keys_of(text: str, source: str) -> dict[str, str]:
    """Raises UsageError for what is no KEY=VALUE."""
    try:
        words = [word.partition("=") for word in shlex.split(text)]
    except ValueError as error:
        raise UsageError(f"{source}: {error}; {EXAMPLE}") from error
    bare = next((word for word, mark, _ in words if not mark), None)
    if bare is not None:
        raise UsageError(f'{source}: "{bare}" is no KEY=VALUE; {EXAMPLE}')
    return {key: value for key, _, value in words}
