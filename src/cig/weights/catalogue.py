"""Every weight that a method or the generator wants: derived from what asks for it, so that a new method shows up.

A phi is a file of a release, in ./models by default; a CLIP, a VAE and SDXL's base are hub ids or folders; the UNet
is a folder. What is known of a release stands in its method's VARIANTS, of a hub repository in `hub.REPOS`.
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
COMPOSERS, GENERATORS = ("extract", "run"), ("generate", "run")  # verbs


@dataclass(frozen=True)
class Weight:
    """One file, folder or repository, and who wants it."""

    name: str  # what is typed: a file's stem, a folder's name, a hub id
    kind: Kind
    place: str  # a path, or a hub id
    address: str = ""  # of its release: an https address, or words where it is fetched by hand
    licence: str = "unknown"
    sha256: str = ""  # of the release's file, once known
    clip: str = ""  # of a phi: the CLIP that it is for
    network: str = "phi"  # of a phi: its kind, a key of inversion.KINDS; "" for either, as a composing one may be
    wanted_by: tuple[str, ...] = ()

    @property
    def on_hub(self) -> bool:
        """Whether its place is a hub id; folders are taken as they are."""
        return self.kind != "phi" and is_hub_id(self.place)

    @property
    def shipped(self) -> bool:
        return Path(self.place).is_relative_to(EMBEDDED)

    @property
    def by_hand(self) -> bool:
        return not self.on_hub and not self.shipped and not self.address.startswith("https://")

    @property
    def file(self) -> str:
        """What its release calls it; `unet` in its folder, for that."""
        return Path(self.place).name

    def found(self, cache_dir: Path | None = None) -> Path | None:
        """The file or folder on this machine; None where it is not there."""
        if self.kind == "phi":
            path = weights_at(Path(self.place))
            return path if path.is_file() else None
        home = hub.snapshot(self.place, cache_dir) if self.on_hub else Path(self.place)
        folder = home / "unet" if home and self.kind == "unet" else home
        return folder if folder and folder.is_dir() else None

    def widths(self) -> tuple[int, int] | None:
        """Of a phi (input, output), which are its CLIP's; of a CLIP (picture features, words); None if not known."""
        source = self.clip or self.place
        return hub.repo(source).widths or (_configured(Path(source)) if self.kind in ("phi", "tower") else None)


def _configured(folder: Path) -> tuple[int, int] | None:
    """The widths that a CLIP's configuration states, without the library that would fill in what it leaves out."""
    path = folder / "config.json"
    try:
        described = read_object(path) if path.is_file() else {}
        return int(described["projection_dim"]), int(described["text_config"]["hidden_size"])
    except (CigError, KeyError, TypeError, ValueError):  # `cig models check` says what is wrong
        return None


def catalogue() -> tuple[Weight, ...]:
    """By kind and name; what several want is listed once."""
    known: dict[tuple[str, str], Weight] = {}
    for own in (*_of_methods(), *_of_composing(), *_of_generation()):
        key = own.kind, os.path.normpath(own.place)
        other = known.get(key)
        known[key] = replace(other, wanted_by=_union(other.wanted_by, own.wanted_by)) if other else own
    kinds: tuple[Kind, ...] = ("phi", "tower", "unet", "vae", "scheduler")
    return tuple(sorted(known.values(), key=lambda own: (kinds.index(own.kind), own.shipped, own.name)))


def _union(one: Iterable[str], other: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*one, *other)))


def _of_methods() -> Iterator[Weight]:
    for family in registry.names("methods"):
        try:
            variants = registry.load("methods", family).VARIANTS
        except CigError:  # an installed package that is broken; asking for its method says how
            continue
        for variant, weights in variants.items():
            if isinstance(weights, Weights):
                yield from _of_variant(f"{family}/{variant}", weights)


def _of_variant(method: str, weights: Weights) -> Iterator[Weight]:
    if weights.clip:
        yield _repository(weights.clip, "tower", method)
    if weights.phi:
        yield _phi(Path("models") / weights.phi, weights, method)


def composing_clips() -> list[str]:
    """The two that condition the generator; cig.toml counts, as it does below: a flag's value, and the generator's."""
    own = Composing()
    return [_set("compose", "clip", own.clip), _set("compose", "clip2", own.clip2)]


def _of_composing() -> Iterator[Weight]:
    keys = ("phi", "phi2"), ("phi_vit", "phi_giga")
    for source, key, place in zip(composing_clips(), *keys, strict=True):
        path = Path(_set("compose", key, str(config.path(place))))
        yield from (_repository(source, "tower", verb) for verb in COMPOSERS)
        weights = Weights(source, path.name, config.CIG_DRIVE, licence=config.CIG_LICENCE, network="")
        yield from (_phi(path, weights, verb) for verb in COMPOSERS)


