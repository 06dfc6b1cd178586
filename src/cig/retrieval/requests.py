"""Requests: which method searches with which checkpoints, and which branches join the reference."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, replace
from math import isfinite
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from cig.errors import UsageError, at_least_1
from cig.generators import Generation
from cig.types import Preprocessing


@dataclass(frozen=True)
class Branching:
    """A requested branch: `--branch "name=sketch pictures=DIR method=image caption=no weight=0.3"`."""

    name: str
    weight: float | None  # the branch's share; None: the frozen or the published one
    pictures: str = ""  # a folder, a control's name, or pseudo-target; empty for a method of text alone
    method: str | None = None  # None: the one that searches; "caption captions=FILE" adds checkpoints and options
    caption: bool = True
    copies: int = 4  # of reference-augmented
    vae: str = Generation.vae_repo  # of reference-vae
    side: int = Generation.height  # of reference-vae, in pixels


MOST_RERANKED = 50  # a ranking holds so many


@dataclass(frozen=True)
class Reranking:
    """A verifier that re-ranks the first pictures of every query."""

    rerank: str | None = None
    """What re-ranks the first pictures: yes-no, grid, or a module of your own. Default: nothing."""
    rerank_model: str | None = None
    "Its vision-language model: hub id or folder."
    rerank_depth: int = MOST_RERANKED
    "So many of the first are re-ranked, 1 to 50; what lies below stays where it is."
    rerank_weight: float = 1.0
    "The verifier's share, 0 to 1; the first score, scaled to 0..1 over them, has the rest."
    rerank_prompt: str | None = None
    "What the model is asked, with {caption} in it (grid: {count}, too). Default: the verifier's."

    def __post_init__(self) -> None:
        if bool(self.rerank) != bool(self.rerank_model):
            raise UsageError("--rerank and --rerank-model come together: --rerank yes-no --rerank-model FOLDER")
        if not 1 <= self.rerank_depth <= MOST_RERANKED:
            raise UsageError(f"--rerank-depth {self.rerank_depth}: 1 to {MOST_RERANKED}, as many as a ranking holds")
        if not 0 <= self.rerank_weight <= 1:
            raise UsageError(f"--rerank-weight {self.rerank_weight}: from 0 to 1")
        if self.rerank_prompt is not None and "{caption}" not in self.rerank_prompt:
            raise UsageError(f"--rerank-prompt {self.rerank_prompt!r} lacks {{caption}}, where the change is written")

    def joined(self, searching: Searching) -> Searching:
        """Return the search with this verifier, if there is one."""
        return replace(searching, reranking=self) if self.rerank else searching

    @property
    def title(self) -> str:
        """The verifier in one line, for protocols."""
        weight = "" if self.rerank_weight == 1 else f", weight {self.rerank_weight:g}"
        return f"{self.rerank} by {self.rerank_model}, the first {self.rerank_depth}{weight}"

    def settings(self) -> dict[str, Any]:
        return {
            "verifier": self.rerank,
            "source": self.rerank_model,
            "depth": self.rerank_depth,
            "weight": self.rerank_weight,
        }


@dataclass(frozen=True)
class Searching:
    """A method, its checkpoints, and the branches that join the reference."""

    method: Annotated[str, Parameter(alias="--eval-type")] = "searle"
    """FAMILY[/VARIANT]: image, text, sum, product, basic, bge-vl, slerp, caption, texts, searle, searle-xl, oti,
    lincir, pic2word, phi, precomputed, or a module of your own."""
    clip: str | None = None
    "A CLIP to search with: hub id or folder. With a phi, the two come together. Default: the variant's."
    phi: Path | None = None
    "The textual-inversion network that fits that CLIP. Default: the variant's, in ./models."
    preprocess_type: Preprocessing | None = None
    "Default: the method's (searle and oti targetpad, others clip)."
    method_option: tuple[str, ...] = ()
    """KEY=VALUE of the method: t=0.5 (slerp), captions=FILE or captioner=MODEL (caption), texts=FILE (texts),
    features=FILE (precomputed), components=50 (basic),
    l2_normalize=yes (lincir, pic2word)."""
    prompt: str | None = None
    """Of methods with a pseudo-word (searle, lincir, pic2word, oti): a text with $ and {caption}, or pic2word.
    Default: "a photo of $ that {caption}"."""
    reference_weight: Annotated[float | None, Parameter(name="--fusion-weight")] = None
    """The reference's share, 0 to 1. Default: the published one of that benchmark and split. Of `cig search`, with
    --imagine: the image's share. Default: 0.7, as published for CIRCO test."""
    frozen_weights: Annotated[Path | None, Parameter(name="--weights")] = None
    "Weights that `cig compare --sweep` froze on val, in the place of the published one."
    feature_cache: Path | None = None
    """A folder where features are kept: what was embedded once is not embedded again, and models load when needed.
    Default: of run and trial features/ in --out, of search cig in the user's cache folder (~/.cache), else none."""
    pseudo_targets: Annotated[Path | None, Parameter(parse=False)] = None
    "A folder of pictures by query id."
    branches: Annotated[tuple[Branching, ...], Parameter(parse=False)] = ()
    "They replace the published recipe."
    reranking: Annotated[Reranking | None, Parameter(parse=False)] = None
    "What re-ranks the first pictures."

    def __post_init__(self) -> None:
        for text in self.method_option:
            key, mark, _ = text.partition("=")
            if not key or not mark:
                raise UsageError(f"--method-option {text!r} should be KEY=VALUE")

    @property
    def options(self) -> dict[str, str]:
        """The method's own options, such as t of slerp."""
        given = {key: value for key, _, value in (text.partition("=") for text in self.method_option)}
        return given if self.prompt is None else {**given, "prompt": self.prompt}

    def settings(self) -> dict[str, Any]:
        """Return the fields under the keys that result files use."""
        return {
            "method": self.method,
            "clip": self.clip,
            "phi": self.phi,
            "preprocessing": self.preprocess_type,
            "options": self.options,
            "pseudo_targets": self.pseudo_targets,
            "weight": self.reference_weight,
            "branches": self.branches,
            "weights": self.frozen_weights,
            "cache": self.feature_cache,
            **({"rerank": self.reranking.settings()} if self.reranking else {}),
        }


