"""Optimisation-based textual inversion (OTI): learn a pseudo-word for each picture, with CLIP frozen.

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
from cig.io.images import read_batches
from cig.io.locks import hold
from cig.methods._picture_names import repeated_names
from cig.models.clip import Clip
from cig.models.preprocessing import ClipPreprocess
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
class OtiRecipe:
    """The settings of OTI; the defaults are the published ones.

    Attributes:
        batch: pictures at once; words depend on it by rounding only.
        spread: standard deviation of the first words.
        ema: decay of the words' running mean, which methods search with.
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
    recipe: OtiRecipe,
    *,
    out: Path,
    book: Phrasebook | None = None,
    preprocess: ClipPreprocess | None = None,
    shard: Shard | None = None,
    overwrite: bool = False,
    published: bool = False,
    workers: int = 4,
) -> PseudoWordStatus:
    """Learn a word for each picture into `out`, batch by batch; a rerun continues, shards may run side by side.

    Args:
        book: phrases for the second part of the loss; without it, the loss has the first part only.
        preprocess: of the pictures; targetpad by default, as published.
        published: also write the files of the released code, for its programs.

    Raises:
        UsageError: two pictures have one name, but for suffix or zeros.
        MismatchError: the folder was made with other settings and overwrite is off.
        UsageError: another process works in the folder.
        DivergedError: a loss or gradient is not finite; its batch is not kept.
    """
    need_apart(pictures.names)
    preprocess = preprocess or clip.preprocess(pad=True)
    chunks = list(enumerate(batches(range(len(pictures)), recipe.batch)))
    share = (shard or Shard()).take(chunks)
    settings = _settings(clip, pictures, recipe, book=book, preprocess=preprocess)
    with hold(out, "pseudo-words", shard):
        folder = PseudoWordFolder(out, settings, overwrite, numbers=[number for number, _ in share])
        todo = [(number, chunk) for number, chunk in share if not folder.has(number)]
        for number, chunk in progress(todo, len(todo), "pseudo-words", unit="batch"):
            named = {pictures.names[row]: pictures.paths[row] for row in chunk}
            features, failed = _features(clip, named, preprocess, workers=workers)
            words = torch.empty(0, clip.token_width), torch.empty(0, clip.token_width)
            if features:
                words = invert(clip, list(features), torch.stack(list(features.values())), recipe=recipe, book=book)
            folder.add(number, list(features), words, failed=failed)
        return folder.join(len(chunks), len(todo), clip, published=published)


def need_apart(names: Sequence[str]) -> None:
    """Raise UsageError for names that a JSON list cannot hold, or that method `oti` would take for one picture."""
    if odd := [name for name in names if not is_utf8(name)]:
        raise UsageError(f"{len(odd)} names of pictures are not UTF-8, such as {ascii(odd[0])[:80]}; rename them")
    if repeated := repeated_names(names):
        raise UsageError(
            f"{some(repeated, 5)}: others have the same name but for suffix or zeros; rename or remove one"
        )


def _features(
    clip: Clip, named: Mapping[str, Path], preprocess: ClipPreprocess, *, workers: int
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return (name -> feature [p], name -> why it cannot be read)."""
    [batch] = read_batches(list(named.values()), [preprocess], len(named), workers=workers)
    rows = dict(zip(batch.paths, clip.embed_images(batch.pixels[0]), strict=True)) if batch.paths else {}
    failed = {name: batch.failed[path] for name, path in named.items() if path in batch.failed}
    return {name: rows[path] for name, path in named.items() if path in rows}, failed


def invert(
    clip: Clip, names: Sequence[str], features: Tensor, *, recipe: OtiRecipe, book: Phrasebook | None = None
) -> tuple[Tensor, Tensor]:
    """Learn the words of pictures from their projected features [B, p].

    Returns:
        (running means of the words, last words), each [B, h] on the CPU.
    """
    # A word must not depend on the other pictures of its batch. So the random numbers of a picture are seeded with its
    # name, losses are summed, not averaged, and AdamW works element by element: each row is optimised by itself.
    rngs = [Random(f"{recipe.seed}/{name}") for name in names]
    generators = [torch.Generator().manual_seed(rng.getrandbits(62)) for rng in rngs]
    normal = torch.stack([torch.randn(clip.token_width, generator=generator) for generator in generators])
    words = (recipe.spread * normal).to(clip.device)
    mean = words.clone()
    optimizer = torch.optim.AdamW([words.requires_grad_()], lr=recipe.lr, weight_decay=recipe.weight_decay)
    for step in range(recipe.steps):
        texts = [fill_template(rng.choice(TEMPLATES)) for rng in rngs]
        pairs = [book.draw(name, rng) if book else None for name, rng in zip(names, rngs, strict=True)]
        losses = oti_losses(clip, words, features, texts=texts, pairs=pairs, recipe=recipe)
        optimizer.zero_grad()
        losses.sum().backward()
        _need_finite(losses, words, names, step=step)
        optimizer.step()
        mean.lerp_(words.detach(), 1 - recipe.ema)
    return mean.cpu(), words.detach().cpu()


def oti_losses(
    clip: Clip,
    words: Tensor,
    features: Tensor,
    *,
    texts: Sequence[str],
    pairs: Sequence[ConceptPhrase | None],
    recipe: OtiRecipe,
) -> Tensor:
    """Return each word's loss [B]: the weighted mean of equations 1 and 2, or equation 1 for a picture without phrases.

    Args:
        words: [B, h].
        features: [B, p] of their pictures.
        texts: templates with `$`.
        pairs: concepts and phrases of the pictures.
    """
    images = cosine_distance(clip.project_texts(texts, words), features)
    rows = torch.tensor([row for row, pair in enumerate(pairs) if pair], dtype=torch.long, device=images.device)
    if not len(rows):
        return images
    distances = phrase_losses(clip, words[rows], [pair for pair in pairs if pair], occurrences=FIRST)
    phrases = torch.zeros_like(images).index_copy(0, rows, distances)
    weights = torch.zeros_like(images).index_fill(0, rows, recipe.phrase_weight)
    losses: Tensor = (recipe.image_weight * images + weights * phrases) / (recipe.image_weight + weights)
    return losses


def _need_finite(losses: Tensor, words: Tensor, names: Sequence[str], *, step: int) -> None:
    assert words.grad is not None
    finite = torch.isfinite(losses) & torch.isfinite(words.grad).all(1)
    if not finite.all():
        lost = [name for name, is_finite in zip(names, finite.tolist(), strict=True) if not is_finite]
        raise DivergedError(
            f"at step {step}, the losses or gradients of {len(lost)} words are not finite: {some(lost, 5)}; their "
            f"batch is not kept. Look at these pictures and phrases, or try a lower rate (--lr) or --dtype float32"
        )


def _settings(
    clip: Clip, pictures: PictureList, recipe: OtiRecipe, *, book: Phrasebook | None, preprocess: ClipPreprocess
) -> dict[str, Any]:
    """Return all that the words depend on."""
    phrases = {"top_concepts": book.top, "phrases": book.identity(pictures.names)} if book else {"phrases": None}
    settings = {"preprocessing": "targetpad" if preprocess.pad else "clip", "dtype": str(clip.dtype)}
    return {**pictures.identity, **asdict(recipe), **phrases, **settings, **fingerprints({"clip": clip.identity})}
