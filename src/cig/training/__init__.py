"""Training: one loop, small objectives.

`cig train clip` and `cig train phi` call `clip` and `phi` here; what they train on is a benchmark's `pairs()`.
"""

from __future__ import annotations

from typing import cast

from cig import plugins
from cig.errors import UsageError
from cig.types import Pairs


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
