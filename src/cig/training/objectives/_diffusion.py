"""The loss of denoising diffusion, and the noise schedules of training and of sampling.

The loss is that of Ho et al. (NeurIPS 2020, equation 14), or its velocity form (Salimans & Ho, ICLR 2022, appendix D);
min-SNR (Hang et al., ICCV 2023) can weight the timesteps.
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
class DiffusionBatch:
    """B pictures to noise, and the condition that the UNet denoises them by."""

    latents: Tensor  # [B, C, h, w], scaled
    noise: Tensor  # as latents
    times: Tensor  # [B]
    condition: Condition
    framing: Tensor  # [B, 6], see Scenes.framing
    reference: Tensor | None = None  # as latents, not scaled: input of a UNet that is shown the reference


def denoising_loss(unet: Any, scheduler: Any, batch: DiffusionBatch, *, min_snr: float | None = None) -> Tensor:
    """Return the mean squared error of the UNet's prediction from noisy latents: of the noise, or of the velocity."""
    noisy = scheduler.add_noise(batch.latents, batch.noise, batch.times)
    if batch.reference is not None:  # Brooks et al., CVPR 2023, section 3.2
        noisy = torch.cat([noisy, batch.reference], dim=1)
    prompt, pooled = (states.to(unet.dtype) for states in batch.condition)
    added = {"text_embeds": pooled, "time_ids": batch.framing}
    predicted = unet(noisy.to(unet.dtype), batch.times, prompt, added_cond_kwargs=added).sample
    velocity = scheduler.config.prediction_type == "v_prediction"
    target = scheduler.get_velocity(batch.latents, batch.noise, batch.times) if velocity else batch.noise
    errors = functional.mse_loss(predicted.float(), target.float(), reduction="none").mean((1, 2, 3))
    if min_snr is None:
        return errors.mean()
    return (errors * snr_weights(scheduler, batch.times, min_snr)).mean()


def snr_weights(scheduler: Any, times: Tensor, most: float) -> Tensor:
    """Weight timesteps [B] by min-SNR with gamma `most` (Hang et al., 2023).

    A weight is min(SNR, gamma) / SNR for the noise, and min(SNR, gamma) / (SNR + 1) for the velocity.
    """
    # SNR is alpha_bar / (1 - alpha_bar). In pure noise alpha_bar is 0: the velocity's weight is 0 then, and the noise's
    # would be 0 / 0, but only the velocity is trained on a schedule that reaches pure noise (see `ddpm`).
    signal = scheduler.alphas_cumprod.to(times.device)[times]
    ratio = signal / (1 - signal)
    velocity = scheduler.config.prediction_type == "v_prediction"
    weights: Tensor = ratio.clamp(max=most) / (ratio + 1 if velocity else ratio)
    return weights


def drop_conditions(composed: ComposedEmbedding, dropped: Tensor, device: torch.device) -> Condition:
    """Return the condition with zeros in the dropped rows, [B] bool."""
    kept = (~dropped).float()
    prompt, pooled = composed.prompt * kept[:, None, None], composed.pooled2 * kept[:, None]
    return prompt.to(device), pooled.to(device)


def drop_references(references: Tensor, dropped: Tensor) -> Tensor:
    """Return latents [B, C, h, w] with zeros in the dropped rows, [B] bool."""
    return references * (~dropped).float()[:, None, None, None]


SCHEDULE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}  # SDXL's


def ddpm(prediction: Prediction) -> Any:
    """Return the schedule of training.

    With the velocity it ends in pure noise (Lin et al., WACV 2024); SDXL's own, of the noise, ends shortly before.
    """
    from diffusers import DDPMScheduler

    return DDPMScheduler(
        **SCHEDULE, prediction_type=prediction, rescale_betas_zero_snr=prediction == "v_prediction", clip_sample=False
    )


def sampler(prediction: Prediction) -> Any:
    """Return the schedule of sampling: SDXL's Euler, which begins with the noise that training ends with."""
    from diffusers import EulerDiscreteScheduler

    velocity = prediction == "v_prediction"
    spacing = {"timestep_spacing": "trailing" if velocity else "leading", "steps_offset": 0 if velocity else 1}
    return EulerDiscreteScheduler(**SCHEDULE, **spacing, prediction_type=prediction, rescale_betas_zero_snr=velocity)
