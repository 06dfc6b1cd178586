"""Load models of transformers whole, or raise errors that say what to do."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cig.errors import CigError, InputError, NotFoundError, reason, some
from cig.io import hub
from cig.io.files import names_in
from cig.machine import is_out_of_memory


def model_folder(source: str, cache_dir: Path | None, kind: str, *, pickled: str = "pytorch_model") -> Path:
    """Return the one folder that all files of a model are read from (see io/hub.py); raises NotFoundError."""
    try:
        return hub.model_folder(source, cache_dir, kind, pickled=pickled)
    except CigError:
        raise
    except Exception as error:  # of the library, of its HTTP client, of the disk
        raise unloadable(kind, source, error) from error


def load_with_tokenizer(
    model_class: Any, folder: str, kind: str, *, files: Mapping[str, Any], **options: Any
) -> tuple[Any, Any]:
    """Load (model, tokenizer) from a folder, frozen and in evaluation mode; code in the folder is never run.

    Args:
        kind: of model, for messages: "captioner".
        files: options of from_pretrained for both.
        options: of from_pretrained for the model.

    Raises:
        InputError: the files cannot be read, are of another kind of model, or lack weights.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, **files)
        model, info = model_class.from_pretrained(
            folder, output_loading_info=True, trust_remote_code=False, **files, **options
        )
    except Exception as error:
        raise unloadable(kind, folder, error) from error
    need_all_weights(info, folder, kind)
    return model.eval().requires_grad_(False), tokenizer


def unloadable(what: str, source: str | Path, error: Exception) -> CigError:
    """Return the error for a model that a library could not load: of a folder or file, or of a hub id."""
    from safetensors import SafetensorError

    if not os.path.exists(source):
        said = f"the hub says: {reason(error)}" if hub.is_hub_id(str(source)) else "no hub id has such a form."
        hint = "Put a copy on this machine and give its folder, or check --cache-dir."
        return NotFoundError(f"no {what} {source}: it is not a folder, and {said} {hint}")
    names = names_in(Path(source)) if os.path.isdir(source) else []
    if isinstance(error, SafetensorError) or "load weights from checkpoint" in str(error):
        why = f"its weights are damaged ({reason(error).rstrip('.')}); get another copy"
    elif "pytorch_model.bin" in names and "model.safetensors" not in names:
        why = "its pytorch_model.bin is not of weights alone, and no program in it is run; save it as safetensors"
    else:
        why = f"{reason(error).rstrip('.')}; compare its configuration files with those that it was published with"
    return InputError(f"the {what} in {source} cannot be loaded: {why}")


def refuse_file(folder: Path) -> None:
    """Raise NotFoundError for a file in the place of a CLIP's folder."""
    if os.path.isfile(folder):
        hint = f"give its folder {folder.parent}" if (folder.parent / "config.json").is_file() else "convert it"
        raise NotFoundError(
            f"{folder} is a file, and a CLIP is a folder with config.json and model.safetensors, as transformers saves "
            f"it; {hint}, or give a hub id"
        )


def need_all_weights(info: Mapping[str, Any], source: str, kind: str, *, parts: tuple[str, ...] = ()) -> None:
    """Raise InputError unless the files have the weights of a model, of its shapes, and no further layers.

    Args:
        info: what from_pretrained returns for output_loading_info=True.
        kind: of model, for the message: "CLIP".
        parts: prefixes of weights that the model must have, if the files do; empty for models of which we use a part.
    """
    # transformers and diffusers fill absent weights with random numbers, leave further layers out, and only log both.
    missing, shapes = sorted(map(str, info["missing_keys"])), sorted(map(str, info["mismatched_keys"]))
    further = [name for name in sorted(info["unexpected_keys"]) if name.startswith(parts)]
    layers = [name for name in further if name.endswith((".weight", ".bias"))]
    for name in sorted(info["unexpected_keys"]) if missing else ():
        if name.endswith(f".{missing[0]}"):
            prefix = name.removesuffix(missing[0])
            raise InputError(
                f'{source}: the weights of the {kind} are behind the prefix "{prefix}" ({name}), as of a model in a '
                f"wrapper; save the model inside of it"
            )
    if missing:
        raise InputError(f"{source} lacks weights of a {kind}: {some(missing, 5)}")
    if shapes:
        raise InputError(f"{source}: weights of a {kind} have other shapes than config.json says: {some(shapes, 5)}")
    if layers:
        raise InputError(
            f"{source} has weights that the {kind} of its config.json does not have: {some(layers, 5)}; get the "
            f"config.json that belongs to the weights"
        )


def weights_option(folder: Path, stem: str, kind: str, *, pickled: str = "") -> dict[str, str]:
    """Return the options by which from_pretrained finds the weights in a folder: a variant, such as fp16, or none.

    Args:
        stem: of safetensors files: "model".
        pickled: a file of pickled weights that will do, too; empty if none does.

    Raises:
        InputError: the folder has no weights that are read; the message says what it has.
    """
    names = names_in(folder)
    if {f"{stem}.safetensors", f"{stem}.safetensors.index.json", pickled, f"{pickled}.index.json"} & set(names):
        return {}
    for name in names:
        if variant := re.fullmatch(rf"{stem}\.(?:(\w+)\.safetensors|safetensors\.index\.(\w+)\.json)", name):
            return {"variant": variant[1] or variant[2]}
    pickles = [name for name in names if name.endswith((".bin", ".pt", ".pth", ".ckpt"))]
    hint = f"; {some(pickles, 3)} may run code: save the model as safetensors" if pickles else ""
    raise InputError(
        f"{folder} has no weights of a {kind}: expected {stem}.safetensors, found {some(names, 10) or 'nothing'}{hint}"
    )


FAULTS = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)


@contextlib.contextmanager
def explained(what: str, hint: str) -> Iterator[None]:
    """Turn what a library raises within the context into an InputError; memory that runs out stays as it is.

    A model may load by a configuration that it cannot run with, such as a text in the place of a number.
    """
    try:
        yield
    except FAULTS as error:
        if isinstance(error, CigError) or is_out_of_memory(error):
            raise
        raise InputError(f"{what}: {reason(error)}; {hint}") from error
