"""`cig train oti`, the pseudo-words of pictures, and what `cig train phi --objective searle` learns from them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from cig.cli.flags import TRAINED_FOLDER, ComputeFlags, Flag, Preprocess, SearleFlags, WorkFlags, check_pace, computing
from cig.cli.next_steps import after_words
from cig.errors import IncompleteError, UsageError, at_least_1
from cig.runtime import Compute, Work

if TYPE_CHECKING:
    from cig.models.clip import Clip
    from cig.training.data.pictures import PictureList
    from cig.training.data.pseudo_word_folder import PseudoWordStatus
    from cig.training.data.templates import Phrasebook
    from cig.training.objectives.searle import Searle


def oti(
    data: str,
    /,
    *,
    clip: str,
    out: Annotated[Path, TRAINED_FOLDER],
    concepts: Path | None = None,
    phrases: Path | None = None,
    dataset_path: Annotated[Path | None, Parameter(alias="--dataset-dir")] = None,
    references: Annotated[bool, Flag] = False,
    limit: int | None = None,
    steps: int = 350,
    batch_size: int = 32,
    lr: float = 2e-2,
    weight_decay: float = 0.01,
    ema: float = 0.99,
    top_concepts: int = 15,
    phrase_weight: float = 0.5,
    seed: int = 0,
    preprocess_type: Preprocess = "targetpad",
    layout: Literal["safetensors", "published"] = "safetensors",
    published: Annotated[bool, Flag] = False,
    compute: ComputeFlags = Compute(),
    work: WorkFlags = Work(),
) -> None:
    """Optimises a pseudo-word for each picture (SEARLE's OTI), for `--method oti`; a rerun continues.

    Parameters
    ----------
    data
        Pictures: a folder of any depth, or a benchmark by NAME/SPLIT, its gallery and references.
    clip
        The CLIP: a hub id or a folder.
    out
        Gets the words in safetensors, image_names.json and hyperparameters.json: for --phi of method oti.
    concepts
        What pictures look like, as `cig train concepts` writes it. With --phrases.
    phrases
        Of these concepts, as `cig train phrases` writes them. Without: words are learnt from pictures alone.
    dataset_path
        The benchmark's folder, or its parent.
    references
        Of a benchmark: the references of its queries alone, which is all that method oti asks with.
    limit
        The first so many pictures; with --references, the references of the first so many queries.
    steps
        Of each batch of pictures.
    batch_size
        Pictures at once.
    lr
        The learning rate.
    weight_decay
        AdamW's, of the words.
    ema
        The decay of a word's running mean, which is searched with.
    top_concepts
        So many of a picture's concepts are used.
    phrase_weight
        Of the phrases' part of the loss; the picture's is 1.
    seed
        Of words and draws, beside a picture's name.
    preprocess_type
        targetpad, as published, or clip.
    layout
        published: also write .pt and .pkl files as SEARLE's code does, for its programs.
    published
        The same as --layout published.
    """
    from cig.models.clip import load_clip
    from cig.runtime import resolve_device, resolve_dtype
    from cig.training.data.pictures import load_pictures, load_references
    from cig.training.objectives.oti import OtiRecipe, train_oti
    from cig.training.processes import need_one

    need_one("train oti", "give each GPU a shard of its own: --shard 1/2 --device cuda:0, --shard 2/2 --device cuda:1")
    compute = computing(compute, batch_size)
    for flag, value in {"--steps": steps, "--top-concepts": top_concepts, "--limit": limit}.items():
        at_least_1(flag, 1 if value is None else value)
    check_pace(lr=lr, warmup=0, weight_decay=weight_decay, ema=ema)
    if not 0 <= phrase_weight < float("inf"):
        raise UsageError(f"--phrase-weight {phrase_weight}: 0 or more")
    book = _phrasebook(concepts, phrases, top_concepts)
    pictures = (load_references if references else load_pictures)(data, dataset_path, limit)
    _tell_phrases(book, pictures)
    device = resolve_device(compute.device)
    tower = load_clip(clip, device, resolve_dtype(compute.dtype, device), cache_dir=compute.cache_dir)
    recipe = OtiRecipe(
        steps, batch_size, lr, weight_decay=weight_decay, ema=ema, phrase_weight=phrase_weight, seed=seed
    )
    status = train_oti(
        tower,
        pictures,
        recipe,
        out=out,
        book=book,
        preprocess=tower.preprocess(pad=preprocess_type == "targetpad"),
        shard=work.share,
        overwrite=work.overwrite,
        published=published or layout == "published",
        workers=compute.num_workers,
    )
    _tell_words(status, out)
    if status.complete:
        after_words(data, clip, out, concepts=concepts, phrases=phrases)


def _phrasebook(concepts: Path | None, phrases: Path | None, top: int) -> Phrasebook | None:
    """None where neither is given."""
    if concepts and phrases:
        from cig.training.data.concepts import read_concepts
        from cig.training.data.phrases import read_phrases
        from cig.training.data.templates import Phrasebook

        return Phrasebook(read_concepts(concepts), read_phrases(phrases), top)
    if concepts or phrases:
        lacking = "--phrases" if concepts else "--concepts"
        raise UsageError(f"phrases are about concepts: --concepts and --phrases come together; {lacking} is not given")
    return None


def _tell_phrases(book: Phrasebook | None, pictures: PictureList) -> None:
    """Log which pictures have no phrases; raise UsageError if none has any."""
    from cig.pipelines._models import first_of
    from cig.runtime import say

    if not book:
        say("no --phrases: words are learnt from pictures alone, without the published regularisation")
        return
    book.need_distinct(pictures.names)
    silent = [f"{name}: {why}" for name, why in book.lacking(pictures.names).items()]
    if len(silent) == len(pictures):
        raise UsageError(
            f"--concepts and --phrases say nothing of these {len(pictures)} pictures ({silent[0]}); "
            f"names are those of the pictures, such as {pictures.names[0]}"
        )
    if silent:
        say("\n  ".join([f"without phrases, learnt from the picture alone: {len(silent)}", *first_of(silent)]))


def _tell_words(status: PseudoWordStatus, out: Path) -> None:
    """Log what was made; raise IncompleteError that names the pictures that could not be read."""
    from cig.pipelines._models import first_of
    from cig.runtime import say

    if status.complete:
        say(f"{status.words} pseudo-words in {out}")
    else:
        say(f"{status.present} of {status.total} batches in {out}; the run that finds them all puts the words together")
    if status.failed:
        lines = first_of([f"{name}: {why}" for name, why in status.failed.items()])
        raise IncompleteError("\n  ".join([f"pictures without a pseudo-word: {len(status.failed)}", *lines]))


def searle_book(flags: SearleFlags) -> Phrasebook:
    """Read the phrases; raise UsageError if words, concepts or phrases are not given, or a flag is wrong."""
    at_least_1("--top-concepts", flags.top_concepts)
    at_least_1("--limit", 1 if flags.limit is None else flags.limit)
    if not flags.temperature > 0:
        raise UsageError(f"--temperature {flags.temperature}: more than 0")
    book = _phrasebook(flags.concepts, flags.phrases, flags.top_concepts)
    if not flags.oti or not book:
        raise UsageError("--objective searle needs --oti DIR, --concepts FILE and --phrases FILE")
    return book


def searle_objective(
    clip: Clip, pictures: str, root: Path | None, *, flags: SearleFlags, book: Phrasebook, workers: int
) -> Searle:
    """Build the objective; raise UsageError if words, concepts or phrases fit too few of the pictures."""
    assert flags.oti is not None  # as searle_book made sure
    from cig.io.feature_cache import FeatureCache
    from cig.methods.oti import check_content, read_words
    from cig.pipelines._models import first_of
    from cig.runtime import say
    from cig.training.data.pictures import load_pictures
    from cig.training.objectives.searle import Searle, distillation_data

    words, listed = read_words(flags.oti), load_pictures(pictures, root, flags.limit)
    check_content(flags.oti, clip)
    cache = FeatureCache(flags.feature_cache)
    preprocess = clip.preprocess(pad=flags.preprocess_type == "targetpad")
    data = distillation_data(clip, listed, words, book=book, preprocess=preprocess, cache=cache, workers=workers)
    if data.missing:
        lines = first_of([f"{name}: {why}" for name, why in data.missing.items()])
        say("\n  ".join([f"pictures that are not learnt from: {len(data.missing)}", *lines]))
    return Searle(
        data,
        book,
        flags.temperature,
        distil_weight=flags.distil_weight,
        phrase_weight=flags.phrase_weight,
        placement=flags.placement,
    )
