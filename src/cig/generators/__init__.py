"""Generators, one file each: `load(device, dtype, **options) -> Generator`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cig import plugins
from cig.settings import GENERATORS
from cig.types import Generator


def load_generator(name: str, **options: Any) -> Generator:
    """A generator by name, e.g. load_generator("sdxl", model_path="models/sdxl_checkpoint", device="cuda").

    "sdxl/icons" is shipped, and has options of its own in the place of the published ones.
    """
    family, _, variant = name.partition("/")
    module = plugins.load("generators", family)
    if name in GENERATORS:
        options = {**_sampling(GENERATORS[name].get("generate", {})), **options}
    elif variant:
        options["variant"] = variant
    generator: Generator = module.load(**options)
    return generator


def _sampling(table: Mapping[str, Any]) -> dict[str, Any]:
    """What a generator is loaded with, of what its flags are set to."""
    return {"guidance" if key == "guidance_scale" else key: own for key, own in table.items() if key != "seeds"}
