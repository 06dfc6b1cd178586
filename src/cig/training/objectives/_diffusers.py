"""Models in diffusers' layout, written whole or not at all."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import Any

from cig.generators.sdxl import pipeline_for
from cig.io.files import write_bytes
from cig.io.json_files import write_json

WEIGHTS = "diffusion_pytorch_model.safetensors"
DEFAULTED = "_use_default_values"  # names of settings that a loader would put back to its own, whatever they are now
ABSENT = ("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2")  # the condition comes composed


def save(model: Any, folder: Path) -> None:
    """A UNet or a VAE: fp16 weights, then its configuration."""
    import safetensors.torch

    weights = {name: own.detach().half().cpu().contiguous() for name, own in model.state_dict().items()}
    write_bytes(folder / WEIGHTS, safetensors.torch.save(weights, metadata={"format": "pt"}))
    config = {key: own for key, own in model.config.items() if key not in ("_name_or_path", DEFAULTED)}
    write_json(folder / "config.json", {**config, **_kind(model)}, indent=2)


def save_pipeline(folder: Path, unet: Any, vae: Any, scheduler: Any) -> None:
    """What `--sdxl-repo` reads: the scheduler, and which kinds of models stand beside it."""
    write_json(folder / "scheduler" / "scheduler_config.json", {**scheduler.config, **_kind(scheduler)}, indent=2)
    parts = {name: ["diffusers", type(own).__name__] for name, own in _named(unet, vae, scheduler).items()}
    kind = {"_class_name": pipeline_for(unet.config).__name__, "_diffusers_version": metadata.version("diffusers")}
    write_json(folder / "model_index.json", {**kind, **parts, **{name: [None, None] for name in ABSENT}}, indent=2)


def _named(unet: Any, vae: Any, scheduler: Any) -> dict[str, Any]:
    return {"unet": unet, "vae": vae, "scheduler": scheduler}


def _kind(model: Any) -> dict[str, str]:
    return {"_class_name": type(model).__name__, "_diffusers_version": metadata.version("diffusers")}
