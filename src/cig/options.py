"""What a verb is asked: which queries, where to compute, with which models. The defaults are the published ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from cig import config, registry
from cig.benchmarks import load_benchmarks, split_name
from cig.generators import sampling
from cig.io.images import Preprocessing
from cig.preflight import weights_at
from cig.runtime import Seeds, Shard
from cig.types import Benchmark

if TYPE_CHECKING:
    from cig.generators.sdxl import Offload


@dataclass(frozen=True)
class Data:
    """Which queries over which pictures."""

    name: str  # "cirr" or "cirr/val"
    path: Path | None = None  # the dataset's own folder or its parent; by default the published place
    categories: tuple[str, ...] = ()  # FashionIQ
    gallery: str | None = None  # FashionIQ: full or val
    queries: Path | None = None  # folder: a file of queries
    limit: int | None = None  # icons: the first so many queries

    def load(self, default_split: str) -> tuple[Benchmark, ...]:
        family, split = split_name(self.name, default_split)
        options = {
            "categories": self.categories or None,
            "gallery": self.gallery,
            "queries": self.queries,
            "limit": self.limit,
        }
        given = {key: value for key, value in options.items() if value is not None}
        return load_benchmarks(f"{family}/{split}", self.path, **given)

    @property
    def module(self) -> ModuleType:
        """The benchmark's own file, for what it offers beside load."""
        return registry.load("benchmarks", self.name.partition("/")[0])

    def default_folder(self, key: str, default_split: str) -> Path:
        """`./outputs/embeddings/cirr_test1`, say."""
        return config.place(key) / "_".join(split_name(self.name, default_split))


@dataclass(frozen=True)
class Compute:
    """Where and how fast."""

    device: str = "auto"
    dtype: str = "auto"
    batch_size: int = 32
    workers: int = 4
    cache_dir: Path | None = None  # of the hub


@dataclass(frozen=True)
class Work:
    """Which share of the work is done, and what of it again."""

    shard: Shard | None = None
    overwrite: bool = False  # make everything again, with other settings if need be
    retry_rejected: bool = False  # go on with the next seeds for queries without an accepted picture


@dataclass(frozen=True)
class Composing:
    """What conditions the generator: two CLIPs, two phis."""

    clip: str = "openai/clip-vit-large-patch14"
    clip2: str = "Geonmo/CLIP-Giga-config-fixed"
    phi: Path | None = None  # by default the published places
    phi2: Path | None = None
    preprocessing: Preprocessing = "clip"

    @property
    def phis(self) -> tuple[Path, Path]:
        places = weights_at(config.place("phi_vit")), weights_at(config.place("phi_giga"))
        return self.phi or places[0], self.phi2 or places[1]


@dataclass(frozen=True)
class Generation:
    """The generator and how its pictures are accepted."""

    model_path: Path | None = None
    sdxl_repo: str = "stabilityai/stable-diffusion-xl-base-1.0"
    vae_repo: str = "madebyollin/sdxl-vae-fp16-fix"
    height: int = 512
    width: int = 512
    steps: int = 50
    guidance: float = 5.0
    image_guidance: float = 1.5
    seed: int = 1600
    seeds: Seeds = "published"
    brightness_thresh: float = 10.0
    max_retries: int = 5
    offload: Offload = "none"
    vae_slicing: bool = False
    vae_tiling: bool = False
    attention_slicing: bool = False

    @property
    def unet(self) -> Path:
        return self.model_path or config.place("sdxl_checkpoint")

    def recorded(self) -> dict[str, Any]:
        """Setting -> value, as files keep it; older ones have no guidance by the reference: its default is left out."""
        values = dict(vars(self))
        if self.image_guidance == Generation.image_guidance:
            del values["image_guidance"]
        return values


def presets(generator: str) -> tuple[Composing, Generation]:
    """What a generator is conditioned and sampled with, e.g. "sdxl/icons", where no flag says otherwise."""
    return Composing(**config.GENERATORS[generator].get("compose", {})), Generation(**sampling(generator))


@dataclass(frozen=True)
class Branching:
    """A branch as it is asked for: `--branch "name=sketch pictures=DIR method=image caption=no weight=0.3"`."""

    name: str
    weight: float | None  # None: the frozen or the published one
    pictures: str = ""  # a folder, a control's name, or pseudo-target; none for a method that looks at none
    method: str | None = None  # by default the one that searches; "caption captions=FILE" has its weights and options
    caption: bool = True
    copies: int = 4  # of reference-augmented
    vae: str = Generation.vae_repo  # of reference-vae
    side: int = Generation.height  # of reference-vae, in pixels


@dataclass(frozen=True)
class Finding:
    """A search over a folder of pictures: which, and how many of them are wanted."""

    gallery: Path
    images: tuple[Path, ...] = ()
    text: str = ""
    without: str = ""
    without_weight: float = 0.3  # of the unwanted text; ours, no paper's
    k: int = 10
    names: tuple[str, ...] = ()  # patterns that a picture's name must match one of
    metadata: Path | None = None
    where: tuple[str, ...] = ()  # conditions on columns of the metadata, all of which must hold
    keep_reference: bool = False
    imagine: bool = False

    @property
    def from_lines(self) -> bool:
        """Nothing was asked yet: searches come line by line."""
        return not (self.images or self.text)


@dataclass(frozen=True)
class Comparing:
    """A table: methods, each alone and with each of the branches."""

    methods: tuple[Searching, ...]
    branches: tuple[Branching, ...] = ()
    pseudo_targets: Path | None = None
    weights: Path | None = None  # read, or, with sweep, written
    sweep: bool = False
    measure: str | None = None  # that weights are chosen by, and rows compared; by default the benchmark's first
    strict_methods: bool = True  # one that cannot be loaded ends the run; otherwise it is left out and named
    strict_branches: bool = True  # the same of a branch that lacks its pictures


@dataclass(frozen=True)
class Searching:
    """A method, its weights, and what it searches with beside the reference."""

    method: str = "searle"
    clip: str | None = None
    phi: Path | None = None
    preprocessing: Preprocessing | None = None  # by default the method's
    options: Mapping[str, str] = field(default_factory=dict)  # of the method, such as t of slerp
    pseudo_targets: Path | None = None  # a folder of pictures by query id
    weight: float | None = None  # the reference's share; by default the published one
    branches: tuple[Branching, ...] = ()  # in the place of the published recipe
    weights: Path | None = None  # a file of weights frozen on val
    cache: Path | None = None  # a folder where features are remembered
