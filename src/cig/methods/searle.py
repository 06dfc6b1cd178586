"""SEARLE (Baldrati et al., ICCV 2023): phi distilled from optimised words; targetpad, the word at the first $."""

from collections.abc import Mapping
from typing import Any

from cig.io.digests import identity
from cig.io.images import Preprocess, Preprocessing
from cig.methods import CLIPS, Source, Weights
from cig.methods._inversion import InversionMethod
from cig.models.phi import Inverter

_RELEASE = "https://github.com/miccunifi/SEARLE/releases/download/weights/"
VARIANTS = {
    "b32": Weights(CLIPS["b32"], "SEARLE_ViT-B32.pt", f"{_RELEASE}SEARLE_ViT-B32.pt", "CC BY-NC 4.0"),
    "l14": Weights(CLIPS["l14"], "SEARLE_ViT-L14.pt", f"{_RELEASE}SEARLE_ViT-L14.pt", "CC BY-NC 4.0"),
}


def load(variant: str, source: Source) -> InversionMethod:
    weights = VARIANTS[variant]
    inverter = source.load_inverter(weights)
    models = {"clip": inverter.clip.identity, "phi": identity(source.phi_file(weights))}
    licence = "unknown" if source.phi else weights.licence
    name = "searle" if source.phi else f"searle/{variant}"
    return around(inverter, name, {**models, "licence": licence}, source.preprocessing)


def around(
    inverter: Inverter, name: str, models: Mapping[str, Any], preprocessing: Preprocessing | None = None
) -> InversionMethod:
    """The method with a phi that is at hand."""
    preprocess = Preprocess(inverter.clip.size, pad=preprocessing != "clip")
    return InversionMethod(name, inverter, preprocess, "first", models)
