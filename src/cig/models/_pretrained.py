"""Load models of transformers whole, or raise errors that say what to do."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from cig.errors import InputError, NotFoundError, reason, some
from cig.io import hub


def load_with_tokenizer(
    model_class: Any, source: str, kind: str, *, files: Mapping[str, Any], **options: Any
) -> tuple[Any, Any]:
    """Load (model, tokenizer) by hub id or folder, frozen and in evaluation mode; code in the source is never run.

    Args:
        kind: of model, for messages: "captioner".
        files: options of from_pretrained for both: cache_dir, revision.
        options: of from_pretrained for the model.

    Raises:
        NotFoundError: the source is neither a folder nor a hub id that can be reached.
        InputError: the files cannot be read, are of another kind of model, or lack weights.
    """
    from transformers import AutoTokenizer

    hub.need_source(source, files["cache_dir"], kind)
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False, **files)
        model, info = model_class.from_pretrained(
            source, output_loading_info=True, trust_remote_code=False, **files, **options
        )
    except Exception as error:
        if os.path.exists(source):
            raise InputError(f"the {kind} in {source} cannot be loaded: {reason(error)}") from error
        hint = "give the folder of a copy, or check --cache-dir"
        raise NotFoundError(f"no {kind} {source}: it is not a folder, and {reason(error)}; {hint}") from error
    need_all_weights(info, source, kind)
    return model.eval().requires_grad_(False), tokenizer


def need_all_weights(info: Mapping[str, Any], source: str, kind: str) -> None:
    """Raise InputError if the files lacked weights.

    Args:
        info: what from_pretrained returns for output_loading_info=True.
        kind: of model, for the message: "CLIP".
    """
    # transformers fills absent weights with random numbers and only logs a warning, so features would be noise.
    if info["missing_keys"] or info["mismatched_keys"]:
        raise InputError(f"{source} lacks weights of a {kind}: {some(map(str, info['missing_keys']), 5)}")
