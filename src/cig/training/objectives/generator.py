"""Trains a generator of SDXL's architecture on pictures with captions: a UNet that draws from composed embeddings.

It is conditioned as in retrieval: the pseudo-words of a view, a relative caption, both text towers (CIG, stage 1).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
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
from cig.training.data.latent_cache import LatentEncoder, LatentSource, cache_latents, frozen_precision
from cig.training.loop import train
from cig.training.model_card import write_card
from cig.training.objectives._diffusers import save, save_pipeline
from cig.training.objectives._diffusion import Batch, Prediction, ddpm, denoising, dropped, sampler, unseen
from cig.training.objectives._lora import Lora, adapt, merged, save_adapter
from cig.training.objectives._unet import UNetSize, build, load_unet, need_widths, widened
from cig.training.plan import CPU, Plan
from cig.training.step import Step
from cig.types import Scenes


@dataclass(frozen=True)
class Recipe:
    """What is learnt beside the plan.

    Attributes:
        prediction: the noise (epsilon, as SDXL's weights do) or the velocity.
        dropout: share of examples whose condition is zeros, what guidance moves away from.
        min_snr: gamma of min-SNR's weights (5 in its paper); None: all timesteps weigh alike.
        lora: None trains the whole UNet.
        shown: the UNet reads the reference's latents, too (InstructPix2Pix). Of dropout's share the condition alone is
            dropped in one half and the reference, too, in the other; of as many again, the reference alone, so that
            each has its guidance (Brooks et al., CVPR 2023, section 3.2.1: 5% each).
    """

    prediction: Prediction = "epsilon"
    dropout: float = 0.1
    min_snr: float | None = None
    lora: Lora | None = None
    shown: bool = False


@dataclass(frozen=True)
class Means:
    """How it is computed: what there is of memory and disk decides.

    Attributes:
        checkpointing: activations of a block are computed again on the way back, instead of kept.
        shelf: latents and features are computed once and kept on the disk; else at each step, with views drawn anew.
        frozen: what the VAE computes in.
    """

    checkpointing: bool = False
    shelf: bool = True
    frozen: torch.dtype = torch.float32


@dataclass(frozen=True)
class Draw:
    """All that is random in a step, for all of its B items."""

    places: Sequence[int]
    view: int
    captions: Sequence[str]
    seeds: Sequence[int]  # of views that are drawn anew
    noise: Tensor  # [B, C, h, w]
    times: Tensor  # [B]
    away: Tensor  # [B] bool: without a condition
    blind: Tensor  # [B] bool: without a reference, where the UNet is shown one


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
    means: Means = Means(),
) -> None:
    """Writes `out/unet`, `out/vae` and `out/scheduler` (for --model-path, --vae-repo and --sdxl-repo) at checkpoints.

    With LoRA, `out/pytorch_lora_weights.safetensors` as well: the adapter alone; `out/unet` has it merged.

    Args:
        vae_source: hub id or folder.
        start: a hub id or folder with unet/, such as SDXL's; `size` is not used then, nor LoRA without it.

    Raises:
        MismatchError: the UNet to start from reads other widths than the CLIPs have, or draws other latents.
        UsageError: it lies in `out`.
    """
    need_elsewhere(out, {"--start": start, "--vae": vae_source})
    make_folder(out)
    torch.manual_seed(plan.seed)
    vae = load_vae(vae_source, means.frozen, cache_dir).to(device)
    unet, noising = _begun(start, size, composer, vae, recipe, plan, cache_dir), ddpm(recipe.prediction)
    recipe = replace(recipe, shown=shown_reference(unet.config))  # as what is started from may be, unasked
    encoded = _encoded(scenes, composer, vae, out, plan, means, recipe.shown)
    unet.to(device)  # not before: what fills a shelf needs the room
    if means.checkpointing:
        unet.enable_gradient_checkpointing()

    def loss_of(step: Step) -> Iterator[Tensor]:
        draw = drawn(plan.batch, scenes, encoded, noising, recipe.dropout, step.rng)
        for places, share in step.shares(plan.batch):
            step.ids += scenes.names([draw.places[place] for place in places])
            batch = composed(draw, places, scenes, encoded, composer, device, recipe.shown)
            yield share * denoising(unet, noising, batch, recipe.min_snr)

    def export(facts: Mapping[str, Any]) -> None:
        whole = unet
        if recipe.lora and start:
            save_adapter(unet, out)
            whole = merged(unet, load_unet(start, cache_dir=cache_dir))
        save(whole, out / "unet")
        exact = vae if means.frozen == torch.float32 else load_vae(vae_source, cache_dir=cache_dir)
        save(exact, out / "vae")
        save_pipeline(out, whole, vae, sampler(recipe.prediction))
        write_card(out, "a generator of pseudo-targets", facts)

    known = {**about, **_known(recipe, means), "models": {**composer.identity, "vae": identity(vae_source, cache_dir)}}
    known |= {"start": _identity(start, cache_dir)} if start else {"size": asdict(size)}
    train(unet, loss_of, plan, out=out, export=export, inputs=known, tensorboard=tensorboard)


def need_elsewhere(out: Path, sources: Mapping[str, str | Path | None]) -> None:
    """Raises UsageError where what is started from would be written over; flag -> folder or hub id."""
    for flag, source in sources.items():
        place = Path(source).resolve() if source and os.path.exists(source) else None
        if place and (place == out.resolve() or out.resolve() in place.parents):
            raise UsageError(f"{flag} {source} is in --out {out}, and would be written over; give another --out")


def _identity(start: str, cache_dir: Path | None = None) -> dict[str, str]:
    """Of its UNet alone: a folder may hold a shelf, too."""
    if os.path.isdir(start):
        return {**identity(Path(start) / "unet"), "source": start}
    return identity(start, cache_dir, config="unet/config.json")


def drawn(count: int, scenes: Scenes, encoded: LatentSource, noising: Any, dropout: float, rng: Random) -> Draw:
    """A step's examples."""
    places = [rng.randrange(len(scenes)) for _ in range(count)]
    view = rng.randrange(scenes.views)
    captions, seeds = scenes.said(places, view, rng), [rng.getrandbits(62) for _ in places]
    noise, times = torch.randn(count, *encoded.shape), torch.randint(noising.config.num_train_timesteps, (count,))
    lot = torch.rand(count)
    return Draw(
        places=places,
        view=view,
        captions=captions,
        seeds=seeds,
        noise=noise,
        times=times,
        away=lot < dropout,
        blind=(lot >= dropout / 2) & (lot < 1.5 * dropout),
    )


def composed(
    draw: Draw,
    items: Sequence[int],
    scenes: Scenes,
    encoded: LatentSource,
    composer: Composer,
    device: torch.device,
    shown: bool = False,
) -> Batch:
    """Some of a step's items, as the UNet is given them."""
    own = list(items)
    places = [draw.places[item] for item in own]
    captions = [(draw.captions[item],) if draw.captions[item] else () for item in own]
    with frozen_precision(device):
        seeds = [draw.seeds[item] for item in own]
        features = encoded.features(places, draw.view, seeds)
        embedding = composer.compose([str(place) for place in places], features, captions)
        latents = encoded.latents(places)
        reference = unseen(encoded.references(places, draw.view, seeds), draw.blind[own]).to(device) if shown else None
    condition = dropped(embedding, draw.away[own], device)
    noise, times = draw.noise[own].to(device), draw.times[own].to(device)
    return Batch(latents.to(device), noise, times, condition, scenes.framing(places).to(device), reference)


def load_vae(source: str, dtype: torch.dtype = torch.float32, cache_dir: Path | None = None) -> Any:
    """Frozen. Raises NotFoundError or InputError."""
    from diffusers import AutoencoderKL

    from cig.generators.sdxl import load_part

    options = {"dtype": dtype, "use_safetensors": True, "cache_dir": cache_dir}
    return load_part(AutoencoderKL, source, **options).requires_grad_(False)


def _begun(
    start: str | None,
    size: UNetSize,
    composer: Composer,
    vae: Any,
    recipe: Recipe,
    plan: Plan,
    cache_dir: Path | None,
) -> Any:
    """What is trained; with LoRA, what is frozen of it is kept in the precision that is multiplied in."""
    widths = composer.first.clip.token_width + composer.second.clip.token_width, composer.second.clip.feature_width
    if not start:
        return build(size, vae.config.latent_channels, *widths, recipe.shown)
    unet = load_unet(start, getattr(torch, plan.autocast) if recipe.lora else torch.float32, cache_dir)
    need_widths(unet, start, widths, vae.config.latent_channels)
    if recipe.shown and recipe.lora and not shown_reference(unet.config):
        raise UsageError(
            f"an adapter cannot teach the UNet of {start} to read the reference: start from one that does, such as "
            f"diffusers/sdxl-instructpix2pix-768, or train the whole UNet, without --lora"
        )
    unet = widened(unet) if recipe.shown else unet
    return adapt(unet, recipe.lora) if recipe.lora else unet


def _encoded(
    scenes: Scenes, composer: Composer, vae: Any, out: Path, plan: Plan, means: Means, shown: bool
) -> LatentSource:
    """With a shelf, what has filled it leaves the device."""
    if not means.shelf:
        return LatentEncoder(scenes, composer, vae)
    cache = cache_latents(scenes, composer, vae, out=out, plan=plan, references=shown)
    for model in (vae, composer.first.clip.vision, composer.second.clip.vision):
        model.to(CPU)
    return cache


def _known(recipe: Recipe, means: Means) -> dict[str, Any]:
    """What the result depends on, where it is not as it always was."""
    own = {key: value for key, value in asdict(recipe).items() if value is not None and value is not False}
    if not means.shelf:
        own["views"] = "drawn anew at each step"
    if means.frozen != torch.float32:
        own["vae_dtype"] = str(means.frozen)
    return own
