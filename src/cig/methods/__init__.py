"""Retrieval methods, one file each: `VARIANTS` (name -> default weights) and `load(variant, source) -> Method`.

A family fixes the prompt, the preprocessing and the kind of phi; a variant only names default weights. `OPTIONS`
(name -> Option) lists a family's further settings. To add one, copy `sum.py` or, with a phi, `searle.py`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cig import config, registry
from cig.config import EMBEDDED, clip_source
from cig.errors import NotFoundError, UsageError, WrongNameError, check_type, did_you_mean
from cig.io import hub
from cig.io.digests import identity
from cig.io.files import phi_in, weights_at
from cig.io.images import Preprocess
from cig.models.preprocessing import OwnPreprocess, preprocessing_file
from cig.types import Preprocessing

if TYPE_CHECKING:
    import torch

    from cig.io.feature_cache import FeatureCache
    from cig.models.clip import Clip
    from cig.models.dual_encoder import Tower
    from cig.models.phi import Inverter
    from cig.types import Method

OUR_LICENCE = "Apache-2.0"  # of the shipped models
ALIASES = {"searle-xl": "searle/l14", "phi": "searle"}
CLIPS = {
    "b32": "openai/clip-vit-base-patch32",
    "l14": "openai/clip-vit-large-patch14",
    "g14": "Geonmo/CLIP-Giga-config-fixed",
    "icons": str(EMBEDDED / "clip"),  # shipped with the package: docs/icons.md
}


@dataclass(frozen=True)
class Weights:
    """The default weights of a variant."""

    clip: str  # hub id or folder; empty for a method that has none
    phi: str = ""  # file, in ./models by default
    address: str = ""  # where to download that file
    licence: str = "unknown"  # of the phi, as its release states it
    sha256: str = ""  # of that file, where its release or a public project states it
    network: str = "phi"  # the kind of phi, a key of phi.KINDS
    words: bool = False  # True: not a phi but a folder of pseudo-words, always the user's


@dataclass(frozen=True)
class Option:
    """A setting of a family beside its weights, given as text."""

    description: str
    is_model: bool = False  # a file, a folder or a hub id: features depend on its content, not on its name


@dataclass(frozen=True, init=False, repr=False)
class Source:
    """The weights to load, and the device and dtype to load them with."""

    clip: str | None  # hub id or folder
    phi: Path | None
    device: torch.device | str  # "auto" is the GPU if the machine has one
    dtype: str  # "auto" is the paper's on a GPU, float32 on a CPU
    cache_dir: Path | None  # of the hub
    preprocessing: Preprocessing | None
    models: Path  # folder of the phis
    options: Mapping[str, str]  # of the family, e.g. {"t": "0.5"} of slerp

    def __init__(  # written out since paths may be given as text
        self,
        clip: str | Path | None = None,
        phi: str | Path | None = None,
        device: torch.device | str = "cpu",
        *,
        dtype: torch.dtype | str = "auto",
        cache_dir: str | Path | None = None,
        preprocessing: Preprocessing | None = None,
        models: str | Path | None = None,
        options: Mapping[str, str] | None = None,
    ) -> None:
        fields = {
            "clip": None if clip is None else str(clip),
            "phi": None if phi is None else Path(phi),
            "device": device,
            "dtype": str(dtype).removeprefix("torch."),
            "cache_dir": None if cache_dir is None else Path(cache_dir),
            "preprocessing": preprocessing,
            "models": Path(models or config.below_project("models")),
            "options": dict(options or {}),
        }
        for name, value in fields.items():
            object.__setattr__(self, name, value)

    def __repr__(self) -> str:
        default = vars(Source())
        given = ((name, value) for name, value in vars(self).items() if value != default[name])
        return f"Source({', '.join(f'{name}={str(value)!r}' for name, value in given)})"

    def load_clip(self, weights: Weights, on_gpu: str = "float32") -> Clip:
        from cig.models.clip import load_clip

        return load_clip(self.clip or weights.clip, *self.compute(on_gpu), cache_dir=self.cache_dir)

    def load_tower(self, weights: Weights) -> Tower:
        from cig.models.dual_encoder import load_tower

        return load_tower(self.clip or weights.clip, *self.compute(), cache_dir=self.cache_dir)

    def compute(self, on_gpu: str = "float32") -> tuple[torch.device, torch.dtype]:
        from cig.runtime import resolve_device, resolve_dtype

        device = resolve_device(self.device)
        return device, resolve_dtype(self.dtype, device, on_gpu)

    def load_inverter(self, weights: Weights, on_gpu: str = "float32") -> Inverter:
        from cig.models.phi import KINDS, load_phi

        phi = self.phi_file(weights)  # fails before the CLIP, which may be a long download, is loaded
        return load_phi(phi, self.load_clip(weights, on_gpu), KINDS[weights.network])

    def phi_file(self, weights: Weights) -> Path:
        """Return the path of the phi; raises NotFoundError, which says where to get the file and where to put it."""
        path = phi_in(self.phi) if self.phi else weights_at(self.models / weights.phi)
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
    """Split a method's name or alias: "searle" -> ("searle", "b32"); the first variant of a family is its default.

    Raises:
        WrongNameError: no family or variant has this name.
    """
    family, _, variant = ALIASES.get(name, name).partition("/")
    if family not in registry.names("methods") and "." not in family:
        choices = [*registry.names("methods"), *ALIASES]
        raise WrongNameError(f'no method "{family}".{did_you_mean(family, choices)}')
    variants = registry.load("methods", family).VARIANTS
    variant = variant or next(iter(variants))
    if variant not in variants:
        raise WrongNameError(f'{family} has no variant "{variant}".{did_you_mean(variant, variants)}')
    return family, variant


def weights_of(name: str) -> Weights:
    """Return the default weights of a method."""
    family, variant = split_method(name)
    weights: Weights = registry.load("methods", family).VARIANTS[variant]
    return weights


def check_flags(name: str, source: Source) -> None:
    """Raise UsageError for --clip, --phi or options that this method does not take, or lacks."""
    family, variant = split_method(name)
    module = registry.load("methods", family)
    weights = module.VARIANTS[variant]
    options = getattr(module, "OPTIONS", {})
    for key in source.options:
        if not options:
            raise UsageError(f'{family} has no options; leave "{key}" out')
        if key not in options:
            raise UsageError(f'{family} has no option "{key}".{did_you_mean(key, options)}')
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


def load_method(name: str, source: Source | None = None) -> Method:
    """Load a method: load_method("searle/b32"), or load_method("searle", Source(clip=..., phi=...))."""
    check_type(name, str, name="name", wanted='a name, such as "searle/b32"')
    check_type(source, (Source, type(None)), name="source", wanted="a Source, such as cig.Source(clip=..., phi=...)")
    source = source or Source()
    check_flags(name, source)
    family, variant = split_method(name)
    method: Method = registry.load("methods", family).load(variant, source)
    return method


def load_method_lazily(name: str, source: Source, cache: FeatureCache) -> Method:
    """Load a method or, if the cache has its description, return a stand-in that loads its models on first use."""
    check_flags(name, source)
    family, variant = split_method(name)
    has_models = bool(registry.load("methods", family).VARIANTS[variant].clip)
    if not has_models or not registry.is_builtin("methods", family):  # a plugin may read files that we cannot identify
        return load_method(name, source)
    method: Method = cache.load_lazily(
        {"method": name, "members": _OPTIONAL, **_fingerprint(family, variant, source, cache=cache)},
        lambda: load_method(name, source),
        _describe,
        restore=_restore,
    )
    return method


def _fingerprint(family: str, variant: str, source: Source, *, cache: FeatureCache) -> dict[str, Any]:
    """Return the content digest of every file and the value of every option that features depend on."""
    module = registry.load("methods", family)
    weights: Weights = module.VARIANTS[variant]

    def digest(model: str | Path) -> dict[str, str]:
        return identity(model, source.cache_dir, hasher=cache.file_digest)

    if weights.words:
        phi = module.words_identity(source.phi, cache.file_digest)
    else:
        phi = digest(source.phi_file(weights)) if weights.phi else None
    clip = clip_source(source.clip or weights.clip)
    folder = Path(clip) if os.path.exists(clip) else hub.snapshot(clip, source.cache_dir)
    described = preprocessing_file(folder) if folder else None
    return {
        "clip": digest(clip),
        "pictures": described and described[1],
        "phi": phi,
        "options": {
            key: digest(value) if module.OPTIONS[key].is_model else value for key, value in source.options.items()
        },
        "device": str(source.device),
        "dtype": source.dtype,
        "preprocessing": source.preprocessing,
    }


def licensed(models: Mapping[str, Any]) -> dict[str, Any]:
    """Return a method's identity with the licence of each model beside it; "licence" in it is that of the phi."""
    licences = {"phi": models.get("licence", "unknown")}
    identities: dict[str, Any] = {}
    for name, model in models.items():
        if isinstance(model, Mapping) and isinstance(model.get("source"), str):
            identities[name] = {**model, "licence": licences.get(name) or licence_of(model["source"])}
        elif name != "licence":
            identities[name] = model
    return identities


