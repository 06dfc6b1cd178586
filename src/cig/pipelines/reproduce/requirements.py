"""What a cell of `cig reproduce` needs, what of it is not on this machine, and what to type for it."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from cig import config
from cig.benchmarks import Data
from cig.benchmarks._requirements import need_list, need_pictures
from cig.errors import NotFoundError
from cig.generators import need_unet
from cig.io.hub import need_model
from cig.methods import Source, split_method, weights_of
from cig.pipelines._models import phi_checks
from cig.pipelines._search_benchmark import check_searching
from cig.pipelines.reproduce.run import CellRun, Places

CLIP_FILES = (  # one of them is there where a CLIP is
    *("model.safetensors", "model.safetensors.index.json"),
    *("pytorch_model.bin", "pytorch_model.bin.index.json"),
)
SDXL_FILES = ("model_index.json",)
VAE_FILES = ("diffusion_pytorch_model.safetensors",)
GET = "cig models download"
IMAGINING = "run"  # the verb that wants all that composes and generates
BY_HAND = "--from-dir FOLDER"  # that was downloaded by hand, as there is no address of single files


@dataclass(frozen=True)
class Lack:
    """What a cell needs and this machine has not."""

    what: str
    why: str
    get: str  # what to type
    partly: bool = False  # some of it is there: the cell runs, on less than its number stands on


def lacks(attempt: CellRun, looked_at: dict[str, Lack | None] | None = None) -> list[Lack]:
    """What a cell needs and this machine has not; `looked_at` remembers what other cells have looked for."""
    looked_at = {} if looked_at is None else looked_at
    wanted: dict[str, tuple[Callable[[], object], str]] = {}
    for what, check, get in _needs(attempt):
        wanted.setdefault(what, (check, get))
    for what, (check, get) in wanted.items():
        if what not in looked_at:
            looked_at[what] = _look(what, check, get)
    return [lack for what in wanted if (lack := looked_at[what])]


Need = tuple[str, Callable[[], object], str]  # what, a check that raises NotFoundError, what to type


def _needs(attempt: CellRun) -> Iterator[Need]:
    data, get = attempt.data, f"cig download {attempt.cell.family}{_flag('--dataset-path', attempt.places.dataset)}"
    yield attempt.cell.benchmark, lambda: _need_data(data), get
    yield from _needed_to_search(attempt)
    if attempt.imagines:
        yield from _needed_to_imagine(attempt.places)


def _needed_to_search(attempt: CellRun) -> Iterator[Need]:
    searching, weights = attempt.searching, weights_of(attempt.cell.method)
    get, clip = _fetching("/".join(split_method(searching.method)), attempt.places), searching.clip or weights.clip
    yield _clip(clip, attempt.places, "--search-clip", get=get)
    if weights.phi:
        get = f"{get} {BY_HAND}" if weights.address == config.CIG_DRIVE else get
        yield str(searching.phi or Source().models / weights.phi), lambda: check_searching(searching), get


def _needed_to_imagine(places: Places) -> Iterator[Need]:
    composing, generation, get = places.composing, places.generation, _fetching(IMAGINING, places)
    yield _clip(composing.clip, places, "--clip", get=get)
    yield _clip(composing.clip2, places, "--clip2", get=get)
    for phi, check in zip(composing.phis, phi_checks(composing), strict=True):
        yield str(phi), check, f"{get} {BY_HAND}"
    yield str(generation.unet), lambda: need_unet(generation.unet), f"{get} {BY_HAND}"
    repositories = ((generation.sdxl_repo, SDXL_FILES, "--sdxl-repo"), (generation.vae_repo, VAE_FILES, "--vae-repo"))
    for repository, files, flag in repositories:
        yield repository, partial(need_model, repository, files, places.compute.cache_dir, flag=flag), get


def _fetching(name: str, places: Places) -> str:
    return f"{GET} {name}{_flag('--cache-dir', places.compute.cache_dir)}"


def _flag(name: str, value: Path | None) -> str:
    return f" {name} {shlex.quote(str(value))}" if value else ""


def _clip(source: str, places: Places, flag: str, *, get: str) -> Need:
    return source, lambda: need_model(source, CLIP_FILES, places.compute.cache_dir, flag=flag), get


def _look(what: str, check: Callable[[], object], get: str) -> Lack | None:
    try:
        check()
    except PartlyThere as error:
        return Lack(what, str(error), get, partly=True)
    except NotFoundError as error:
        return Lack(what, str(error), get)
    return None


class PartlyThere(NotFoundError):
    pass


def _need_data(data: Data) -> None:
    parts = data.load("val")
    need_list(parts)
    need_pictures(parts)
    need_pictures(parts, references=True)
    missing = {name for part in parts for name in part.missing_images}
    if missing:
        raise PartlyThere(f"{parts[0].name}: {len(missing)} pictures that its annotations name are not there")
