"""How a phi is written: in safetensors, or in the files that the published trainings write and other programs read."""

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
PUBLISHED = {  # objective -> a checkpoint's own name, the latest's, the best's
    "lincir": ("phi_{step:09}.pt", "phi_latest.pt", "phi_best.pt"),
    "searle": ("phi_{epoch}.pt", "phi_last.pt", "phi_best.pt"),
    "pic2word": ("epoch_{epoch}.pt", "epoch_latest.pt", "epoch_best.pt"),
}


def write_phi(phi: Network, out: Path, layout: Layout, facts: Mapping[str, Any], per_pass: int = 0) -> None:
    """The files of a checkpoint; with validation, the best one's, too, where this is it.

    Args:
        facts: of the run, as the loop tells them.
        per_pass: items of a pass over the data; 0: it has no end, and steps stand for epochs.
    """
    content = _safetensors(phi, facts) if layout == "safetensors" else _published(phi, facts)
    step, names = facts["steps"], names_of(layout, facts)
    epoch = step * facts["plan"]["batch"] // per_pass if per_pass else step
    is_best = facts.get("best", {}).get("steps") == step
    for name in dict.fromkeys(names if is_best else names[:2]):
        write_bytes(out / name.format(step=step, epoch=epoch), content)


def names_of(layout: Layout, facts: Mapping[str, Any]) -> tuple[str, str, str]:
    """Of a checkpoint's own file, the latest's and the best's; with a mean of weights, as LinCIR calls it."""
    if layout == "safetensors":
        latest = "phi_last.safetensors" if "best" in facts else FILE
        return latest, latest, FILE
    own, latest, best = (("ema_" if facts["plan"]["ema"] else "") + name for name in _names(facts))
    return own, latest, best


def _names(facts: Mapping[str, Any]) -> tuple[str, str, str]:
    return PUBLISHED.get(facts["about"]["objective"], PUBLISHED["lincir"])


def _safetensors(phi: Network, facts: Mapping[str, Any]) -> bytes:
    """fp16, with bare names: layers.{0,3,6}, or layers.{0,1}.0 and fc_out; what it was learnt from is its metadata."""
    import safetensors.torch

    weights = {name: own.detach().half().cpu().contiguous() for name, own in phi.state_dict().items()}
    about = {"about": json.dumps(facts["about"])}  # one key: several would be written in an order of chance
    return safetensors.torch.save(weights, metadata=about)


def _published(phi: Network, facts: Mapping[str, Any]) -> bytes:
    """float32, under the key and with the prefix of its kind."""
    kind = IM2TEXT if isinstance(phi, Im2Text) else PHI
    weights = {kind.prefix + name: own.detach().float().cpu().clone() for name, own in phi.state_dict().items()}
    buffer = io.BytesIO()  # torch names the archive inside after the file that it saves to
    torch.save({kind.key: weights, "steps": facts["steps"], "about": dict(facts["about"])}, buffer)
    return buffer.getvalue()
