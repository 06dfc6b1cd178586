"""The loss of denoising diffusion, and the schedules that noise is added and pictures are drawn by.

The loss is Ho et al.'s (NeurIPS 2020, equation 14), or its velocity form (Salimans & Ho, ICLR 2022, appendix D), each
timestep weighted by min-SNR (Hang et al., ICCV 2023) where asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

from cig.types import ComposedEmbedding

Prediction = Literal["epsilon", "v_prediction"]
Condition = tuple[Tensor, Tensor]  # prompt [B, L, h1 + h2], pooled [B, p2]


@dataclass(frozen=True)
class Batch:
    """What a UNet is to denoise."""

    latents: Tensor  # [B, C, h, w], scaled
    noise: Tensor  # as latents
    times: Tensor  # [B]
    condition: Condition
    framing: Tensor  # [B, 6], see Scenes.framing
    reference: Tensor | None = None  # as latents, not scaled: beside the noisy ones, for a UNet that is shown it


def denoising(unet: Any, noising: Any, batch: Batch, min_snr: float | None = None) -> Tensor:
    """The mean squared error of what the UNet says of noisy latents: the noise, or the velocity."""
    noisy = noising.add_noise(batch.latents, batch.noise, batch.times)
    if batch.reference is not None:  # Brooks et al., CVPR 2023, section 3.2
        noisy = torch.cat([noisy, batch.reference], dim=1)
    prompt, pooled = (own.to(unet.dtype) for own in batch.condition)
    known = {"text_embeds": pooled, "time_ids": batch.framing}
    said = unet(noisy.to(unet.dtype), batch.times, prompt, added_cond_kwargs=known).sample
    velocity = noising.config.prediction_type == "v_prediction"
    wanted = noising.get_velocity(batch.latents, batch.noise, batch.times) if velocity else batch.noise
    errors = functional.mse_loss(said.float(), wanted.float(), reduction="none").mean((1, 2, 3))
    if min_snr is None:
        return errors.mean()
    return (errors * snr_weights(noising, batch.times, min_snr)).mean()


def snr_weights(noising: Any, times: Tensor, most: float) -> Tensor:
    """[B]: min(SNR, gamma) / SNR for the noise, min(SNR, gamma) / (SNR + 1) for the velocity (Hang et al., 2023).

    The signal-to-noise ratio SNR of a timestep is its share of signal over that of noise, alpha_bar / (1 - alpha_bar).
    Of the velocity, pure noise weighs nothing.
    """
    signal = noising.alphas_cumprod.to(times.device)[times]
    ratio = signal / (1 - signal)
    velocity = noising.config.prediction_type == "v_prediction"
    weights: Tensor = ratio.clamp(max=most) / (ratio + 1 if velocity else ratio)
    return weights


def dropped(composed: ComposedEmbedding, away: Tensor, device: torch.device) -> Condition:
    """The condition, zeros in rows that are dropped [B] bool."""
    kept = (~away).float()
    prompt, pooled = composed.prompt * kept[:, None, None], composed.pooled2 * kept[:, None]
    return prompt.to(device), pooled.to(device)


def unseen(references: Tensor, blind: Tensor) -> Tensor:
    """Latents [B, C, h, w], zeros in rows that are dropped [B] bool."""
    return references * (~blind).float()[:, None, None, None]


SCHEDULE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}  # SDXL's


def ddpm(prediction: Prediction) -> Any:
    """How noise is added. Velocity sees pure noise, too (Lin et al., WACV 2024); SDXL's own schedule stops short."""
    from diffusers import DDPMScheduler

    return DDPMScheduler(
        **SCHEDULE, prediction_type=prediction, rescale_betas_zero_snr=prediction == "v_prediction", clip_sample=False
    )


def sampler(prediction: Prediction) -> Any:
    """How pictures are drawn: SDXL's Euler, from where training's noise ends."""
    from diffusers import EulerDiscreteScheduler

    velocity = prediction == "v_prediction"
    spacing = {"timestep_spacing": "trailing" if velocity else "leading", "steps_offset": 0 if velocity else 1}
    return EulerDiscreteScheduler(**SCHEDULE, **spacing, prediction_type=prediction, rescale_betas_zero_snr=velocity)
