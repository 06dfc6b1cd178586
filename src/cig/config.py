"""Settings outside of flags: `cig.toml`, the environment, which takes precedence over it, and a generator's presets.

The file is the nearest one, in the working folder or above it. Paths in it, and default places, are below its folder.

phi_vit = "/weights/phi_best.pt"      # a path; or CIG_PHI_VIT
[search]                              # a table: the flags of that group in --help
method = "lincir"                     # or CIG_SEARCH_METHOD
[[branch]]                            # as --branch
name = "sketch"
"""

from __future__ import annotations

import logging
import os
import tempfile
import tomllib
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from cig.errors import InputError, UsageError, WrongNameError, did_you_mean

CIG_DRIVE = "the CIG authors' drive folder (linked from github.com/lan-lw/ComposedImageGen)"
CIG_LICENCE = "none stated"  # of that folder's files
PATHS = {  # the published configuration's keys and folders, and those that it lacks
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
    "compose": ("clip", "clip2", "phi", "phi2", "preprocess_type", "dtype"),
    "generate": (
        *("generator", "model_path", "sdxl_repo", "vae_repo", "height", "width", "steps"),
        *("guidance_scale", "image_guidance_scale", "seed", "seeds", "brightness_thresh", "max_retries"),
        *("offload", "vae_slicing", "vae_tiling", "attention_slicing"),
    ),
    "search": (
        *("method", "clip", "phi", "preprocess_type", "method_option", "prompt"),
        *("fusion_weight", "weights", "feature_cache"),
    ),
}
FILE = "cig.toml"
LOCATIONS = {"cache_dir", "phi", "phi2", "weights", "feature_cache"}  # keys whose values are paths
SOURCES = {"clip", "clip2", "model_path", "sdxl_repo", "vae_repo", "method_option"}  # paths or hub ids; KEY=FILE
EMBEDDED = Path(str(resources.files("cig"))) / "assets" / "icons"  # the shipped models
SHIPPED_CLIPS = {"icons": "clip", "icons/clip": "clip", "icons/large": "large"}
DEFAULT_GENERATOR = "sdxl"
GENERATORS: dict[str, dict[str, dict[str, Any]]] = {  # name -> table -> flag -> its preset
    "sdxl": {},  # the published settings are the flags' defaults
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


def path(key: str) -> Path:
    """Return the default path of a file or folder; a benchmark that is not listed is in ./datasets/NAME."""
    return Path(path_setting(key).value)


def path_setting(key: str) -> Setting:
    return value("", key) or Setting(below_project(PATHS.get(key, f"./datasets/{key}")), "default")


def project() -> Path:
    """Return the folder of the nearest cig.toml, as a path from the working folder; without one, the working folder."""
    if os.path.lexists(FILE):
        return Path()
    files = ((level, folder / FILE) for level, folder in enumerate(Path.cwd().parents, 1))
    levels = (level for level, file in files if file.is_file() and _is_ours(file))
    return Path(*[".."] * next(levels, 0))


def _is_ours(file: Path) -> bool:
    """Tell whether this user owns a file and its folder: a setting names models and folders to write into.

    Anybody may put a cig.toml into a shared folder such as /tmp, above the folders of others.
    """
    if not hasattr(os, "geteuid"):  # on Windows
        return True
    if {os.stat(path).st_uid for path in (file, file.parent)} == {os.geteuid()}:
        return True
    _say_foreign(file)
    return False


@cache
def _say_foreign(file: Path) -> None:
    logging.getLogger("cig").warning("%s is not read: it or its folder is another user's; run cig in there", file)


def project_above() -> str:
    """Return a hint for a working folder without a cig.toml, below one with models or datasets; "" for any other."""
    above = () if project() != Path() or os.path.lexists(FILE) else Path.cwd().parents
    if any(os.path.isdir(name) for name in _PROJECT_FOLDERS):
        return ""
    folders = (folder / name for folder in above for name in _PROJECT_FOLDERS)
    folder = next((folder for folder in folders if folder.is_dir()), None)
    if folder is None:
        return ""
    return (
        f"No cig.toml is here or above, so default places are below this folder. {folder} may be meant: a file "
        f"{folder.parent / FILE}, which may be empty, says so"
    )


_PROJECT_FOLDERS = ("datasets", "models")


def below_project(path: str) -> str:
    """Return a default path as written from the working folder."""
    folder = project()
    return path if folder == Path() else str(folder / path)


def source_below_project(source: str) -> str:
    """Return a path or a hub id of cig.toml, or its KEY=FILE words, as written from the working folder."""
    folder = project()
    if folder == Path() or not source:
        return source
    if source.startswith(".") or (folder / source).exists():
        return str(folder / source)
    words = [word.rpartition("=") for word in source.split(" ")]
    return " ".join(f"{key}{mark}{source_below_project(name) if mark else name}" for key, mark, name in words)


def value(table: str, key: str) -> Setting | None:
    """Look a flag of a table, or a path ("" as the table), up in the environment, then in cig.toml."""
    variable = "_".join(filter(None, ("CIG", table, key))).upper()
    if os.environ.get(variable):
        return Setting(os.environ[variable], f"{variable} in the environment")
    content = _read_file()
    settings = content.get(table, {}) if table else content
    if key not in settings:
        return None
    entry = str(settings[key])
    if not table or key in LOCATIONS:
        entry = below_project(entry)
    elif key in SOURCES:
        entry = source_below_project(entry)
    return Setting(entry, str(project() / FILE))


def of_generator(name: str, table: str, key: str) -> Setting | None:
    """Return a generator's preset of a flag.

    Raises:
        WrongNameError: no generator has this name.
    """
    if name not in GENERATORS:
        raise WrongNameError(f'no generator "{name}".{did_you_mean(name, GENERATORS)}')
    presets = GENERATORS[name].get(table, {})
    return Setting(str(presets[key]), f"generator {name}") if key in presets else None


def user_cache() -> Path:
    """Return the folder of files that all runs of a user share; where it cannot be written, one for this run alone."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path(os.path.expanduser("~"), ".cache")) / "cig"
    base = next((parent for parent in (folder, *folder.parents) if os.path.exists(parent)), folder)
    if os.path.isdir(base) and os.access(base, os.W_OK | os.X_OK):
        return folder
    return Path(_temporary_cache(folder).name)


@cache
def _temporary_cache(folder: Path) -> tempfile.TemporaryDirectory[str]:
    made = tempfile.TemporaryDirectory(prefix="cig-")
    logging.getLogger("cig").warning("%s cannot be written: this run goes on without a cache of earlier ones", folder)
    return made


def branch_tables() -> list[dict[str, Any]]:
    """Return the [[branch]] tables of cig.toml."""
    tables: list[dict[str, Any]] = _read_file().get("branch", [])
    return tables


def _read_file() -> dict[str, Any]:
    """Read and check cig.toml; return {} where there is none.

    Raises:
        InputError: the file is not TOML.
        UsageError: an unknown key, or a value of the wrong kind.
    """
    file = project() / FILE
    if not file.exists():
        return {}
    if not file.is_file():
        raise InputError(f"{file} is not a file")
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:  # nested brackets without end exhaust tomllib's recursion
        raise InputError(f"{file}: not TOML: {error}") from error
    for key, entry in content.items():
        if key in TABLES:
            _check_table(file, key, entry)
        elif key == "branch":
            if not isinstance(entry, list) or not all(isinstance(table, dict) for table in entry):
                raise UsageError(f"{file}: branches are tables, each under a line [[branch]], found {entry!r}")
        elif key not in PATHS:
            raise UsageError(f'{file}: unknown key "{key}".{did_you_mean(key, [*PATHS, *TABLES, "branch"])}')
        elif not isinstance(entry, str):
            raise UsageError(f"{file}: {key} should be a path in quotes, found {entry!r}")
    return content


def _check_table(file: Path, table: str, content: Any) -> None:
    if not isinstance(content, dict):
        raise UsageError(f"{file}: {table} should be a table, [{table}], found {content!r}")
    for key, entry in content.items():
        if key not in TABLES[table]:
            raise UsageError(f'{file}: unknown key "{key}" in [{table}].{did_you_mean(key, TABLES[table])}')
        if not isinstance(entry, str | int | float):
            raise UsageError(f"{file}: {key} in [{table}] should be a text or a number, found {entry!r}")


def clip_source(source: str | Path) -> str:
    """Return the folder of a shipped CLIP by its name, such as icons; any other hub id or folder as it is."""
    folder = SHIPPED_CLIPS.get(str(source))
    return str(EMBEDDED / folder) if folder and not os.path.exists(source) else str(source)
