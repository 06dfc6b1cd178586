"""A folder is the registry: each module in it is a thing of that name.

A dotted name is imported as it is, so third parties add a benchmark, a method or a generator without a fork.
"""

import importlib
import pkgutil
from types import ModuleType

from cig.errors import NotFoundError, did_you_mean

MARKS = {"benchmarks": "SPLITS", "methods": "VARIANTS", "generators": "load"}  # what a module of each kind has


def names(folder: str) -> list[str]:
    """The things in an open folder of this package: names("methods") -> ["image", "lincir", ...]."""
    package = importlib.import_module(f"cig.{folder}")
    return sorted(module.name for module in pkgutil.iter_modules(package.__path__) if module.name[0] != "_")


def load(folder: str, name: str) -> ModuleType:
    """The module behind a name.

    Raises:
        NotFoundError: there is no such thing; the message lists what there is.
    """
    if name in names(folder):
        return importlib.import_module(f"cig.{folder}.{name}")
    if "." not in name:
        raise NotFoundError(f'no "{name}" among the {folder}.{did_you_mean(name, names(folder))}')
    try:
        module = importlib.import_module(name)
    except (ImportError, TypeError, ValueError) as error:  # "..x" is no name, and says so in its own way
        raise NotFoundError(f'"{name}" cannot be imported ({error}); install it, or use {names(folder)}') from error
    if not hasattr(module, MARKS[folder]):
        raise NotFoundError(f'"{name}" is not among the {folder}: it has no {MARKS[folder]}; use {names(folder)}')
    return module
