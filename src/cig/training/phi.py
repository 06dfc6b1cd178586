"""Trains a phi (textual inversion) for a frozen CLIP: by captions alone (LinCIR) or by pictures alone (Pic2Word)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from random import Random
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

from cig.encoders import Clip
from cig.formats import write_bytes
from cig.inversion import BARE_PROMPT, Im2Text, Phi
from cig.training.card import write_card
from cig.training.clip import contrastive
from cig.training.keywords import CHUNKER, mask_keywords
from cig.training.loop import Plan, train
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
) -> None:
    """Writes `out/phi.safetensors` (fp16) and its card at every checkpoint."""
    torch.manual_seed(plan.seed)
    widths = (clip.feature_width, 4 * clip.feature_width, clip.token_width)
    phi = NETWORKS[objective](*widths, dropout).to(clip.device)

    def loss_of(rng: Random) -> Tensor:
        if objective == "lincir":
            return lincir(clip, phi, pairs, plan.batch, rng)
        return pic2word(clip, phi, pairs, plan.batch, rng, scale)

    def export(facts: Mapping[str, Any]) -> None:
        save(phi, out / PHI)
        write_card(out, f"a phi by {objective}", facts)

    chosen = {"keywords": CHUNKER} if objective == "lincir" else {"scale": scale}
    models = {"objective": objective, "dropout": dropout, "clip": dict(clip.identity)}
    train(phi, loss_of, plan, out, export, {**about, **models, **chosen})


def lincir(clip: Clip, phi: Network, pairs: Pairs, size: int, rng: Random) -> Tensor:
    """Gu et al., CVPR 2024, equation 4: T(caption with phi(T(caption) + noise) for its keywords) is to be T(caption).

    The noise is U(0, 1) a caption times N(0, 1) an element; features are not normalised.
    """
    captions = pairs.captions(size, rng)
    wanted = clip.embed_texts(captions).to(clip.device)
    noise = torch.rand(size, 1, device=clip.device) * torch.randn_like(wanted)
    found = clip.project_texts([mask_keywords(text, rng) for text in captions], phi(wanted + noise))
    return functional.mse_loss(found, wanted)


def pic2word(clip: Clip, phi: Network, pairs: Pairs, size: int, rng: Random, scale: float) -> Tensor:
    """Saito et al., CVPR 2023, equation 2: T(a photo of $) is to be nearest to its own picture's feature."""
    batch = pairs.batch(size, rng)
    features = clip.embed_images(batch.pixels).to(clip.device)
    found = clip.project_texts([BARE_PROMPT] * size, phi(features))
    return contrastive(found, features, torch.eye(size, dtype=torch.bool, device=clip.device), scale)


def save(phi: Network, path: Path) -> None:
    """fp16; layers.{0,3,6} as LinCIR's checkpoints have them, or layers.{0,1}.0 and fc_out as Pic2Word's."""
    import safetensors.torch

    weights = {name: own.detach().half().cpu().contiguous() for name, own in phi.state_dict().items()}
    write_bytes(path, safetensors.torch.save(weights))
