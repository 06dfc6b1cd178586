"""The flags of the command line, in the groups that verbs share, and what they ask of the pipeline.

A group is a panel in --help, and a table in cig.toml. The flags of the published scripts are among them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Group, Parameter

from cig import config
from cig.benchmarks import Data
from cig.download import FetchSettings
from cig.errors import UsageError, at_least_1
from cig.generators import Composing, Generation
from cig.io.outputs import FileForm, check_file, check_folder
from cig.retrieval.requests import OwnSearching, Reranking, Searching
from cig.runtime import Compute, Work, need_seed

if TYPE_CHECKING:
    import torch

    from cig.training.plan import Plan
    from cig.training.validation import Validation

Name = Annotated[str | None, Parameter(help="NAME or NAME/SPLIT: cirr/val, circo/test, fashioniq, folder.")]
Flag = Parameter(negative="")
Several = Parameter(consume_multiple=True, negative="")
Gallery = Literal["full", "val"] | None
Preprocess = Literal["clip", "targetpad"]
BRANCHES = Group("branches", sort_key=9)
WEB = Group("web", sort_key=10)
LOOP = Group("loop", sort_key=11)
RERANK = Group("rerank", sort_key=8)
VALIDATION = Group("validation", sort_key=12)
SEARLE = Group("searle", sort_key=13)
COMPUTE, COMPOSE, GENERATE, SEARCH = (Group(name, sort_key=i) for i, name in enumerate(config.TABLES))

ComputeFlags = Annotated[Compute, Parameter(name="*", group=COMPUTE)]
WorkFlags = Annotated[Work, Parameter(name="*", negative="")]
FetchFlags = Annotated[FetchSettings, Parameter(name="*", group=WEB)]
ComposeFlags = Annotated[Composing, Parameter(name="*", group=COMPOSE)]
GenerateFlags = Annotated[Generation, Parameter(name="*", negative="", group=GENERATE)]
SearchFlags = Annotated[Searching, Parameter(name="*", negative="", group=SEARCH)]
OwnSearchFlags = Annotated[OwnSearching, Parameter(name="*", negative="", group=SEARCH)]
RerankFlags = Annotated[Reranking, Parameter(name="*", negative="", group=RERANK)]
Branches = Annotated[
    tuple[str, ...],
    Parameter(
        negative="",
        group=BRANCHES,
        help=' "name=sketch pictures=DIR method=image caption=no weight=0.3": searched with, too; may be given several '
        "times. The reference gets what is left of 1. pictures is a folder, pseudo-target, or a control: "
        "reference-image, reference-augmented, reference-vae, shuffled, oracle.",
    ),
]
GeneratorName = Annotated[
    str,
    Parameter(
        group=GENERATE,
        help="sdxl, as published; sdxl/icons, shipped, for drawings: then the defaults of these flags, and of "
        "compose's, are that one's.",
    ),
]


def output_file(*forms: FileForm) -> Parameter:
    """Check a flag that names files for results, before the work; the forms are those of files that it may replace."""

    def check(kind: Any, value: Path | tuple[Path, ...] | None) -> None:
        for path in value if isinstance(value, tuple) else (value,):
            if path is not None:
                check_file(path, *forms)

    return Parameter(validator=check)


def _check_folder(kind: Any, path: Path | None) -> None:
    if path is not None and "{category}" not in str(path):
        check_folder(path)


def _check_trained(kind: Any, path: Path | None) -> None:
    if path is not None:
        check_folder(path, trains=True)


OUTPUT_FOLDER = Parameter(validator=_check_folder)
TRAINED_FOLDER = Parameter(validator=_check_trained)


def prefixed(word: str, *names: str) -> Parameter:
    """Put a word before some flags of a record, or before all: --compose-clip, where another --clip stands."""
    return Parameter(
        name_transform=lambda name: f"{word}-" * (not names or name in names) + name.replace("_", "-"),
    )


def without(*names: str) -> Parameter:
    """Leave some fields of a record at their defaults: a verb does not take their flags."""
    return Parameter(parse=re.compile(f"^(?!({'|'.join(names)})$)"))


RunSearchFlags = Annotated[SearchFlags, prefixed("search", "clip", "phi", "preprocess_type")]


def computing(compute: Compute, batch_size: int) -> Compute:
    """Complete the flags by a verb's batch size, and limit the pixels of every picture that this process reads."""
    from cig.io.images import limit_pixels

    limit_pixels(compute.max_pixels)
    return replace(compute, batch_size=batch_size)


