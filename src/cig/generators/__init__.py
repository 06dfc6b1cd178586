"""Generators, one file each: `load(device, dtype, **options) -> Generator`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from math import isfinite
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from cig import config, registry
from cig.config import GENERATORS
from cig.errors import NotFoundError, UsageError, at_least_1, check_type
from cig.io.files import phi_in, weights_at
from cig.io.hub import is_hub_id
from cig.runtime import Dtype, Seeds, need_seed
from cig.types import Generator, Preprocessing

Offload = Literal["none", "model", "sequential"]
SDXL_REPO = "stabilityai/stable-diffusion-xl-base-1.0"
VAE_REPO = "madebyollin/sdxl-vae-fp16-fix"


def load_generator(name: str, **options: Any) -> Generator:
    """Load a generator: load_generator("sdxl", model_path="models/sdxl_checkpoint", device="cuda").

    "sdxl/icons" is shipped with the package and has its own presets.
    """
    check_type(name, str, name="name", wanted='a name, such as "sdxl"')
    family, _, variant = name.partition("/")
    module = registry.load("generators", family)
    if name in GENERATORS:
        presets = {key: value for key, value in GENERATORS[name].get("generate", {}).items() if key != "seeds"}
        options = {**_load_options(presets), **options}
    elif variant:
        options["variant"] = variant
    generator: Generator = module.load(**options)
    return generator


def part_folder(source: str | Path, name: str, config: str = "config.json") -> Path:
    """Return the folder of a part of a pipeline: the folder `name` in the source, or the source itself."""
    folders = Path(source) / name, Path(source)
    return next((folder for folder in folders if os.path.isfile(folder / config)), folders[1])


def need_unet(model_path: str | Path, flag: str = "--model-path") -> str:
    """Return a UNet's folder, one with `unet/` in it, a safetensors file, or a hub id; raises NotFoundError."""
    path, text = Path(model_path), str(model_path)
    if is_hub_id(text) or (path.suffix == ".safetensors" and os.path.isfile(path)):
        return text
    if os.path.isfile(path):
        raise NotFoundError(
            f"{path} is not read: a checkpoint in one file is read as safetensors alone, since others may run code; "
            f"give one of these, or a folder with unet/ in it, with {flag}"
        )
    if not os.path.isfile(part_folder(path, "unet") / "config.json"):
        raise NotFoundError(
            f"the UNet {path / 'unet'} is not there: get the SDXL checkpoint from {config.CIG_DRIVE} and put its "
            f"config.json and diffusion_pytorch_model.safetensors there (cig models download sdxl_checkpoint "
            f"--from-dir FOLDER), or give another with {flag}"
        )
    return text


@dataclass(frozen=True)
class Composing:
    """The settings of the composer: two CLIPs and two phis, which condition the generator."""

    clip: str = "openai/clip-vit-large-patch14"
    "The first composing CLIP: hub id or folder."
    clip2: str = "Geonmo/CLIP-Giga-config-fixed"
    "The second one, whose pooled text the generator reads."
    phi: Path | None = None
    "The textual-inversion network of the first CLIP. Default: ./models/phi_best.pt."
    phi2: Path | None = None
    "That of the second CLIP. Default: ./models/phi_best_giga.pt."
    preprocess_type: Preprocessing = "clip"
    "clip is the published way of this stage."
    dtype: Annotated[Dtype | None, Parameter(name="--compose-dtype")] = None
    "Of these two CLIPs. Default: as --dtype."

    @property
    def phis(self) -> tuple[Path, Path]:
        published = weights_at(config.path("phi_vit")), weights_at(config.path("phi_giga"))
        given = (phi_in(path) if path else None for path in (self.phi, self.phi2))
        first, second = (path or default for path, default in zip(given, published, strict=True))
        return first, second

    def settings(self) -> dict[str, Any]:
        """Return the fields under the keys that files keep; older files have no dtype of these CLIPs' own."""
        values = {key: value for key, value in vars(self).items() if key != "dtype" or value}
        return {"preprocessing" if key == "preprocess_type" else key: value for key, value in values.items()}


