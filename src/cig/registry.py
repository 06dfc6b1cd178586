"""The registry: each module in an open folder is a benchmark, method, generator or download of that name.

Other packages add theirs without a fork: a dotted name is imported as it is, and an installed package may give its
modules short names by entry points in `cig.benchmarks`, `cig.methods`, `cig.generators`, `cig.download`,
`cig.models.rerankers`.
"""

import importlib
import pkgutil
from importlib import metadata
from types import ModuleType

from cig.errors import NotFoundError, WrongNameError, did_you_mean

REQUIRED = {  # folder -> the name that each of its modules defines
    "benchmarks": "SPLITS",
    "methods": "VARIANTS",
    "models.rerankers": "load",
    "generators": "load",
    "download": "download",
    "retrieval.index": "open_engine",
}


def names(folder: str) -> list[str]:
    """List an open folder's modules, then those of installed packages: names("methods") -> ["caption", ...]."""
    builtin = _builtin_names(folder)
    return builtin + sorted(set(_entry_points(folder)) - set(builtin))


def is_builtin(folder: str, name: str) -> bool:
    return name in _builtin_names(folder)


def load(folder: str, name: str) -> ModuleType:
    """Import the module of a name. Built-in names take precedence over entry points.

    Raises:
        NotFoundError: no module has this name; the message lists the names.
    """
    if is_builtin(folder, name):
        return importlib.import_module(f"cig.{folder}.{name.replace('-', '_')}")
    module_name = _entry_points(folder).get(name, name)
    if "." not in name and module_name == name:
        raise WrongNameError(f'no "{name}" among the {_last(folder)}.{did_you_mean(name, names(folder))}')
    try:
        module = importlib.import_module(module_name)
    except (ImportError, TypeError, ValueError) as error:  # a relative name such as "..x" raises the last two
        raise NotFoundError(f'"{name}" cannot be imported ({error}); install it, or use {names(folder)}') from error
    if not hasattr(module, REQUIRED[folder]):
        raise NotFoundError(
            f'"{name}" is not among the {_last(folder)}: it has no {REQUIRED[folder]}; use {names(folder)}'
        )
    return module


def _last(folder: str) -> str:
    return folder.rpartition(".")[2]


def _builtin_names(folder: str) -> list[str]:
    package = importlib.import_module(f"cig.{folder}")
    modules = (module.name for module in pkgutil.iter_modules(package.__path__))
    return sorted(name.replace("_", "-") for name in modules if name[0] != "_")


def _entry_points(folder: str) -> dict[str, str]:
    """Map the names of every installed package's entry points to modules, without importing any."""
    return {point.name: point.module for point in metadata.entry_points(group=f"cig.{folder}")}
