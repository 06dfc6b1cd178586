"""The catalogue of checkpoints: every file, folder and repository that a method or the generator wants.

It is derived from what wants them, so a new method shows up by itself. A phi is a file of a release, in ./models by
default; a CLIP, a VAE and SDXL's base are hub ids or folders; the UNet is a folder. A method's VARIANTS state what is
known of a release, `hub.REPOS` what is known of a hub repository.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from cig import config, registry
from cig.errors import CigError, NotFoundError, did_you_mean, some
from cig.generators import Composing, Generation
from cig.io import hub
from cig.io.files import weights_at
from cig.io.hub import is_hub_id
from cig.io.json_files import read_object
from cig.methods import ALIASES, EMBEDDED, OUR_LICENCE, Weights

Kind = Literal["phi", "tower", "unet", "vae", "scheduler"]
KINDS: tuple[Kind, ...] = ("phi", "tower", "unet", "vae", "scheduler")  # in the catalogue's order
COMPOSERS, GENERATORS = ("extract", "run"), ("generate", "run")  # commands


@dataclass(frozen=True)
class ModelCheckpoint:
    """One file, folder or repository of weights, and who wants it."""

    name: str  # what is typed: a file's stem, a folder's name, a hub id
    kind: Kind
    location: str  # a path, or a hub id
    address: str = ""  # of its release: an https address, or words where it is fetched by hand
    licence: str = "unknown"
    sha256: str = ""  # of the release's file, once known
    clip: str = ""  # of a phi: the CLIP that it is for
    network: str = "phi"  # of a phi: its kind, a key of phi.KINDS; "" for either, as a composing one may be
    wanted_by: tuple[str, ...] = ()

    @property
    def on_hub(self) -> bool:
        """Return whether the location is a hub id; folders are taken as they are."""
        return self.kind != "phi" and is_hub_id(self.location)

    @property
    def shipped(self) -> bool:
        """Return whether this package brings it."""
        return Path(self.location).is_relative_to(EMBEDDED)

    @property
    def by_hand(self) -> bool:
        """Return whether it has no address to fetch it from."""
        return not self.on_hub and not self.shipped and not self.address.startswith("https://")

    @property
    def file(self) -> str:
        """Return the file's name in its release; for `unet` in a folder, the folder's."""
        return Path(self.location).name

    def local_path(self, cache_dir: Path | None = None) -> Path | None:
        """Return the file or folder on this machine; None where it is missing."""
        if self.kind == "phi":
            path = weights_at(Path(self.location))
            return path if path.is_file() else None
        home = hub.snapshot(self.location, cache_dir) if self.on_hub else Path(self.location)
        folder = home / "unet" if home and self.kind == "unet" else home
        return folder if folder and folder.is_dir() else None

    def widths(self) -> tuple[int, int] | None:
        """Return a phi's (input, output), which are its CLIP's, or a CLIP's (features, words); None if not known."""
        source = self.clip or self.location
        in_config = _configured_widths(Path(source)) if self.kind in ("phi", "tower") else None
        return hub.repo(source).widths or in_config


def _configured_widths(folder: Path) -> tuple[int, int] | None:
    """Read a CLIP's widths from its configuration, without the library that would fill in what it leaves out."""
    path = folder / "config.json"
    try:
        fields = read_object(path) if path.is_file() else {}
        return int(fields["projection_dim"]), int(fields["text_config"]["hidden_size"])
    except (CigError, KeyError, TypeError, ValueError):  # `cig models check` says what is wrong
        return None


def catalogue() -> tuple[ModelCheckpoint, ...]:
    """List all checkpoints by kind and name; one that several want is listed once."""
    merged: dict[tuple[str, str], ModelCheckpoint] = {}
    for checkpoint in (*_of_methods(), *_of_composing(), *_of_generation()):
        key = checkpoint.kind, os.path.normpath(checkpoint.location)
        if key in merged:
            wanted_by = _unique((*merged[key].wanted_by, *checkpoint.wanted_by))
            checkpoint = replace(merged[key], wanted_by=wanted_by)
        merged[key] = checkpoint
    return tuple(sorted(merged.values(), key=lambda entry: (KINDS.index(entry.kind), entry.shipped, entry.name)))