@Parameter(name="*", negative="")
@dataclass(frozen=True)
class DataFlags(Data):
    """A benchmark whose name may be given by --dataset and --split, as the published scripts do."""

    dataset: str | None = None
    "The benchmark, where it is not given as the first argument: cirr, circo, fashioniq, folder, icons."
    split: str | None = None
    "The benchmark's split: train, val, test (CIRR: test1)."

    def named(self, benchmark: str | None, default: str | None = None, gallery: Gallery = None) -> Data:
        """Return the data under its one name.

        Args:
            benchmark: the verb's first argument.
            default: the benchmark of published command lines, which do not name it.

        Raises:
            UsageError: the benchmark is not named, or named twice and differently.
        """
        family, _, split = (benchmark or self.dataset or default or "").partition("/")
        if not family:
            raise UsageError("which benchmark? Give it as the first argument or by --dataset, e.g. cirr/val")
        for word, flag, given in ((family, "--dataset", self.dataset), (split, "--split", self.split)):
            if word and given and given.partition("/")[0] != word:
                raise UsageError(f"{benchmark or self.dataset} and {flag} {given} disagree; give one of them")
        values = {field.name: getattr(self, field.name) for field in fields(Data)}
        name = "/".join(filter(None, (family, split or self.split)))
        return Data(**{**values, "name": name, "gallery": gallery})


@Parameter(name="*", group=LOOP)
@dataclass(frozen=True)
class LoopFlags:
    """Of everything that is trained; `accelerate launch` or `torchrun` start it on several GPUs."""

    seed: int = 0
    "Of the first weights and of every step's data."
    save_every: int = 500
    "Steps between checkpoints; each is a usable model."
    accumulate: int = 1
    "Parts of a step that are computed one after the other, where a whole one does not fit into memory."
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    "What is multiplied in; weights stay in float32."
    optimizer: Literal["adamw", "adamw8bit"] = "adamw"
    "adamw8bit takes less memory, and a GPU with bitsandbytes."
    device: str = "auto"
    "cuda, mps, cpu; auto takes a GPU where there is one."
    tensorboard: Path | None = None
    "A folder for TensorBoard's event files. Default: none."

    def plan(
        self,
        steps: int,
        batch_size: int,
        lr: float,
        *,
        warmup: int,
        schedule: str = "cosine",
        weight_decay: float = 0.01,
        ema: float = 0.0,
        **adamw: Any,
    ) -> Plan:
        from cig.training.plan import Plan

        counts = {"--save-every": self.save_every, "--accumulate": self.accumulate}
        for flag, value in {"--steps": steps, "--batch-size": batch_size, **counts}.items():
            at_least_1(flag, value)
        check_pace(lr=lr, warmup=warmup, weight_decay=weight_decay, ema=ema)
        check_adamw(**adamw)
        need_seed(self.seed)
        return Plan(
            steps=steps,
            batch=batch_size,
            lr=lr,
            warmup=warmup,
            schedule=schedule,
            weight_decay=weight_decay,
            seed=self.seed,
            save_every=self.save_every,
            autocast=self.dtype,
            ema=ema,
            accumulate=self.accumulate,
            optimizer=self.optimizer,
            **adamw,
        )

    def process_device(self) -> torch.device:
        """The device of this process."""
        from cig.runtime import resolve_device
        from cig.training.processes import join

        return join(resolve_device(self.device))


