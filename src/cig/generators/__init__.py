"""Generators, one file each: `load(device, dtype, **options) -> Generator`."""

from __future__ import annotations

from typing import Any

from cig import plugins
from cig.types import Generator


def load_generator(name: str, **options: Any) -> Generator:
    """A generator by name, e.g. load_generator("sdxl", model_path="models/sdxl_checkpoint", device="cuda")."""
    family, _, variant = name.partition("/")
    module = plugins.load("generators", family)
    generator: Generator = module.load(**({"variant": variant} if variant else {}), **options)
    return generator
