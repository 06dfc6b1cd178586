"""Does the generator know which badge, which ring is asked for? Its loss by the right caption and by a wrong one.

    python recipes/icons/told.py build/icons

On drawings that were made by rule (icons/altered), shown what each was made from: the loss with a caption that names
its badge or ring, and by the same noise with one that names another's. Where they are alike, the generator draws what
is between all badges. These are drawings that it was trained on; what it makes of others' stands on the contact sheet.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from random import Random

import torch

from cig.benchmarks._icons.corpus import INKS, read_split
from cig.benchmarks._icons.derived import DerivedIcon, derive_icons
from cig.benchmarks._icons.pairs import plain, uncropped, viewed
from cig.generators.sdxl import shown_reference
from cig.training.data.latent_cache import encode
from cig.training.objectives._diffusion import DiffusionBatch, ddpm, denoising_loss
from cig.training.objectives._unet import load_unet
from cig.training.objectives.generator import load_vae
from imagined import composer_of

TIMES = (950, 700, 400)  # of 1,000: from nearly noise to a sketch
SAID = {"badge": "with a {} badge", "enclosure": "in a {}"}


class Drawings:
    """Some that were made by rule, of one kind, and what conditions the generator to draw each."""

    def __init__(self, folder: Path, kind: str, count: int, every: Sequence[DerivedIcon]) -> None:
        icons, drawings = read_split("train")
        able = [own for own in every if getattr(own.icon, kind) != getattr(icons[own.origin], kind)]
        chosen = Random(kind).sample(able, min(count, len(able)))
        self.names = [getattr(own.icon, kind) for own in chosen]
        self.known = sorted({getattr(own.icon, kind) for own in able})
        self.kind, self.composer, vae = kind, composer_of(folder), load_vae(str(folder / "vae"))
        inks = Random("inks").choices(list(INKS), k=len(chosen))
        after = torch.stack([own.drawing for own in chosen])
        before = torch.from_numpy(drawings[[own.origin for own in chosen]])
        clips = self.composer.first.clip, self.composer.second.clip
        first, second = (clip.embed_images(viewed(before, inks, clip.size, rng=Random(0))) for clip in clips)
        self.features = first, second
        self.latents = encode(plain(after, inks), vae, self.names).float() * vae.config.scaling_factor
        self.references = encode(plain(before, inks), vae, self.names).float()

    def batch(self, names: Sequence[str], time: int) -> DiffusionBatch:
        """Captions of these names, noise that is always the same."""
        captions = [(SAID[self.kind].format(name),) for name in names]
        composed = self.composer.compose([str(place) for place in range(len(names))], self.features, captions)
        noise = torch.randn(self.latents.shape, generator=torch.Generator().manual_seed(time))
        times, condition = torch.full((len(names),), time), (composed.prompt, composed.pooled2)
        return DiffusionBatch(
            self.latents, noise, times, condition=condition, framing=uncropped(len(names)), reference=self.references
        )

    def others(self) -> list[str]:
        """For each drawing a name that others of its kind have."""
        rng = Random("others")
        return [rng.choice([name for name in self.known if name != own]) for own in self.names]


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--generator", default="generator", help="its folder in there")
    parser.add_argument("--count", type=int, default=128, help="drawings of each kind")
    asked = parser.parse_args()
    unet, noising = load_unet(str(asked.folder / asked.generator)).eval(), ddpm("v_prediction")
    if not shown_reference(unet.config):
        raise SystemExit(f"{asked.generator} is not shown references: ask one that is (--generator)")
    print("| asked for | timestep | loss | by another's caption | more |\n|---|---|---|---|---|")
    icons, plain_ones = read_split("train")
    every = [*derive_icons(icons, torch.from_numpy(plain_ones))]
    for kind in SAID:
        drawings = Drawings(asked.folder, kind, asked.count, every)
        for time in TIMES:
            said = drawings.names, drawings.others()
            right, wrong = (float(denoising_loss(unet, noising, drawings.batch(names, time))) for names in said)
            print(f"| {kind} | {time} | {right:.4f} | {wrong:.4f} | {100 * (wrong / right - 1):+.1f}% |")


if __name__ == "__main__":
    main()
