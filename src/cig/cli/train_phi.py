"""The verbs of `cig train` that turn pictures into words."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from cig.cli.flags import TRAINED_FOLDER, LoopFlags, SearleFlags, ValidateFlags
from cig.cli.next_steps import after_phi, benchmark_of
from cig.errors import UsageError, at_least_1

if TYPE_CHECKING:
    from cig.training.objectives.phi import Objective


def phi(
    data: str,
    /,
    *,
    clip: str,
    out: Annotated[Path, TRAINED_FOLDER],
    objective: Literal["lincir", "pic2word", "searle"] = "lincir",
    start: Path | None = None,
    column: str | None = None,
    keywords: Literal["auto", "stopwords", "spacy", "nltk"] | None = None,
    dataset_path: Annotated[Path | None, Parameter(alias="--dataset-dir")] = None,
    scale: float | None = None,
    steps: int | None = None,
    batch_size: int | None = None,
    lr: float | None = None,
    warmup: int | None = None,
    schedule: Literal["constant", "cosine", "cosine-after-warmup"] | None = None,
    weight_decay: float | None = None,
    beta2: float | None = None,
    eps: float | None = None,
    clip_norm: float = 1.0,
    dropout: float | None = None,
    ema: float = 0.0,
    layout: Literal["safetensors", "published"] = "safetensors",
    searle: SearleFlags = SearleFlags(),
    validating: ValidateFlags = ValidateFlags(),
    loop: LoopFlags = LoopFlags(),
    num_workers: Annotated[int, Parameter(alias="--workers")] = 4,
    cache_dir: Path | None = None,
) -> None:
    """Trains a textual-inversion network for a frozen CLIP, by default as its paper did; a rerun continues.

    Parameters
    ----------
    data
        lincir: captions, in a text file (a line each) or a table (.csv, .tsv, .json, .jsonl, .parquet). pic2word: a
        folder of pictures, or a benchmark. Either: a benchmark with captioned pictures to train on, icons/train.
        searle: a folder of pictures, or a benchmark.
    clip
        The CLIP: a hub id or a folder.
    out
        Gets phi.safetensors (for --phi), a model card, and what a rerun continues from.
    objective
        lincir learns from captions alone, pic2word from pictures alone, searle from pseudo-words of pictures (--oti)
        and phrases.
    start
        A phi to begin with, in any layout that --phi takes. Default: a new one.
    column
        lincir: the table's column of captions. Default: caption, else text.
    keywords
        lincir: what finds them. Default: auto, which takes spaCy, else NLTK, else a stop-word list, as installed.
    dataset_path
        pic2word, searle: the folder of a benchmark, or that folder's parent. Default: ./datasets/NAME, or cig.toml's.
    scale
        pic2word: of the logits (the inverse temperature). Default: 100, where OpenAI's CLIPs end.
    steps
        All of them, those of earlier calls included; a later call can ask for more where the rate is constant. Default:
        lincir 20,000; passes over the pictures: pic2word 30, searle 100.
    batch_size
        Captions or pictures a step. Default: lincir 512, pic2word 1,024, searle 256.
    lr
        The highest learning rate. Default: 1e-4.
    warmup
        Steps over which the rate rises; some seeds never recover from a first step at a high rate. Default: 1;
        pic2word 10,000, or a tenth of the steps, or 100 at a constant rate.
    schedule
        cosine: the rate falls along a cosine to the last step; a high rate then diverges less often.
        cosine-after-warmup: the cosine begins after the warmup, and ends at 0. Default: constant; pic2word
        cosine-after-warmup.
    weight_decay
        Default: 0.01; pic2word 0.1, of matrices alone.
    beta2
        AdamW's second beta. Default: 0.999; pic2word 0.98.
    eps
        AdamW's. Default: 1e-8; pic2word 1e-6.
    clip_norm
        A longer gradient is scaled down to this norm; 0: none is, as in the papers' programs.
    dropout
        Between phi's layers. Default: 0.5; pic2word 0.1.
    ema
        What is written is the mean of weights with this decay; 0: the last weights.
    layout
        published: the files and keys of LinCIR's, Pic2Word's or SEARLE's own checkpoints, which --phi takes as well.
    num_workers
        Threads that decode pictures.
    cache_dir
        The hub's cache.
    """
    import torch

    from cig.cli.train_oti import searle_book, searle_objective
    from cig.models.clip import load_clip
    from cig.training.objectives.phi import train_phi

    at_least_1("--num-workers", num_workers)
    _refuse(objective, "lincir", {"--column": column, "--keywords": keywords})
    _refuse(objective, "pic2word", {"--scale": scale})
    _refuse(objective, "searle", searle.changed())
    if dropout is not None and not 0 <= dropout < 1:
        raise UsageError(f"--dropout {dropout}: from 0 to less than 1")
    if objective == "lincir":
        _refuse(objective, "pic2word or searle", {"--dataset-path": dataset_path})
    book = searle_book(searle) if objective == "searle" else None  # before a CLIP, which may be a long download
    validation = validating.loaded()
    tower = load_clip(clip, loop.process_device(), torch.float32, cache_dir=cache_dir)
    taught: Objective
    if book:
        taught = searle_objective(tower, data, dataset_path, flags=searle, book=book, workers=num_workers)
    elif objective == "lincir":
        from cig.training.data.captions import load_captions
        from cig.training.data.taggers import load_tagger
        from cig.training.objectives.lincir import Lincir

        taught = Lincir(load_captions(data, column, loop.seed), load_tagger(keywords or "auto"))
    else:
        from cig.training.data.pictures import pixel_source
        from cig.training.objectives.pic2word import Pic2Word

        source = pixel_source(
            data,
            tower.size,
            out,
            root=dataset_path,
            seed=loop.seed,
            workers=num_workers,
            preprocess=tower.preprocess(pad=False),
        )
        taught = Pic2Word(source) if scale is None else Pic2Word(source, scale)
    pace = {"steps": steps, "batch_size": batch_size, "lr": lr, "warmup": warmup, "schedule": schedule}
    adamw = {"weight_decay": weight_decay, "beta2": beta2, "eps": eps, "clip_norm": clip_norm}
    plan = loop.plan(**taught.defaults.flags(taught.per_pass, **pace, **adamw), ema=ema)
    train_phi(
        tower,
        taught,
        plan,
        out=out,
        dropout=dropout,
        tensorboard=loop.tensorboard,
        start=start,
        layout=layout,
        validation=validation,
    )
    after_phi(validating.validate or benchmark_of(data), objective, clip, out=out)


def _refuse(objective: str, family: str, flags: Mapping[str, object]) -> None:
    """Raise UsageError for a flag that another objective takes."""
    given = [flag for flag, value in flags.items() if value is not None]
    if given and family != objective:
        raise UsageError(f"{given[0]} is for --objective {family}; leave it out, or ask for that one")
