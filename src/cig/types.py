"""The records and protocols of composed image retrieval, with shape and meaning beside each field.

Nothing here reads a file or loads a model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from cig.errors import check_type

if TYPE_CHECKING:
    from random import Random

    from PIL.Image import Image
    from torch import Tensor

TARGET, ALSO_CORRECT = 2, 1  # grades of relevance
Preprocessing = Literal["clip", "targetpad"]


class Described:
    """Give a method, a generator or a composer a representation of one line: its name and its models' sources."""

    identity: Mapping[str, Any]

    def __repr__(self) -> str:
        models = ((key, model) for key, model in self.identity.items() if isinstance(model, Mapping))
        sources = ", ".join(f"{key} {model['source']}" for key, model in models if "source" in model)
        return f"<{getattr(self, 'name', None) or type(self).__name__}: {sources}>"


@dataclass(frozen=True)
class Query:
    """A reference picture and what should change in it."""

    id: str  # unique in its benchmark
    reference: str  # a picture's name
    captions: tuple[str, ...]  # the relative captions; FashionIQ has two
    relevant: Mapping[str, int] = field(default_factory=dict)  # name -> grade; empty where targets are hidden
    subset: tuple[str, ...] = ()  # CIRR: the picture set that the query was written in, reference included
    tags: tuple[str, ...] = ()  # CIRCO: semantic aspects
    negatives: tuple[str, ...] = ()  # pictures that the annotators marked as wrong
    cluster: str = ""  # queries of one cluster are not independent: the bootstrap resamples them together


@dataclass(frozen=True)
class Benchmark:
    """Queries over a gallery, and the measures of their rankings."""

    name: str  # "cirr/val"
    queries: tuple[Query, ...]
    images: Mapping[str, Path]  # picture name -> file; a name without an entry is missing
    gallery: tuple[str, ...]  # names, in the order of the annotation file
    measures: tuple[str, ...]  # "recall@10", "subset_recall@1", "map@5", "trapezoid_map"
    drop_reference: bool  # CIRR: the reference is left out of its query's ranking
    weight: float  # the reference's share when a pseudo-target is fused in
    weight_source: str  # where that weight comes from
    part: str = ""  # FashionIQ: the category; siblings share a name
    hidden: bool = False  # targets are not public: submit, do not evaluate
    protocol: Mapping[str, str] = field(default_factory=dict)  # choices that move numbers
    missing_list: Path | None = None  # the gallery's list, where it is missing: the gallery is then every picture
    galleries: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # of queries that rank no other pictures
    macro: bool = False  # scores are the mean of the clusters' means, not of the queries (i-CIR)
    not_fetched: Mapping[str, str] = field(default_factory=dict)  # a reference's address -> why it has no picture

    @property
    def title(self) -> str:
        """ "cirr/val", "fashioniq/val/dress"."""
        return "/".join(filter(None, (self.name, self.part)))

    @property
    def missing_images(self) -> tuple[str, ...]:
        """Names of the gallery and of references that have no picture."""
        wanted = dict.fromkeys((*self.gallery, *(query.reference for query in self.queries)))
        return tuple(name for name in wanted if name not in self.images)

    def why_missing(self, reference: str) -> str:
        """Say why a reference has no picture: why its address gave none, where it is one."""
        return self.not_fetched.get(reference) or f"no picture for the reference {reference}"

    def __repr__(self) -> str:
        present = sum(name in self.images for name in self.gallery)
        gallery = f"gallery of {len(self.gallery)} pictures, {present} found"
        return f"<Benchmark {self.title}: {len(self.queries)} queries, {gallery}>"


def check_benchmark(value: object) -> None:
    """Raise WrongTypeError unless an argument is a benchmark."""
    check_type(value, Benchmark, name="benchmark", wanted='a Benchmark, such as cig.load_benchmark("cirr/val")')


@dataclass(frozen=True)
class TextStates:
    """The states of a text tower for prompts, at the tokenizer's full context length L."""

    hidden: Tensor  # [B, L, h] before the last layer
    last: Tensor  # [B, L, h] after the last layer and the final layer norm
    pooled: Tensor  # [B, p] projected end-of-text state


@dataclass(frozen=True)
class ComposedEmbedding:
    """The generator's condition: references and captions, composed by two text towers (CIG, section 3)."""

    ids: tuple[str, ...]
    conditioning: Tensor  # [B, L, h1] tower 1, before its last layer
    conditioning2: Tensor  # [B, L, h2] tower 2, before its last layer
    pooled2: Tensor  # [B, p2] tower 2, projected end-of-text state
    last: Tensor  # [B, L, h1] tower 1, final states; the published files call it "pooled"
    references: tuple[Image, ...] = ()  # [B], for a generator that reads them

    @property
    def prompt(self) -> Tensor:
        """[B, L, h1 + h2]: 77 and 768 + 1280 for SDXL."""
        import torch

        return torch.cat([self.conditioning, self.conditioning2], dim=-1)

    def __repr__(self) -> str:
        queries, length, width = self.conditioning.shape
        shapes = f"prompt {length} x {width + self.conditioning2.shape[-1]}, pooled {self.pooled2.shape[-1]}"
        return f"<ComposedEmbedding of {queries} queries: {shapes}>"


