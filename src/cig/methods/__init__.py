"""Retrieval methods, one file each: `VARIANTS` (name -> default weights) and `load(variant, source) -> Method`.

A family fixes the prompt, the preprocessing and the kind of phi; a variant only names default weights. What else a
family can be told is in its `OPTIONS` (name -> Option).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cig import registry
from cig.config import EMBEDDED
from cig.errors import NotFoundError, UsageError, did_you_mean
from cig.io import hub
from cig.io.digests import identity
from cig.io.files import weights_at
from cig.io.images import Preprocess, Preprocessing
from cig.io.json_files import read_object

if TYPE_CHECKING:
    import torch

    from cig.io.feature_cache import FeatureCache
    from cig.models.clip import Clip
    from cig.models.dual_encoder import Tower
    from cig.models.phi import Inverter
    from cig.types import Method

OUR_LICENCE = "Apache-2.0"  # of what lies there
ALIASES = {"searle-xl": "searle/l14", "phi": "searle"}
CLIPS = {
    "b32": "openai/clip-vit-base-patch32",
    "l14": "openai/clip-vit-large-patch14",
    "g14": "Geonmo/CLIP-Giga-config-fixed",
    "icons": str(EMBEDDED / "clip"),  # ours, shipped: docs/icons.md
}


@dataclass(frozen=True)
class Weights:
    """What a variant searches with unless flags say otherwise."""

    clip: str  # hub id or folder; empty for a method that has none
    phi: str = ""  # file, in ./models by default
    address: str = ""  # where to get that file
    licence: str = "unknown"  # of the phi, as its release states it
    sha256: str = ""  # of that file, once known
    network: str = "phi"  # its kind, a key of inversion.KINDS
    words: bool = False  # instead of a phi, a folder of pseudo-words, which is always the user's


@dataclass(frozen=True)
class Option:
    """What a family may be told beside its weights, as text."""

    about: str
    place: bool = False  # a file, a folder or a hub id: its content counts, not its name


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
    options: Mapping[str, str] = field(default_factory=dict)  # of the method, e.g. {"t": "0.5"} of slerp

    def load_clip(self, weights: Weights, on_gpu: str = "float32") -> Clip:
        from cig.models.clip import load_clip

        return load_clip(self.clip or weights.clip, *self.compute(on_gpu), self.cache_dir)

    def load_tower(self, weights: Weights) -> Tower:
        from cig.models.dual_encoder import load_tower

        return load_tower(self.clip or weights.clip, *self.compute(), self.cache_dir)

    def compute(self, on_gpu: str = "float32") -> tuple[torch.device, torch.dtype]:
        import torch

        from cig.runtime import resolve_dtype

        device = torch.device(self.device)
        return device, resolve_dtype(self.dtype, device, on_gpu)

    def load_inverter(self, weights: Weights, on_gpu: str = "float32") -> Inverter:
        from cig.models.phi import KINDS, load_phi

        phi = self.phi_file(weights)  # before the CLIP, which may be a long download
        return load_phi(phi, self.load_clip(weights, on_gpu), KINDS[weights.network])

    def phi_file(self, weights: Weights) -> Path:
        """Raises NotFoundError, which says which file to get, where, and where to put it."""
        path = self.phi or weights_at(self.models / weights.phi)
        if os.path.isfile(path):
            return path
        by_hand = "" if weights.address.startswith("https://") else " --from-dir FOLDER"
        hint = (
            f"get {weights.phi} from {weights.address} and put it at {path} (cig models download {path.stem}{by_hand})"
        )
        hint = "check --phi" if self.phi else hint
        raise NotFoundError(
            f"the phi {path} is not there: {hint}, or give another CLIP and phi: --clip and --phi, in run and "
            f"reproduce --search-clip and --search-phi"
        )


def split_method(name: str) -> tuple[str, str]:
    """("searle", "b32") from "searle"; aliases are resolved; a family's first variant is its default.

    Raises:
        NotFoundError: no such family or variant.
    """
    family, _, variant = ALIASES.get(name, name).partition("/")
    if family not in registry.names("methods") and "." not in family:
        choices = [*registry.names("methods"), *ALIASES]
        raise NotFoundError(f'no method "{family}".{did_you_mean(family, choices)}')
    variants = registry.load("methods", family).VARIANTS
    variant = variant or next(iter(variants))
    if variant not in variants:
        raise NotFoundError(f'{family} has no variant "{variant}".{did_you_mean(variant, variants)}')
    return family, variant


def weights_of(name: str) -> Weights:
    """The default weights of a method's variant."""
    family, variant = split_method(name)
    weights: Weights = registry.load("methods", family).VARIANTS[variant]
    return weights