@dataclass(frozen=True)
class Imagining:
    """How pictures are tried and accepted; the defaults are the published ones."""

    seed: int = 1600
    seeds: Seeds = "published"
    "published: one seed for every query, + 1 a retry; per-query: derived from the query's id."
    brightness_thresh: float = 10.0
    "A picture whose mean pixel value (0..255) is not above it is made again."
    max_retries: int = 5
    "How often; then the query has no accepted picture, and is listed."

    def __post_init__(self) -> None:
        _need_number("--brightness-thresh", self.brightness_thresh)
        if self.max_retries < 0:
            raise UsageError(f"--max-retries {self.max_retries}: 0 or more")
        need_seed(self.seed)


@dataclass(frozen=True)
class Generation(Imagining):
    """The generator, how it samples, and how its pictures are accepted."""

    model_path: Path | None = None
    "A folder with unet/ in it, or a hub id. Default: ./models/sdxl_checkpoint."
    sdxl_repo: str = SDXL_REPO
    "The base pipeline, for its scheduler: hub id or folder."
    vae_repo: str = VAE_REPO
    "A VAE that is safe in fp16: hub id or folder."
    height: int = 512
    width: int = 512
    steps: int = 50
    guidance_scale: float = 5.0
    "Classifier-free guidance, away from zero embeddings."
    image_guidance_scale: float = 1.5
    """Guidance towards the reference, 1 or more, of a UNet that is shown it, as InstructPix2Pix's is; others have none,
    nor is there any at --guidance-scale 1."""
    offload: Offload = "none"
    "Move weights to the GPU when they are needed: whole models, or layer by layer (slow, least memory)."
    vae_slicing: bool = False
    "Decode one picture of a batch at a time."
    vae_tiling: bool = False
    "Decode large pictures in tiles, which are blended: pixels move."
    attention_slicing: bool = False
    "Less memory in attention, slower."

    def __post_init__(self) -> None:
        for flag, value in {"--height": self.height, "--width": self.width, "--steps": self.steps}.items():
            at_least_1(flag, value)
        _need_number("--guidance-scale", self.guidance_scale)
        _need_number("--image-guidance-scale", self.image_guidance_scale)
        super().__post_init__()

    @property
    def unet(self) -> Path:
        return self.model_path or config.path("sdxl_checkpoint")

    @property
    def imagining(self) -> Imagining:
        """The acceptance alone: manifests keep its fields."""
        return Imagining(**{field.name: getattr(self, field.name) for field in fields(Imagining)})

    def options(self) -> dict[str, Any]:
        """Return what the generator's `load` takes."""
        acceptance = vars(self.imagining)
        options = {name: value for name, value in vars(self).items() if name not in acceptance}
        return {**_load_options(options), "model_path": self.unet}

    def settings(self) -> dict[str, Any]:
        """Return the fields under the keys that files keep.

        Older files have no guidance by the reference: its default is left out.
        """
        values = _load_options(vars(self))
        if self.image_guidance_scale == Generation.image_guidance_scale:
            del values["image_guidance"]
        return values


def _need_number(flag: str, value: float) -> None:
    if not isfinite(value):
        raise UsageError(f"{flag} {value}: a number")


def _load_options(flags: Mapping[str, Any]) -> dict[str, Any]:
    """Rename flags to the arguments of `load`, which files keep as well: guidance_scale is guidance there."""
    return {name.removesuffix("_scale"): value for name, value in flags.items()}


def presets(generator: str) -> tuple[Composing, Generation]:
    """Return what conditions and samples a generator, e.g. "sdxl/icons", where no flag says otherwise."""
    tables = GENERATORS[generator]
    return Composing(**tables.get("compose", {})), Generation(**tables.get("generate", {}))
