"""Training: one loop, small objectives.

A CLIP and a phi are trained on a benchmark's `pairs()`, a VAE and a generator on its `scenes()`.
"""

from __future__ import annotations

from typing import cast

from cig import plugins
from cig.errors import NotFoundError, UsageError
from cig.types import Pairs, Scenes


def load_pairs(name: str) -> Pairs:
    """The (picture, caption) pairs of a benchmark that has some, by NAME/SPLIT: icons/train.

    Raises:
        UsageError: it has none.
    """
    family, _, split = name.partition("/")
    module = plugins.load("benchmarks", family)
    if not hasattr(module, "pairs"):
        raise UsageError(f"{family} has no pictures with captions of their own to train on; icons/train has")
    return cast(Pairs, module.pairs(split or "train"))


def has_pairs(name: str) -> bool:
    """Whether it is a benchmark with (picture, caption) pairs."""
    try:
        return hasattr(plugins.load("benchmarks", name.partition("/")[0]), "pairs")
    except NotFoundError:
        return False


def load_scenes(name: str, limit: int | None = None) -> Scenes:
    """The pictures with views and captions of a benchmark that has some, by NAME/SPLIT: icons/train.

    Args:
        limit: so many of them.

    Raises:
        UsageError: it has none.
    """
    family, _, split = name.partition("/")
    module = plugins.load("benchmarks", family)
    if not hasattr(module, "scenes"):
        raise UsageError(f"{family} has no pictures with captions of their own to draw; icons/train has")
    return cast(Scenes, module.scenes(split or "train", limit))
