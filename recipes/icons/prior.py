"""A prior without pixels: from what conditions the generator straight to the searcher's feature of the picture.

    python recipes/icons/prior.py build/icons                                    # -> build/icons/prior
    python recipes/icons/prior.py build/icons --data icons/triplets --limit 32768 --generator triplets \
        --start build/icons/prior --name triplets-prior --steps 500

The control of the experiment: the data of the generator's last part, the same condition, the reference's features in
the place of its latents, fewer steps, 4.7 million weights for icons (the UNet has 4.3). If it adds as much as the
pseudo-target does, no picture is needed.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, normalize

from cig.benchmarks._icons.pairs import normalised
from cig.cli.terminal import messages_on_stderr
from cig.generators._meta import meta_unet
from cig.generators.sdxl import shown_reference
from cig.io.digests import identity
from cig.io.files import make_folder, write_bytes
from cig.io.images import read_batches
from cig.io.tensors import read_tensors
from cig.models.clip import Clip
from cig.models.composer import Composer
from cig.runtime import batches, progress
from cig.training.data import load_scenes
from cig.training.data.latent_cache import cache_latents
from cig.training.loop import train
from cig.training.model_card import write_card
from cig.training.objectives.generator import load_vae
from cig.training.plan import Plan
from cig.training.step import Step
from cig.types import ComposedEmbedding, Query, Scenes
from imagined import composer_of

Features = tuple[Tensor, Tensor]  # [B, p1] and [B, p2]
WEIGHTS = "prior.safetensors"
HIDDEN = 512


class Prior(nn.Module):
    """Composed embeddings and the reference's features -> features [B, d] of the picture that they ask for."""

    def __init__(self, condition: int, feature: int) -> None:
        super().__init__()
        widths = [(condition, HIDDEN), (HIDDEN, HIDDEN)]
        hidden = [part for own in widths for part in (nn.Linear(*own), nn.GELU())]
        self.layers = nn.Sequential(nn.LayerNorm(condition), *hidden, nn.Linear(HIDDEN, feature))

    def forward(self, composed: ComposedEmbedding, features: Features) -> Tensor:
        found: Tensor = self.layers(flat(composed, features))
        return found


def flat(composed: ComposedEmbedding, features: Features) -> Tensor:
    """[B, L * (h1 + h2) + p2 + p1 + p2]: what the UNet reads, and what both CLIPs see in the reference."""
    return torch.cat([composed.prompt.flatten(1), composed.pooled2, *features], -1)


def train_prior(
    scenes: Scenes,
    composer: Composer,
    searcher: Clip,
    vae: str,
    plan: Plan,
    shelf: Path,
    out: Path,
    start: Path | None = None,
) -> None:
    """Writes `out/prior.safetensors` and a card; `shelf`: the generator's folder, whose features of views are read."""
    make_folder(out)
    shown = shown_reference(meta_unet(shelf, torch.float32).config)
    seen = cache_latents(scenes, composer, load_vae(vae), out=shelf, plan=plan, references=shown)
    wanted = features_of(scenes, searcher, plan.batch)
    torch.manual_seed(plan.seed)
    prior = Prior(flat(*condition(scenes, composer, seen, [0], Random(0))).shape[1], wanted.shape[1])
    if start:
        prior.load_state_dict(read_tensors(start / WEIGHTS))

    def loss_of(step: Step) -> Iterator[Tensor]:
        places = [step.rng.randrange(len(scenes)) for _ in range(plan.batch)]
        given = condition(scenes, composer, seen, places, step.rng)
        step.ids += scenes.names(places)
        yield 1 - cosine_similarity(prior(*given), wanted[places]).mean()

    def export(facts: Mapping[str, Any]) -> None:
        import safetensors.torch

        weights = {name: own.detach().half().contiguous() for name, own in prior.state_dict().items()}
        write_bytes(out / WEIGHTS, safetensors.torch.save(weights))
        write_card(out, "a prior without pixels", facts)

    begun = {"start": identity(start / WEIGHTS)} if start else {}
    about = {**scenes.identity, "models": composer.identity, "searcher": dict(searcher.identity), **begun}
    train(prior, loss_of, plan, out=out, export=export, inputs=about)


def condition(
    scenes: Scenes, composer: Composer, shelf: Any, places: Sequence[int], rng: Random
) -> tuple[ComposedEmbedding, Features]:
    """As the generator is conditioned when it is trained."""
    view = rng.randrange(scenes.views)
    captions = [(text,) if text else () for text in scenes.said(places, view, rng)]
    features = shelf.features(places, view, [])
    return composer.compose([str(place) for place in places], features, captions), features


def features_of(scenes: Scenes, searcher: Clip, size: int) -> Tensor:
    """[N, d] unit rows: the searcher's of each picture."""
    chunks = list(batches(range(len(scenes)), size))
    own = (searcher.embed_images(normalised((scenes.pictures(places) + 1) / 2)) for places in chunks)
    return normalize(torch.cat(list(progress(own, len(chunks), "features", unit="batch"))), dim=-1)


class PriorMethod:
    """A branch's method: reference and caption -> what the prior says, beside the searcher's features of pictures."""

    uses_picture = asks_for_queries = True

    def __init__(self, folder: Path, composer: Composer, image: Any) -> None:
        weights = read_tensors(folder / WEIGHTS)
        first, last = (weights[f"layers.{place}.weight"] for place in (1, 5))
        self.prior = Prior(first.shape[1], last.shape[0]).eval().requires_grad_(False)
        self.prior.load_state_dict({name: own.float() for name, own in weights.items()})
        self.composer, self.image, self.name = composer, image, folder.name
        self.preprocess, self.picture_model = image.preprocess, image.picture_model
        self.identity = {**composer.identity, "prior": identity(folder / WEIGHTS), "image": image.identity}

    def embed_images(self, pixels: Tensor) -> Tensor:
        features: Tensor = self.image.embed_images(pixels)
        return features

    def embed_queries(
        self,
        image_features: Tensor,
        captions: Sequence[tuple[str, ...]],
        queries: Sequence[Query],
        paths: Sequence[Path],
    ) -> Tensor:
        distinct = list(dict.fromkeys(paths))
        read = read_batches(distinct, self.composer.preprocesses, 256)
        rows = [row for batch in read for row in zip(*self.composer.embed_images(batch.pixels), strict=True)]
        place = dict(zip(distinct, rows, strict=True))
        first, second = (torch.stack([place[path][tower] for path in paths]) for tower in (0, 1))
        composed = self.composer.compose([query.id for query in queries], (first, second), captions)
        return normalize(self.prior(composed, (first, second)), dim=-1)


@messages_on_stderr()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data", default="icons/altered")
    parser.add_argument("--name", default="prior")
    parser.add_argument("--generator", default="generator", help="the folder of the generator that saw the same data")
    parser.add_argument("--start", type=Path, help="the folder of a prior to go on from")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--batch-size", type=int, default=128, help="the generator's, whose shelf is read")
    asked = parser.parse_args()
    composer, folder = composer_of(asked.folder), asked.folder
    plan = Plan(asked.steps, asked.batch_size, 1e-3, 100, weight_decay=0.01, ema=0.99)
    scenes = load_scenes(asked.data, asked.limit)
    searcher, vae = composer.first.clip, str(folder / "vae")
    train_prior(scenes, composer, searcher, vae, plan, folder / asked.generator, folder / asked.name, asked.start)


if __name__ == "__main__":
    main()
