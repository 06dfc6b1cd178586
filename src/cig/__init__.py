"""Composed image retrieval: find a picture by a reference picture and a sentence about what should change.

    import cig

    bench = cig.load_benchmark("cirr/val", root="datasets")
    composer = cig.load_composer(clip, clip2, phi, phi2)  # conditions the generator
    targets = cig.imagine(bench, composer, cig.load_generator("sdxl"), out="runs/cirr")
    ranking = cig.search(bench, cig.load_method("searle/b32"), targets)
    print(cig.evaluate(bench, ranking))

    index = cig.open("photos")  # pictures of one's own
    index.search("sofa.jpg", "but blue", k=5)

Functions
    open              open a folder of pictures, or an index of one, to search it
    load_benchmark    load a benchmark: queries, their pictures and the gallery
    load_benchmarks   load every part of a benchmark, such as FashionIQ's three categories
    load_clip         load a CLIP from the hub or a folder
    load_composer     load two CLIPs and two phis, which compose the generator's condition
    load_generator    load a generator of pseudo-targets
    load_method       load a retrieval method
    imagine           make one pseudo-target for each query
    search            rank a benchmark's gallery for each query
    evaluate          score rankings by the benchmark's measures

Records
    Index, Hit                   what open returns, and what its search finds
    Benchmark, Query             what is searched, and for what
    Method, Generator            the protocols of what load_method and load_generator return
    Source                       the checkpoints, device and dtype of a method
    Imagining, Imagined          the settings of imagine, and its result
    Branch                       pictures that join the reference in a query, and their weight
    Ranking, Report              the results of search and evaluate
    ComposedEmbedding            the condition of a generator
    EmbeddingFolder              conditions that `cig extract` wrote, read in place of a composer
    CigError                     the base class of every error that a user can fix

The published release's classes
    Phi                          the textual-inversion network
    CIRRDataset, FashionIQDataset, ComposedEmbedsDataset     torch datasets with the release's keys

Paths may be text or Path. Messages go to the logger "cig". Importing cig imports neither torch nor diffusers: each name
is loaded on first use.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cig.benchmarks import load_benchmark as load_benchmark
    from cig.benchmarks import load_benchmarks as load_benchmarks
    from cig.errors import CigError as CigError
    from cig.evaluation.score import evaluate as evaluate
    from cig.generators import Imagining as Imagining
    from cig.generators import load_generator as load_generator
    from cig.generators._compose import EmbeddingFolder as EmbeddingFolder
    from cig.generators._generate import Imagined as Imagined
    from cig.generators._generate import imagine as imagine
    from cig.methods import Source as Source
    from cig.methods import load_method as load_method
    from cig.models.clip import load_clip as load_clip
    from cig.models.composer import load_composer as load_composer
    from cig.models.phi import Phi as Phi
    from cig.pipelines.index import Hit as Hit
    from cig.pipelines.index import Index as Index
    from cig.pipelines.open import open as open
    from cig.pipelines.published_datasets import CIRRDataset as CIRRDataset
    from cig.pipelines.published_datasets import ComposedEmbedsDataset as ComposedEmbedsDataset
    from cig.pipelines.published_datasets import FashionIQDataset as FashionIQDataset
    from cig.retrieval.rank import search as search
    from cig.types import Benchmark as Benchmark
    from cig.types import Branch as Branch
    from cig.types import ComposedEmbedding as ComposedEmbedding
    from cig.types import Generator as Generator
    from cig.types import Method as Method
    from cig.types import Query as Query
    from cig.types import Ranking as Ranking
    from cig.types import Report as Report

    __version__: str

_MODULES = {  # public name -> its module; the imports above state the same to type checkers
    "Benchmark": "types",
    "Branch": "types",
    "CIRRDataset": "pipelines.published_datasets",
    "CigError": "errors",
    "ComposedEmbedding": "types",
    "ComposedEmbedsDataset": "pipelines.published_datasets",
    "EmbeddingFolder": "generators._compose",
    "FashionIQDataset": "pipelines.published_datasets",
    "Generator": "types",
    "Hit": "pipelines.index",
    "Imagined": "generators._generate",
    "Imagining": "generators",
    "Index": "pipelines.index",
    "Method": "types",
    "Phi": "models.phi",
    "Query": "types",
    "Ranking": "types",
    "Report": "types",
    "Source": "methods",
    "evaluate": "evaluation.score",
    "imagine": "generators._generate",
    "load_benchmark": "benchmarks",
    "load_benchmarks": "benchmarks",
    "load_clip": "models.clip",
    "load_composer": "models.composer",
    "load_generator": "generators",
    "load_method": "methods",
    "open": "pipelines.open",
    "search": "retrieval.rank",
}
__all__ = sorted(_MODULES)


def _version() -> str:
    from importlib import metadata

    try:
        return metadata.version("cig")
    except metadata.PackageNotFoundError:  # a checkout on sys.path, never installed
        return "0+unknown"


if not TYPE_CHECKING:  # type checkers would take any name for one of ours

    def __getattr__(name: str) -> Any:
        if name == "__version__":
            return _version()
        if name not in _MODULES:
            raise AttributeError(f"cig has no {name}; it has {', '.join(__all__)}")
        return getattr(importlib.import_module(f"cig.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
