"""Generators, one file each: `load(device, dtype, **options) -> Generator`."""

from __future__ import annotations

from typing import Any

from cig import registry
from cig.config import GENERATORS
from cig.types import Generator


def load_generator(name: str, **options: Any) -> Generator:
    """A generator by name, e.g. load_generator("sdxl", model_path="models/sdxl_checkpoint", device="cuda").

    "sdxl/icons" is shipped, and has options of its own in the place of the published ones.
    """
    family, _, variant = name.partition("/")
    module = registry.load("generators", family)
    if name in GENERATORS:
        own = {key: value for key, value in sampling(name).items() if key != "seeds"}
        options = {**own, **options}
    elif variant:
        options["variant"] = variant
    generator: Generator = module.load(**options)
    return generator


def sampling(name: str) -> dict[str, Any]:
    """What a generator's own flags are set to, in the words of `load` and of options.Generation."""
    own = GENERATORS[name].get("generate", {})
    return {key.removesuffix("_scale"): value for key, value in own.items()}
