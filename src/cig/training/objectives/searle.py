"""SEARLE's objective (Baldrati et al., ICCV 2023, section 3.2): phi distils OTI's words, regularised by phrases."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional

from cig.errors import UsageError
from cig.io.feature_cache import FeatureCache
from cig.methods._inversion import WordMethod
from cig.methods.oti import PseudoWords, words_identity
from cig.models.clip import Clip, Placement
from cig.models.phi import Phi
from cig.models.preprocessing import ClipPreprocess
from cig.retrieval.features import embed_pictures
from cig.training import processes
from cig.training.data.pictures import PictureList
from cig.training.data.templates import EVERY, Phrasebook, phrase_losses
from cig.training.objectives.phi import Network, TrainingDefaults
from cig.training.plan import Plan
from cig.training.step import Step, need_whole
from cig.types import Method


@dataclass(frozen=True)
class DistillationData:
    """Pictures with a word by OTI and with phrases."""

    names: tuple[str, ...]
    features: Tensor  # [N, p] of the pictures, projected, not normalised
    words: Tensor  # [N, h] of the pictures, by OTI
    identity: Mapping[str, Any]
    missing: Mapping[str, str] = field(default_factory=dict)  # picture -> why it is left out

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True)
class Searle:
    """Train phi so that its word is nearest to OTI's, and reads in phrases as their concept does: equation 5.

    Attributes:
        temperature: of the contrast.
        distil_weight, phrase_weight: of the two parts of the loss.
        placement: which of a concept's places in a phrase take the word.
    """

    data: DistillationData
    book: Phrasebook
    temperature: float = 0.25
    distil_weight: float = 1.0
    phrase_weight: float = 0.75
    placement: Placement = "every"
    name = "searle"
    network = Phi
    defaults = TrainingDefaults(batch=256, passes=100)

    @property
    def inputs(self) -> Mapping[str, Any]:
        return {
            **self.data.identity,
            "missing": len(self.data.missing),
            "top_concepts": self.book.top,
            "phrases": self.book.identity(self.data.names),
            "temperature": self.temperature,
            "distil_weight": self.distil_weight,
            "phrase_weight": self.phrase_weight,
            **({"placement": self.placement} if self.placement != "every" else {}),
        }

    @property
    def per_pass(self) -> int:
        return len(self.data)

    def hidden(self, width: int) -> int:
        """Return the published networks' width."""
        return 4 * width

    def check(self, plan: Plan) -> None:
        need_whole(plan, "SEARLE's loss")
        if len(self.data) < plan.batch:
            raise UsageError(f"{len(self.data)} pictures can be learnt from, less than --batch-size {plan.batch}")

    def loss(self, clip: Clip, phi: Network, size: int, *, step: Step) -> Iterator[Tensor]:
        # Phi is small, so each process runs it on all items: that way dropout and contrast are the same in all of them.
        # The text tower is large, so each process reads the phrases of its slice alone.
        rows = step.rng.sample(range(len(self.data)), size)
        names = [self.data.names[row] for row in rows]
        pairs = [self.book.draw(name, step.rng) for name in names]
        step.ids += names
        words = phi(self.data.features[rows].to(clip.device))
        contrast = nt_xent(self.data.words[rows].to(clip.device), words, self.temperature)
        part = step.rank_slice(size)
        drawn = [pair for pair in pairs[part] if pair]
        phrases = phrase_losses(clip, words[part], drawn, occurrences=EVERY, placement=self.placement).sum() / size
        yield self.distil_weight * contrast / processes.world() + self.phrase_weight * phrases


def nt_xent(ones: Tensor, others: Tensor, temperature: float) -> Tensor:
    """Return the loss that pulls each of 2B unit vectors to its counterpart among the other 2B - 1.

    Chen et al., ICML 2020, equation 1.

    Args:
        ones, others: [B, h], not normalised; rows are counterparts.
    """
    rows = functional.normalize(torch.cat([ones, others]), dim=-1)
    logits = (rows @ rows.T / temperature).fill_diagonal_(-torch.inf)
    counterparts = torch.arange(len(rows), device=rows.device).roll(len(ones))
    return functional.cross_entropy(logits, counterparts)


def distillation_data(
    clip: Clip,
    pictures: PictureList,
    words: PseudoWords,
    *,
    book: Phrasebook,
    preprocess: ClipPreprocess,
    cache: FeatureCache | None = None,
    batch: int = 32,
    workers: int = 4,
) -> DistillationData:
    """Collect the features and words of the pictures that have a word and phrases.

    Each picture is decoded and encoded once, or taken from the cache.

    Raises:
        UsageError: the words do not fit the CLIP, or no picture can be learnt from.
    """
    if words.words.shape[1] != clip.token_width:
        raise UsageError(
            f"the words in {words.folder} have width {words.words.shape[1]}, those of {clip.identity['source']} "
            f"{clip.token_width}; give the CLIP that they were optimised with"
        )
    book.need_distinct(pictures.names)
    named = dict(zip(pictures.names, pictures.paths, strict=True))
    lacking = words.lacking(pictures.paths)
    missing = {name: lacking[path] for name, path in named.items() if path in lacking} | book.lacking(named)
    # `embed_pictures` wants a method, for its preprocessing and CLIP; the prompt is not used.
    method = WordMethod("searle", clip, preprocess, placement="every", identity={"clip": clip.identity})
    wanted = [path for name, path in named.items() if name not in missing]
    embedded = embed_pictures(cast(Method, method), wanted, batch, workers=workers, cache=cache)
    missing |= {name: embedded.failed[path] for name, path in named.items() if path in embedded.failed}
    kept = {name: path for name, path in named.items() if name not in missing}
    if not kept:
        raise UsageError(f"none of {len(named)} pictures can be learnt from: {next(iter(missing.items()))}")
    identity = {**pictures.identity, "words": words_identity(words.folder)["sha256"], "pad": preprocess.pad}
    paths = list(kept.values())
    return DistillationData(
        names=tuple(kept), features=embedded.of(paths), words=words.of(paths), identity=identity, missing=missing
    )
