"""A picture through a VAE and back, as generated pictures come out of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from cig.finite import need_finite
from cig.generators._parts import load_part
from cig.generators.sdxl import quiet_diffusers
from cig.runtime import resolve_device, resolve_dtype

if TYPE_CHECKING:
    from PIL.Image import Image


def load_round_trip(
    vae_repo: str, device: str | torch.device, side: int, *, cache_dir: Path | None = None
) -> Callable[[Image], Image]:
    """Return a function that resizes a picture's longer side to `side`, encodes it (the mean) and decodes it."""
    quiet_diffusers()
    from diffusers import AutoencoderKL
    from diffusers.image_processor import VaeImageProcessor

    device = resolve_device(str(device))
    dtype = resolve_dtype("auto", device, on_gpu="float16")
    vae = load_part(AutoencoderKL, vae_repo, dtype, name="vae", cache_dir=cache_dir).to(device).eval()
    if vae.config.force_upcast:  # in float16 it may overflow, so SDXL's pipeline decodes in float32, too
        vae = vae.float()
    pixels = VaeImageProcessor(vae_scale_factor=8)

    def round_trip(image: Image) -> Image:
        scale = side / max(image.size)
        width, height = (max(8, round(length * scale / 8) * 8) for length in image.size)
        with torch.no_grad():
            batch = pixels.preprocess(image.convert("RGB"), height, width).to(device, vae.dtype)
            decoded = vae.decode(vae.encode(batch).latent_dist.mode()).sample
        need_finite(decoded, f"the VAE {vae_repo}", vae.dtype)
        picture: Image = pixels.postprocess(decoded.float(), output_type="pil")[0]
        return picture

    return round_trip
