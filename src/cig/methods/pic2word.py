"""Pic2Word (Saito et al., CVPR 2023): a network learnt from pictures alone; CLIP's preprocessing, float32.

The prompt is the one that LinCIR evaluates it with, `a photo of $ that {caption}`; Pic2Word's own differ by dataset.
"""

from collections.abc import Mapping
from typing import Any

from cig.io import hub
from cig.io.digests import identity
from cig.io.images import Preprocess, Preprocessing
from cig.methods import CLIPS, EMBEDDED, OUR_LICENCE, Source, Weights
from cig.methods._inversion import InversionMethod
from cig.models.phi import Inverter

_LARGE = hub.file_address("navervision/zeroshot-cir-models", "pic2word_large.pt")
_ICONS = str(EMBEDDED / "pic2word" / "phi.safetensors")
VARIANTS = {
    "l14": Weights(CLIPS["l14"], "pic2word_large.pt", _LARGE, network="im2text"),
    "icons": Weights(CLIPS["icons"], _ICONS, licence=OUR_LICENCE, network="im2text"),
}


def load(variant: str, source: Source) -> InversionMethod:
    weights = VARIANTS[variant]
    inverter = source.load_inverter(weights)
    models = {"clip": inverter.clip.identity, "phi": identity(source.phi_file(weights))}
    licence = "unknown" if source.phi else weights.licence
    name = "pic2word" if source.phi else f"pic2word/{variant}"
    return around(inverter, name, {**models, "licence": licence}, source.preprocessing)


def around(
    inverter: Inverter, name: str, models: Mapping[str, Any], preprocessing: Preprocessing | None = None
) -> InversionMethod:
    """The method with a phi that is at hand."""
    preprocess = Preprocess(inverter.clip.size, pad=preprocessing == "targetpad")
    return InversionMethod(name, inverter, preprocess, "every", models)
