"""A folder is the registry: each module in it is a thing of that name.

Third parties add a benchmark, a method or a generator without a fork: a dotted name is imported as it is, and an
installed package may give its modules short names by entry points in `cig.benchmarks`, `cig.methods`, `cig.generators`,
`cig.download`.
"""

import importlib
import pkgutil
from importlib import metadata
from types import ModuleType

from cig.errors import NotFoundError, did_you_mean

MARKS = {
    "benchmarks": "SPLITS",
    "methods": "VARIANTS",
    "generators": "load",
    "download": "download",
}  # what a module of each kind has


def names(folder: str) -> list[str]:
    """Ours in an open folder, then those of installed packages: names("methods") -> ["caption", "image", ...]."""
    own = _own(folder)
    return own + sorted(set(_entry_points(folder)) - set(own))


def is_own(folder: str, name: str) -> bool:
    return name in _own(folder)


def load(folder: str, name: str) -> ModuleType:
    """The module behind a name; ours wins where a package gives one of its own the same.

    Raises:
        NotFoundError: there is no such thing; the message lists what there is.
    """
    if name in _own(folder):
        return importlib.import_module(f"cig.{folder}.{name}")
    place = _entry_points(folder).get(name, name)
    if "." not in name and place == name:
        raise NotFoundError(f'no "{name}" among the {folder}.{did_you_mean(name, names(folder))}')
    try:
        module = importlib.import_module(place)
    except (ImportError, TypeError, ValueError) as error:  # "..x" is no name, and says so in its own way
        raise NotFoundError(f'"{name}" cannot be imported ({error}); install it, or use {names(folder)}') from error
    if not hasattr(module, MARKS[folder]):
        raise NotFoundError(f'"{name}" is not among the {folder}: it has no {MARKS[folder]}; use {names(folder)}')
    return module


def _own(folder: str) -> list[str]:
    package = importlib.import_module(f"cig.{folder}")
    return sorted(module.name for module in pkgutil.iter_modules(package.__path__) if module.name[0] != "_")


def _entry_points(folder: str) -> dict[str, str]:
    """Name -> module, of every installed package; nothing is imported."""
    return {point.name: point.module for point in metadata.entry_points(group=f"cig.{folder}")}
