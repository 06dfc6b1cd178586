"""Trains a VAE of SDXL's kind, 8 pixels a latent: reconstruction (L1 and L2) and a little KL (Kingma & Welling, 2014).

No adversarial and no perceptual loss: enough for flat drawings. For photos, take SDXL's own VAE.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import Any

import torch
from torch import Tensor

from cig.io.files import make_folder
from cig.runtime import batches
from cig.training.loop import train
from cig.training.model_card import write_card
from cig.training.objectives._diffusers import save
from cig.training.plan import CPU, Plan
from cig.training.step import Step
from cig.types import Scenes

KL_WEIGHT = 1e-4
MEASURED = 512  # pictures that the scale of latents is measured on


@dataclass(frozen=True)
class VaeSize:
    """An architecture, in the words of diffusers' AutoencoderKL: every block but the last halves the picture."""

    channels: tuple[int, ...] = (16, 32, 64, 96)
    latents: int = 8
    layers: int = 1
    groups: int = 8


SIZES = {"tiny": VaeSize((8, 8, 8, 8), 4, 1, 4), "small": VaeSize()}


def train_vae(
    scenes: Scenes,
    size: VaeSize,
    plan: Plan,
    out: Path,
    about: Mapping[str, Any],
    device: torch.device = CPU,
    tensorboard: Path | None = None,
) -> None:
    """Writes a VAE in diffusers' layout to `out` at every checkpoint, its latents' scale and a model card with it."""
    make_folder(out)
    torch.manual_seed(plan.seed)
    vae = build(size).to(device)
    side = scenes.pictures([0]).shape[-1] // 2 ** (len(size.channels) - 1)

    def loss_of(step: Step) -> Iterator[Tensor]:
        chosen = [step.rng.randrange(len(scenes)) for _ in range(plan.batch)]
        noise = torch.randn(plan.batch, vae.config.latent_channels, side, side)
        for places, share in step.shares(plan.batch):
            own = [chosen[place] for place in places]
            step.ids += scenes.names(own)
            pictures = scenes.pictures(own).to(device)
            latents = vae.encode(pictures).latent_dist
            drawn = vae.decode(latents.mean + latents.std * noise[places].to(device)).sample
            yield share * reconstruction(pictures, drawn, latents.mean, latents.logvar)

    def export(facts: Mapping[str, Any]) -> None:
        vae.register_to_config(scaling_factor=scale_of(vae, scenes, plan))
        save(vae, out)
        write_card(out, "a VAE for a generator", facts)

    inputs = {**about, "size": asdict(size)}
    train(vae, loss_of, plan, out=out, export=export, inputs=inputs, tensorboard=tensorboard)


def reconstruction(pictures: Tensor, drawn: Tensor, mean: Tensor, logvar: Tensor) -> Tensor:
    """L1 + L2 over pixels in -1..1, and the KL divergence of latents from N(0, 1), a latent's mean of it."""
    error = (drawn - pictures).float()
    divergence = 0.5 * (mean.float() ** 2 + logvar.float().exp() - 1 - logvar.float())
    return error.abs().mean() + (error**2).mean() + KL_WEIGHT * divergence.mean()


@torch.no_grad()
def scale_of(vae: Any, scenes: Scenes, plan: Plan) -> float:
    """What latents are multiplied by, so that their standard deviation is 1 (SDXL's 0.13025)."""
    rng, device = Random(f"{plan.seed}/scale"), next(vae.parameters()).device
    chosen = [rng.randrange(len(scenes)) for _ in range(MEASURED)]
    own = [vae.encode(scenes.pictures(places).to(device)).latent_dist.mean for places in batches(chosen, plan.batch)]
    return round(1 / torch.cat(own).std().item(), 5)


def build(size: VaeSize) -> Any:
    """diffusers' AutoencoderKL with random weights."""
    from diffusers import AutoencoderKL

    blocks = len(size.channels)
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * blocks,
        up_block_types=("UpDecoderBlock2D",) * blocks,
        block_out_channels=size.channels,
        layers_per_block=size.layers,
        latent_channels=size.latents,
        norm_num_groups=size.groups,
        mid_block_add_attention=False,
    )
