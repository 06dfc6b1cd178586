"""What does not change while a generator is trained, computed once: latents of pictures, features of their views."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import torch
from torch import Tensor

from cig.formats import digest_of, fingerprints, write_bytes
from cig.inversion import Composer
from cig.runtime import batches, progress
from cig.tensors import read_tensors
from cig.training.plan import Plan
from cig.types import Scenes


@dataclass(frozen=True)
class Shelf:
    """Of N pictures, in fp16 on the CPU."""

    stored: Mapping[str, Tensor]  # latents [N, C, h, w]; first{v} [N, p1] and second{v} [N, p2] of view v
    scale: float  # of latents
    side: int  # of pictures, in pixels

    def latents(self, places: Sequence[int]) -> Tensor:
        """[B, C, h, w], of standard deviation 1."""
        return self.stored["latents"][list(places)].float() * self.scale

    def features(self, places: Sequence[int], view: int) -> tuple[Tensor, Tensor]:
        """What the two towers see of a view: ([B, p1], [B, p2])."""
        own = list(places)
        return self.stored[f"first{view}"][own].float(), self.stored[f"second{view}"][own].float()


def shelve(scenes: Scenes, composer: Composer, vae: Any, out: Path, plan: Plan) -> Shelf:
    """Reads `out/shelf.safetensors`, or computes and writes it."""
    models = {name: own for name, own in composer.identity.items() if not name.startswith("phi")}
    key = digest_of(
        {**fingerprints(models), **scenes.identity, "seed": plan.seed, "batch": plan.batch, "vae": _content(vae)}
    )
    path = out / f"shelf-{key}.safetensors"
    stored = read_tensors(path) if path.exists() else _compute(scenes, composer, vae, plan, path)
    return Shelf(stored, vae.config.scaling_factor, scenes.pictures([0]).shape[-1])


@torch.no_grad()
def _compute(scenes: Scenes, composer: Composer, vae: Any, plan: Plan, path: Path) -> dict[str, Tensor]:
    import safetensors.torch

    device = next(vae.parameters()).device
    clips = {"first": composer.first.clip, "second": composer.second.clip}
    rows: dict[str, list[Tensor]] = {}
    chunks = list(batches(range(len(scenes)), plan.batch))
    for number, places in enumerate(progress(chunks, len(chunks), "latents and features", "batch")):
        latents = vae.encode(scenes.pictures(places).to(device)).latent_dist.mean
        rows.setdefault("latents", []).append(latents.half().cpu())
        for view in range(scenes.views):
            for name, clip in clips.items():
                rng = Random(f"{plan.seed}/{number}/{view}")  # both towers see the same
                seen = scenes.seen(places, view, clip.size, rng)
                rows.setdefault(f"{name}{view}", []).append(clip.embed_images(seen).half())
    stored = {name: torch.cat(own) for name, own in rows.items()}
    write_bytes(path, safetensors.torch.save(stored))
    return stored


def _content(vae: Any) -> str:
    """Of its weights, by their sums: what it was loaded from may have been moved."""
    return digest_of([round(own.double().sum().item(), 6) for own in vae.state_dict().values()])
