"""Compose a reference and a caption into the generator's condition, by two CLIPs and two phis (CIG, section 3)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from cig.errors import MismatchError
from cig.io.digests import identity
from cig.io.feature_cache import UNKNOWN, Deferred
from cig.io.files import phi_in
from cig.machine import need_memory
from cig.models.clip import TowerName
from cig.models.phi import Inverter, checkpoint_kind, load_phi
from cig.models.prompts import prompts
from cig.types import ComposedEmbedding, Described, Preprocessing

if TYPE_CHECKING:
    from torch import Tensor

    from cig.io.feature_cache import FeatureCache


class Composer(Described):
    """Two CLIPs and two phis that turn a reference and a caption into the generator's condition (CIG, stage 1)."""

    def __init__(self, first: Inverter, second: Inverter, preprocessing: Preprocessing = "clip") -> None:
        self.first, self.second = first, second
        self.identity: Mapping[str, Any] = {"clip": first.clip.identity, "clip2": second.clip.identity}
        self.settings: Mapping[str, Any] = {"preprocessing": preprocessing, "dtype": str(first.clip.dtype)}
        if first.clip.tokenizer.context != second.clip.tokenizer.context:
            raise MismatchError(
                f"{first.clip.identity['source']} reads {first.clip.tokenizer.context} tokens and "
                f"{second.clip.identity['source']} {second.clip.tokenizer.context}; the generator needs both alike"
            )
        self.preprocesses = [
            clip.preprocess(pad=preprocessing == "targetpad", rgb_first=preprocessing == "clip")
            for clip in (first.clip, second.clip)
        ]

    def embed_images(self, pixels: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Encode the pixels for each tower as features ([B, p1], [B, p2])."""
        return self.first.clip.embed_images(pixels[0]), self.second.clip.embed_images(pixels[-1])

    def release(self, tower: TowerName) -> None:
        """Free the memory of both CLIPs' towers of a kind; their next use loads them again."""
        self.first.clip.release(tower)
        self.second.clip.release(tower)

    def need_memory(self, *towers: TowerName) -> None:
        """Raise ShortMemoryError unless these towers of both CLIPs fit into the device's memory at once."""
        clips = self.first.clip, self.second.clip
        size = sum(clip.size_of(tower) for clip in clips for tower in towers)
        what = f"{' and '.join(towers)} towers of {clips[0].identity['source']} and {clips[1].identity['source']}"
        need_memory(f"the composer ({what}, {clips[0].dtype})", size, clips[0].device)

    def compose(
        self, ids: Sequence[str], features: tuple[Tensor, Tensor], captions: Sequence[Sequence[str]]
    ) -> ComposedEmbedding:
        """Compose the features ([B, p1], [B, p2]) and the captions of B queries."""
        texts = [prompts(row)[0] for row in captions]
        states = self.first.clip.text_states(texts, self.first(features[0]))
        states2 = self.second.clip.text_states(texts, self.second(features[1]))
        return ComposedEmbedding(
            ids=tuple(ids),
            conditioning=states.hidden,
            conditioning2=states2.hidden,
            pooled2=states2.pooled,
            last=states.last,
        )


def load_composer(
    clip: str | Path,
    clip2: str | Path,
    phi: str | Path,
    phi2: str | Path,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | str = "float32",
    cache_dir: str | Path | None = None,
    preprocessing: Preprocessing = "clip",
) -> Composer:
    """Load two CLIPs and their phis, which compose what conditions a generator.

    The published pair is openai/clip-vit-large-patch14 and Geonmo/CLIP-Giga-config-fixed, in float32.

    Args:
        clip: the first CLIP, a hub id or a folder.
        clip2: the second one, whose pooled text the generator reads.
        phi: the phi of the first CLIP, SEARLE's and LinCIR's kind or Pic2Word's.
        phi2: the phi of the second CLIP.
        device: as in load_clip, and so are dtype and cache_dir.
        preprocessing: "clip", as published, or "targetpad".
    """
    from cig.models.clip import load_clip

    phi, phi2 = phi_in(Path(phi)), phi_in(Path(phi2))
    first = load_phi(phi, load_clip(clip, device, dtype, cache_dir=cache_dir), checkpoint_kind(phi))
    second = load_phi(phi2, load_clip(clip2, device, dtype, cache_dir=cache_dir), checkpoint_kind(phi2))
    composer = Composer(first, second, preprocessing)
    composer.identity = {**composer.identity, "phi": identity(phi), "phi2": identity(phi2)}
    return composer


def load_composer_lazily(
    clip: str,
    clip2: str,
    *,
    phi: Path,
    phi2: Path,
    cache: FeatureCache,
    cache_dir: Path | None = None,
    dtype: torch.dtype,
    preprocessing: Preprocessing = "clip",
    **options: Any,
) -> Composer:
    """Return a stand-in with a composer's identity and settings, which loads it on first use.

    A hub id that is not in the hub's cache has no known revision, so such a composer is loaded now.
    """
    clips = {
        key: identity(name, cache_dir, hasher=cache.file_digest) for key, name in (("clip", clip), ("clip2", clip2))
    }
    phis = {key: identity(path, hasher=cache.file_digest) for key, path in (("phi", phi), ("phi2", phi2))}

    def load() -> Composer:
        return load_composer(
            clip, clip2, phi, phi2, dtype=dtype, cache_dir=cache_dir, preprocessing=preprocessing, **options
        )

    described = {**{key: {**origin, "dtype": str(dtype)} for key, origin in clips.items()}, **phis}
    attributes = {"identity": described, "settings": {"preprocessing": preprocessing, "dtype": str(dtype)}}
    stand_in: Any = Deferred(attributes, load)
    return load() if UNKNOWN in json.dumps(clips) else stand_in
