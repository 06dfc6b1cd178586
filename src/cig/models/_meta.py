"""A CLIP's towers without weights, on torch's meta device, and its widths: from its configuration alone."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from cig.errors import NotFoundError
from cig.io import hub
from cig.models.clip import check_folder, projection
from cig.runtime import quiet_transformers


def meta_clip(source: str, dtype: torch.dtype, cache_dir: Path | None = None) -> tuple[Any, Any]:
    """Build (picture tower, text tower) without weights, on torch's meta device, to count their operations.

    Raises:
        NotFoundError: the configuration is neither in a folder nor in the hub's cache.
    """
    from transformers import CLIPTextModelWithProjection, CLIPVisionModelWithProjection

    config = _clip_config(source, cache_dir)
    with torch.device("meta"):
        vision = CLIPVisionModelWithProjection(config.vision_config).to(dtype).eval()
        return vision, CLIPTextModelWithProjection(config.text_config).to(dtype).eval()


def clip_widths(source: str, cache_dir: Path | None = None) -> tuple[int, int]:
    """Return the widths of projected picture features and of words; raises as meta_clip does."""
    config = _clip_config(source, cache_dir)
    return config.vision_config.projection_dim, config.text_config.hidden_size


def _clip_config(source: str, cache_dir: Path | None) -> Any:
    from transformers import CLIPConfig

    quiet_transformers()
    local = os.path.exists(source)
    folder = Path(source) if local else hub.snapshot(source, cache_dir)
    if local:
        check_folder(Path(source))
    try:
        config = CLIPConfig.from_pretrained(str(folder or source), local_files_only=True)
    except Exception as error:
        raise NotFoundError(
            f"the configuration of CLIP {source} is not on this machine; "
            f"give a folder, or fetch it first: cig models download {source}"
        ) from error
    if folder:
        for tower in (config.text_config, config.vision_config):
            tower.projection_dim = projection(folder).get("projection_dim", tower.projection_dim)
    return config