def check_flags(name: str, source: Source) -> None:
    """Raises UsageError if --clip, --phi and options do not come as this method wants them."""
    family, variant = split_method(name)
    module = registry.load("methods", family)
    weights = module.VARIANTS[variant]
    _check_options(family, getattr(module, "OPTIONS", {}), source.options)
    if source.clip and not weights.clip:
        raise UsageError(f"{name} has no CLIP; leave --clip out")
    if weights.words:
        if not source.phi:
            raise UsageError(f"{name}: give a folder of pseudo-words with --phi")
        return
    wants_phi = bool(weights.phi)
    if not wants_phi and source.phi:
        raise UsageError(f"{name} has no phi; leave --phi out")
    if wants_phi and bool(source.clip) != bool(source.phi):
        raise UsageError(f"{name}: --clip and --phi come together, or neither for the default weights")
    if name == "phi" and not source.phi:
        raise UsageError("--method phi is searle with weights of yours: give --clip and --phi")


def _check_options(family: str, known: Mapping[str, Option], given: Mapping[str, str]) -> None:
    for key in given:
        if not known:
            raise UsageError(f'{family} has no options; leave "{key}" out')
        if key not in known:
            raise UsageError(f'{family} has no option "{key}".{did_you_mean(key, known)}')


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
    method: Method = registry.load("methods", family).load(variant, source)
    return method


def recall_method(name: str, source: Source, cache: FeatureCache) -> Method:
    """load_method, but where its files were described before, its models are loaded only when they are needed."""
    check_flags(name, source)
    family, variant = split_method(name)
    has_models = bool(registry.load("methods", family).VARIANTS[variant].clip)
    if not has_models or not registry.is_own("methods", family):  # what a stranger's is made of, we cannot tell
        return load_method(name, source)
    made_of = _made_of(family, variant, source, cache)
    method: Method = cache.recall({"method": name, **made_of}, lambda: load_method(name, source), _describe, _restore)
    return method


def _made_of(family: str, variant: str, source: Source, cache: FeatureCache) -> dict[str, Any]:
    """Every file by its content, every option by its value."""
    module = registry.load("methods", family)
    weights: Weights = module.VARIANTS[variant]

    def content(place: str | Path) -> dict[str, str]:
        return identity(place, source.cache_dir, hashed=cache.file_digest)

    phi = content(source.phi_file(weights)) if weights.phi else None
    return {
        "clip": content(source.clip or weights.clip),
        "phi": module.words_identity(source.phi, cache.file_digest) if weights.words else phi,
        "options": {key: content(own) if module.OPTIONS[key].place else own for key, own in source.options.items()},
        "device": str(source.device),
        "dtype": source.dtype,
        "preprocessing": source.preprocessing,
    }


def licensed(models: Mapping[str, Any]) -> dict[str, Any]:
    """A method's identity, each model with the licence that its release states; a phi's is the method's own."""
    own = {"phi": models.get("licence", "unknown")}
    return {
        name: {**model, "licence": own.get(name) or licence_of(model["source"])} if _is_model(model) else model
        for name, model in models.items()
        if name != "licence"
    }


def licence_of(source: str) -> str:
    """Of what is shipped, or of a hub id; "unknown" for anything else, a copy in a folder included."""
    return OUR_LICENCE if Path(source).is_relative_to(EMBEDDED) else hub.repo(source).licence


def _is_model(value: Any) -> bool:
    return isinstance(value, Mapping) and isinstance(value.get("source"), str)


_OPTIONAL = ("look_up", "no_query", "names")  # members of types.Method


def _describe(method: Method) -> dict[str, Any]:
    """What is asked of a method before it has work; an optional member that it lacks is known to be lacking."""
    names = ("name", "uses_picture", "identity", "picture_model")
    lacking = {name: None for name in _OPTIONAL if not hasattr(method, name)}
    own = {name: getattr(method, name) for name in names}
    preprocess = {"kind": type(method.preprocess).__name__, **vars(method.preprocess)}
    asks = getattr(method, "asks_for_queries", False)
    return {"preprocess": preprocess, "asks_for_queries": asks, **own, **lacking}


def _restore(known: dict[str, Any]) -> dict[str, Any]:
    settings = dict(known["preprocess"])
    if settings.pop("kind") == "Preprocess":
        return {**known, "preprocess": Preprocess(**settings)}
    from cig.models.dual_encoder import OwnPreprocess

    return {**known, "preprocess": OwnPreprocess(**settings)}
