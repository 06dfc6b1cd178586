"""Textual inversion: networks that turn a picture's feature into a pseudo-word, a token that a prompt can hold.

The composer uses two of them to condition the generator, and search methods use one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from cig.errors import InputError, MismatchError, plain, some
from cig.finite import need_finite
from cig.io.files import phi_in
from cig.io.tensors import is_plain, read_tensors
from cig.models.clip import Clip

if TYPE_CHECKING:
    from torch import Tensor


class Phi(nn.Module):
    """The textual-inversion network of SEARLE and LinCIR: three linear layers, with GELU and dropout in between.

    Args:
        input_dim: width of the CLIP's projected picture features.
        hidden_dim: 4 * input_dim in all published checkpoints.
        output_dim: width of the text tower's token embedding.
    """

    def __init__(self, input_dim: int, hidden_dim: int, output_dim: int, *, dropout: float = 0.5) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(input_dim, hidden_dim),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(hidden_dim, hidden_dim),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(hidden_dim, output_dim),
        )

    def forward(self, features: Tensor) -> Tensor:
        """Picture features [B, input_dim], not normalised -> pseudo-words [B, output_dim]."""
        words: Tensor = self.layers(features)
        return words


class Im2Text(nn.Module):
    """Pic2Word's textual-inversion network (Saito et al., CVPR 2023): as Phi, but with ReLU, after the dropout."""

    def __init__(self, input_dim: int, hidden_dim: int, output_dim: int, *, dropout: float = 0.1) -> None:
        super().__init__()
        widths = (input_dim, hidden_dim)
        blocks = (nn.Sequential(nn.Linear(width, hidden_dim), nn.Dropout(dropout), nn.ReLU()) for width in widths)
        self.layers = nn.Sequential(*blocks)
        self.fc_out = nn.Linear(hidden_dim, output_dim)

    def forward(self, features: Tensor) -> Tensor:
        """Picture features [B, input_dim], not normalised -> pseudo-words [B, output_dim]."""
        words: Tensor = self.fc_out(self.layers(features))
        return words


@dataclass(frozen=True)
class Checkpoint:
    """The form in which a kind of network is stored: three linear layers under a key."""

    network: type[Phi] | type[Im2Text]
    key: str
    layers: tuple[str, str, str]
    methods: str  # that search with it
    prefix: str = ""  # of the layers' names, where a published layout is written

    @property
    def names(self) -> list[str]:
        return [f"{layer}.{kind}" for layer in self.layers for kind in ("weight", "bias")]


PHI = Checkpoint(Phi, "Phi", ("layers.0", "layers.3", "layers.6"), "searle, lincir or phi")
IM2TEXT = Checkpoint(
    Im2Text, "state_dict_img2text", ("layers.0.0", "layers.1.0", "fc_out"), "pic2word", prefix="module."
)
KINDS = {"phi": PHI, "im2text": IM2TEXT}


@dataclass(frozen=True)
class Inverter:
    """A phi that fits its CLIP."""

    clip: Clip
    phi: Phi | Im2Text

    @torch.no_grad()
    def __call__(self, features: Tensor) -> Tensor:
        """Turn picture features [B, p] into pseudo-words [B, h], float32 on the CPU."""
        weight = next(self.phi.parameters())
        words = self.phi(features.to(weight.device, weight.dtype)).float().cpu()
        return need_finite(words, f"the phi of {self.clip.identity.get('source', 'a CLIP in memory')}", weight.dtype)


def load_phi(path: str | Path, clip: Clip, kind: Checkpoint = PHI) -> Inverter:
    """Load a checkpoint with three linear layers, such as `layers.{0,3,6}.{weight,bias}` under the key `Phi`.

    The layers may be under another key or none, and their names behind a prefix such as `module.`; a folder that
    `cig train phi` wrote will do, too. The sizes of the network come from the weights.

    Raises:
        InputError: the file is no such checkpoint, or a value is not finite.
        MismatchError: the network does not fit the CLIP; the message gives both widths.
    """
    path = phi_in(Path(path))
    weights, (width, hidden, out) = read_phi(path, kind)
    need_fit(path, (width, out), clip.identity["source"], widths=(clip.feature_width, clip.token_width))
    phi = kind.network(width, hidden, out, dropout=0)
    phi.load_state_dict(weights)
    return Inverter(clip, phi.to(clip.device, clip.dtype).eval().requires_grad_(False))


