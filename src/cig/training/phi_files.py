"""The files of a trained phi: safetensors, or those of the published trainings, which other programs read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from cig.io.json_files import write_json
from cig.io.weight_files import write_pt, write_weights
from cig.methods.oti import model_name
from cig.models.clip import Clip
from cig.models.phi import IM2TEXT, PHI, Im2Text, Phi
from cig.training.openai_layout import openai_weights

Layout = Literal["safetensors", "published"]
Network = Phi | Im2Text
FILE = "phi.safetensors"
PUBLISHED = {  # objective -> names of each checkpoint's file, of the latest one's, and of the best one's
    "lincir": ("phi_{step:09}.pt", "phi_latest.pt", "phi_best.pt"),
    "searle": ("checkpoints/phi_{epoch}.pt", "checkpoints/phi_last.pt", "checkpoints/phi_best.pt"),
    "pic2word": ("epoch_{epoch}.pt", "epoch_latest.pt", "epoch_best.pt"),
}


def write_phi(
    phi: Network, out: Path, layout: Layout, *, facts: Mapping[str, Any], clip: Clip, items_per_pass: int = 0
) -> None:
    """Write the files of a checkpoint; with validation, the best checkpoint's file as well if this is the best.

    Args:
        facts: of the run, as the loop reports them.
        clip: that the phi is for; Pic2Word's checkpoints hold it.
        items_per_pass: items of a pass over the data; 0: the data has no end, and steps stand for epochs.
    """
    step, inputs = facts["steps"], facts["about"]
    names = file_names(layout, facts)
    epoch = step * facts["plan"]["batch"] // items_per_pass if items_per_pass else step
    is_best = facts.get("best", {}).get("steps") == step
    paths = [out / name.format(step=step, epoch=epoch) for name in dict.fromkeys(names if is_best else names[:2])]
    if layout == "safetensors":  # bare names, the inputs as metadata under one key: several come in a random order
        for path in paths:
            write_weights(path, phi.state_dict(), {"about": json.dumps(inputs)})
        return
    content = _published(phi, facts, epoch=epoch, clip=clip)
    for path in paths:
        write_pt(path, content)
    if inputs["objective"] == "searle":
        named = {"clip_model_name": model_name(clip.identity["source"]), "phi_dropout": inputs["dropout"]}
        write_json(out / "hyperparameters.json", {**named, "plan": facts["plan"], "about": dict(inputs)}, indent=2)


def file_names(layout: Layout, facts: Mapping[str, Any]) -> tuple[str, str, str]:
    """Return the names of this checkpoint's file, the latest's and the best's; LinCIR marks mean weights by "ema_"."""
    if layout == "safetensors":
        latest = "phi_last.safetensors" if "best" in facts else FILE
        return latest, latest, FILE
    names = PUBLISHED.get(facts["about"]["objective"], PUBLISHED["lincir"])
    mark = "ema_" if facts["plan"]["ema"] else ""
    each, latest, best = (str(Path(name).with_name(mark + Path(name).name)) for name in names)
    return each, latest, best


def _published(phi: Network, facts: Mapping[str, Any], *, epoch: int, clip: Clip) -> dict[str, Any]:
    """Return float32 weights under the key and with the prefix of the phi's kind, and what its programs read beside.

    Pic2Word's programs load the CLIP from a checkpoint, too, under OpenAI's names.
    """
    kind, inputs = IM2TEXT if isinstance(phi, Im2Text) else PHI, dict(facts["about"])
    weights = {kind.prefix + name: weight.detach().float().cpu().clone() for name, weight in phi.state_dict().items()}
    content = {kind.key: weights, "epoch": epoch, "steps": facts["steps"], "about": inputs}
    if kind is not IM2TEXT:
        return content
    clip_weights = openai_weights(clip, inputs.get("scale", 100.0))
    return {
        **content,
        "name": "cig",
        "state_dict": {kind.prefix + name: weight for name, weight in clip_weights.items()},
    }