OWN_METHOD = "bge-vl/base"  # of pictures of one's own


@dataclass(frozen=True)
class OwnSearching(Searching):
    """How pictures of one's own are searched."""

    method: Annotated[str, Parameter(show_default=False)] = ""
    """FAMILY[/VARIANT]: bge-vl, sum, image, text, slerp, searle, lincir, pic2word... Default: an index's own; of a
    folder bge-vl/base."""

    @property
    def chosen(self) -> bool:
        """Whether a method or its checkpoints are given."""
        return self != replace(OwnSearching(), feature_cache=self.feature_cache, reference_weight=self.reference_weight)

    def resolved(self) -> Searching:
        """Return the search with its default method, if none is given."""
        return replace(self, method=self.method or OWN_METHOD)


@dataclass(frozen=True)
class FolderSearch:
    """One search over a folder of pictures, or, without image and text, searches that come line by line."""

    gallery: Annotated[Path, Parameter(parse=False)] = Path()
    "A folder, whose pictures in all folders below are searched, or an index that `cig index build` made."
    image: tuple[Path, ...] = ()
    "What it should look like; may be given several times, which is averaged."
    text: str = ""
    "What should be different, or, without an image, what it should show."
    without: str = ""
    "What should not be in it."
    without_weight: float = 0.3
    "How much of that is taken away; 0 is nothing."
    k: Annotated[int, Parameter(name=["-k", "--k"])] = 10
    "How many are shown."
    name: tuple[str, ...] = ()
    """Only pictures whose path below the folder matches: --name "dresses/*". Several: any of them."""
    metadata: Path | None = None
    "A table about the pictures (CSV, JSON, JSONL, Parquet) with a column name, for --where."
    where: tuple[str, ...] = ()
    """A condition on its columns: "price<50", "colour=red", "title~summer". Several: all of them."""
    group_by: str | None = None
    "A column: only the nearest picture of each of its values."
    min_score: float | None = None
    "The least similarity that is shown, -1 to 1."
    fold_copies: bool = False
    "Show near-identical pictures once, and count the others."
    keep_reference: bool = False
    "Show a picture that is asked with, too, if it is in the folder."
    imagine: bool = False
    "Imagine a pseudo-target of the first image and the text, and search with it, too: needs SDXL and two phis."

    def __post_init__(self) -> None:
        at_least_1("-k", self.k)
        if not isfinite(self.without_weight):
            raise UsageError(f"--without-weight {self.without_weight}: a finite number, such as 0.3")

    @property
    def from_lines(self) -> bool:
        """Whether searches come line by line."""
        return not (self.image or self.text)


