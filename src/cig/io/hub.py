"""Hub repositories that models come from: licences as they state them, pinned commits, widths, and the local cache.

A pinned commit makes the same id mean the same weights tomorrow. Commits are those that public projects pin; where a
repository's main branch has pickles only, the commit is that of its conversion to safetensors.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cig.errors import NotFoundError

HUB = "https://huggingface.co"
WEIGHTS = ".safetensors"  # nothing else that holds weights is fetched
CLIP_FILES = ("*.json", "*.txt", "model*.safetensors")


@dataclass(frozen=True)
class Repo:
    """What is known of a repository, and which of its files are used."""

    licence: str = "unknown"
    commit: str = ""  # none: whatever its main branch is
    widths: tuple[int, int] | None = None  # of a CLIP: projected picture features, words
    files: tuple[str, ...] = ("*.json", "*.txt", "*.safetensors")


REPOS = {
    "openai/clip-vit-base-patch32": Repo("MIT", "c237dc49a33fc61debc9276459120b7eac67e7ef", (512, 512), CLIP_FILES),
    "openai/clip-vit-large-patch14": Repo("MIT", "32bd64288804d66eefd0ccbe215aa642df71cc41", (768, 768), CLIP_FILES),
    "Geonmo/CLIP-Giga-config-fixed": Repo(widths=(1280, 1280), files=CLIP_FILES),
    "stabilityai/stable-diffusion-xl-base-1.0": Repo(
        "CreativeML Open RAIL++-M",
        "462165984030d82259a11f4367a4eed129e94a7b",
        files=("model_index.json", "scheduler/*.json"),  # no weights of it are used
    ),
    "madebyollin/sdxl-vae-fp16-fix": Repo(
        "MIT",
        "207b116dae70ace3637169f1ddd2434b91b3a8cd",
        files=("config.json", "diffusion_pytorch_model.safetensors"),
    ),
    "EleutherAI/gpt-neo-2.7B": Repo("MIT", "e24fa291132763e59f4a5422741b424fb5d59056"),  # SEARLE's phrases
    "navervision/zeroshot-cir-models": Repo(commit="5118df4683de6efa09f8e5336d86ca626ed21c44"),
}


def repo(source: str | Path) -> Repo:
    return REPOS.get(str(source), Repo())


def file_address(source: str, name: str) -> str:
    """Where a file of a repository is fetched."""
    return f"{HUB}/{source}/resolve/{repo(source).commit or 'main'}/{name}"


def endpoint(address: str) -> str:
    """An address on the hub, at the mirror that HF_ENDPOINT names if there is one."""
    own = os.environ.get("HF_ENDPOINT", "").rstrip("/")
    return own + address.removeprefix(HUB) if own and address.startswith(f"{HUB}/") else address


def snapshot(source: str | Path, cache_dir: Path | None = None) -> Path | None:
    """A hub id's folder in the cache: of the pinned commit, else of the main branch; None where there is neither."""
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    name = repo_folder_name(repo_id=str(source), repo_type="model")
    home = Path(cache_dir or constants.HF_HUB_CACHE) / name
    main = home / "refs" / "main"
    commits = [repo(source).commit, main.read_text().strip() if main.is_file() else ""]
    return next((own for name in filter(None, commits) if (own := home / "snapshots" / name).is_dir()), None)


def commit_of(source: str | Path, cache_dir: Path | None = None) -> str | None:
    """What `revision` to load: the pinned commit, unless another is in the cache or it is a folder; None for main."""
    pinned = repo(source).commit
    if not pinned or os.path.exists(source):
        return None
    there = snapshot(source, cache_dir)
    return pinned if there is None or there.name == pinned else None


def is_hub_id(place: str) -> bool:
    """Whether it is OWNER/NAME and no folder, nor the place of one."""
    return (
        place.count("/") == 1
        and place[0] not in "./~"
        and not place.startswith("models/")
        and not os.path.exists(place)
    )


def need_model(source: str, files: Sequence[str], cache_dir: Path | None, flag: str) -> None:
    """A model's folder, or one of these of its files in the hub's cache: what is not there would be fetched."""
    from huggingface_hub import constants

    if os.path.exists(source):
        return
    home = Path(cache_dir or constants.HF_HUB_CACHE) / f"models--{source.replace('/', '--')}"
    if not any(path.is_file() for name in files for path in home.glob(f"snapshots/*/{name}")):
        raise NotFoundError(
            f"{source} is neither a folder nor in the hub's cache: fetch it, or give a folder by {flag}"
        )
