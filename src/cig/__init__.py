"""cig: composed image retrieval. A picture and a sentence find the picture you mean.

    import cig
    bench    = cig.load_benchmark("cirr/val", root="data")
    composer = cig.load_composer(clip, clip2, phi, phi2)                  # what conditions the generator
    targets  = cig.imagine(bench, composer, cig.load_generator("sdxl"), out="runs/cirr")
    ranking  = cig.search(bench, cig.load_method("searle/b32"), targets.pictures)
    report   = cig.evaluate(bench, ranking)

Names are loaded at their first use: importing cig imports neither torch nor diffusers.
"""

import importlib
from typing import Any

_HOMES = {
    "Benchmark": "types",
    "CIRRDataset": "pipelines.published_datasets",
    "CigError": "errors",
    "ComposedEmbedding": "types",
    "ComposedEmbedsDataset": "pipelines.published_datasets",
    "EmbeddingFolder": "generators._compose",
    "FashionIQDataset": "pipelines.published_datasets",
    "Imagining": "generators._generate",
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
    "search": "retrieval.rank",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"cig has no {name}; it has {', '.join(__all__)}")
    return getattr(importlib.import_module(f"cig.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
