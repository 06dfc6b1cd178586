"""The files of a trained phi: safetensors, or those of the published trainings, which other programs read."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch

from cig.io.files import write_bytes
from cig.models.phi import IM2TEXT, PHI, Im2Text, Phi

Layout = Literal["safetensors", "published"]
Network = Phi | Im2Text
FILE = "phi.safetensors"
PUBLISHED = {  # objective -> names of each checkpoint's file, of the latest one's, and of the best one's
    "lincir": ("phi_{step:09}.pt", "phi_latest.pt", "phi_best.pt"),
    "searle": ("phi_{epoch}.pt", "phi_last.pt", "phi_best.pt"),
    "pic2word": ("epoch_{epoch}.pt", "epoch_latest.pt", "epoch_best.pt"),
}


def write_phi(phi: Network, out: Path, layout: Layout, *, facts: Mapping[str, Any], items_per_pass: int = 0) -> None:
    """Write the files of a checkpoint; with validation, the best checkpoint's file as well if this is the best.

    Args:
        facts: of the run, as the loop reports them.
        items_per_pass: items of a pass over the data; 0: the data has no end, and steps stand for epochs.
    """
    content = _safetensors(phi, facts) if layout == "safetensors" else _published(phi, facts)
    step, names = facts["steps"], file_names(layout, facts)
    epoch = step * facts["plan"]["batch"] // items_per_pass if items_per_pass else step
    is_best = facts.get("best", {}).get("steps") == step
    for name in dict.fromkeys(names if is_best else names[:2]):
        write_bytes(out / name.format(step=step, epoch=epoch), content)


def file_names(layout: Layout, facts: Mapping[str, Any]) -> tuple[str, str, str]:
    """Return the names of this checkpoint's file, the latest's and the best's; LinCIR marks mean weights by "ema_"."""
    if layout == "safetensors":
        latest = "phi_last.safetensors" if "best" in facts else FILE
        return latest, latest, FILE
    names = PUBLISHED.get(facts["about"]["objective"], PUBLISHED["lincir"])
    each, latest, best = (("ema_" if facts["plan"]["ema"] else "") + name for name in names)
    return each, latest, best


def _safetensors(phi: Network, facts: Mapping[str, Any]) -> bytes:
    """Return fp16 weights with bare names: layers.{0,3,6}, or layers.{0,1}.0 and fc_out; the inputs are metadata."""
    import safetensors.torch

    weights = {name: weight.detach().half().cpu().contiguous() for name, weight in phi.state_dict().items()}
    metadata = {"about": json.dumps(facts["about"])}  # one key: several would be written in a random order
    return safetensors.torch.save(weights, metadata=metadata)


def _published(phi: Network, facts: Mapping[str, Any]) -> bytes:
    """Return float32 weights under the key and with the prefix of the phi's kind."""
    kind = IM2TEXT if isinstance(phi, Im2Text) else PHI
    weights = {kind.prefix + name: weight.detach().float().cpu().clone() for name, weight in phi.state_dict().items()}
    buffer = io.BytesIO()  # torch names the archive inside after the file that it saves to
    torch.save({kind.key: weights, "steps": facts["steps"], "about": dict(facts["about"])}, buffer)
    return buffer.getvalue()
