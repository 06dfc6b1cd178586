"""Settings of cig.toml and the environment that do not fit the call: which, and why.

A file's settings are for many calls: its phi is for methods with one, its fusion weight for calls with pseudo-targets.
Those that do not fit a call are not used, and the call says so; a flag that does not fit is an error.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from cig import config, registry
from cig.config import Setting
from cig.errors import CigError


def misfits(
    settings: Mapping[str, Setting], flags: Collection[str], *, pseudo_targets: bool, branches: bool
) -> dict[str, str]:
    """Return which settings the call should not use, and why: {"search.phi": "image has no phi"}.

    Args:
        settings: "TABLE.KEY" -> the value in force of each of the verb's flags, and where it comes from.
        flags: the keys of those that the call gives itself.
        pseudo_targets: the call has some.
        branches: the call has some, by flags or from cig.toml.
    """
    given = {key: setting for key, setting in settings.items() if setting.source != "default"}
    unfit = _offload(settings) if "generate.offload" in given else {}
    if "search.method" in settings:
        method = settings["search.method"].value
        unfit |= _models(method, given, flags) | _option(method, given)
        unfit |= _weights(given, flags, pseudo_targets=pseudo_targets, branches=branches)
    return {key: why for key, why in unfit.items() if key in given and key not in flags}


def _models(method: str, given: Mapping[str, Setting], flags: Collection[str]) -> dict[str, str]:
    """Return the CLIP and phi that are not the method's."""
    if not {"search.clip", "search.phi"} & set(given):
        return {}
    usual = config.value("search", "method")
    try:
        has_clip, kind = _takes(method)
        usual_kind = _takes(usual.value if usual else "searle")[1] or "phi"
    except CigError:  # a wrong name, which is refused later
        return {}
    unfit: dict[str, str] = {}
    if not kind:
        unfit["search.phi"] = f"{method} has no phi"
    elif kind != usual_kind:
        unfit["search.phi"] = f"{method} takes another kind of phi"
    if not has_clip:
        unfit["search.clip"] = f"{method} has no CLIP"
    elif "search.method" in flags and "/" in method and not (usual and usual.value == method):
        unfit = dict.fromkeys(("search.clip", "search.phi"), f"{method} names weights of its own") | unfit
    has_phi = "search.phi" in flags or ("search.phi" in given and "search.phi" not in unfit)
    if kind and kind != "words" and not has_phi:
        unfit.setdefault("search.clip", f"{method} wants a phi with it")
    return unfit


def _takes(method: str) -> tuple[bool, str]:
    """Return whether a method takes a CLIP, and which kind of phi: a key of phi.KINDS, "words", or "" for none."""
    from cig.methods import weights_of

    weights = weights_of(method)
    return bool(weights.clip), "words" if weights.words else weights.network if weights.phi else ""


def _option(method: str, given: Mapping[str, Setting]) -> dict[str, str]:
    """Return the options of a method that are another method's; one of no method is left to be refused by name."""
    from cig.methods import split_method

    try:
        family, _ = split_method(method)
    except CigError:
        return {}
    unfit = {}
    if "prompt" not in getattr(registry.load("methods", family), "OPTIONS", {}):
        unfit["search.prompt"] = f"{method} has no pseudo-word"
    if "search.method_option" not in given:
        return unfit
    key = given["search.method_option"].value.partition("=")[0]
    modules = {name: registry.load("methods", name) for name in (*registry.names("methods"), family)}
    owners = [name for name, module in modules.items() if key in getattr(module, "OPTIONS", {})]
    if owners and family not in owners:
        unfit["search.method_option"] = f"{key} is of {', '.join(owners)}"
    return unfit


def _weights(
    given: Mapping[str, Setting], flags: Collection[str], *, pseudo_targets: bool, branches: bool
) -> dict[str, str]:
    """Return the fusion weights that this call has no use for, or gives otherwise."""
    keys = ("search.fusion_weight", "search.weights")
    if any(key in flags for key in keys):
        return dict.fromkeys(keys, "the call gives a weight")
    if branches:
        return dict.fromkeys(keys, "branches have weights of their own")
    if not pseudo_targets:
        return dict.fromkeys(keys, "this call has no pseudo-targets")
    outside = [key for key in keys if key in given and given[key].source.startswith("CIG_")]
    return {key: f"{given[outside[0]].source} goes first" for key in keys if len(outside) == 1 and key not in outside}


def _offload(settings: Mapping[str, Setting]) -> dict[str, str]:
    """Return --offload where there is no GPU."""
    from cig.runtime import resolve_device

    try:
        on_cpu = resolve_device(settings["compute.device"].value).type == "cpu"
    except CigError:  # a wrong device, which is refused later
        return {}
    return {"generate.offload": "this call is on the CPU"} if on_cpu else {}
