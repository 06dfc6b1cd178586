"""LoRA (Hu et al., ICLR 2022): a UNet stays as it is, and its attention learns a sum that is small to keep.

A weight W acts as W + alpha / rank * B A, where B is zeros at first. What is written is diffusers' form, and a UNet
with the sum done, for readers that know of no adapters.
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
    """What is adapted, and how far."""

    rank: int
    alpha: int
    targets: tuple[str, ...] = ("to_k", "to_q", "to_v", "to_out.0")  # diffusers' choice for SDXL: attention


def adapt(unet: Any, lora: Lora) -> Any:
    """Freezes the UNet and gives it an adapter, which alone is trained, in float32.

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
    """As StableDiffusionXLPipeline.load_lora_weights reads it, fp16."""
    import safetensors.torch
    from diffusers.loaders.lora_base import LORA_ADAPTER_METADATA_KEY
    from diffusers.utils import convert_state_dict_to_diffusers
    from peft import get_peft_model_state_dict

    learnt = convert_state_dict_to_diffusers(get_peft_model_state_dict(unet))
    weights = {f"unet.{name}": own.detach().half().cpu().contiguous() for name, own in learnt.items()}
    config = {f"unet.{key}": sorted(own) if isinstance(own, set) else own for key, own in _config(unet).items()}
    about = {"format": "pt", LORA_ADAPTER_METADATA_KEY: json.dumps(config, sort_keys=True)}
    write_bytes(folder / ADAPTER, safetensors.torch.save(weights, metadata=about))


def merged(unet: Any, base: Any) -> Any:
    """The UNet that was started from, float32 on the CPU, with the sum done; `base` itself is changed.

    It is read again rather than taken from what is trained, whose frozen weights may have been rounded.
    """
    from peft import get_peft_model_state_dict, set_peft_model_state_dict

    base.add_adapter(unet.peft_config["default"])
    set_peft_model_state_dict(base, {name: own.cpu() for name, own in get_peft_model_state_dict(unet).items()})
    base.fuse_lora()
    base.unload_lora()
    return base


def _config(unet: Any) -> dict[str, Any]:
    config: dict[str, Any] = unet.peft_config["default"].to_dict()
    return config
