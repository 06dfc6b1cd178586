"""What does not change while a generator is trained: latents of pictures, features of their views.

A shelf has them computed once, in shards on the disk, which are mapped, not read; without one they are computed anew
at each step.
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
from cig.io.files import sweep, write_bytes
from cig.io.tensors import map_tensors
from cig.models.composer import Composer
from cig.runtime import batches, progress, say
from cig.training import processes
from cig.training.plan import Plan
from cig.types import Scenes

PIXELS = 2**20  # that a VAE encodes at once
PICTURES = 4096  # of a shard, or a few less


class Encoded(Protocol):
    """Pictures and views as a training reads them."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of a picture's latents."""

    def latents(self, places: Sequence[int]) -> Tensor:
        """[B, C, h, w], of standard deviation 1."""

    def references(self, places: Sequence[int], view: int, seeds: Sequence[int]) -> Tensor:
        """[B, C, h, w]: a view's latents as the VAE makes them, not scaled; of a shelf, if it was to hold them."""

    def features(self, places: Sequence[int], view: int, seeds: Sequence[int]) -> tuple[Tensor, Tensor]:
        """What the two towers see of a view: ([B, p1], [B, p2]); a seed for each place."""


@dataclass(frozen=True)
class Shelf:
    """Of N pictures, in fp16 on the disk."""

    # latents [n, C, h, w]; of view v first{v} [n, p1], second{v} [n, p2] and, where asked for, reference{v} as latents
    shards: Sequence[Mapping[str, Tensor]]
    each: int  # n of all shards but the last
    scale: float  # of latents
    shape: tuple[int, int, int]

    def latents(self, places: Sequence[int]) -> Tensor:
        return self._rows("latents", places) * self.scale

    def references(self, places: Sequence[int], view: int, seeds: Sequence[int]) -> Tensor:
        return self._rows(f"reference{view}", places)

    def features(self, places: Sequence[int], view: int, seeds: Sequence[int]) -> tuple[Tensor, Tensor]:
        """A view is as it was when the shelf was made, whatever the seed."""
        return self._rows(f"first{view}", places), self._rows(f"second{view}", places)

    def _rows(self, name: str, places: Sequence[int]) -> Tensor:
        return torch.stack([self.shards[place // self.each][name][place % self.each] for place in places]).float()


@dataclass(frozen=True)
class Encoder:
    """Computes at each step, on the device of the VAE and of the CLIPs."""

    scenes: Scenes
    composer: Composer
    vae: Any
    shape: tuple[int, int, int]

    def latents(self, places: Sequence[int]) -> Tensor:
        chunks = batches(places, at_once(self.vae, self.shape, len(places)))
        encoded = [encode(self.scenes.pictures(own), self.vae, self.scenes.names(own)) for own in chunks]
        return torch.cat(encoded).float() * self.vae.config.scaling_factor

    def references(self, places: Sequence[int], view: int, seeds: Sequence[int]) -> Tensor:
        drawn = list(zip(places, seeds, strict=True))
        encoded = []
        for own in batches(drawn, at_once(self.vae, self.shape, len(places))):
            seen = [self.scenes.references([place], view, Random(str(seed))) for place, seed in own]
            encoded.append(encode(torch.cat(seen), self.vae, self.scenes.names([place for place, _ in own])))
        return torch.cat(encoded).float()

    def features(self, places: Sequence[int], view: int, seeds: Sequence[int]) -> tuple[Tensor, Tensor]:
        first, second = self.composer.first.clip, self.composer.second.clip
        return self._seen(first, places, view, seeds), self._seen(second, places, view, seeds)

    def _seen(self, clip: Any, places: Sequence[int], view: int, seeds: Sequence[int]) -> Tensor:
        """One by one, so that a view does not depend on the others of its part of a step."""
        drawn = zip(places, seeds, strict=True)
        seen = [self.scenes.seen([place], view, clip.size, Random(str(seed))) for place, seed in drawn]
        features: Tensor = clip.embed_images(torch.cat(seen))
        return features


def shape_of(scenes: Scenes, vae: Any) -> tuple[int, int, int]:
    side = scenes.side // factor_of(vae)
    return vae.config.latent_channels, side, side


def factor_of(vae: Any) -> int:
    """Pixels a latent, along a side."""
    return int(2 ** (len(vae.config.block_out_channels) - 1))


def at_once(vae: Any, shape: tuple[int, int, int], most: int) -> int:
    """Pictures that are encoded together."""
    return max(1, min(most, PIXELS // (shape[1] * factor_of(vae)) ** 2))


@torch.no_grad()
def encode(pictures: Tensor, vae: Any, names: Sequence[str]) -> Tensor:
    """[B, 3, side, side] in -1..1 -> [B, C, h, w] fp16 on the CPU: the means, not scaled.

    Raises:
        InputError: they are not finite.
    """
    latents: Tensor = vae.encode(pictures.to(vae.device, vae.dtype)).latent_dist.mean.half().cpu()
    if not torch.isfinite(latents).all():
        raise InputError(
            f"the VAE's latents of {some(names, 5)} are not finite: SDXL's own overflows in float16; "
            f"take madebyollin/sdxl-vae-fp16-fix, or --frozen-dtype float32"
        )
    return latents


def shelve(scenes: Scenes, composer: Composer, vae: Any, out: Path, plan: Plan, references: bool = False) -> Shelf:
    """Maps the shards of `out/shelf-*`; those that are not there are computed, each process its share.

    Args:
        references: latents of views, too.
    """
    models = {name: own for name, own in composer.identity.items() if not name.startswith("phi")}
    key = digest_of(
        {
            **fingerprints(models),
            **scenes.identity,
            "seed": plan.seed,
            "batch": plan.batch,
            "vae": _content(vae),
            "computed in": [composer.settings["dtype"], str(vae.dtype)],
            **({"references": "latents"} if references else {}),
        }
    )
    shape = shape_of(scenes, vae)
    chunk = at_once(vae, shape, plan.batch)
    each = chunk * max(1, PICTURES // chunk)
    folder = out / f"shelf-{key}"
    sweep(folder)
    if others := [path.name for path in out.glob("shelf-*") if path != folder]:
        say(f"{out} has shelves of other data or settings, which may go: {some(others, 5)}")
    paths = [folder / f"{number:05d}.safetensors" for number in range(-(-len(scenes) // each))]
    own = [number for number in range(len(paths))[processes.rank() :: processes.world()] if not paths[number].exists()]
    for number in progress(own, len(own), f"latents and features, {each} pictures each", "shard"):
        places = range(number * each, min((number + 1) * each, len(scenes)))
        _write(paths[number], scenes, composer, vae, places, chunk, plan.seed, references)
    processes.wait()
    return Shelf([map_tensors(path) for path in paths], each, vae.config.scaling_factor, shape)


def _write(
    path: Path,
    scenes: Scenes,
    composer: Composer,
    vae: Any,
    places: range,
    chunk: int,
    seed: int,
    references: bool,
) -> None:
    import safetensors.torch

    clips = {"first": composer.first.clip, "second": composer.second.clip}
    rows: dict[str, list[Tensor]] = {}
    for own in batches(places, chunk):
        names = scenes.names(own)
        rows.setdefault("latents", []).append(encode(scenes.pictures(own), vae, names))
        for view in range(scenes.views):
            drawn = f"{seed}/{own[0] // chunk}/{view}"  # both towers and the generator see the same
            for name, clip in clips.items():
                seen = scenes.seen(own, view, clip.size, Random(drawn))
                rows.setdefault(f"{name}{view}", []).append(clip.embed_images(seen).half())
            if references:
                shown = encode(scenes.references(own, view, Random(drawn)), vae, names)
                rows.setdefault(f"reference{view}", []).append(shown)
    write_bytes(path, safetensors.torch.save({name: torch.cat(parts) for name, parts in rows.items()}))


@contextmanager
def in_full(device: torch.device) -> Iterator[None]:
    """What is frozen computes in the precision of its own weights, without gradients."""
    with torch.no_grad(), torch.autocast(device.type, enabled=False):
        yield


def _content(vae: Any) -> str:
    """Of its weights, by their sums: what it was loaded from may have been moved."""
    return digest_of([round(own.double().sum().item(), 6) for own in vae.state_dict().values()])
