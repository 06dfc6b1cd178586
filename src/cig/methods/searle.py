"""SEARLE (Baldrati et al., ICCV 2023): a phi distilled from OTI's words; targetpad, the word at the first $."""

from cig.methods import CLIPS, Weights
from cig.methods._inversion import PROMPTED, PhiFamily

_RELEASE = "https://github.com/miccunifi/SEARLE/releases/download/weights/"
VARIANTS = {
    variant: Weights(CLIPS[variant], file, f"{_RELEASE}{file}", licence="CC BY-NC 4.0")
    for variant, file in (("b32", "SEARLE_ViT-B32.pt"), ("l14", "SEARLE_ViT-L14.pt"))
}
_FAMILY = PhiFamily("searle", VARIANTS, placement="first", targetpad=True)
OPTIONS = PROMPTED
load, with_phi = _FAMILY.load, _FAMILY.with_phi