@Parameter(name="*", group=VALIDATION)
@dataclass(frozen=True)
class ValidateFlags:
    """Of what searches: it is scored at every checkpoint, and the best is kept."""

    validate: str | None = None
    "A benchmark with public targets, NAME/SPLIT: icons/val, cirr/val. Default: none, and the last is kept."
    validate_limit: int | None = None
    "The first so many queries of it (of each of its parts); the gallery stays whole. Default: all."
    validate_root: Path | None = None
    "Its folder, or that folder's parent. Default: ./datasets/NAME, or cig.toml's."
    measure: str | None = None
    "What more of is better: map@10, recall@5. Default: the benchmark's first measure."

    def loaded(self) -> Validation | None:
        """Load the benchmark of --validate; raise UsageError for further flags without it."""
        further = {"--validate-limit": self.validate_limit, "--validate-root": self.validate_root}
        given = [flag for flag, value in {**further, "--measure": self.measure}.items() if value is not None]
        if not self.validate:
            if given:
                raise UsageError(f"{given[0]} goes with --validate, which names a benchmark: icons/val")
            return None
        from cig.training.validation import load_validation

        if self.validate_limit is not None:
            at_least_1("--validate-limit", self.validate_limit)
        return load_validation(self.validate, self.measure, self.validate_root, limit=self.validate_limit)


@Parameter(name="*", group=SEARLE)
@dataclass(frozen=True)
class SearleFlags:
    """Of `cig train phi --objective searle` (Baldrati et al., ICCV 2023); the defaults are the published ones."""

    oti: Path | None = None
    "A folder of pseudo-words of the same pictures, as `cig train oti` writes it."
    concepts: Path | None = None
    "What the pictures look like, as `cig train concepts` writes it."
    phrases: Path | None = None
    "Of these concepts, as `cig train phrases` writes them."
    limit: int | None = None
    "The first so many pictures."
    top_concepts: int = 150
    "So many of a picture's concepts are used."
    temperature: float = 0.25
    "Of the contrast between phi's words and the optimised ones."
    distil_weight: float = 1.0
    "Of that contrast in the loss."
    phrase_weight: float = 0.75
    "Of the phrases in the loss."
    placement: Literal["every", "first"] = "every"
    "Which of a concept's places in a phrase take the word; the released code, by mistake, fills the first alone."
    preprocess_type: Preprocess = "targetpad"
    "What pictures look like to the CLIP: targetpad, as published, or clip."
    feature_cache: Path | None = None
    "A folder where their features are kept. Default: they are computed at each start."

    def changed(self) -> dict[str, object]:
        """Flags that are not at their defaults."""
        usual = SearleFlags()
        return {
            f"--{key.replace('_', '-')}": value for key, value in vars(self).items() if value != getattr(usual, key)
        }


def check_pace(*, lr: float, warmup: int, weight_decay: float, ema: float) -> None:
    """Raise UsageError for numbers that no training works with."""
    if not 0 <= lr < float("inf"):
        raise UsageError(f"--lr {lr}: 0 or more")
    if warmup < 0 or not 0 <= weight_decay < float("inf"):
        raise UsageError(f"--warmup {warmup}, --weight-decay {weight_decay}: each 0 or more")
    if not 0 <= ema < 1:
        raise UsageError(f"--ema {ema}: from 0 to less than 1")


def check_adamw(*, beta2: float = 0.98, eps: float = 1e-8, clip_norm: float = 1.0, decay_biases: bool = True) -> None:
    """Raise UsageError for numbers that AdamW does not work with."""
    if not (0 <= beta2 < 1 and 0 < eps < float("inf") and 0 <= clip_norm < float("inf")):
        raise UsageError(
            f"--beta2 {beta2}, --eps {eps}, --clip-norm {clip_norm}: from 0 to less than 1, more than 0, 0 or more"
        )