def _of_generation() -> Iterator[Weight]:
    own = Generation()
    unet = _set("generate", "model_path", str(own.unet))
    for verb in GENERATORS:
        facts: dict[str, Any] = {"address": config.CIG_DRIVE, "licence": config.CIG_LICENCE}
        yield _shipped(unet, "unet", verb) or Weight(Path(unet).name, "unet", unet, wanted_by=(verb,), **facts)
        yield _repository(_set("generate", "vae_repo", own.vae_repo), "vae", verb)
        yield _repository(_set("generate", "sdxl_repo", own.sdxl_repo), "scheduler", verb)


def _set(table: str, key: str, otherwise: str) -> str:
    generator = config.value("generate", "generator")
    own = config.of_generator(generator.value, table, key) if generator else None
    found = config.value(table, key) or own
    return found.value if found else otherwise


def _phi(path: Path, weights: Weights, wanter: str) -> Weight:
    known: dict[str, Any] = {"clip": weights.clip, "network": weights.network}
    if own := _shipped(str(path), "phi", wanter):
        return replace(own, **known)
    facts: dict[str, Any] = {"address": weights.address, "licence": weights.licence, "sha256": weights.sha256}
    return Weight(path.stem, "phi", str(path), wanted_by=(wanter,), **known, **facts)


def _shipped(source: str, kind: Kind, wanter: str) -> Weight | None:
    """None where it is not what the package brings."""
    if not Path(source).is_relative_to(EMBEDDED):
        return None
    return Weight(_shipped_name(Path(source)), kind, source, licence=OUR_LICENCE, wanted_by=(wanter,))


def _repository(source: str, kind: Kind, wanter: str) -> Weight:
    if own := _shipped(source, kind, wanter):
        return own
    address = f"{hub.HUB}/{source}" if is_hub_id(source) else ""
    return Weight(source, kind, source, address, hub.repo(source).licence, wanted_by=(wanter,))


def _shipped_name(path: Path) -> str:
    """ "icons/clip", "icons/lincir": what the package brings."""
    return path.relative_to(EMBEDDED.parent).as_posix().removesuffix("/phi.safetensors")


def select(names: Sequence[str]) -> tuple[Weight, ...]:
    """Those of the catalogue that are named: by name, by file, or by who wants them; all for none.

    Raises:
        NotFoundError: nothing is called so.
    """
    known = catalogue()
    if not names:
        return known
    picked = [own for name in names for own in _named(name, known)]
    return tuple(own for own in known if own in picked)


def _named(name: str, known: Sequence[Weight]) -> list[Weight]:
    asked = ALIASES.get(name, name)
    wanters = {asked, f"{asked}/{_first_variant(asked)}"}
    found = [own for own in known if name in (own.name, own.file, own.place) or wanters & set(own.wanted_by)]
    if not found:
        choices = _union((own.name for own in known), (by for own in known for by in own.wanted_by))
        raise NotFoundError(f'no weights "{name}".{did_you_mean(name, choices)}')
    return found


def _first_variant(family: str) -> str:
    """As in `--method FAMILY`; "" where there is no such family."""
    if family not in registry.names("methods"):
        return ""
    return next(iter(registry.load("methods", family).VARIANTS), "")


# For people and programs


def to_text(weight: Weight, cache_dir: Path | None = None) -> str:
    """A line of facts, then where it is looked for and got, and who wants it."""
    found, widths = weight.found(cache_dir), weight.widths()
    facts = [weight.kind, _arrow(widths), f"licence: {weight.licence}", "there" if found else "not there"]
    where = f"{weight.place} in the hub's cache" if weight.on_hub else found or weight.place
    source = "shipped with this package" if weight.shipped else weight.address or "a place of yours"
    commit = hub.repo(weight.place).commit if weight.on_hub else ""
    known = f", commit {commit}" if commit else f", sha256 {weight.sha256}" if weight.sha256 else ""
    lines = [f"{weight.name}: {', '.join(filter(None, facts))}", f"at {where}", f"from {source}{known}"]
    return "\n  ".join([*lines, f"for {some(weight.wanted_by, 8)}"])


def _arrow(widths: tuple[int, int] | None) -> str:
    return f"{widths[0]} -> {widths[1]}" if widths else ""


def to_json(weight: Weight, cache_dir: Path | None = None) -> dict[str, Any]:
    """As list and check write it; what is not known is null."""
    found = weight.found(cache_dir)
    return {
        "name": weight.name,
        "kind": weight.kind,
        "place": weight.place,
        "there": str(found) if found else None,
        "address": weight.address or None,
        "commit": (hub.repo(weight.place).commit if weight.on_hub else "") or None,
        "sha256": weight.sha256 or None,
        "widths": weight.widths(),
        "licence": weight.licence,
        "by_hand": weight.by_hand,
        "shipped": weight.shipped,
        "wanted_by": weight.wanted_by,
    }
