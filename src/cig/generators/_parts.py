"""Parts of a diffusion pipeline (UNet, VAE, scheduler): find them in folders and files, check them, load them."""

from __future__ import annotations

import inspect
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from cig.errors import InputError, MismatchError, NotFoundError, some
from cig.generators import SDXL_REPO, part_folder
from cig.io import hub
from cig.io.json_files import read_object
from cig.machine import is_out_of_memory, short_memory
from cig.models._pretrained import explained, need_all_weights, unloadable, weights_option

WEIGHTS = "diffusion_pytorch_model"
SCHEDULER = "scheduler_config.json"


def load_part(
    kind: Any,
    source: str | Path,
    dtype: torch.dtype,
    *,
    name: str,
    cache_dir: Path | None = None,
    base: str = SDXL_REPO,
) -> Any:
    """Load a UNet or a VAE by hub id, from its folder, the folder above it, or a safetensors file.

    Args:
        name: of the part's folder in a pipeline: "unet", "vae".
        base: the pipeline whose configuration a single file has.

    Raises:
        NotFoundError: neither a folder or file nor a hub id that can be reached.
        InputError: the files cannot be read, or lack weights.
    """
    options: dict[str, Any] = {"dtype": dtype, "cache_dir": cache_dir}
    if os.path.isfile(source):
        return _load_file(kind, Path(source), name, base=base, options=options)
    options |= {"use_safetensors": True, "output_loading_info": True}  # a pickle would run code
    if os.path.isdir(source):
        source = part_folder(source, name)
        check_values(kind, source / "config.json")
        options |= weights_option(source, WEIGHTS, kind.__name__)
    elif name == "unet":
        options["subfolder"] = name
    part = f"{name}/" if "subfolder" in options else ""
    needed = [f"{part}config.json", f"{part}{WEIGHTS}*.safetensors"]
    model, info = _load(kind.from_pretrained, source, kind.__name__, needed=needed, **options)
    need_all_weights(info, str(source), kind.__name__, parts=("",))
    return model


def _load_file(kind: Any, file: Path, name: str, *, base: str, options: Mapping[str, Any]) -> Any:
    """Load a checkpoint in one file, which has no configuration: the pipeline `base` gives it."""
    if file.suffix != ".safetensors":
        raise NotFoundError(f"{file} is not read: give a {kind.__name__} as .safetensors; other files may run code")
    if os.path.isdir(base) and not os.path.isfile(Path(base) / name / "config.json"):
        hint = f"give a folder with {name}/config.json with --sdxl-repo, or the {kind.__name__} as a folder"
        raise NotFoundError(f"{file} has no configuration, and {base} has no {name}/config.json: {hint}")
    cache_dir = options["cache_dir"]
    config = str(hub.pinned_snapshot(base, cache_dir, [f"{name}/config.json"]) or base)
    where: dict[str, Any] = {"config": config, "subfolder": name, "revision": hub.commit_of(config, cache_dir)}
    where |= {"torch_dtype": options["dtype"], "cache_dir": cache_dir}
    model = _load(kind.from_single_file, file, kind.__name__, **where)
    if empty := [weight for weight, value in model.named_parameters() if value.device.type == "meta"]:
        raise InputError(f"{file} lacks weights of a {kind.__name__}: {some(sorted(empty), 5)}")
    return model


def _load(load: Any, source: str | Path, what: str, *, needed: Sequence[str] = (), **options: Any) -> Any:
    """Call a loader of diffusers; raises NotFoundError or InputError.

    Args:
        needed: patterns of files that make a pinned snapshot whole, which is then used without asking the hub.
    """
    cache_dir = options.get("cache_dir")
    if whole := hub.pinned_snapshot(source, cache_dir, needed):
        source = whole
    hub.need_source(str(source), cache_dir, what)
    try:
        return load(str(source), **{"revision": hub.commit_of(source, cache_dir), **options})
    except Exception as error:  # on a damaged file, the library may raise anything
        if is_out_of_memory(error):
            raise short_memory(f"{what} {source} cannot be loaded", torch.device("cpu")) from error
        raise unloadable(what, source, error) from error