def licence_of(source: str) -> str:
    """Return the licence of a shipped model or of a hub id; "unknown" for any other source, such as a copied folder."""
    return OUR_LICENCE if Path(source).is_relative_to(EMBEDDED) else hub.repo(source).licence


# The description of a method in the cache. Callers read these attributes before any picture is embedded, and often
# nothing else: with every feature in the cache no model is loaded. An optional member that the method lacks is
# described as None, because the stand-in would load the model to look for an attribute that is not described.

_OPTIONAL = ("look_up", "no_query", "no_entry", "no_text", "names", "score")  # members of types.Method


def _describe(method: Method) -> dict[str, Any]:
    attributes = {name: getattr(method, name) for name in ("name", "uses_picture", "identity", "picture_model")}
    lacking = {name: None for name in _OPTIONAL if not hasattr(method, name)}
    preprocess = {"kind": type(method.preprocess).__name__, **vars(method.preprocess)}
    asks = getattr(method, "asks_for_queries", False)
    return {"preprocess": preprocess, "asks_for_queries": asks, **attributes, **lacking}


def _restore(description: dict[str, Any]) -> dict[str, Any]:
    settings = dict(description["preprocess"])
    if settings.pop("kind") == "Preprocess":
        return {**description, "preprocess": Preprocess(**settings)}
    return {**description, "preprocess": OwnPreprocess(**settings)}
