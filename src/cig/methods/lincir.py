"""LinCIR (Gu et al., CVPR 2024): a phi trained on captions; CLIP's preprocessing, fp16 on a GPU, a word at every $."""

from cig.config import CIG_DRIVE, CIG_LICENCE
from cig.io import hub
from cig.methods import CLIPS, EMBEDDED, OUR_LICENCE, Weights
from cig.methods._inversion import PROMPTED, UNIT_FEATURES, PhiFamily

_LARGE = hub.file_address("navervision/zeroshot-cir-models", "lincir_large.pt")
_SHA256 = "5ba98d52db7a5e9a78f9ba7436991235477b89544caf246e4659642bf9b409bd"  # public projects check it
_ICONS = str(EMBEDDED / "lincir" / "phi.safetensors")
VARIANTS = {
    "l14": Weights(CLIPS["l14"], "lincir_large.pt", _LARGE, licence="CC BY-NC 4.0", sha256=_SHA256),
    "g14": Weights(CLIPS["g14"], "phi_best_giga.pt", CIG_DRIVE, licence=CIG_LICENCE),
    "icons": Weights(CLIPS["icons"], _ICONS, licence=OUR_LICENCE),
}
_FAMILY = PhiFamily("lincir", VARIANTS, placement="every", on_gpu="float16")
OPTIONS = {**UNIT_FEATURES, **PROMPTED}
load, with_phi = _FAMILY.load, _FAMILY.with_phi
