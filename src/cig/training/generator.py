"""Trains a generator of SDXL's architecture on pictures with captions: a UNet that draws from composed embeddings.

It is conditioned as in retrieval: the pseudo-words of a view, a relative caption, both text towers (CIG, stage 1).
The loss is that of denoising diffusion (Ho et al., NeurIPS 2020, equation 14), or its velocity form (Salimans & Ho,
ICLR 2022, appendix D).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

from cig.errors import MismatchError
from cig.formats import identity, make_folder
from cig.inversion import Composer
from cig.training.card import write_card
from cig.training.diffusers import save, save_pipeline
from cig.training.loop import train
from cig.training.plan import CPU, Plan
from cig.training.shelf import Shelf, shelve
from cig.training.step import Step
from cig.types import ComposedEmbedding, Scenes

Prediction = Literal["epsilon", "v_prediction"]
Condition = tuple[Tensor, Tensor]  # prompt [B, L, h1 + h2], pooled [B, p2]


@dataclass(frozen=True)
class UNetSize:
    """An architecture, in the words of UNet2DConditionModel; all blocks but the first attend to the prompt."""

    channels: tuple[int, ...] = (96, 160)
    layers: int = 1
    head_width: int = 32
    groups: int = 32
    time_width: int = 32


SIZES = {"tiny": UNetSize((16, 32), head_width=8, groups=8, time_width=8), "small": UNetSize()}


@dataclass(frozen=True)
class Recipe:
    """What is learnt beside the plan.

    Attributes:
        prediction: the noise (epsilon, as SDXL's weights do) or the velocity.
        dropout: share of examples whose condition is zeros, what guidance moves away from.
    """

    prediction: Prediction = "epsilon"
    dropout: float = 0.1


@dataclass(frozen=True)
class Batch:
    """All that a step has drawn."""

    latents: Tensor  # [B, C, h, w], scaled
    noise: Tensor  # as latents
    times: Tensor  # [B]
    condition: Condition

    def part(self, places: Sequence[int]) -> Batch:
        prompt, pooled = self.condition
        own = list(places)
        return Batch(self.latents[own], self.noise[own], self.times[own], (prompt[own], pooled[own]))


def train_generator(
    scenes: Scenes,
    composer: Composer,
    vae_source: str,
    size: UNetSize,
    recipe: Recipe,
    plan: Plan,
    out: Path,
    about: Mapping[str, Any],
    device: torch.device = CPU,
    start: str | None = None,
    cache_dir: Path | None = None,
    tensorboard: Path | None = None,
) -> None:
    """Writes `out/unet`, `out/vae` and `out/scheduler` (for --model-path, --vae-repo and --sdxl-repo) at checkpoints.

    Args:
        vae_source: hub id or folder.
        start: a hub id or folder with unet/, such as SDXL's; `size` is not used then.

    Raises:
        MismatchError: the UNet to start from reads other widths than the CLIPs have.
    """
    make_folder(out)
    torch.manual_seed(plan.seed)
    vae = load_vae(vae_source, cache_dir)
    widths = composer.first.clip.token_width + composer.second.clip.token_width, composer.second.clip.feature_width
    unet = (_started(start, widths, cache_dir) if start else build(size, vae.config.latent_channels, *widths)).to(
        device
    )
    noising = ddpm(recipe.prediction)
    shelf = shelve(scenes, composer, vae.to(device), out, plan)
    time_ids = micro_conditioning(shelf.side)

    def loss_of(step: Step) -> Iterator[Tensor]:
        chosen = [step.rng.randrange(len(scenes)) for _ in range(plan.batch)]
        batch = drawn(chosen, shelf, scenes, composer, noising, recipe.dropout, step.rng, device)
        for places, share in step.shares(plan.batch):
            step.ids += scenes.names([chosen[place] for place in places])
            yield share * denoising(unet, noising, batch.part(places), time_ids)

    def export(facts: Mapping[str, Any]) -> None:
        save(unet, out / "unet")
        save(vae, out / "vae")
        save_pipeline(out, unet, vae, sampler(recipe.prediction))
        write_card(out, "a generator of pseudo-targets", facts)

    models = {**composer.identity, "vae": identity(vae_source)}
    beginning = {"start": identity(start, config="unet/config.json")} if start else {"size": asdict(size)}
    known = {**about, **asdict(recipe), **beginning, "models": models}
    train(unet, loss_of, plan, out, export, known, tensorboard=tensorboard)


def drawn(
    places: Sequence[int],
    shelf: Shelf,
    scenes: Scenes,
    composer: Composer,
    noising: Any,
    dropout: float,
    rng: Random,
    device: torch.device,
) -> Batch:
    """A step's examples: latents, noise, times, and conditions, some of them zeros."""
    count, view = len(places), rng.randrange(scenes.views)
    captions = [(text,) if text else () for text in scenes.said(places, view, rng)]
    composed = composer.compose([str(place) for place in places], shelf.features(places, view), captions)
    latents = shelf.latents(places)
    return Batch(
        latents=latents.to(device),
        noise=torch.randn_like(latents).to(device),
        times=torch.randint(noising.config.num_train_timesteps, (count,)).to(device),
        condition=dropped(composed, torch.rand(count) < dropout, device),
    )


def dropped(composed: ComposedEmbedding, away: Tensor, device: torch.device) -> Condition:
    """The condition, zeros in rows that are dropped [B] bool."""
    kept = (~away).float()
    prompt, pooled = composed.prompt * kept[:, None, None], composed.pooled2 * kept[:, None]
    return prompt.to(device), pooled.to(device)


def denoising(unet: Any, noising: Any, batch: Batch, time_ids: Tensor) -> Tensor:
    """The mean squared error of what the UNet says of noisy latents: the noise, or the velocity."""
    noisy = noising.add_noise(batch.latents, batch.noise, batch.times)
    prompt, pooled = batch.condition
    known = {"text_embeds": pooled, "time_ids": time_ids.to(pooled).expand(len(pooled), -1)}
    said = unet(noisy, batch.times, prompt, added_cond_kwargs=known).sample
    velocity = noising.config.prediction_type == "v_prediction"
    wanted = noising.get_velocity(batch.latents, batch.noise, batch.times) if velocity else batch.noise
    return functional.mse_loss(said.float(), wanted.float())


def micro_conditioning(side: int) -> Tensor:
    """[1, 6]: SDXL's original size, crop and target size (Podell et al., 2023, section 2.2): whole square pictures."""
    return torch.tensor([[side, side, 0, 0, side, side]], dtype=torch.float32)


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


def build(size: UNetSize, latents: int, prompt: int, pooled: int) -> Any:
    """diffusers' UNet2DConditionModel with random weights and SDXL's conditioning (text_time)."""
    from diffusers import UNet2DConditionModel

    blocks = len(size.channels) - 1
    return UNet2DConditionModel(
        in_channels=latents,
        out_channels=latents,
        down_block_types=("DownBlock2D", *("CrossAttnDownBlock2D",) * blocks),
        up_block_types=(*("CrossAttnUpBlock2D",) * blocks, "UpBlock2D"),
        block_out_channels=size.channels,
        layers_per_block=size.layers,
        attention_head_dim=[own // size.head_width for own in size.channels],
        cross_attention_dim=prompt,
        norm_num_groups=size.groups,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=size.time_width,
        projection_class_embeddings_input_dim=pooled + 6 * size.time_width,
    )


def load_vae(source: str, cache_dir: Path | None = None) -> Any:
    """Frozen, float32. Raises NotFoundError or InputError."""
    from diffusers import AutoencoderKL

    from cig.generators.sdxl import load_part

    return load_part(
        AutoencoderKL, source, dtype=torch.float32, use_safetensors=True, cache_dir=cache_dir
    ).requires_grad_(False)


def _started(source: str, widths: tuple[int, int], cache_dir: Path | None) -> Any:
    from diffusers import UNet2DConditionModel

    from cig.generators.sdxl import load_part
    from cig.preflight import need_unet

    options = {"dtype": torch.float32, "use_safetensors": True, "cache_dir": cache_dir}
    unet = load_part(UNet2DConditionModel, need_unet(source), subfolder="unet", **options)
    pooled = unet.config.projection_class_embeddings_input_dim - 6 * unet.config.addition_time_embed_dim
    if (unet.config.cross_attention_dim, pooled) != widths:
        raise MismatchError(
            f"the UNet of {source} reads prompts of width {unet.config.cross_attention_dim} and pooled ones of "
            f"{pooled}, but the two CLIPs make {widths[0]} and {widths[1]}; start from one trained with them"
        )
    return unet
