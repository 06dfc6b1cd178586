"""Train a generator of SDXL's architecture on pictures with captions: a UNet conditioned by composed embeddings.

The condition is made as in retrieval: the pseudo-words of a view, a relative caption, both text towers (CIG, stage 1).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import torch
from torch import Tensor

from cig.errors import UsageError
from cig.generators.sdxl import shown_reference
from cig.io.digests import identity
from cig.io.files import make_folder
from cig.models.composer import Composer
from cig.runtime import say
from cig.training.data.latent_cache import LatentEncoder, LatentSource, cache_latents, frozen_precision
from cig.training.loop import train
from cig.training.model_card import write_card
from cig.training.objectives._diffusers import WEIGHTS, save, save_config, save_pipeline
from cig.training.objectives._diffusion import (
    DiffusionBatch,
    Prediction,
    ddpm,
    denoising_loss,
    drop_conditions,
    drop_references,
    sampler,
)
from cig.training.objectives._lora import Lora, add_adapter, save_adapter, save_merged
from cig.training.objectives._unet import UNetSize, build, load_unet, meta_unet, need_widths, stored_weights, widen
from cig.training.plan import CPU, Plan, describe_memory
from cig.training.step import Step
from cig.types import Scenes


@dataclass(frozen=True)
class GeneratorRecipe:
    """The loss and the trained weights of a generator; `Plan` has the length and the rate.

    Attributes:
        prediction: the noise (epsilon, as SDXL's weights do) or the velocity.
        dropout: share of examples whose condition is zeros, which guidance moves away from.
        min_snr: gamma of min-SNR's weights (5 in its paper); None weights all timesteps alike.
        lora: None trains the whole UNet.
        shown: the UNet reads the reference's latents, too (InstructPix2Pix); see `draw_examples` for their dropout.
        sampled: draw latents from the VAE's distribution at each step, instead of taking its mean.
    """

    prediction: Prediction = "epsilon"
    dropout: float = 0.1
    min_snr: float | None = None
    lora: Lora | None = None
    shown: bool = False
    sampled: bool = False


@dataclass(frozen=True)
class StartModels:
    """The models that a training starts from.

    Attributes:
        vae: hub id or folder.
        size: of a UNet with random weights.
        unet: a hub id or folder with unet/, such as SDXL's, instead of `size`; LoRA needs it.
        cache_dir: of the hub.
    """

    vae: str
    size: UNetSize
    unet: str | None = None
    cache_dir: Path | None = None

    def identity(self) -> dict[str, Any]:
        """Return what checkpoints record of the UNet; cached latents, which its folder may have, too, do not count."""
        if not self.unet:
            return {"size": asdict(self.size)}
        if os.path.isdir(self.unet):
            return {"start": {**identity(Path(self.unet) / "unet"), "source": self.unet}}
        return {"start": identity(self.unet, self.cache_dir, config="unet/config.json")}


@dataclass(frozen=True)
class MemoryOptions:
    """How memory and disk are used.

    Attributes:
        checkpointing: compute a block's activations again in the backward pass instead of keeping them.
        cached: compute latents and features once, into files; else at each step, with views drawn anew.
        frozen: dtype of the VAE.
    """

    checkpointing: bool = False
    cached: bool = True
    frozen: torch.dtype = torch.float32


@dataclass(frozen=True)
class Examples:
    """The B examples of a step, with all that is random in it."""

    items: Sequence[int]  # of the scenes
    view: int
    captions: Sequence[str]
    seeds: Sequence[int]  # of views that are not cached
    noise: Tensor  # [B, C, h, w]
    times: Tensor  # [B]
    no_condition: Tensor  # [B] bool
    no_reference: Tensor  # [B] bool
    variation: Tensor | None = None  # as noise: of sampled latents


def train_generator(
    scenes: Scenes,
    composer: Composer,
    plan: Plan,
    *,
    recipe: GeneratorRecipe,
    start: StartModels,
    out: Path,
    inputs: Mapping[str, Any],
    device: torch.device = CPU,
    tensorboard: Path | None = None,
    memory: MemoryOptions = MemoryOptions(),
) -> None:
    """Write `out/unet`, `out/vae` and `out/scheduler` (for --model-path, --vae-repo and --sdxl-repo) at checkpoints.

    With LoRA, `out/pytorch_lora_weights.safetensors` is the adapter, which is merged in `out/unet`.

    Args:
        inputs: what identifies the data.

    Raises:
        MismatchError: the UNet to start from does not fit the CLIPs or the VAE.
        UsageError: the UNet or the VAE to start from is in `out`.
    """
    need_elsewhere(out, {"--start": start.unet, "--vae": start.vae})
    make_folder(out)
    if counts := _count_weights(start, recipe):
        say(describe_memory(counts, plan))
    torch.manual_seed(plan.seed)
    vae = load_vae(start.vae, memory.frozen, start.cache_dir).to(device)
    unet = _build_unet(start, composer, vae, recipe=recipe, autocast=getattr(torch, plan.autocast))
    recipe = replace(recipe, shown=shown_reference(unet.config))  # a UNet to start from may be shown it, unasked
    scheduler = ddpm(recipe.prediction)
    latents = _latents(scenes, composer, vae, out=out, plan=plan, recipe=recipe, memory=memory)
    unet.to(device)  # after the cache was filled, which needs the memory
    if memory.checkpointing:
        unet.enable_gradient_checkpointing()

    def loss_of(step: Step) -> Iterator[Tensor]:
        examples = draw_examples(
            plan.batch, scenes, step.rng, shape=latents.shape, scheduler=scheduler, dropout=recipe.dropout
        )
        if recipe.sampled:
            examples = replace(examples, variation=torch.randn_like(examples.noise))
        for rows, share in step.shares(plan.batch):
            step.ids += scenes.names([examples.items[row] for row in rows])
            batch = _batch(
                examples, rows, scenes, latents=latents, composer=composer, device=device, shown=recipe.shown
            )
            yield share * denoising_loss(unet, scheduler, batch, min_snr=recipe.min_snr)

    def export(facts: Mapping[str, Any]) -> None:
        _export(unet, vae, out, start=start, recipe=recipe)
        write_card(out, "a generator of pseudo-targets", facts)

    models = {**composer.identity, "vae": identity(start.vae, start.cache_dir)}
    inputs = {**inputs, **_recorded(recipe, memory), "models": models, **start.identity()}
    train(unet, loss_of, plan, out=out, export=export, inputs=inputs, tensorboard=tensorboard)


def _count_weights(start: StartModels, recipe: GeneratorRecipe) -> tuple[int, int] | None:
    """Count the weights of a UNet to start from and those of them that are trained, without loading any."""
    unet = meta_unet(start.unet, start.cache_dir) if start.unet else None
    if unet is None:
        return None
    with torch.device("meta"):
        unet = add_adapter(unet, recipe.lora) if recipe.lora else unet
    counts = [(weight.numel(), weight.requires_grad) for weight in unet.parameters()]
    return sum(count for count, _ in counts), sum(count for count, trained in counts if trained)


def need_elsewhere(out: Path, sources: Mapping[str, str | Path | None]) -> None:
    """Raise UsageError for a model (flag -> folder or hub id) in `out`, which training would overwrite."""
    for flag, source in sources.items():
        path = Path(source).resolve() if source and os.path.exists(source) else None
        if path and (path == out.resolve() or out.resolve() in path.parents):
            raise UsageError(f"{flag} {source} is in --out {out}, and would be written over; give another --out")


def draw_examples(
    count: int, scenes: Scenes, rng: Random, *, shape: tuple[int, int, int], scheduler: Any, dropout: float
) -> Examples:
    """Draw a step's examples.

    The condition alone is dropped in half of dropout's share, the reference alone in as many, and both in as many, so
    that each has its guidance (Brooks et al., CVPR 2023, section 3.2.1: 5% each).

    Args:
        shape: of a picture's latents.
    """
    items = [rng.randrange(len(scenes)) for _ in range(count)]
    view = rng.randrange(scenes.views)
    captions, seeds = scenes.said(items, view, rng), [rng.getrandbits(62) for _ in items]
    noise, times = torch.randn(count, *shape), torch.randint(scheduler.config.num_train_timesteps, (count,))
    lot = torch.rand(count)
    return Examples(
        items=items,
        view=view,
        captions=captions,
        seeds=seeds,
        noise=noise,
        times=times,
        no_condition=lot < dropout,
        no_reference=(lot >= dropout / 2) & (lot < 1.5 * dropout),
    )


def _batch(
    examples: Examples,
    rows: Sequence[int],
    scenes: Scenes,
    *,
    latents: LatentSource,
    composer: Composer,
    device: torch.device,
    shown: bool,
) -> DiffusionBatch:
    """Compose the conditions of some of a step's examples, and collect their latents and noise."""
    rows = list(rows)
    items, seeds = [examples.items[row] for row in rows], [examples.seeds[row] for row in rows]
    captions = [(examples.captions[row],) if examples.captions[row] else () for row in rows]
    reference = None
    with frozen_precision(device):
        features = latents.features(items, examples.view, seeds)
        composed = composer.compose([str(item) for item in items], features, captions)
        pictures = latents.latents(items, None if examples.variation is None else examples.variation[rows])
        if shown:
            references = latents.references(items, examples.view, seeds)
            reference = drop_references(references, examples.no_reference[rows]).to(device)
    return DiffusionBatch(
        latents=pictures.to(device),
        noise=examples.noise[rows].to(device),
        times=examples.times[rows].to(device),
        condition=drop_conditions(composed, examples.no_condition[rows], device),
        framing=scenes.framing(items).to(device),
        reference=reference,
    )


def load_vae(source: str, dtype: torch.dtype = torch.float32, cache_dir: Path | None = None) -> Any:
    """Load a frozen VAE; raises NotFoundError or InputError."""
    from diffusers import AutoencoderKL

    from cig.generators._parts import load_part

    return load_part(AutoencoderKL, source, dtype, name="vae", cache_dir=cache_dir).requires_grad_(False)


def _build_unet(
    start: StartModels, composer: Composer, vae: Any, *, recipe: GeneratorRecipe, autocast: torch.dtype
) -> Any:
    """Return the UNet to train; with LoRA, its frozen weights have the dtype of autocast."""
    first, second = composer.first.clip, composer.second.clip
    prompt, pooled, latents = first.token_width + second.token_width, second.feature_width, vae.config.latent_channels
    if not start.unet:
        return build(start.size, latents=latents, prompt=prompt, pooled=pooled, shown=recipe.shown)
    unet = load_unet(start.unet, autocast if recipe.lora else torch.float32, start.cache_dir)
    need_widths(unet, start.unet, widths=(prompt, pooled), latents=latents)
    if recipe.shown and recipe.lora and not shown_reference(unet.config):
        raise UsageError(
            f"an adapter cannot teach the UNet of {start.unet} to read the reference: start from one that does, such "
            f"as diffusers/sdxl-instructpix2pix-768, or train the whole UNet, without --lora"
        )
    unet = widen(unet) if recipe.shown else unet
    return add_adapter(unet, recipe.lora) if recipe.lora else unet


def _latents(
    scenes: Scenes,
    composer: Composer,
    vae: Any,
    *,
    out: Path,
    plan: Plan,
    recipe: GeneratorRecipe,
    memory: MemoryOptions,
) -> LatentSource:
    """Return the source of latents; once they are cached, the models that computed them leave the device."""
    if not memory.cached:
        return LatentEncoder(scenes, composer, vae)
    latents = cache_latents(scenes, composer, vae, out=out, plan=plan, references=recipe.shown, spread=recipe.sampled)
    vae.to(CPU)
    composer.release("vision")
    return latents


def _export(unet: Any, vae: Any, out: Path, *, start: StartModels, recipe: GeneratorRecipe) -> None:
    """Write UNet, VAE and scheduler in diffusers' layout; with LoRA, the adapter and the merged UNet."""
    if recipe.lora and start.unet:
        save_adapter(unet, out)
        save_merged(unet, out / "unet" / WEIGHTS, partial(stored_weights, start.unet, cache_dir=start.cache_dir))
        save_config(unet, out / "unet")
    else:
        save(unet, out / "unet")
    # Not the VAE at hand if its weights are rounded: a later run may compute in float32.
    save(vae if vae.dtype == torch.float32 else load_vae(start.vae, cache_dir=start.cache_dir), out / "vae")
    save_pipeline(out, unet=unet, vae=vae, scheduler=sampler(recipe.prediction))


def _recorded(recipe: GeneratorRecipe, memory: MemoryOptions) -> dict[str, Any]:
    """Return the settings that checkpoints and cards record; defaults that older ones lack are left out."""
    settings = {key: value for key, value in asdict(recipe).items() if value is not None and value is not False}
    if not memory.cached:
        settings["views"] = "drawn anew at each step"
    if memory.frozen != torch.float32:
        settings["vae_dtype"] = str(memory.frozen)
    return settings
