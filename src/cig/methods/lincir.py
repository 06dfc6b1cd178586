"""LinCIR (Gu et al., CVPR 2024): phi learnt from text; CLIP's preprocessing, fp16 on a GPU, the word at every $."""

from collections.abc import Mapping
from typing import Any

from cig.config import CIG_DRIVE, CIG_LICENCE
from cig.io import hub
from cig.io.digests import identity
from cig.io.images import Preprocess, Preprocessing
from cig.methods import CLIPS, EMBEDDED, OUR_LICENCE, Source, Weights
from cig.methods._inversion import InversionMethod
from cig.models.phi import Inverter

_LARGE = hub.file_address("navervision/zeroshot-cir-models", "lincir_large.pt")
_SHA256 = "5ba98d52db7a5e9a78f9ba7436991235477b89544caf246e4659642bf9b409bd"  # as public projects check it
_ICONS = str(EMBEDDED / "lincir" / "phi.safetensors")
VARIANTS = {
    "l14": Weights(CLIPS["l14"], "lincir_large.pt", _LARGE, "CC BY-NC 4.0", _SHA256),
    "g14": Weights(CLIPS["g14"], "phi_best_giga.pt", CIG_DRIVE, CIG_LICENCE),
    "icons": Weights(CLIPS["icons"], _ICONS, licence=OUR_LICENCE),
}


def load(variant: str, source: Source) -> InversionMethod:
    weights = VARIANTS[variant]
    inverter = source.load_inverter(weights, on_gpu="float16")
    models = {"clip": inverter.clip.identity, "phi": identity(source.phi_file(weights))}
    licence = "unknown" if source.phi else weights.licence
    name = "lincir" if source.phi else f"lincir/{variant}"
    return around(inverter, name, {**models, "licence": licence}, source.preprocessing)


def around(
    inverter: Inverter, name: str, models: Mapping[str, Any], preprocessing: Preprocessing | None = None
) -> InversionMethod:
    """The method with a phi that is at hand."""
    preprocess = Preprocess(inverter.clip.size, pad=preprocessing == "targetpad")
    return InversionMethod(name, inverter, preprocess, "every", models)
