"""LoRA (Hu et al., ICLR 2022): a frozen UNet, whose attention learns small adapters.

A weight W acts as W + alpha / rank * B A, where B begins as zeros. We write the adapter in diffusers' form, and the
UNet with the adapter merged, for programs that read no adapters.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from cig.errors import UsageError
from cig.io.files import write_bytes

ADAPTER = "pytorch_lora_weights.safetensors"


@dataclass(frozen=True)
class Lora:
    """An adapter's size, and the layers that it adapts."""

    rank: int
    alpha: int
    targets: tuple[str, ...] = ("to_k", "to_q", "to_v", "to_out.0")  # diffusers' choice for SDXL: attention


def add_adapter(unet: Any, lora: Lora) -> Any:
    """Freeze the UNet and add an adapter to train, in float32.

    Raises:
        UsageError: peft is not installed.
    """
    try:
        from peft import LoraConfig
    except ImportError as error:
        raise UsageError("--lora needs peft: pip install 'cig[train]'") from error
    from diffusers.training_utils import cast_training_params

    config = LoraConfig(
        r=lora.rank, lora_alpha=lora.alpha, target_modules=list(lora.targets), init_lora_weights="gaussian"
    )
    unet.requires_grad_(False)
    unet.add_adapter(config)
    cast_training_params(unet, torch.float32)
    return unet


def save_adapter(unet: Any, folder: Path) -> None:
    """Write the adapter for StableDiffusionXLPipeline.load_lora_weights, in fp16."""
    import safetensors.torch
    from diffusers.loaders.lora_base import LORA_ADAPTER_METADATA_KEY
    from diffusers.utils import convert_state_dict_to_diffusers
    from peft import get_peft_model_state_dict

    adapter = convert_state_dict_to_diffusers(get_peft_model_state_dict(unet))
    weights = {f"unet.{name}": weight.detach().half().cpu().contiguous() for name, weight in adapter.items()}
    settings: dict[str, Any] = unet.peft_config["default"].to_dict()
    config = {f"unet.{key}": sorted(value) if isinstance(value, set) else value for key, value in settings.items()}
    metadata = {"format": "pt", LORA_ADAPTER_METADATA_KEY: json.dumps(config, sort_keys=True)}
    write_bytes(folder / ADAPTER, safetensors.torch.save(weights, metadata=metadata))


def merge_adapter(unet: Any, base: Any) -> Any:
    """Merge the adapter of `unet` into `base`, the UNet that training started from, float32 on the CPU; return it."""
    # The base is loaded again for this: the trained UNet's frozen weights may be rounded to the training's precision.
    from peft import get_peft_model_state_dict, set_peft_model_state_dict

    base.add_adapter(unet.peft_config["default"])
    set_peft_model_state_dict(base, {name: weight.cpu() for name, weight in get_peft_model_state_dict(unet).items()})
    base.fuse_lora()
    base.unload_lora()
    return base