def _unique(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))


def _of_methods() -> Iterator[ModelCheckpoint]:
    for family in registry.names("methods"):
        try:
            variants = registry.load("methods", family).VARIANTS
        except CigError:  # a broken plugin; naming its method shows the error
            continue
        for variant, weights in variants.items():
            if not isinstance(weights, Weights):
                continue
            method = f"{family}/{variant}"
            if weights.clip:
                yield _repository(weights.clip, "tower", method)
            if weights.phi:
                yield _phi(Path(config.below_project("models")) / weights.phi, weights, method)


def composing_clips() -> list[str]:
    """Return the two CLIPs that condition the generator, by cig.toml, by the generator, or by default."""
    defaults = Composing()
    return [_setting("compose", "clip", defaults.clip), _setting("compose", "clip2", defaults.clip2)]


def _of_composing() -> Iterator[ModelCheckpoint]:
    keys = ("phi", "phi2"), ("phi_vit", "phi_giga")
    for source, key, default in zip(composing_clips(), *keys, strict=True):
        path = Path(_setting("compose", key, str(config.path(default))))
        yield from (_repository(source, "tower", command) for command in COMPOSERS)
        weights = Weights(source, path.name, config.CIG_DRIVE, licence=config.CIG_LICENCE, network="")
        yield from (_phi(path, weights, command) for command in COMPOSERS)


def _of_generation() -> Iterator[ModelCheckpoint]:
    defaults = Generation()
    unet = _setting("generate", "model_path", str(defaults.unet))
    for command in GENERATORS:
        yield _shipped(unet, "unet", command) or ModelCheckpoint(
            name=Path(unet).name,
            kind="unet",
            location=unet,
            address=config.CIG_DRIVE,
            licence=config.CIG_LICENCE,
            wanted_by=(command,),
        )
        yield _repository(_setting("generate", "vae_repo", defaults.vae_repo), "vae", command)
        yield _repository(_setting("generate", "sdxl_repo", defaults.sdxl_repo), "scheduler", command)


def _setting(table: str, key: str, default: str) -> str:
    """Return what stands for a flag: the environment's or cig.toml's value, else the generator's, else the default."""
    generator = config.value("generate", "generator")
    of_generator = config.of_generator(generator.value, table, key) if generator else None
    setting = config.value(table, key) or of_generator
    return setting.value if setting else default


def _phi(path: Path, weights: Weights, user: str) -> ModelCheckpoint:
    if shipped := _shipped(str(path), "phi", user):
        return replace(shipped, clip=weights.clip, network=weights.network)
    return ModelCheckpoint(
        name=path.stem,
        kind="phi",
        location=str(path),
        address=weights.address,
        licence=weights.licence,
        sha256=weights.sha256,
        clip=weights.clip,
        network=weights.network,
        wanted_by=(user,),
    )


def _shipped(source: str, kind: Kind, user: str) -> ModelCheckpoint | None:
    """Describe what the package brings, by names such as "icons/clip" and "icons/lincir"; None for anything else."""
    if not Path(source).is_relative_to(EMBEDDED):
        return None
    name = Path(source).relative_to(EMBEDDED.parent).as_posix().removesuffix("/phi.safetensors")
    return ModelCheckpoint(name, kind, source, licence=OUR_LICENCE, wanted_by=(user,))


def _repository(source: str, kind: Kind, user: str) -> ModelCheckpoint:
    if shipped := _shipped(source, kind, user):
        return shipped
    return ModelCheckpoint(
        name=source,
        kind=kind,
        location=source,
        address=f"{hub.HUB}/{source}" if is_hub_id(source) else "",
        licence=hub.repo(source).licence,
        wanted_by=(user,),
    )


