"""Train a VAE of SDXL's kind, 8 pixels a latent: reconstruction (L1 and L2) and a little KL (Kingma & Welling, 2014).

It has no adversarial and no perceptual loss, which is enough for flat drawings. For photos, take SDXL's own VAE.
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
from cig.training import processes
from cig.training.loop import train
from cig.training.model_card import write_card
from cig.training.objectives._diffusers import save
from cig.training.plan import CPU, Plan
from cig.training.step import Step
from cig.types import Scenes

KL_WEIGHT = 1e-4
PIXELS = 2**20  # that are computed at once: a step of large pictures has several parts
MEASURED = 512  # pictures to measure the scale of latents on; of large ones a share with as many pixels, but LEAST
LEAST = 64


@dataclass(frozen=True)
class VaeSize:
    """An architecture by the parameters of diffusers' AutoencoderKL; every block but the last halves the picture."""

    channels: tuple[int, ...] = (16, 32, 64, 96)
    latents: int = 8
    layers: int = 1
    groups: int = 8


SIZES = {"tiny": VaeSize((8, 8, 8, 8), 4, 1, 4), "small": VaeSize()}


def train_vae(
    scenes: Scenes,
    size: VaeSize,
    plan: Plan,
    *,
    out: Path,
    inputs: Mapping[str, Any],
    device: torch.device = CPU,
    tensorboard: Path | None = None,
) -> None:
    """Write a VAE in diffusers' layout, with the scale of its latents, and its card to `out` at every checkpoint.

    Args:
        inputs: what identifies the data.
    """
    make_folder(out)
    torch.manual_seed(plan.seed)
    vae = build(size).to(device)
    side = scenes.side // 2 ** (len(size.channels) - 1)
    parts = -(-plan.batch // (processes.world() * _at_once(scenes)))

    def loss_of(step: Step) -> Iterator[Tensor]:
        step.parts = max(step.parts, parts)
        chosen = [step.rng.randrange(len(scenes)) for _ in range(plan.batch)]
        noise = torch.randn(plan.batch, vae.config.latent_channels, side, side)
        for rows, share in step.shares(plan.batch):
            items = [chosen[row] for row in rows]
            step.ids += scenes.names(items)
            pictures = scenes.pictures(items).to(device)
            latents = vae.encode(pictures).latent_dist
            decoded = vae.decode(latents.mean + latents.std * noise[rows].to(device)).sample
            yield share * reconstruction(pictures, decoded, mean=latents.mean, logvar=latents.logvar)

    def export(facts: Mapping[str, Any]) -> None:
        vae.register_to_config(scaling_factor=scale_of(vae, scenes, plan))
        save(vae, out)
        write_card(out, "a VAE for a generator", facts)

    inputs = {**inputs, "size": asdict(size)}
    train(vae, loss_of, plan, out=out, export=export, inputs=inputs, tensorboard=tensorboard)


def reconstruction(pictures: Tensor, decoded: Tensor, *, mean: Tensor, logvar: Tensor) -> Tensor:
    """Return the loss: L1 + L2 over pixels in -1..1, and KL_WEIGHT times the latents' mean divergence from N(0, 1)."""
    error = (decoded - pictures).float()
    divergence = 0.5 * (mean.float() ** 2 + logvar.float().exp() - 1 - logvar.float())
    return error.abs().mean() + (error**2).mean() + KL_WEIGHT * divergence.mean()


@torch.no_grad()
def scale_of(vae: Any, scenes: Scenes, plan: Plan) -> float:
    """Measure the factor that brings the standard deviation of latents to 1 (SDXL's is 0.13025)."""
    rng, device = Random(f"{plan.seed}/scale"), next(vae.parameters()).device
    count = max(LEAST, min(MEASURED, MEASURED * 64**2 // scenes.side**2))
    chosen = [rng.randrange(len(scenes)) for _ in range(count)]
    parts = (scenes.pictures(part).to(device) for part in batches(chosen, min(plan.batch, _at_once(scenes))))
    latents = torch.cat([vae.encode(pictures).latent_dist.mean for pictures in parts])
    return round(1 / latents.std().item(), 5)


def _at_once(scenes: Scenes) -> int:
    """Return how many pictures to compute at once."""
    return max(1, PIXELS // scenes.side**2)


def build(size: VaeSize) -> Any:
    """Build diffusers' AutoencoderKL with random weights."""
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
