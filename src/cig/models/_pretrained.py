"""Check that transformers has loaded a model whole."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cig.errors import InputError, some


def need_all_weights(info: Mapping[str, Any], source: str, kind: str) -> None:
    """Raise InputError if the files lacked weights.

    Args:
        info: what from_pretrained returns for output_loading_info=True.
        kind: of model, for the message: "CLIP".
    """
    # transformers fills absent weights with random numbers and only logs a warning, so features would be noise.
    if info["missing_keys"] or info["mismatched_keys"]:
        raise InputError(f"{source} lacks weights of a {kind}: {some(map(str, info['missing_keys']), 5)}")
