"""The hub repositories of models: their stated licences, pinned commits and widths, and the hub's local cache.

A pinned commit keeps the weights behind an id the same. We pin the commits that public projects pin; where the main
branch has only pickles, the commit is that of its conversion to safetensors.
"""

from __future__ import annotations

import glob
import os
import re
import socket
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cig.errors import NotFoundError, reason
from cig.io.addresses import proxy_of, split_address
from cig.io.json_files import read_object
from cig.runtime import warn

HUB = "https://huggingface.co"
WEIGHTS = ".safetensors"  # the only form of weights that is fetched
SMALL = (".json", ".txt", ".model", ".jinja")  # configurations and tokenizers
CLIP_FILES = ("*.json", "*.txt", "model*.safetensors")


@dataclass(frozen=True)
class Repo:
    """A repository's facts, and the patterns of the files that we use."""

    licence: str = "unknown"
    commit: str = ""  # empty for the head of the main branch
    widths: tuple[int, int] | None = None  # a CLIP's projected picture features, and its words
    files: tuple[str, ...] = ("*.json", "*.txt", "*.safetensors")


REPOS = {
    "openai/clip-vit-base-patch32": Repo("MIT", "c237dc49a33fc61debc9276459120b7eac67e7ef", (512, 512), CLIP_FILES),
    "openai/clip-vit-large-patch14": Repo("MIT", "32bd64288804d66eefd0ccbe215aa642df71cc41", (768, 768), CLIP_FILES),
    "Geonmo/CLIP-Giga-config-fixed": Repo(widths=(1280, 1280), files=CLIP_FILES),
    "BAAI/BGE-VL-base": Repo("MIT", widths=(512, 512), files=CLIP_FILES),
    "BAAI/BGE-VL-large": Repo("MIT", widths=(768, 768), files=CLIP_FILES),
    "stabilityai/stable-diffusion-xl-base-1.0": Repo(
        "CreativeML Open RAIL++-M",
        "462165984030d82259a11f4367a4eed129e94a7b",
        files=("model_index.json", "scheduler/*.json"),  # we use none of its weights
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
    """Return the address of a file in a repository."""
    return f"{HUB}/{source}/resolve/{repo(source).commit or 'main'}/{name}"


def endpoint(address: str) -> str:
    """Move an address on the hub to the mirror that HF_ENDPOINT names, if it names one."""
    mirror = os.environ.get("HF_ENDPOINT", "").rstrip("/")
    return mirror + address.removeprefix(HUB) if mirror and address.startswith(f"{HUB}/") else address


def snapshot(source: str | Path, cache_dir: Path | None = None) -> Path | None:
    """Find a hub id's folder in the cache: of the pinned commit, else of the main branch; None without either."""
    from huggingface_hub import constants
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.file_download import repo_folder_name

    try:
        name = repo_folder_name(repo_id=str(source), repo_type="model")
    except HFValidationError:  # no hub id
        return None
    home = Path(cache_dir or constants.HF_HUB_CACHE) / name
    main = home / "refs" / "main"
    commits = [repo(source).commit, main.read_text().strip() if main.is_file() else ""]
    return next((folder for name in filter(None, commits) if (folder := home / "snapshots" / name).is_dir()), None)


def commit_of(source: str | Path, cache_dir: Path | None = None) -> str | None:
    """Return the `revision` to load: the pinned commit, or None for the main branch and for a local folder.

    Where the cache holds only the main branch, the answer is None, so that a machine without network can load it.
    """
    pinned = repo(source).commit
    if not pinned or os.path.exists(source):
        return None
    cached = snapshot(source, cache_dir)
    return pinned if cached is None or cached.name == pinned else None


def pinned_snapshot(source: str | Path, cache_dir: Path | None, files: Sequence[str]) -> Path | None:
    """Find a hub id's folder of its pinned commit in the cache, if it is whole; else None.

    A commit never changes, so such a folder is used without asking the hub.

    Args:
        files: patterns, of which each must have a file: "config.json", "model*.safetensors".
    """
    folder = snapshot(source, cache_dir) if files and not os.path.exists(source) else None
    if folder is None or folder.name != repo(source).commit:
        return None
    matches = [list(folder.glob(pattern)) for pattern in files]
    folders = {path.parent for paths in matches for path in paths}
    return folder if all(matches) and all(map(_is_whole, folders)) else None


def _is_whole(folder: Path) -> bool:
    """Return whether a folder has all shards of its weights."""
    indexes = list(folder.glob(f"*{WEIGHTS}.index.json"))
    named = [read_object(index).get("weight_map") for index in indexes]
    shards = {str(name) for names in named if isinstance(names, dict) for name in names.values()}
    has_index = bool(indexes) or not list(folder.glob(f"*-of-*{WEIGHTS}"))
    return has_index and all((folder / name).is_file() for name in shards)


def model_folder(source: str, cache_dir: Path | None, kind: str, *, pickled: str = "pytorch_model") -> Path:
    """Return the folder that all files of a model are read from: its own, or a hub id's snapshot in the cache.

    A pinned snapshot that is whole is used without asking the hub, and any other where the hub cannot be reached. Else
    the files that the snapshot lacks are fetched: configurations, tokenizer, and weights of one form.

    Args:
        kind: of model, for messages: "CLIP".
        pickled: the stem of pickled weights that will do where there are no others; empty if none does.

    Raises:
        NotFoundError: neither a folder nor a hub id that can be reached.
        Exception: whatever the library raises for files that do not come.
    """
    if os.path.exists(source):
        return Path(source)
    if whole := pinned_snapshot(source, cache_dir, ("config.json", f"model*{WEIGHTS}")):
        return whole
    need_source(source, cache_dir, kind)
    from huggingface_hub import constants

    cached = snapshot(source, cache_dir)
    if constants.HF_HUB_OFFLINE and cached:
        return cached
    try:
        return _fetch_model(source, cache_dir, pickled)
    except Exception as error:  # of the library, of its HTTP client, of the disk
        if not (cached and (cached / "config.json").is_file() and list(cached.glob(f"model*{WEIGHTS}"))):
            raise
        warn(f"the hub does not give {source} ({reason(error)}): its copy in the cache is used, {cached}")
        return cached


def _fetch_model(source: str, cache_dir: Path | None, pickled: str) -> Path:
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.utils import disable_progress_bars

    if not sys.stderr.isatty():
        disable_progress_bars()
    api = HfApi(os.environ.get("HF_ENDPOINT") or None)
    revision = commit_of(source, cache_dir)
    tree = api.list_repo_tree(source, revision=revision)
    wanted = files_of_model([entry.path for entry in tree], pickled)
    endpoint = api.endpoint
    return Path(
        snapshot_download(source, revision=revision, cache_dir=cache_dir, allow_patterns=wanted, endpoint=endpoint)
    )


def files_of_model(names: Sequence[str], pickled: str) -> list[str]:
    """Choose the files of a transformers model from the top folder of its repository.

    Weights are those that transformers takes: safetensors, else a variant of them such as fp16, else pickles.
    """
    top = [name for name in names if "/" not in name]
    forms = [r"model(-\d+-of-\d+)?\.safetensors", r"model\.\w+(-\d+-of-\d+)?\.safetensors"]
    forms += [rf"{re.escape(pickled)}(-\d+-of-\d+)?\.bin"] if pickled else []
    weights = ([name for name in top if re.fullmatch(form, name)] for form in forms)
    return [name for name in top if name.endswith(SMALL)] + next(filter(None, weights), [])


def is_hub_id(source: str) -> bool:
    """Tell whether a source is OWNER/NAME on the hub, rather than the path of a folder."""
    return (
        source.count("/") == 1
        and source[0] not in "./~"
        and not source.startswith("models/")
        and not os.path.exists(source)
    )


def need_source(source: str, cache_dir: Path | None, kind: str) -> None:
    """Raise NotFoundError at once for a model that is neither on this machine nor to be had from the hub.

    huggingface_hub asks six times for each file of a model, which takes a minute or more without a network. So one
    connection is tried first. Where it fails, the library is told to work offline: then it takes what is in its cache
    without asking. The next call tries again, since a session may outlive an outage.

    Args:
        kind: of model, for the message: "CLIP".
    """
    if os.path.exists(source):
        return
    if source.count("/") > 1 or source[:1] in ("", ".", "/", "~"):
        raise NotFoundError(f'no {kind} "{source}": there is no such folder')
    why = unreachable()
    if why and not snapshot(source, cache_dir):
        fetch = f"{'cig models' if source in REPOS else 'hf'} download {source}"
        raise NotFoundError(
            f"no {kind} {source}: it is neither a folder nor in the hub's cache, and {why}. Fetch it where there is a "
            f"network ({fetch}), or give the folder of a copy, or the cache by --cache-dir"
        )


_found_offline = threading.Event()  # HF_HUB_OFFLINE was set by us


def unreachable() -> str:
    """Say why the hub cannot be reached; "" if it can. From then on huggingface_hub works offline, or online again.

    HF_HUB_ETAG_TIMEOUT, the library's own setting, is how many seconds a slow network has to answer.
    """
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE and not _found_offline.is_set():
        return "HF_HUB_OFFLINE is set"
    parts, host, port = split_address(os.environ.get("HF_ENDPOINT") or constants.ENDPOINT)
    proxy = proxy_of(parts.scheme, host)
    if proxy:
        _, host, port = split_address(proxy)
    failure = _connect(host, port, constants.HF_HUB_ETAG_TIMEOUT)
    constants.HF_HUB_OFFLINE = bool(failure)
    (_found_offline.set if failure else _found_offline.clear)()
    return failure and f"{'the proxy ' * bool(proxy)}{host} cannot be reached ({failure})"


def _connect(host: str, port: int, seconds: float) -> str:
    """Connect once; return what failed, or "". A thread waits, because the lookup of a name has no time limit."""
    failure = [f"no answer within {seconds:g} seconds"]

    def connect() -> None:
        try:
            socket.create_connection((host, port), seconds).close()
            failure[0] = ""
        except OSError as error:
            failure[0] = error.strerror or failure[0]

    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(seconds)
    return failure[0]


def need_model(source: str, files: Sequence[str], cache_dir: Path | None, *, flag: str) -> None:
    """Raise NotFoundError unless the source exists on disk, or one of the files is in the hub's cache."""
    from huggingface_hub import constants

    if os.path.exists(source):
        return
    home = Path(cache_dir or constants.HF_HUB_CACHE) / f"models--{source.replace('/', '--')}"
    # Unlike Path's, these functions find nothing where a folder may not be read.
    cached = (path for name in files for path in glob.glob(str(Path(glob.escape(str(home)), "snapshots", "*", name))))
    if not any(map(os.path.isfile, cached)):
        raise NotFoundError(
            f"{source} is neither a folder nor in the hub's cache: fetch it, or give a folder by {flag}"
        )
