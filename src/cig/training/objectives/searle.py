"""SEARLE's objective (Baldrati et al., ICCV 2023, section 3.2): phi distils words that OTI found, and reads phrases."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional

from cig.errors import UsageError
from cig.io.feature_cache import FeatureCache
from cig.io.images import Preprocess
from cig.methods._inversion import WordMethod
from cig.methods.oti import PseudoWords, words_identity
from cig.models.clip import Clip
from cig.models.phi import Phi
from cig.retrieval.features import embed_pictures
from cig.training import processes
from cig.training.data.pictures import PictureList
from cig.training.data.templates import EVERY, Phrasebook, phrase_losses
from cig.training.objectives.phi import Network, Pace
from cig.training.plan import Plan
from cig.training.step import Step, need_whole
from cig.types import Method


@dataclass(frozen=True)
class Lesson:
    """Pictures that have a word and phrases."""

    names: tuple[str, ...]
    features: Tensor  # [N, p] of the pictures, projected, not normalised
    words: Tensor  # [N, h] that OTI found for them
    identity: Mapping[str, Any]
    missing: Mapping[str, str] = field(default_factory=dict)  # picture -> why it is not learnt from

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True)
class Searle:
    """Equation 5: phi's word is to be nearest to the picture's own, and to say in phrases what their concept says.

    Attributes:
        temperature: of the contrast.
        distil_weight, phrase_weight: of the two parts of the loss.
    """

    lesson: Lesson
    book: Phrasebook
    temperature: float = 0.25
    distil_weight: float = 1.0
    phrase_weight: float = 0.75
    name = "searle"
    network = Phi
    pace = Pace(batch=256, passes=100)

    @property
    def about(self) -> Mapping[str, Any]:
        said = {"top_concepts": self.book.top, "phrases": self.book.identity(self.lesson.names)}
        weights = {"distil_weight": self.distil_weight, "phrase_weight": self.phrase_weight}
        missing = {"missing": len(self.lesson.missing)}
        return {**self.lesson.identity, **missing, **said, "temperature": self.temperature, **weights}

    @property
    def per_pass(self) -> int:
        return len(self.lesson)

    def hidden(self, width: int) -> int:
        """The published networks'."""
        return 4 * width

    def check(self, plan: Plan) -> None:
        need_whole(plan, "SEARLE's loss")
        if len(self.lesson) < plan.batch:
            raise UsageError(f"{len(self.lesson)} pictures can be learnt from, less than --batch-size {plan.batch}")

    def loss(self, clip: Clip, phi: Network, size: int, step: Step) -> Iterator[Tensor]:
        """Phi is small: each process runs it on all items, so that dropout and contrast are alike in all of them;
        the text tower reads but its own.
        """
        places = step.rng.sample(range(len(self.lesson)), size)
        names = [self.lesson.names[place] for place in places]
        said = [self.book.draw(name, step.rng) for name in names]
        step.ids += names
        words = phi(self.lesson.features[places].to(clip.device))
        contrast = nt_xent(self.lesson.words[places].to(clip.device), words, self.temperature)
        own = step.rank_slice(size)
        phrases = phrase_losses(clip, words[own], [pair for pair in said[own] if pair], occurrences=EVERY).sum() / size
        yield self.distil_weight * contrast / processes.world() + self.phrase_weight * phrases


def nt_xent(ones: Tensor, others: Tensor, temperature: float) -> Tensor:
    """Each of the 2B unit vectors is to be nearest to its counterpart, among the other 2B - 1 (Chen et al., ICML 2020).

    Args:
        ones, others: [B, h], not normalised; rows are counterparts.
    """
    rows = functional.normalize(torch.cat([ones, others]), dim=-1)
    alike = (rows @ rows.T / temperature).fill_diagonal_(-torch.inf)
    counterparts = torch.arange(len(rows), device=rows.device).roll(len(ones))
    return functional.cross_entropy(alike, counterparts)


def learn_from(
    clip: Clip,
    pictures: PictureList,
    words: PseudoWords,
    book: Phrasebook,
    preprocess: Preprocess,
    cache: FeatureCache | None = None,
    batch: int = 32,
    workers: int = 4,
) -> Lesson:
    """Pictures as phi sees them, with their words; each is decoded and encoded once, or taken from the cache.

    Raises:
        UsageError: the words do not fit the CLIP, or none is of these pictures.
    """
    if words.words.shape[1] != clip.token_width:
        raise UsageError(
            f"the words in {words.folder} have width {words.words.shape[1]}, those of {clip.identity['source']} "
            f"{clip.token_width}; give the CLIP that they were optimised with"
        )
    named = dict(zip(pictures.names, pictures.paths, strict=True))
    lacking = words.lacking(pictures.paths)
    missing = {name: lacking[path] for name, path in named.items() if path in lacking} | book.lacking(named)
    sight = cast(Method, WordMethod("searle", clip, preprocess, placement="every", identity={"clip": clip.identity}))
    seen = embed_pictures(
        sight, [path for name, path in named.items() if name not in missing], batch, workers=workers, cache=cache
    )
    missing |= {name: seen.failed[path] for name, path in named.items() if path in seen.failed}
    kept = {name: path for name, path in named.items() if name not in missing}
    if not kept:
        raise UsageError(f"none of {len(named)} pictures can be learnt from: {next(iter(missing.items()))}")
    identity = {**pictures.identity, "words": words_identity(words.folder)["sha256"], "pad": preprocess.pad}
    paths = list(kept.values())
    return Lesson(tuple(kept), seen.of(paths), words.of(paths), identity, missing)
