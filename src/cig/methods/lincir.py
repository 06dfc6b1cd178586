"""LinCIR (Gu et al., CVPR 2024): phi learnt from text; CLIP's preprocessing, fp16 on a GPU, the word at every $."""

from cig.formats import identity
from cig.images import Preprocess
from cig.inversion import InversionMethod
from cig.methods import CLIPS, EMBEDDED, Source, Weights
from cig.settings import CIG_DRIVE

_HUB = "the hub repository navervision/zeroshot-cir-models"
VARIANTS = {
    "l14": Weights(CLIPS["l14"], "lincir_large.pt", _HUB, "CC BY-NC 4.0"),
    "g14": Weights(CLIPS["g14"], "phi_best_giga.pt", CIG_DRIVE, "none stated"),
    "icons": Weights(CLIPS["icons"], str(EMBEDDED / "lincir" / "phi.safetensors"), licence="Apache-2.0"),
}


def load(variant: str, source: Source) -> InversionMethod:
    weights = VARIANTS[variant]
    inverter = source.load_inverter(weights, on_gpu="float16")
    models = {"clip": inverter.clip.identity, "phi": identity(source.phi_file(weights))}
    preprocess = Preprocess(inverter.clip.size, pad=source.preprocessing == "targetpad")
    licence = "unknown" if source.phi else weights.licence
    name = "lincir" if source.phi else f"lincir/{variant}"
    return InversionMethod(name, inverter, preprocess, "every", {**models, "licence": licence})