@dataclass(frozen=True)
class PseudoTarget:
    """One imagined picture. Refused ones are kept, too, and counted."""

    id: str
    image: Image
    seed: int  # of its attempt
    attempts: int  # pictures made for this query
    accepted: bool  # its mean pixel value exceeds the brightness threshold


@dataclass(frozen=True)
class Gallery:
    """The features that are searched."""

    ids: tuple[str, ...]
    features: Tensor  # [N, d] float32 unit rows

    def __repr__(self) -> str:
        return f"<Gallery {' x '.join(map(str, self.features.shape))}>"


@dataclass(frozen=True)
class PairBatch:
    """Pictures and captions to train on; a caption may be true of several of the pictures."""

    pixels: Tensor  # [B, 3, S, S], preprocessed
    captions: tuple[str, ...]  # [B]
    positives: Tensor  # [B, B] bool: caption i is true of picture j
    ids: tuple[str, ...] = ()  # [B] the pictures' names, for messages


class Pairs(Protocol):
    """The training data of a CLIP or a phi."""

    @property
    def identity(self) -> Mapping[str, str]:
        """The data's name and digest."""

    def batch(self, size: int, rng: Random) -> PairBatch:
        """Draw `size` augmented pairs; every random choice comes from rng."""

    def captions(self, count: int, rng: Random) -> list[str]:
        """Draw captions without pictures."""


class Scenes(Protocol):
    """The training data of a generator: pictures, each with several views and captions.

    A view and its caption ask for the picture as a reference and its relative caption ask for the target: the caption
    states the difference between the view and the picture.
    """

    views: int  # kinds of views that each picture has
    side: int  # of the pictures, in pixels

    @property
    def identity(self) -> Mapping[str, str]:
        """The data's name and digest."""

    def __len__(self) -> int: ...

    def names(self, indices: Sequence[int]) -> list[str]:
        """Return the pictures' names, for messages."""

    def pictures(self, indices: Sequence[int]) -> Tensor:
        """Return the pictures [B, 3, side, side] in -1..1, the same at every call."""

    def framing(self, indices: Sequence[int]) -> Tensor:
        """Return the sizes [B, 6] that condition SDXL (Podell et al., 2023, section 2.2).

        They are the original height and width, the crop's top and left in the resized picture, the crop's height and
        width.
        """

    def seen(self, indices: Sequence[int], view: int, side: int, *, rng: Random) -> Tensor:
        """Return the view [B, 3, side, side], augmented and preprocessed for a CLIP; random choices come from rng."""

    def references(self, indices: Sequence[int], view: int, rng: Random) -> Tensor:
        """Return the view [B, 3, side, side] in -1..1, for a generator that reads the reference.

        An rng in the state that `seen` had gives the same view; drawings are not augmented.
        """

    def said(self, indices: Sequence[int], view: int, rng: Random) -> list[str]:
        """Return captions that ask for the pictures from that view; "" where there is none."""


@dataclass(frozen=True)
class Ranking:
    """The nearest pictures of every query, nearest first. A query that could not run has an empty row."""

    queries: tuple[str, ...]  # [Q] query ids, in the benchmark's order
    ids: tuple[tuple[str, ...], ...]  # [Q][K] picture names
    scores: tuple[tuple[float, ...], ...]  # [Q][K] cosine similarities, or the method's own scores
    subset: tuple[tuple[str, ...], ...]  # [Q][S] the query's picture set without the reference, ranked
    target_ranks: tuple[int | None, ...] = ()  # [Q] of the annotated target, from 1; None: hidden, missing, not run
    relevant_ranks: tuple[tuple[int, ...], ...] = ()  # [Q] of all relevant pictures, where a measure reads whole lists
    missing: Mapping[str, str] = field(default_factory=dict)  # query id -> why it could not run
    notes: Mapping[str, Any] = field(default_factory=dict)  # counts of pictures and branches that were missing

    def __repr__(self) -> str:
        longest = max(map(len, self.ids), default=0)
        return f"<Ranking of {len(self.queries)} queries: {longest} pictures each, {len(self.missing)} could not run>"


@dataclass(frozen=True)
class Report:
    """Scores in percent, unrounded, with intervals and what was missing."""

    benchmark: str
    protocol: Mapping[str, str]
    scores: Mapping[str, Mapping[str, float]]  # part ("" where there is one) -> measure -> score
    intervals: Mapping[str, Mapping[str, tuple[float, float]]]  # the same, 95% bootstrap over queries
    per_query: Mapping[str, Mapping[str, Mapping[str, float]]]  # part -> query id -> measure -> score
    missing: Mapping[str, Any]  # kind -> the names of what was missing
    counts: Mapping[str, Any]  # part -> queries, gallery (None: its list is missing), and how many are present
    changes: Mapping[str, Mapping[str, float]] = field(default_factory=dict)  # of the ranks, by pseudo-targets
    unused: Mapping[str, Any] = field(default_factory=dict)  # kind -> part -> query -> why its picture was not used

    def __repr__(self) -> str:
        scores = self.scores.get("average") or next(iter(self.scores.values()), {})
        return f"<Report {self.benchmark}: {', '.join(f'{name} {score:.2f}' for name, score in scores.items())}>"


