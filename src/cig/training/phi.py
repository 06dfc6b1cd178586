"""Trains a phi (textual inversion) for a frozen CLIP: by captions alone (LinCIR) or by pictures alone (Pic2Word)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

from cig.encoders import Clip
from cig.formats import write_bytes
from cig.inversion import BARE_PROMPT, Im2Text, Phi
from cig.training import processes
from cig.training.card import write_card
from cig.training.clip import contrastive
from cig.training.keywords import CHUNKER, mask_keywords
from cig.training.loop import train
from cig.training.plan import Plan
from cig.training.step import Step, need_whole
from cig.types import Pairs

Objective = Literal["lincir", "pic2word"]
Network = Phi | Im2Text
NETWORKS: dict[Objective, type[Phi] | type[Im2Text]] = {"lincir": Phi, "pic2word": Im2Text}  # each paper's own
PHI = "phi.safetensors"


def train_phi(
    clip: Clip,
    pairs: Pairs,
    objective: Objective,
    plan: Plan,
    out: Path,
    about: Mapping[str, Any],
    dropout: float = 0.5,
    scale: float = 100.0,
    tensorboard: Path | None = None,
) -> None:
    """Writes `out/phi.safetensors` (fp16) and its card at every checkpoint."""
    if objective == "pic2word":
        need_whole(plan, "Pic2Word's loss")
    torch.manual_seed(plan.seed)
    widths = (clip.feature_width, 4 * clip.feature_width, clip.token_width)
    phi = NETWORKS[objective](*widths, dropout).to(clip.device)

    def loss_of(step: Step) -> Iterable[Tensor]:
        if objective == "lincir":
            return lincir(clip, phi, pairs, plan.batch, step)
        return [pic2word(clip, phi, pairs, plan.batch, step, scale)]

    def export(facts: Mapping[str, Any]) -> None:
        save(phi, out / PHI)
        write_card(out, f"a phi by {objective}", facts)

    chosen = {"keywords": CHUNKER} if objective == "lincir" else {"scale": scale}
    models = {"objective": objective, "dropout": dropout, "clip": dict(clip.identity)}
    train(phi, loss_of, plan, out, export, {**about, **models, **chosen}, tensorboard=tensorboard)


def lincir(clip: Clip, phi: Network, pairs: Pairs, size: int, step: Step) -> Iterator[Tensor]:
    """Gu et al., CVPR 2024, equation 4: T(caption with phi(T(caption) + noise) for its keywords) is to be T(caption).

    The noise is U(0, 1) a caption times N(0, 1) an element; features are not normalised. The loss of all captions is
    the sum of its parts.
    """
    captions = pairs.captions(size, step.rng)
    masked = [mask_keywords(text, step.rng) for text in captions]
    noise = torch.rand(size, 1) * torch.randn(size, clip.feature_width)
    for places, share in step.shares(size):
        own = [captions[place] for place in places]
        step.ids += own
        wanted = clip.embed_texts(own).to(clip.device)
        words = phi(wanted + noise[places].to(clip.device))
        yield share * functional.mse_loss(clip.project_texts([masked[place] for place in places], words), wanted)


def pic2word(clip: Clip, phi: Network, pairs: Pairs, size: int, step: Step, scale: float) -> Tensor:
    """Saito et al., CVPR 2023, equation 2: T(a photo of $) is to be nearest to its own picture's feature."""
    batch, own = pairs.batch(size, step.rng), step.own(size)
    step.ids += batch.ids
    features = clip.embed_images(batch.pixels[own]).to(clip.device)
    found = processes.gathered(clip.project_texts([BARE_PROMPT] * len(features), phi(features)))
    alone = torch.eye(size, dtype=torch.bool, device=clip.device)
    return contrastive(found, processes.gathered(features), alone, scale) / processes.world()


def save(phi: Network, path: Path) -> None:
    """fp16; layers.{0,3,6} as LinCIR's checkpoints have them, or layers.{0,1}.0 and fc_out as Pic2Word's."""
    import safetensors.torch

    weights = {name: own.detach().half().cpu().contiguous() for name, own in phi.state_dict().items()}
    write_bytes(path, safetensors.torch.save(weights))
