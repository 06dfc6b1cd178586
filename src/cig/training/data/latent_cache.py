"""The frozen parts of a generator's training: latents of pictures, and features of their views.

`LatentCache` reads them from shards on the disk, which were computed once; `LatentEncoder` computes them at each step.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, Protocol

import torch
from torch import Tensor

from cig.errors import InputError, some
from cig.io.digests import digest_of, fingerprints
from cig.io.files import sweep
from cig.io.tensors import map_tensors
from cig.io.weight_files import write_safetensors
from cig.models.composer import Composer
from cig.models.preprocessing import from_published
from cig.runtime import batches, progress, say
from cig.training import processes
from cig.training.plan import Plan
from cig.types import Scenes

PIXELS = 2**20  # that a VAE encodes at once
PICTURES = 4096  # of a shard, or a few less


class LatentSource(Protocol):
    """Latents of pictures and features of their views, by index."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Return the shape [C, h, w] of a picture's latents."""

    def latents(self, indices: Sequence[int], noise: Tensor | None = None) -> Tensor:
        """Return [B, C, h, w], scaled to a standard deviation of 1: the means, or samples by the noise [B, C, h, w]."""

    def references(self, indices: Sequence[int], view: int, seeds: Sequence[int]) -> Tensor:
        """Return [B, C, h, w]: a view's latents, not scaled; a cache has them only if it was made with references."""

    def features(self, indices: Sequence[int], view: int, seeds: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return the two towers' features of a view, ([B, p1], [B, p2]); each index has a seed for its view."""


@dataclass(frozen=True)
class LatentCache:
    """Latents and features of N pictures, in fp16 shards that are mapped into memory, not read."""

    # latents [n, C, h, w] or, to sample from, [n, 2C, h, w] (see encode); of view v first{v} [n, p1], second{v} [n, p2]
    # and, with references, reference{v} [n, C, h, w]
    shards: Sequence[Mapping[str, Tensor]]
    each: int  # n of all shards but the last
    scale: float  # of latents
    shape: tuple[int, int, int]

    def latents(self, indices: Sequence[int], noise: Tensor | None = None) -> Tensor:
        return sample(self._rows("latents", indices), noise) * self.scale

    def references(self, indices: Sequence[int], view: int, seeds: Sequence[int]) -> Tensor:
        return self._rows(f"reference{view}", indices)

    def features(self, indices: Sequence[int], view: int, seeds: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return the features of the view that was drawn when the cache was made, whatever the seed."""
        return self._rows(f"first{view}", indices), self._rows(f"second{view}", indices)

    def _rows(self, name: str, indices: Sequence[int]) -> Tensor:
        return torch.stack([self.shards[index // self.each][name][index % self.each] for index in indices]).float()


@dataclass(frozen=True)
class LatentEncoder:
    """Computes latents and features at each step, on the device of the VAE and of the CLIPs."""

    scenes: Scenes
    composer: Composer
    vae: Any

    @property
    def shape(self) -> tuple[int, int, int]:
        side = self.scenes.side // _pixels_a_latent(self.vae)
        return self.vae.config.latent_channels, side, side

    def batch_size(self, most: int) -> int:
        """Return how many of `most` pictures to encode together: as many as have PIXELS pixels, or one."""
        return max(1, min(most, PIXELS // (self.shape[1] * _pixels_a_latent(self.vae)) ** 2))

    def latents(self, indices: Sequence[int], noise: Tensor | None = None) -> Tensor:
        encoded = [
            encode(self.scenes.pictures(chunk), self.vae, self.scenes.names(chunk), spread=noise is not None)
            for chunk in batches(indices, self.batch_size(len(indices)))
        ]
        return sample(torch.cat(encoded).float(), noise) * self.vae.config.scaling_factor

    def references(self, indices: Sequence[int], view: int, seeds: Sequence[int]) -> Tensor:
        encoded = []
        for chunk in batches(list(zip(indices, seeds, strict=True)), self.batch_size(len(indices))):
            views = [self.scenes.references([index], view, Random(str(seed))) for index, seed in chunk]
            encoded.append(encode(torch.cat(views), self.vae, self.scenes.names([index for index, _ in chunk])))
        return torch.cat(encoded).float()

    def features(self, indices: Sequence[int], view: int, seeds: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Draw the views one by one, so that a view does not depend on the others of its part of a step."""

        def embed(clip: Any) -> Tensor:
            drawn = zip(indices, seeds, strict=True)
            views = [self.scenes.seen([index], view, clip.size, rng=Random(str(seed))) for index, seed in drawn]
            features: Tensor = clip.embed_images(_as_seen(torch.cat(views), clip))
            return features

        return embed(self.composer.first.clip), embed(self.composer.second.clip)


def _as_seen(views: Tensor, clip: Any) -> Tensor:
    """Return views [B, 3, S, S] in the CLIP's own preprocessing."""
    return from_published(views, getattr(clip, "processor", None))


def _pixels_a_latent(vae: Any) -> int:
    """Return the pixels of a latent, along a side."""
    return int(2 ** (len(vae.config.block_out_channels) - 1))


@torch.no_grad()
def encode(pictures: Tensor, vae: Any, names: Sequence[str], *, spread: bool = False) -> Tensor:
    """[B, 3, side, side] in -1..1 -> [B, C, h, w] fp16 on the CPU: the means, not scaled.

    Args:
        spread: return [B, 2C, h, w], the means and the standard deviations.

    Raises:
        InputError: they are not finite.
    """
    posterior = vae.encode(pictures.to(vae.device, vae.dtype)).latent_dist
    latents: Tensor = (torch.cat([posterior.mean, posterior.std], dim=1) if spread else posterior.mean).half().cpu()
    if not torch.isfinite(latents).all():
        raise InputError(
            f"the VAE's latents of {some(names, 5)} are not finite: SDXL's own overflows in float16; "
            f"take madebyollin/sdxl-vae-fp16-fix, or --frozen-dtype float32"
        )
    return latents


def sample(encoded: Tensor, noise: Tensor | None) -> Tensor:
    """Draw latents [B, C, h, w] by means and standard deviations [B, 2C, h, w]; without noise, return the means."""
    if noise is None:
        return encoded
    mean, deviation = encoded.chunk(2, dim=1)
    return mean + deviation * noise


def cache_latents(
    scenes: Scenes,
    composer: Composer,
    vae: Any,
    *,
    out: Path,
    plan: Plan,
    references: bool = False,
    spread: bool = False,
) -> LatentCache:
    """Map the shards of `out/shelf-*` and compute those that are missing, each process its share.

    Args:
        references: cache the latents of views as well.
        spread: cache the standard deviations of latents as well, to sample from.
    """
    # The folder's name is a digest of all that the content depends on: pictures, weights of the CLIPs and the VAE,
    # precision, and seed and batch, which the drawn views follow from. So a cache of other settings is never read, and
    # whatever has this name is right, by whichever run or process it was written. Shards are renamed into place when
    # whole: after a kill, a rerun computes the missing ones. Every process maps all shards, once all are written.
    models = {name: model for name, model in composer.identity.items() if not name.startswith("phi")}
    settings = {
        **fingerprints(models),
        **scenes.identity,
        "seed": plan.seed,
        "batch": plan.batch,
        "vae": digest_of([round(weight.double().sum().item(), 6) for weight in vae.state_dict().values()]),
        "computed in": [composer.settings["dtype"], str(vae.dtype)],
        **({"references": "latents"} if references else {}),
        **({"latents": "means and deviations"} if spread else {}),
    }
    encoder = LatentEncoder(scenes, composer, vae)
    chunk = encoder.batch_size(plan.batch)
    each = chunk * max(1, PICTURES // chunk)
    folder = out / f"shelf-{digest_of(settings)}"
    sweep(folder)
    if others := [path.name for path in out.glob("shelf-*") if path != folder]:
        say(f"{out} has shelves of other data or settings, which may go: {some(others, 5)}")
    paths = [folder / f"{number:05d}.safetensors" for number in range(-(-len(scenes) // each))]
    share = range(len(paths))[processes.rank() :: processes.world()]
    todo = [number for number in share if not paths[number].exists()]
    for number in progress(todo, len(todo), f"latents and features, {each} pictures each", unit="shard"):
        indices = range(number * each, min((number + 1) * each, len(scenes)))
        rows = _shard(encoder, indices, chunk, seed=plan.seed, references=references, spread=spread)
        write_safetensors(paths[number], rows)
    processes.wait()
    shards = [map_tensors(path) for path in paths]
    return LatentCache(shards, each, scale=vae.config.scaling_factor, shape=encoder.shape)


def _shard(
    encoder: LatentEncoder, indices: range, chunk: int, *, seed: int, references: bool, spread: bool
) -> dict[str, Tensor]:
    """Compute a shard, `chunk` pictures at a time."""
    scenes, composer, vae = encoder.scenes, encoder.composer, encoder.vae
    clips = {"first": composer.first.clip, "second": composer.second.clip}
    rows: dict[str, list[Tensor]] = {}
    for part in batches(indices, chunk):
        names = scenes.names(part)
        rows.setdefault("latents", []).append(encode(scenes.pictures(part), vae, names, spread=spread))
        for view in range(scenes.views):
            view_seed = f"{seed}/{part[0] // chunk}/{view}"  # both towers and the generator see the same view
            for name, clip in clips.items():
                views = scenes.seen(part, view, clip.size, rng=Random(view_seed))
                rows.setdefault(f"{name}{view}", []).append(clip.embed_images(_as_seen(views, clip)).half())
            if references:
                latents = encode(scenes.references(part, view, Random(view_seed)), vae, names)
                rows.setdefault(f"reference{view}", []).append(latents)
    return {name: torch.cat(parts) for name, parts in rows.items()}


@contextmanager
def frozen_precision(device: torch.device) -> Iterator[None]:
    """Compute frozen models in the precision of their weights, without gradients and without autocast."""
    with torch.no_grad(), torch.autocast(device.type, enabled=False):
        yield
