"""Default places of data, weights and outputs: the published ones, which `cig.toml` in the working folder replaces."""

import tomllib
from pathlib import Path
from typing import Any

from cig.errors import InputError, UsageError, did_you_mean

CIG_DRIVE = "the CIG authors' drive folder (linked from github.com/lan-lw/ComposedImageGen)"
PLACES = {  # the published configuration's keys and folders, and circo, which it lacks
    "cirr": "./datasets/CIRR",
    "fashioniq": "./datasets/FashionIQ",
    "circo": "./datasets/CIRCO",
    "phi_vit": "./models/phi_best.pt",
    "phi_giga": "./models/phi_best_giga.pt",
    "sdxl_checkpoint": "./models/sdxl_checkpoint/",
    "embeddings": "./outputs/embeddings/",
    "generated_images": "./outputs/generated_images/",
    "submissions": "./outputs/submissions/",
}


def place(key: str) -> Path:
    """Where a thing lies unless a flag says otherwise."""
    return Path(_configured().get(key, PLACES.get(key, f"./datasets/{key}")))


def _configured() -> dict[str, Any]:
    path = Path("cig.toml")
    if not path.exists():
        return {}
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not TOML: {error}") from error
    for key, value in table.items():
        if key not in PLACES:
            raise UsageError(f'{path}: unknown key "{key}".{did_you_mean(key, PLACES)}')
        if not isinstance(value, str):
            raise UsageError(f"{path}: {key} should be a path in quotes, found {value!r}")
    return table
