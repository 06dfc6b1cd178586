"""What is set outside of flags: `cig.toml` in the working folder, and the environment, which wins over it; what a
generator's name sets.

phi_vit = "/weights/phi_best.pt"      # a place; or CIG_PHI_VIT
[search]                              # a table: the flags of that group in --help
method = "lincir"                     # or CIG_SEARCH_METHOD
[[branch]]                            # as --branch
name = "sketch"
"""

from __future__ import annotations

import os
import tomllib
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from cig.errors import InputError, NotFoundError, UsageError, did_you_mean

CIG_DRIVE = "the CIG authors' drive folder (linked from github.com/lan-lw/ComposedImageGen)"
CIG_LICENCE = "none stated"  # of what lies there
PLACES = {  # the published configuration's keys and folders, and those that it lacks
    "cirr": "./datasets/CIRR",
    "fashioniq": "./datasets/FashionIQ",
    "circo": "./datasets/CIRCO",
    "phi_vit": "./models/phi_best.pt",
    "phi_giga": "./models/phi_best_giga.pt",
    "sdxl_checkpoint": "./models/sdxl_checkpoint/",
    "embeddings": "./outputs/embeddings/",
    "generated_images": "./outputs/generated_images/",
    "submissions": "./outputs/submissions/",
    "runs": "./outputs/runs/",
    "controls": "./outputs/controls/",
    "weights": "./outputs/weights.json",
}
TABLES = {
    "compute": ("device", "dtype", "num_workers", "cache_dir", "max_pixels"),
    "compose": ("clip", "clip2", "phi", "phi2", "preprocess_type"),
    "generate": (
        *(
            "generator",
            "model_path",
            "sdxl_repo",
            "vae_repo",
            "height",
            "width",
            "steps",
            "guidance_scale",
            "image_guidance_scale",
            "seed",
            "seeds",
        ),
        *("brightness_thresh", "max_retries", "offload", "vae_slicing", "vae_tiling", "attention_slicing"),
    ),
    "search": (
        "method",
        "clip",
        "phi",
        "preprocess_type",
        "method_option",
        "fusion_weight",
        "weights",
        "feature_cache",
    ),
}
EMBEDDED = Path(str(resources.files("cig"))) / "assets" / "icons"  # what is shipped
GENERATORS: dict[str, dict[str, dict[str, Any]]] = {  # name -> table -> what stands for flags that are not given
    "sdxl": {},  # the published ones, which are the flags' own
    "sdxl/icons": {
        "compose": {
            "clip": str(EMBEDDED / "clip"),
            "clip2": str(EMBEDDED / "large"),
            "phi": EMBEDDED / "pic2word" / "phi.safetensors",
            "phi2": EMBEDDED / "large-pic2word" / "phi.safetensors",
        },
        "generate": {
            "model_path": EMBEDDED / "generator",
            "sdxl_repo": str(EMBEDDED / "generator"),
            "vae_repo": str(EMBEDDED / "generator" / "vae"),
            "height": 64,
            "width": 64,
            "steps": 8,
            "guidance_scale": 3.0,
            "image_guidance_scale": 1.0,
            "seeds": "per-query",
        },
    },
}


@dataclass(frozen=True)
class Setting:
    value: str
    source: str  # "default", "cig.toml", "CIG_SEARCH_METHOD in the environment", "--method"


def place(key: str) -> Path:
    """Where a thing lies unless a flag says otherwise; a benchmark of your own lies in ./datasets/NAME."""
    return Path(place_of(key).value)


def place_of(key: str) -> Setting:
    return _set_outside("", key) or Setting(PLACES.get(key, f"./datasets/{key}"), "default")


def value(table: str, key: str) -> Setting | None:
    """What stands for a flag that is not given; None where nothing does."""
    return _set_outside(table, key)


def of_generator(name: str, table: str, key: str) -> Setting | None:
    """What a generator sets a flag to.

    Raises:
        NotFoundError: no such generator.
    """
    if name not in GENERATORS:
        raise NotFoundError(f'no generator "{name}".{did_you_mean(name, GENERATORS)}')
    own = GENERATORS[name].get(table, {})
    return Setting(str(own[key]), f"generator {name}") if key in own else None


def _set_outside(table: str, key: str) -> Setting | None:
    name = "_".join(filter(None, ("CIG", table, key))).upper()
    if os.environ.get(name):
        return Setting(os.environ[name], f"{name} in the environment")
    file = _file()
    own = file.get(table, {}) if table else file
    return Setting(str(own[key]), "cig.toml") if key in own else None


def user_cache() -> Path:
    """Where things are kept that any of a user's calls may use again."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cig"


def branch_tables() -> list[dict[str, Any]]:
    """The [[branch]] tables of cig.toml."""
    tables: list[dict[str, Any]] = _file().get("branch", [])
    return tables


def _file() -> dict[str, Any]:
    """cig.toml, checked.

    Raises:
        InputError: it is not TOML.
        UsageError: an unknown key, or a value of the wrong kind.
    """
    path = Path("cig.toml")
    if not path.exists():
        return {}
    if not path.is_file():
        raise InputError(f"{path} is not a file")
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: not TOML: {error}") from error
    for key, own in content.items():
        if key in TABLES:
            _check_table(path, key, own)
        elif key == "branch":
            if not isinstance(own, list) or not all(isinstance(table, dict) for table in own):
                raise UsageError(f"{path}: branches are tables, each under a line [[branch]], found {own!r}")
        elif key not in PLACES:
            raise UsageError(f'{path}: unknown key "{key}".{did_you_mean(key, [*PLACES, *TABLES, "branch"])}')
        elif not isinstance(own, str):
            raise UsageError(f"{path}: {key} should be a path in quotes, found {own!r}")
    return content


def _check_table(path: Path, table: str, content: Any) -> None:
    if not isinstance(content, dict):
        raise UsageError(f"{path}: {table} should be a table, [{table}], found {content!r}")
    for key, own in content.items():
        if key not in TABLES[table]:
            raise UsageError(f'{path}: unknown key "{key}" in [{table}].{did_you_mean(key, TABLES[table])}')
        if not isinstance(own, str | int | float):
            raise UsageError(f"{path}: {key} in [{table}] should be a text or a number, found {own!r}")
