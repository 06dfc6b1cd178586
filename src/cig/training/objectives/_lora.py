"""LoRA (Hu et al., ICLR 2022): a frozen UNet, whose attention learns small adapters.

A weight W acts as W + alpha / rank * B A, where B begins as zeros. We write the adapter in diffusers' form, and the
UNet with the adapter merged, for programs that read no adapters.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cig.errors import UsageError
from cig.io.weight_files import stream_weights, write_weights

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
    from diffusers.loaders.lora_base import LORA_ADAPTER_METADATA_KEY
    from diffusers.utils import convert_state_dict_to_diffusers
    from peft import get_peft_model_state_dict

    adapter = convert_state_dict_to_diffusers(get_peft_model_state_dict(unet))
    weights = {f"unet.{name}": weight for name, weight in adapter.items()}
    settings: dict[str, Any] = unet.peft_config["default"].to_dict()
    config = {f"unet.{key}": sorted(value) if isinstance(value, set) else value for key, value in settings.items()}
    metadata = {"format": "pt", LORA_ADAPTER_METADATA_KEY: json.dumps(config, sort_keys=True)}
    write_weights(folder / ADAPTER, weights, metadata)


def save_merged(unet: Any, path: Path, start: Callable[[Iterable[str]], Callable[[str], Tensor]]) -> None:
    """Write the UNet's fp16 weights with the adapter merged in, one after the other; each is merged in float32.

    Args:
        start: takes names and returns a function that reads their weights, of the UNet that training started from.
    """
    # Where training computes in bfloat16, the frozen weights of `unet` are rounded, so the base's are read again. A
    # second UNet in float32 for that would take 10 GB of SDXL's.
    frozen = {
        name.replace(".base_layer.", "."): weight for name, weight in unet.state_dict().items() if ".lora_" not in name
    }
    adapted = {f"{name}.weight": layer for name, layer in unet.named_modules() if hasattr(layer, "get_delta_weight")}

    weight_of = frozen.__getitem__ if unet.conv_in.weight.dtype == torch.float32 else start(frozen)

    def merged(name: str) -> Tensor:
        weight = weight_of(name).float().cpu()
        return weight + adapted[name].get_delta_weight("default").float().cpu() if name in adapted else weight

    shapes = {name: weight.shape for name, weight in frozen.items()}
    with torch.no_grad():
        stream_weights(path, shapes, merged, metadata={"format": "pt"})
