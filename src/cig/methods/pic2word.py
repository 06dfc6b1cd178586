"""Pic2Word (Saito et al., CVPR 2023): a phi trained on pictures alone; CLIP's preprocessing, float32.

The prompt is the one that LinCIR evaluates it with, `a photo of $ that {caption}`. Pic2Word's own, `a photo of $ ,
{caption}`, is --prompt pic2word.
"""

from cig.io import hub
from cig.methods import CLIPS, EMBEDDED, OUR_LICENCE, Weights
from cig.methods._inversion import PROMPTED, UNIT_FEATURES, PhiFamily

_LARGE = hub.file_address("navervision/zeroshot-cir-models", "pic2word_large.pt")
_ICONS = str(EMBEDDED / "pic2word" / "phi.safetensors")
VARIANTS = {
    "l14": Weights(CLIPS["l14"], "pic2word_large.pt", _LARGE, network="im2text"),
    "icons": Weights(CLIPS["icons"], _ICONS, licence=OUR_LICENCE, network="im2text"),
}
_FAMILY = PhiFamily("pic2word", VARIANTS, placement="every")
OPTIONS = {**UNIT_FEATURES, **PROMPTED}
load, with_phi = _FAMILY.load, _FAMILY.with_phi
