"""Pic2Word (Saito et al., CVPR 2023): a network learnt from pictures alone; CLIP's preprocessing, float32.

The prompt is the one that LinCIR evaluates it with, `a photo of $ that {caption}`; Pic2Word's own differ by dataset.
"""

from cig.formats import identity
from cig.images import Preprocess
from cig.inversion import IM2TEXT, InversionMethod
from cig.methods import CLIPS, EMBEDDED, Source, Weights

_HUB = "the hub repository navervision/zeroshot-cir-models"
VARIANTS = {
    "l14": Weights(CLIPS["l14"], "pic2word_large.pt", _HUB),
    "icons": Weights(CLIPS["icons"], str(EMBEDDED / "pic2word" / "phi.safetensors"), licence="Apache-2.0"),
}


def load(variant: str, source: Source) -> InversionMethod:
    weights = VARIANTS[variant]
    inverter = source.load_inverter(weights, kind=IM2TEXT)
    models = {"clip": inverter.clip.identity, "phi": identity(source.phi_file(weights))}
    preprocess = Preprocess(inverter.clip.size, pad=source.preprocessing == "targetpad")
    name = "pic2word" if source.phi else f"pic2word/{variant}"
    return InversionMethod(name, inverter, preprocess, "every", {**models, "licence": weights.licence})
