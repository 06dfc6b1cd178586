"""Write models in diffusers' layout; each file is renamed into place when it is whole."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import Any

from cig.generators.sdxl import pipeline_for
from cig.io.json_files import write_json
from cig.io.weight_files import write_weights

WEIGHTS = "diffusion_pytorch_model.safetensors"
DEFAULTED = "_use_default_values"  # settings with their default when built; a loader would reset them to it
ABSENT = ("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2")  # the condition is a composed embedding


def save(model: Any, folder: Path) -> None:
    """Write the fp16 weights of a UNet or a VAE, then its configuration."""
    write_weights(folder / WEIGHTS, model.state_dict(), {"format": "pt"})
    save_config(model, folder)


def save_config(model: Any, folder: Path) -> None:
    config = {key: value for key, value in model.config.items() if key not in ("_name_or_path", DEFAULTED)}
    write_json(folder / "config.json", {**config, **_kind(model)}, indent=2)


def save_pipeline(folder: Path, *, unet: Any, vae: Any, scheduler: Any) -> None:
    """Write the scheduler and the classes of the models, which `--sdxl-repo` reads."""
    write_json(folder / "scheduler" / "scheduler_config.json", {**scheduler.config, **_kind(scheduler)}, indent=2)
    models = {"unet": unet, "vae": vae, "scheduler": scheduler}
    parts = {name: ["diffusers", type(model).__name__] for name, model in models.items()}
    kind = {"_class_name": pipeline_for(unet.config).__name__, "_diffusers_version": metadata.version("diffusers")}
    write_json(folder / "model_index.json", {**kind, **parts, **{name: [None, None] for name in ABSENT}}, indent=2)


def _kind(model: Any) -> dict[str, str]:
    return {"_class_name": type(model).__name__, "_diffusers_version": metadata.version("diffusers")}
