"""Branches and methods as people write them, by flag or in cig.toml -> the records that a search is asked with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

from cig import config, registry
from cig.errors import UsageError, did_you_mean
from cig.generators import _controls
from cig.methods import split_method
from cig.retrieval.branches import OF_PSEUDO_TARGETS
from cig.retrieval.fusion_weight import PSEUDO_TARGET
from cig.retrieval.requests import EXAMPLE, Branching, Comparing, Searching, keys_of, parse_method
from cig.runtime import say

SIDES = (8, 2048)  # pixels that a VAE is given at once, a side


def parse(text: str) -> Branching:
    """One `--branch`: words of KEY=VALUE, quoted where a value has spaces."""
    source = f"--branch {text!r}"
    return branching(keys_of(text, source), source)


def parse_named(text: str) -> Branching:
    """One of `--branches`: a ready-made name, or the words of a `--branch`, whose weight may be left out."""
    source = f"--branches {text!r}"
    table = keys_of(text, source) if "=" in text else {"name": text, "pictures": text}
    return branching(table, source, needed=("name",))


def parse_comparing(
    methods: Sequence[str], branches: Sequence[str], comparing: Comparing, *, clip: str | None, family: str
) -> Comparing:
    """Add the methods and branches of `cig compare`; by default all, of which what cannot be loaded is left out.

    Args:
        clip: the CLIP of methods that have no phi.
        family: the benchmark's, for which some methods have variants.
    """
    without_more = ["reference-image", "reference-augmented", "oracle"]
    ready = [PSEUDO_TARGET, *_controls.names()] if comparing.pseudo_targets else without_more
    return replace(
        comparing,
        methods=tuple(parse_method(text, clip) for text in methods or usual_methods(family)),
        branches=tuple(map(parse_named, branches or ready)),
        strict_methods=bool(methods),
        strict_branches=bool(branches),
    )


def usual_methods(family: str) -> list[str]:
    """All of them; with the weights that were made for a benchmark, where a variant is called by its name (icons)."""
    names = registry.names("methods")
    return [f"{name}/{family}" if family in registry.load("methods", name).VARIANTS else name for name in names]


def branching(table: Mapping[str, Any], source: str, needed: Sequence[str] = ("name", "weight")) -> Branching:
    """Read one branch; raise UsageError for an unknown key, a value of the wrong kind, or a key that is lacking."""
    keys = [field.name for field in fields(Branching)]
    for key in table:
        if key not in keys:
            raise UsageError(f'{source}: a branch has no "{key}".{did_you_mean(key, keys)}')
    if not set(needed) <= set(table):
        raise UsageError(f"{source}: a branch needs a {' and a '.join(needed)}, {EXAMPLE}")
    try:
        branch = Branching(**{"weight": None} | {key: _READERS.get(key, str)(value) for key, value in table.items()})
    except (TypeError, ValueError) as error:
        raise UsageError(f"{source}: {error}; {EXAMPLE}") from error
    if branch.copies < 1:
        raise UsageError(f"{source}: copies={branch.copies} should be at least 1")
    if not SIDES[0] <= branch.side <= SIDES[1]:
        raise UsageError(f"{source}: side={branch.side} should be {SIDES[0]} to {SIDES[1]} pixels")
    if branch.pictures == "reference-image" and not {"method", "caption"} & set(table):
        return replace(branch, method="image", caption=False)  # the picture alone, whoever searches
    return branch


def _yes(value: Any) -> bool:
    if str(value).lower() not in ("yes", "no", "true", "false"):
        raise ValueError(f"caption={value} should be yes or no")
    return str(value).lower() in ("yes", "true")


_READERS: dict[str, Callable[[Any], Any]] = {"weight": float, "caption": _yes, "copies": int, "side": int}


def requested_branches(
    flags: Sequence[str], searching: Searching | None = None, *, pseudo_targets: bool = True
) -> tuple[Branching, ...]:
    """Return those of the flags; without any, those [[branch]] tables of cig.toml that fit the call.

    Args:
        searching: the method and the weights of the call.
        pseudo_targets: the call has some.
    """
    if flags:
        return tuple(map(parse, flags))
    branches = []
    file = config.project() / config.FILE
    for branch in (_below_project(branching(table, f"{file}, [[branch]]")) for table in config.branch_tables()):
        if why := _misfit(branch, searching or Searching(), pseudo_targets):
            say(f"{file}: [[branch]] {branch.name} is not used: {why}")
        else:
            branches.append(branch)
    return tuple(branches)


def _below_project(branch: Branching) -> Branching:
    """Return a branch of cig.toml with its files and folders as written from the working folder."""
    is_folder = branch.pictures not in (PSEUDO_TARGET, *_controls.names())
    return replace(
        branch,
        pictures=config.source_below_project(branch.pictures) if is_folder else branch.pictures,
        method=_method_below_project(branch.method) if branch.method else None,
        vae=config.source_below_project(branch.vae),
    )


def _method_below_project(method: str) -> str:
    name, blank, files = method.partition(" ")
    return name + blank + config.source_below_project(files)


def _misfit(branch: Branching, searching: Searching, pseudo_targets: bool) -> str:
    """Return why a branch of cig.toml does not fit a call; "" if it does."""
    if searching.reference_weight is not None or searching.frozen_weights:
        return "the call gives the published recipe's weight"
    if branch.pictures in OF_PSEUDO_TARGETS and not pseudo_targets:
        return "this call has no pseudo-targets"
    looks = getattr(registry.load("methods", split_method(searching.method)[0]).load, "uses_picture", True)
    return f"{searching.method} looks at no picture" if branch.pictures and not branch.method and not looks else ""