@dataclass(frozen=True)
class SubmissionForm:
    """The form of a file for an evaluation server: {query id: names, best first}, after a header if it has one."""

    benchmark: str  # "cirr/test1"
    queries: int
    names: int  # a query
    metric: str | None = None
    version: str | None = None
    subset: bool = False  # names are of the query's picture set

    @property
    def header(self) -> dict[str, str]:
        return {key: value for key, value in (("version", self.version), ("metric", self.metric)) if value}


class Method(Protocol):
    """A retrieval method. Pseudo-target retrieval is not a method: it is any method called twice."""

    name: str
    preprocess: Any  # picture -> [3, S, S] float32
    identity: Mapping[str, Any]  # models, their digests and licences
    uses_picture: bool  # False for text alone: a pseudo-target changes nothing
    # optional: picture_model, the part of identity that picture features depend on (by default all of it)
    # optional: asks_for_queries = True: embed_queries also gets queries=[Query] and paths=[Path], for what is stored
    #   by the picture's name (a pseudo-word, a caption). A query whose picture is not its reference comes with
    #   reference="". Where uses_picture is False, embed_captions gets queries=[Query]
    # optional: score(queries [Q, e], gallery [N, d]) -> [Q, N]: scores over the gallery's unit rows, for a method whose
    #   score is no cosine similarity; its embed_queries returns unit rows [B, e] of its own making
    # optional: no_text(queries) -> {id: why}: queries that a method without pictures has no text of
    # optional: look_up(paths) -> {path: feature [d]}: picture features that are stored, so need no pixels
    # optional: no_query(paths) -> {path: why}: gallery pictures that cannot be a reference
    # optional: no_entry(paths, gallery, bare=False) -> {path: why}: pictures from outside of the gallery for which
    #   nothing is stored: an entry that a gallery picture may have is that one's. bare: a name without folders may be
    #   a picture's from outside; a pseudo-target's never is
    # optional: release_pictures(): frees the memory of what embeds pictures; a later use loads it again
    # optional: names, the pictures of look_up: a gallery that needs no files

    def embed_images(self, pixels: Tensor) -> Tensor:
        """Embed pixels [B, 3, S, S] as projected picture features [B, d], not normalised."""
        ...

    def embed_queries(self, image_features: Tensor, captions: Sequence[tuple[str, ...]]) -> Tensor:
        """Compose picture features [B, d] and the captions of each query as unit query features [B, d]."""
        ...

    def embed_captions(self, captions: Sequence[tuple[str, ...]]) -> Tensor:
        """Embed captions alone as unit features [B, d], for queries whose reference is missing."""
        ...


@dataclass(frozen=True, init=False)
class Branch:
    """A term of a query's feature: pictures, embedded by a method with the caption or without, at a weight.

    The published recipe has one branch: the pseudo-target, by the method that searches, with the caption.
    """

    name: str  # unique in a search
    pictures: Mapping[str, tuple[Path, ...]]  # query id -> its pictures, whose unit features are averaged
    weight: float  # 0..1; the reference gets the rest of 1
    method: Method | None  # None: the one that searches. Another must have the same picture features
    caption: bool

    def __init__(  # written out since a query may come with one path, and paths as text
        self,
        name: str,
        pictures: Mapping[str, str | Path | Sequence[str | Path]],
        weight: float,
        *,
        method: Method | None = None,
        caption: bool = True,
    ) -> None:
        check_type(pictures, Mapping, name="pictures", wanted="a mapping from query ids to paths")
        check_type(weight, Real, name="weight", wanted="a number from 0 to 1")
        tuples = ((query, (one,) if isinstance(one, str | Path) else one) for query, one in pictures.items())
        paths = {query: tuple(map(Path, several)) for query, several in tuples}
        fields = {"name": name, "pictures": paths, "weight": weight, "method": method, "caption": caption}
        for field_name, value in fields.items():
            object.__setattr__(self, field_name, value)

    def __repr__(self) -> str:
        words = f"weight {self.weight:g}, {'with' if self.caption else 'without'} the caption"
        return f"<Branch {self.name}: {len(self.pictures)} queries with pictures, {words}>"


class Generator(Protocol):
    """A generator of pseudo-targets."""

    settings: Mapping[str, Any]  # everything that changes pixels: size, steps, guidance, dtype
    identity: Mapping[str, Any]  # models and their digests
    # optional: shown = True: the generator also reads the references' pictures, which then come with the condition

    def __call__(self, condition: ComposedEmbedding, seeds: Sequence[int]) -> list[Image]:
        """Draw one picture for each row of the condition, from the row's seed."""
        ...