def load_scheduler(source: str, cache_dir: Path | None) -> Any:
    """Load a pipeline's scheduler from its folder or the pipeline's, and try it; None for a hub id.

    Raises:
        InputError: the files cannot be read, or the scheduler cannot make a step.
    """
    import diffusers

    if not os.path.isdir(source):
        return None  # diffusers loads it with the pipeline
    folder = part_folder(source, "scheduler", SCHEDULER)
    config = read_object(folder / SCHEDULER)
    index = Path(source) / "model_index.json"
    named = read_object(index).get("scheduler") if index.is_file() else None
    name = named[1] if isinstance(named, list) and len(named) == 2 else config.get("_class_name")
    kind: Any = getattr(diffusers, str(name), None)
    if diffusers.SchedulerMixin not in getattr(kind, "__mro__", ()):
        raise MismatchError(f"{folder / SCHEDULER}: diffusers has no scheduler {name!r}")
    check_values(kind, folder / SCHEDULER)
    scheduler = _load(kind.from_pretrained, folder, str(name), cache_dir=cache_dir)
    with explained(f"the scheduler in {folder} makes no step", f"look at its {SCHEDULER}"):
        trial, latents = kind.from_config(scheduler.config), torch.zeros(1, 4, 1, 1)
        trial.set_timesteps(2)
        trial.step(latents, trial.timesteps[0], latents)
    return scheduler


def load_pipeline(
    kind: Any, source: str, dtype: torch.dtype, *, cache_dir: Path | None, parts: Mapping[str, Any]
) -> Any:
    """Build a pipeline around its parts by the source's model_index.json; a scheduler's folder has none."""
    if os.path.isdir(source) and not os.path.isfile(Path(source) / "model_index.json"):
        return kind(**parts)
    given = {name: part for name, part in parts.items() if name != "scheduler" or part is not None}
    needed = ["model_index.json", f"scheduler/{SCHEDULER}"]
    return _load(kind.from_pretrained, source, kind.__name__, needed=needed, dtype=dtype, cache_dir=cache_dir, **given)


def check_values(kind: Any, path: Path) -> None:
    """Raise InputError for values in a configuration that a class of diffusers cannot take, by its signature."""
    config = read_object(path)
    if not isinstance(config.get("_class_name", ""), str):
        raise InputError(f'{path}: _class_name is {config["_class_name"]!r:.50}, not the name "{kind.__name__}"')
    for name, parameter in inspect.signature(kind.__init__).parameters.items():
        if name in config and not _fits(config[name], parameter):
            raise InputError(
                f"{path}: {name} is {config[name]!r:.50}, which a {kind.__name__} cannot take; the default is "
                f"{parameter.default!r:.100}"
            )


def _fits(value: Any, parameter: inspect.Parameter) -> bool:
    """Tell whether a value is of the kinds of a parameter's default and annotation."""
    default, kinds = parameter.default, str(parameter.annotation)
    usual = next(_leaves(default), None)
    if default is None or usual is None:
        return True
    if value is None:  # SDXL's own configuration has a null for a bool
        return isinstance(default, bool) or "None" in kinds or "Optional" in kinds
    is_sequence = isinstance(default, list | tuple)
    if isinstance(value, list) != is_sequence and not (isinstance(value, list) and ("uple" in kinds or "ist" in kinds)):
        return False
    leaves = list(_leaves(value))
    return bool(leaves) and all(_is_alike(leaf, usual, "float" in kinds) for leaf in leaves)


def _is_alike(value: Any, usual: Any, is_float: bool) -> bool:
    if isinstance(usual, bool | str):
        return isinstance(value, type(usual))
    number = int | float if is_float or isinstance(usual, float) else int
    return isinstance(value, number) and not isinstance(value, bool) and math.isfinite(value) and value >= 0


def _leaves(value: Any) -> Iterator[Any]:
    for item in value if isinstance(value, list | tuple) else ():
        yield from _leaves(item)
    if not isinstance(value, list | tuple):
        yield value
