"""The weights of a CLIP under the names of OpenAI's code, which Pic2Word's and other programs load."""

from __future__ import annotations

import re
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from cig.models.clip import Clip

NAMES = {  # transformers' -> OpenAI's
    "vision_model.embeddings.class_embedding": "visual.class_embedding",
    "vision_model.embeddings.patch_embedding.weight": "visual.conv1.weight",
    "vision_model.embeddings.position_embedding.weight": "visual.positional_embedding",
    "text_model.embeddings.token_embedding.weight": "token_embedding.weight",
    "text_model.embeddings.position_embedding.weight": "positional_embedding",
}
PROJECTIONS = {"visual_projection.weight": "visual.proj", "text_projection.weight": "text_projection"}
PARTS = (
    (r"^vision_model\.pre_layrnorm", "visual.ln_pre"),
    (r"^vision_model\.post_layernorm", "visual.ln_post"),
    (r"^text_model\.final_layer_norm", "ln_final"),
    (r"^vision_model\.encoder\.layers", "visual.transformer.resblocks"),
    (r"^text_model\.encoder\.layers", "transformer.resblocks"),
    (r"\.self_attn\.", ".attn."),
    (r"\.layer_norm", ".ln_"),
    (r"\.fc1\.", ".c_fc."),
    (r"\.fc2\.", ".c_proj."),
)


def openai_weights(clip: Clip, scale: float) -> dict[str, Tensor]:
    """Return a CLIP's weights in float32 on the CPU.

    Args:
        scale: of the logits, which the towers of a `Clip` do not have.
    """
    weights = {"logit_scale": torch.tensor(scale).log()}
    for tower in (clip.vision, clip.text):
        weights |= {name: weight.detach().float().cpu().contiguous() for name, weight in _renamed(tower)}
    return weights


def _renamed(tower: nn.Module) -> Iterator[tuple[str, Tensor]]:
    weights = dict(tower.named_parameters())
    for name, weight in weights.items():
        if name in PROJECTIONS:
            yield PROJECTIONS[name], weight.T
        elif ".k_proj." in name or ".v_proj." in name:
            continue  # in the one of the queries
        elif ".q_proj." in name:
            parts = [weights[name.replace(".q_proj.", f".{letter}_proj.")] for letter in "qkv"]
            yield _name(name.replace(".q_proj.", ".in_proj_")), torch.cat(parts)
        else:
            yield _name(name), weight


def _name(name: str) -> str:
    name = NAMES.get(name, name)
    for pattern, replacement in PARTS:
        name = re.sub(pattern, replacement, name)
    return name
