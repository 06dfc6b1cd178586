"""SDXL's UNet and VAE without weights, on torch's meta device: to count operations and to check shapes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from cig.errors import NotFoundError
from cig.generators import Offload, need_unet, part_folder
from cig.generators.sdxl import quiet_diffusers
from cig.io import hub


def meta_unet(model_path: str | Path, dtype: torch.dtype, cache_dir: Path | None = None) -> Any:
    """Build the UNet; raises NotFoundError if its configuration is neither in a folder nor in the hub's cache."""
    quiet_diffusers()
    from diffusers import UNet2DConditionModel

    return _build(UNet2DConditionModel, need_unet(model_path), dtype, name="unet", cache_dir=cache_dir)


def meta_vae(vae_repo: str, dtype: torch.dtype, cache_dir: Path | None = None) -> Any:
    """Build the VAE; raises NotFoundError if its configuration is neither in a folder nor in the hub's cache."""
    quiet_diffusers()
    from diffusers import AutoencoderKL

    return _build(AutoencoderKL, vae_repo, dtype, name="vae", cache_dir=cache_dir)


def resident_size(models: Sequence[torch.nn.Module], offload: Offload) -> int:
    """Return the bytes of weights that are on the device at once: all, the largest model's, or the largest layer's."""
    if offload == "sequential":
        models = [layer for model in models for layer in model.modules() if not list(layer.children())]
    sizes = [sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers())) for model in models]
    return sum(sizes) if offload == "none" else max(sizes)


def _build(kind: Any, source: str, dtype: torch.dtype, *, name: str, cache_dir: Path | None) -> Any:
    options = {"subfolder": name} if name == "unet" and not os.path.isdir(source) else {}
    source = str(part_folder(source, name)) if os.path.isdir(source) else source
    try:
        pinned = hub.commit_of(source, cache_dir)
        config = kind.load_config(source, revision=pinned, cache_dir=cache_dir, local_files_only=True, **options)
    except Exception as error:
        raise NotFoundError(
            f"the configuration of {kind.__name__} {source} is not on this machine; "
            f"give a folder, or fetch it first: cig models download {source}"
        ) from error
    with torch.device("meta"):
        return kind.from_config(config).to(dtype).eval()