@dataclass(frozen=True)
class Comparing:
    """A table: methods, each alone and with each of the branches."""

    methods: Annotated[tuple[Searching, ...], Parameter(parse=False)] = ()
    branches: Annotated[tuple[Branching, ...], Parameter(parse=False)] = ()
    pseudo_targets: Annotated[Path | None, Parameter(name="--generated-image-dir")] = None
    "Pseudo-targets by query id; {category} stands for FashionIQ's categories."
    weights: Path | None = None
    "Weights frozen on val. With --sweep, where they go (default: ./outputs/weights.json); else read, if given."
    sweep: bool = False
    "Try the reference's share from 0 to 1 by 0.05 for each row, and freeze the best."
    measure: str | None = None
    "What weights are chosen by and rows compared by. Default: the benchmark's first measure."
    composition_gap: bool = False
    """Search by image alone and by text alone, too: how much each method composes, and the scores of the queries that
    no modality alone answers."""
    circus: Path | None = None
    "CIRCUS's labels, a folder or a CSV file: scores of all queries, of those without a shortcut, and of the validated."
    strict_methods: Annotated[bool, Parameter(parse=False)] = True
    "A method that cannot be loaded ends the run; otherwise it is left out and named."
    strict_branches: Annotated[bool, Parameter(parse=False)] = True
    "The same of a branch that lacks its pictures."


EXAMPLE = 'such as --branch "name=sketch pictures=DIR method=image caption=no weight=0.3"'


def parse_method(text: str, clip: str | None = None) -> Searching:
    """Read one of `--methods`: a name, then clip=, phi=, preprocessing= and options where given.

    Args:
        clip: the CLIP of methods that have no phi and no words of their own.
    """
    from cig.methods import weights_of

    source = f"--methods {text!r}"
    name, _, rest = text.strip().partition(" ")
    table = keys_of(rest, source)
    preprocessing = {"": None, "clip": "clip", "targetpad": "targetpad"}
    if table.get("preprocessing", "") not in preprocessing:
        raise UsageError(f"{source}: preprocessing is clip or targetpad")
    checkpoints = weights_of(name)
    shared = clip if checkpoints.clip and not checkpoints.phi and not checkpoints.words else None
    return Searching(
        method=name,
        clip=table.get("clip", shared),
        phi=Path(table["phi"]) if "phi" in table else None,
        method_option=tuple(
            f"{key}={value}" for key, value in table.items() if key not in ("clip", "phi", "preprocessing")
        ),
        preprocess_type=preprocessing[table.get("preprocessing", "")],  # type: ignore[arg-type]
    )


def keys_of(text: str, source: str) -> dict[str, str]:
    """Split KEY=VALUE words as a shell does; raise UsageError for a word without "="."""
    try:
        words = [word.partition("=") for word in shlex.split(text)]
    except ValueError as error:
        raise UsageError(f"{source}: {error}; {EXAMPLE}") from error
    bare = next((word for word, mark, _ in words if not mark), None)
    if bare is not None:
        raise UsageError(f'{source}: "{bare}" is no KEY=VALUE; {EXAMPLE}')
    return {key: value for key, _, value in words}
