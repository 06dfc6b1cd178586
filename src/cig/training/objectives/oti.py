"""Optimisation-based textual inversion (OTI): a pseudo-word is learnt for each picture, with CLIP frozen.

Baldrati et al., ICCV 2023, section 3.1; the constants are those of its released code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import Any

import torch
from torch import Tensor

from cig.errors import UsageError, some
from cig.io.digests import fingerprints
from cig.io.images import Preprocess, read_batches
from cig.methods._picture_names import repeated_names
from cig.models.clip import Clip
from cig.runtime import Shard, batches, progress
from cig.training.data.pictures import PictureList, is_utf8
from cig.training.data.pseudo_word_folder import PseudoWordFolder, PseudoWordStatus
from cig.training.data.templates import (
    FIRST,
    TEMPLATES,
    ConceptPhrase,
    Phrasebook,
    cosine_distance,
    fill_template,
    phrase_losses,
)
from cig.training.loop import DivergedError


@dataclass(frozen=True)
class Recipe:
    """How words are learnt; the defaults are the published ones.

    Attributes:
        batch: pictures at once; a word does not depend on it, but for rounding.
        spread: standard deviation of the first words.
        ema: decay of their running mean, which is what methods search with.
        image_weight, phrase_weight: of the two parts of the loss, which is divided by their sum.
    """

    steps: int = 350
    batch: int = 32
    lr: float = 2e-2
    weight_decay: float = 0.01
    spread: float = 0.02
    ema: float = 0.99
    image_weight: float = 1.0
    phrase_weight: float = 0.5
    seed: int = 0


def train_oti(
    clip: Clip,
    pictures: PictureList,
    recipe: Recipe,
    out: Path,
    book: Phrasebook | None = None,
    preprocess: Preprocess | None = None,
    shard: Shard | None = None,
    overwrite: bool = False,
    published: bool = False,
    workers: int = 4,
) -> PseudoWordStatus:
    """Learns a word for each picture into `out`, batch by batch; a rerun goes on, shards may run side by side.

    Args:
        book: phrases for the second part of the loss; without it, the first is all.
        preprocess: what the CLIP sees; targetpad by default, as published.
        published: also write the files of the released code, for its programs.

    Raises:
        UsageError: two pictures have one name, but for suffix or zeros.
        MismatchError: the folder was made with other settings and overwrite is off.
        DivergedError: a loss or gradient is not finite; its batch is not kept.
    """
    need_apart(pictures.names)
    preprocess = preprocess or clip.preprocess(pad=True)
    chunks = list(enumerate(batches(range(len(pictures)), recipe.batch)))
    mine = (shard or Shard()).take(chunks)
    settings = _settings(clip, pictures, recipe, book, preprocess)
    folder = PseudoWordFolder(out, settings, overwrite, numbers=[number for number, _ in mine])
    todo = [(number, chunk) for number, chunk in mine if not folder.has(number)]
    for number, chunk in progress(todo, len(todo), "pseudo-words", "batch"):
        named = {pictures.names[place]: pictures.paths[place] for place in chunk}
        features, failed = _features(clip, named, preprocess, workers)
        folder.add(number, list(features), _inverted(clip, features, recipe, book), failed=failed)
    return folder.join(len(chunks), len(todo), clip, published=published)


def need_apart(names: Sequence[str]) -> None:
    """Raises UsageError for names that a list of them cannot hold, or that method `oti` would take for one picture."""
    if odd := [name for name in names if not is_utf8(name)]:
        raise UsageError(f"{len(odd)} names of pictures are not UTF-8, such as {ascii(odd[0])[:80]}; rename them")
    if again := repeated_names(names):
        raise UsageError(f"{some(again, 5)}: others have the same name but for suffix or zeros; rename or remove one")


def _features(
    clip: Clip, named: Mapping[str, Path], preprocess: Preprocess, workers: int
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """(name -> feature [p], name -> why it cannot be read)."""
    [batch] = read_batches(list(named.values()), [preprocess], len(named), workers=workers)
    rows = dict(zip(batch.paths, clip.embed_images(batch.pixels[0]), strict=True)) if batch.paths else {}
    failed = {name: batch.failed[path] for name, path in named.items() if path in batch.failed}
    return {name: rows[path] for name, path in named.items() if path in rows}, failed


def _inverted(
    clip: Clip, features: Mapping[str, Tensor], recipe: Recipe, book: Phrasebook | None
) -> tuple[Tensor, Tensor]:
    if not features:
        none = torch.empty(0, clip.token_width)
        return none, none
    return invert(clip, list(features), torch.stack(list(features.values())), recipe, book)


def invert(
    clip: Clip, names: Sequence[str], features: Tensor, recipe: Recipe, book: Phrasebook | None = None
) -> tuple[Tensor, Tensor]:
    """Words of pictures by their projected features [B, p]: (running mean, last ones), each [B, h] on the CPU.

    What is random for a picture comes from the seed and its name, and its loss and AdamW's moments are its own.
    """
    rngs = [Random(f"{recipe.seed}/{name}") for name in names]
    words = (recipe.spread * torch.stack([_normal(rng, clip.token_width) for rng in rngs])).to(clip.device)
    mean = words.clone()
    optimizer = torch.optim.AdamW([words.requires_grad_()], lr=recipe.lr, weight_decay=recipe.weight_decay)
    for step in range(recipe.steps):
        texts = [fill_template(rng.choice(TEMPLATES)) for rng in rngs]
        said = [book.draw(name, rng) if book else None for name, rng in zip(names, rngs, strict=True)]
        losses = losses_of(clip, words, features, texts, said, recipe)
        optimizer.zero_grad()
        losses.sum().backward()
        _need_finite(losses, words, names, step)
        optimizer.step()
        mean.lerp_(words.detach(), 1 - recipe.ema)
    return mean.cpu(), words.detach().cpu()


def losses_of(
    clip: Clip,
    words: Tensor,
    features: Tensor,
    texts: Sequence[str],
    said: Sequence[ConceptPhrase | None],
    recipe: Recipe,
) -> Tensor:
    """[B] each word's loss: equations 1 and 2, weighted; the first alone where nothing is said of the picture.

    Args:
        words: [B, h]; features: [B, p], of their pictures.
        texts: templates with `$`; said: concepts and phrases.
    """
    images = cosine_distance(clip.project_texts(texts, words), features)
    told = torch.tensor([place for place, own in enumerate(said) if own], dtype=torch.long, device=images.device)
    if not len(told):
        return images
    own = phrase_losses(clip, words[told], [pair for pair in said if pair], occurrences=FIRST)
    phrases = torch.zeros_like(images).index_copy(0, told, own)
    weights = torch.zeros_like(images).index_fill(0, told, recipe.phrase_weight)
    losses: Tensor = (recipe.image_weight * images + weights * phrases) / (recipe.image_weight + weights)
    return losses


def _normal(rng: Random, width: int) -> Tensor:
    return torch.randn(width, generator=torch.Generator().manual_seed(rng.getrandbits(62)))


def _need_finite(losses: Tensor, words: Tensor, names: Sequence[str], step: int) -> None:
    assert words.grad is not None
    sound = torch.isfinite(losses) & torch.isfinite(words.grad).all(1)
    if not sound.all():
        lost = [name for name, own in zip(names, sound.tolist(), strict=True) if not own]
        raise DivergedError(
            f"at step {step}, the losses or gradients of {len(lost)} words are not finite: {some(lost, 5)}; their "
            f"batch is not kept. Look at these pictures and phrases, or try a lower rate (--lr) or --dtype float32"
        )


def _settings(
    clip: Clip, pictures: PictureList, recipe: Recipe, book: Phrasebook | None, preprocess: Preprocess
) -> dict[str, Any]:
    """What words depend on."""
    said = {"top_concepts": book.top, "phrases": book.identity(pictures.names)} if book else {"phrases": None}
    looks = {"preprocessing": "targetpad" if preprocess.pad else "clip", "dtype": str(clip.dtype)}
    return {**pictures.identity, **asdict(recipe), **said, **looks, **fingerprints({"clip": clip.identity})}
