"""Retrieval methods, one file each: `VARIANTS` (name -> default weights) and `load(variant, source) -> Method`.

A family fixes the prompt, the preprocessing and the kind of phi; a variant only names default weights.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cig import plugins
from cig.errors import NotFoundError, UsageError, did_you_mean
from cig.formats import identity, read_object
from cig.images import Preprocess, Preprocessing

if TYPE_CHECKING:
    import torch

    from cig.cache import FeatureCache
    from cig.encoders import Clip
    from cig.inversion import Checkpoint, Inverter
    from cig.types import Method

ALIASES = {"searle-xl": "searle/l14", "phi": "searle"}
CLIPS = {
    "b32": "openai/clip-vit-base-patch32",
    "l14": "openai/clip-vit-large-patch14",
    "g14": "Geonmo/CLIP-Giga-config-fixed",
}


@dataclass(frozen=True)
class Weights:
    """What a variant searches with unless flags say otherwise."""

    clip: str  # hub id or folder
    phi: str = ""  # file, in ./models by default
    address: str = ""  # where to get that file
    licence: str = "unknown"


@dataclass(frozen=True)
class Source:
    """Which weights to load, and how."""

    clip: str | None = None
    phi: Path | None = None
    device: torch.device | str = "cpu"
    dtype: str = "auto"
    cache_dir: Path | None = None
    preprocessing: Preprocessing | None = None
    models: Path = field(default=Path("models"))  # the folder for files that come without an address we may fetch

    def load_clip(self, weights: Weights, on_gpu: str = "float32") -> Clip:
        import torch

        from cig.encoders import load_clip
        from cig.runtime import resolve_dtype

        device = torch.device(self.device)
        return load_clip(self.clip or weights.clip, device, resolve_dtype(self.dtype, device, on_gpu), self.cache_dir)

    def load_inverter(self, weights: Weights, on_gpu: str = "float32", kind: Checkpoint | None = None) -> Inverter:
        from cig.inversion import PHI, load_phi

        phi = self.phi_file(weights)  # before the CLIP, which may be a long download
        return load_phi(phi, self.load_clip(weights, on_gpu), kind or PHI)

    def phi_file(self, weights: Weights) -> Path:
        """Raises NotFoundError, which says which file to get, where, and where to put it."""
        path = self.phi or self.models / weights.phi
        if os.path.isfile(path):
            return path
        hint = f"get {weights.phi} from {weights.address} and put it at {path}" if not self.phi else "check --phi"
        raise NotFoundError(f"the phi {path} is not there: {hint}, or give another --clip and --phi")


def split_method(name: str) -> tuple[str, str]:
    """("searle", "b32") from "searle"; aliases are resolved; a family's first variant is its default.

    Raises:
        NotFoundError: no such family or variant.
    """
    family, _, variant = ALIASES.get(name, name).partition("/")
    if family not in plugins.names("methods") and "." not in family:
        choices = [*plugins.names("methods"), *ALIASES]
        raise NotFoundError(f'no method "{family}".{did_you_mean(family, choices)}')
    variants = plugins.load("methods", family).VARIANTS
    variant = variant or next(iter(variants))
    if variant not in variants:
        raise NotFoundError(f'{family} has no variant "{variant}".{did_you_mean(variant, variants)}')
    return family, variant


def weights_of(name: str) -> Weights:
    """The default weights of a method's variant."""
    family, variant = split_method(name)
    weights: Weights = plugins.load("methods", family).VARIANTS[variant]
    return weights


def check_flags(name: str, source: Source) -> None:
    """Raises UsageError if --clip and --phi do not come as this method wants them."""
    family, variant = split_method(name)
    wants_phi = bool(plugins.load("methods", family).VARIANTS[variant].phi)
    if not wants_phi and source.phi:
        raise UsageError(f"{name} has no phi; leave --phi out")
    if wants_phi and bool(source.clip) != bool(source.phi):
        raise UsageError(f"{name}: --clip and --phi come together, or neither for the default weights")
    if name == "phi" and not source.phi:
        raise UsageError("--method phi is searle with weights of yours: give --clip and --phi")


def published_experiment(
    exp_name: str | None, checkpoint: str | None, clip: str | None, phi: Path | None
) -> tuple[str | None, Path]:
    """The CLIP and phi behind SEARLE's --exp-name and --phi-checkpoint-name.

    Raises:
        UsageError: one of the two is missing, or --phi is given as well.
        NotFoundError: the experiment's folder has no hyperparameters.json.
    """
    if not (exp_name and checkpoint) or phi:
        raise UsageError("--exp-name and --phi-checkpoint-name come together, in the place of --phi")
    folder = Path("data/phi_models") / exp_name
    openai = str(read_object(folder / "hyperparameters.json").get("clip_model_name", ""))
    hub = {"ViT-B/32": CLIPS["b32"], "ViT-L/14": CLIPS["l14"]}
    if not clip and openai not in hub:
        raise UsageError(f'{folder}: CLIP "{openai}" is not {" or ".join(hub)}; give --clip')
    return clip or hub[openai], folder / "checkpoints" / checkpoint


def load_method(name: str, source: Source | None = None) -> Method:
    """A method by name, e.g. load_method("searle/b32"), or load_method("searle", Source(clip=..., phi=...))."""
    source = source or Source()
    check_flags(name, source)
    family, variant = split_method(name)
    method: Method = plugins.load("methods", family).load(variant, source)
    return method


def recall_method(name: str, source: Source, cache: FeatureCache) -> Method:
    """load_method, but where its files were described before, its models are loaded only when they are needed."""
    family, variant = split_method(name)
    weights = plugins.load("methods", family).VARIANTS[variant]
    clip = identity(source.clip or weights.clip, source.cache_dir, hashed=cache.file_digest)
    phi = identity(source.phi_file(weights), hashed=cache.file_digest) if weights.phi else None
    if "." in family:  # what a stranger's method is made of, we cannot tell
        return load_method(name, source)
    how = {"device": str(source.device), "dtype": source.dtype, "preprocessing": source.preprocessing}
    made_of = {"method": name, "clip": clip, "phi": phi, **how}
    method: Method = cache.recall(made_of, lambda: load_method(name, source), _describe, _restore)
    return method


def _describe(method: Method) -> dict[str, Any]:
    names = ("name", "uses_picture", "identity", "picture_model")
    return {"preprocess": vars(method.preprocess), **{name: getattr(method, name) for name in names}}


def _restore(known: dict[str, Any]) -> dict[str, Any]:
    return {**known, "preprocess": Preprocess(**known["preprocess"])}
