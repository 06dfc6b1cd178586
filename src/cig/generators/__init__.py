"""Generators, one file each: `load(device, dtype, **options) -> Generator`."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from cig import config, registry
from cig.config import GENERATORS
from cig.errors import NotFoundError
from cig.io.files import weights_at
from cig.io.hub import is_hub_id
from cig.io.images import Preprocessing
from cig.runtime import Seeds
from cig.types import Generator

Offload = Literal["none", "model", "sequential"]
SDXL_REPO = "stabilityai/stable-diffusion-xl-base-1.0"
VAE_REPO = "madebyollin/sdxl-vae-fp16-fix"


def load_generator(name: str, **options: Any) -> Generator:
    """A generator by name, e.g. load_generator("sdxl", model_path="models/sdxl_checkpoint", device="cuda").

    "sdxl/icons" is shipped, and has options of its own in the place of the published ones.
    """
    family, _, variant = name.partition("/")
    module = registry.load("generators", family)
    if name in GENERATORS:
        own = {key: value for key, value in sampling(name).items() if key != "seeds"}
        options = {**own, **options}
    elif variant:
        options["variant"] = variant
    generator: Generator = module.load(**options)
    return generator


def sampling(name: str) -> dict[str, Any]:
    """What a generator's own flags are set to, in the words of `load` and of options.Generation."""
    own = GENERATORS[name].get("generate", {})
    return {key.removesuffix("_scale"): value for key, value in own.items()}


def need_unet(model_path: str | Path, flag: str = "--model-path") -> str:
    """A folder with `unet/` in it, or a hub id, as from_pretrained takes it."""
    path, text = Path(model_path), str(model_path)
    if is_hub_id(text):
        return text
    if not os.path.isfile(path / "unet" / "config.json"):
        raise NotFoundError(
            f"the UNet {path / 'unet'} is not there: get the SDXL checkpoint from {config.CIG_DRIVE} and put its "
            f"config.json and diffusion_pytorch_model.safetensors there (cig models download sdxl_checkpoint "
            f"--from-dir FOLDER), or give another with {flag}"
        )
    return text


@dataclass(frozen=True)
class Composing:
    """What conditions the generator: two CLIPs, two phis."""

    clip: str = "openai/clip-vit-large-patch14"
    clip2: str = "Geonmo/CLIP-Giga-config-fixed"
    phi: Path | None = None  # by default the published places
    phi2: Path | None = None
    preprocessing: Preprocessing = "clip"

    @property
    def phis(self) -> tuple[Path, Path]:
        places = weights_at(config.path("phi_vit")), weights_at(config.path("phi_giga"))
        return self.phi or places[0], self.phi2 or places[1]


@dataclass(frozen=True)
class Generation:
    """The generator and how its pictures are accepted."""

    model_path: Path | None = None
    sdxl_repo: str = SDXL_REPO
    vae_repo: str = VAE_REPO
    height: int = 512
    width: int = 512
    steps: int = 50
    guidance: float = 5.0
    image_guidance: float = 1.5
    seed: int = 1600
    seeds: Seeds = "published"
    brightness_thresh: float = 10.0
    max_retries: int = 5
    offload: Offload = "none"
    vae_slicing: bool = False
    vae_tiling: bool = False
    attention_slicing: bool = False

    @property
    def unet(self) -> Path:
        return self.model_path or config.path("sdxl_checkpoint")

    def recorded(self) -> dict[str, Any]:
        """Setting -> value, as files keep it; older ones have no guidance by the reference: its default is left out."""
        values = dict(vars(self))
        if self.image_guidance == Generation.image_guidance:
            del values["image_guidance"]
        return values


def presets(generator: str) -> tuple[Composing, Generation]:
    """What a generator is conditioned and sampled with, e.g. "sdxl/icons", where no flag says otherwise."""
    return Composing(**GENERATORS[generator].get("compose", {})), Generation(**sampling(generator))