def select(names: Sequence[str]) -> tuple[ModelCheckpoint, ...]:
    """Select checkpoints by their name, their file or who wants them; without names, all.

    Raises:
        NotFoundError: nothing has one of these names.
    """
    checkpoints = catalogue()
    if not names:
        return checkpoints
    selected = [checkpoint for name in names for checkpoint in _named(name, checkpoints)]
    return tuple(checkpoint for checkpoint in checkpoints if checkpoint in selected)


def at_path(path: Path) -> ModelCheckpoint:
    """Describe a file or folder of weights that nothing names; raise NotFoundError for a folder of no known kind."""
    config = path / "config.json"
    fields = read_object(config) if config.is_file() else {}
    kinds: dict[Any, Kind] = {"UNet2DConditionModel": "unet", "AutoencoderKL": "vae"}
    kind = kinds.get(fields.get("_class_name"), "tower" if fields else None)
    if path.is_file():
        kind = "phi"
    elif (path / "unet").is_dir():
        kind = "unet"
    elif kind == "unet":  # a checkpoint's location holds unet/
        path = path.parent
    elif (path / "model_index.json").is_file():
        kind = "scheduler"
    if kind is None:
        raise NotFoundError(f"{path} holds no model: no config.json, no unet/, no model_index.json")
    return ModelCheckpoint(str(path), kind, str(path), network="")


def _named(name: str, checkpoints: Sequence[ModelCheckpoint]) -> list[ModelCheckpoint]:
    method = ALIASES.get(name, name)
    users = {method}
    if method in registry.names("methods"):  # as in `--method FAMILY`, the first variant is the default
        users.add(f"{method}/{next(iter(registry.load('methods', method).VARIANTS), '')}")
    matches = [
        checkpoint
        for checkpoint in checkpoints
        if name in (checkpoint.name, checkpoint.file, checkpoint.location) or users & set(checkpoint.wanted_by)
    ]
    if not matches:
        all_users = [user for checkpoint in checkpoints for user in checkpoint.wanted_by]
        choices = _unique([*(checkpoint.name for checkpoint in checkpoints), *all_users])
        raise NotFoundError(f'no weights "{name}".{did_you_mean(name, choices)}')
    return matches


def to_text(checkpoint: ModelCheckpoint, cache_dir: Path | None = None) -> str:
    """Describe a checkpoint: a line of facts, then where it is, where it comes from, and who wants it."""
    path, widths = checkpoint.local_path(cache_dir), checkpoint.widths()
    arrow = f"{widths[0]} -> {widths[1]}" if widths else ""
    facts = [checkpoint.kind, arrow, f"licence: {checkpoint.licence}", "there" if path else "not there"]
    location = f"{checkpoint.location} in the hub's cache" if checkpoint.on_hub else str(path or checkpoint.location)
    source = "shipped with this package" if checkpoint.shipped else checkpoint.address or "a place of yours"
    commit = hub.repo(checkpoint.location).commit if checkpoint.on_hub else ""
    version = f", commit {commit}" if commit else f", sha256 {checkpoint.sha256}" if checkpoint.sha256 else ""
    lines = [f"{checkpoint.name}: {', '.join(filter(None, facts))}", f"at {location}", f"from {source}{version}"]
    return "\n  ".join([*lines, f"for {some(checkpoint.wanted_by, 8)}"])


def to_json(checkpoint: ModelCheckpoint, cache_dir: Path | None = None) -> dict[str, Any]:
    """Return what `cig models list --json` writes; facts that are not known are null."""
    path = checkpoint.local_path(cache_dir)
    return {
        "name": checkpoint.name,
        "kind": checkpoint.kind,
        "place": checkpoint.location,
        "there": str(path) if path else None,
        "address": checkpoint.address or None,
        "commit": (hub.repo(checkpoint.location).commit if checkpoint.on_hub else "") or None,
        "sha256": checkpoint.sha256 or None,
        "widths": checkpoint.widths(),
        "licence": checkpoint.licence,
        "by_hand": checkpoint.by_hand,
        "shipped": checkpoint.shipped,
        "wanted_by": checkpoint.wanted_by,
    }