def checkpoint_kind(path: Path, network: str = "") -> Checkpoint:
    """Return the kind with a name or, without one, detect it in a file; PHI, whose error says more, if neither fits."""
    if network:
        return KINDS[network]
    return IM2TEXT if _found(read_tensors(path), IM2TEXT) else PHI


def read_phi(path: Path, kind: Checkpoint = PHI) -> tuple[dict[str, Tensor], tuple[int, int, int]]:
    """Return (weights by the network's own names, (input, hidden, output)); raises InputError as load_phi does."""
    weights = _stored(path, kind)
    hidden, width, out = _phi_widths({name: tuple(tensor.shape) for name, tensor in weights.items()}, kind, path)
    if not all(torch.isfinite(tensor).all() for tensor in weights.values()):
        raise InputError(f"{path}: phi has weights that are not finite")
    return weights, (width, hidden, out)


def need_fit(path: str | Path, phi: tuple[int, int], clip: str, *, widths: tuple[int, int]) -> None:
    """Raise MismatchError unless a phi's (input, output) equal a CLIP's widths of features and words."""
    if phi != widths:
        raise MismatchError(
            f"phi {path} turns features of width {phi[0]} into words of width {phi[1]}, but the CLIP {clip} has "
            f"features of width {widths[0]} and words of width {widths[1]}; --clip and --phi come in pairs"
        )


def _stored(path: Path, kind: Checkpoint) -> dict[str, Tensor]:
    """Read the weights; raises InputError that says which keys there are."""
    stored = read_tensors(path)
    networks = _found(stored, kind)
    if networks and (kind.key in networks or len(networks) == 1):
        weights = networks.get(kind.key) or next(iter(networks.values()))
        if all(map(is_plain, weights.values())):
            return weights
    if networks:
        problem = f"its layers are no floats, or are there several times, under {some(map(repr, networks))}"
    elif other := next((each for each in KINDS.values() if _found(stored, each)), None):
        problem = f"it is one of {other.methods}; search with that method"
    else:
        problem = f"it has {_say_keys(stored)}"
    wanted = f'{", ".join(kind.names)}, bare or under a key such as "{kind.key}"'
    raise InputError(f"{path}: not a phi checkpoint of {kind.methods}, which has {wanted}: {problem}")


def _found(stored: Mapping[str, Any], kind: Checkpoint) -> dict[str, dict[str, Any]]:
    """Map the keys under which a file has all layers, "" for none, to the layers by the network's own names."""
    # Trainings store a network bare, under a key of their own ("Phi", "state_dict"), and, wrapped for several GPUs or
    # as part of a larger model, behind a prefix ("module.", "phi.").
    parts = {"": stored, **{key: value for key, value in stored.items() if isinstance(value, dict)}}
    networks = {}
    for key, part in parts.items():
        names = [name for name in part if isinstance(name, str)]
        for prefix in {name.removesuffix(kind.names[0]) for name in names if name.endswith(kind.names[0])}:
            if all(prefix + name in part for name in kind.names):
                whole = key if prefix in ("", "module.") else ".".join(filter(None, (key, prefix.rstrip("."))))
                networks[whole] = {name: part[prefix + name] for name in kind.names}
    return networks


def _say_keys(stored: Mapping[str, Any]) -> str:
    """List the keys of a file, and those below them."""
    below = (f"{key} ({some(map(str, value), 5)})" if isinstance(value, dict) else key for key, value in stored.items())
    return plain(some(map(str, below), 10), 1000) or "nothing"


def _phi_widths(shapes: Mapping[str, tuple[int, ...]], kind: Checkpoint, path: str | Path) -> tuple[int, int, int]:
    """Return (hidden, input, output), checked before a network of that size is built."""
    first, middle, last = kind.layers
    hidden, width, out = shapes[f"{first}.bias"], shapes[f"{first}.weight"][1:], shapes[f"{last}.bias"]
    chain = {first: hidden + width, middle: hidden + hidden, last: out + hidden}
    for layer, shape in chain.items():
        if len(shape) != 2 or (shapes[f"{layer}.weight"], shapes[f"{layer}.bias"]) != (shape, shape[:1]):
            raise InputError(f"{path}: the shapes of phi's layers do not follow from each other: {dict(shapes)}")
    return hidden[0], width[0], out[0]
