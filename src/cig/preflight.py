"""What a verb needs before anything heavy is loaded: data, weights, folders. What is not there is named all at once."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from cig import config
from cig.errors import NotFoundError, UsageError
from cig.types import Benchmark


def need_all(
    load: Callable[[], tuple[Benchmark, ...]], checks: Iterable[Callable[[], object]]
) -> tuple[Benchmark, ...]:
    """The benchmark's parts, if every check passes; raises one NotFoundError with all that is not there."""
    problems: list[str] = []
    parts: tuple[Benchmark, ...] = ()
    try:
        parts = load()
    except NotFoundError as error:
        problems.append(str(error))
    for check in checks:
        try:
            check()
        except NotFoundError as error:
            problems.append(str(error))
    if problems:
        raise NotFoundError("\n".join(problems))
    return parts


def need_outside(parts: tuple[Benchmark, ...], out: Path) -> tuple[Benchmark, ...]:
    """The parts; raises UsageError where pictures that are made in `out` would be searched, too: a folder is walked."""
    for part in parts:
        walked = getattr(part.images, "home", None)
        if walked and is_walked(out, home := walked.resolve()):
            raise UsageError(
                f"{out} is among the pictures, which are searched; give, or work in, a folder outside of {home}"
            )
    return parts


def is_walked(place: Path, home: Path) -> bool:
    """Whether those who walk a folder come by: it is below, and in nothing that is hidden."""
    own, home = place.resolve(), home.resolve()
    return own.is_relative_to(home) and not any(name.startswith(".") for name in own.relative_to(home).parts)


def weights_at(path: Path) -> Path:
    """The file, or what `cig models download` converts it to: NAME.safetensors in its place."""
    safe = path.with_suffix(".safetensors")
    return safe if os.path.isfile(safe) and not os.path.isfile(path) else path


def need_phi(path: Path, key: str, flag: str) -> None:
    """A phi that composes; key is its default place's."""
    if not os.path.isfile(path):
        name = Path(config.PLACES[key])
        raise NotFoundError(
            f"the phi {path} is not there: get {name.name} from {config.CIG_DRIVE} and put it there "
            f"(cig models download {name.stem} --from-dir FOLDER), or give {flag}"
        )


def is_hub_id(place: str) -> bool:
    """Whether it is OWNER/NAME and no folder, nor the place of one."""
    return (
        place.count("/") == 1
        and place[0] not in "./~"
        and not place.startswith("models/")
        and not os.path.exists(place)
    )


def need_unet(model_path: str | Path, flag: str = "--model-path") -> str:
    """A folder with `unet/` in it, or a hub id, as from_pretrained takes it."""
    path, text = Path(model_path), str(model_path)
    if is_hub_id(text):
        return text
    if not os.path.isfile(path / "unet" / "config.json"):
        raise NotFoundError(
            f"the UNet {path / 'unet'} is not there: get the SDXL checkpoint from {config.CIG_DRIVE} and put its "
            f"config.json and diffusion_pytorch_model.safetensors there (cig models download sdxl_checkpoint "
            f"--from-dir FOLDER), or give another with {flag}"
        )
    return text


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


def need_embeddings(path: Path) -> None:
    before, category, _ = str(path).partition("{category}")
    if not os.path.isdir(os.path.dirname(before) or "." if category else path):
        raise NotFoundError(f"{path} is not a folder of embeddings; run `cig extract` first, or check the path")


def need_list(parts: Sequence[Benchmark]) -> None:
    """The official gallery, not whatever pictures were found: no number on these is comparable with any other."""
    for part in parts:
        if part.missing_list:
            raise NotFoundError(
                f"the gallery of {part.title} is not known: its list {part.missing_list} is not there, "
                f"and the {len(part.gallery):,} pictures found are no official one"
            )


def need_pictures(parts: Sequence[Benchmark], references: bool = False) -> None:
    """At least one picture of each gallery, or one reference; which ones are missing is for the report to say."""
    for part in parts:
        names = [query.reference for query in part.queries] if references else part.gallery
        if not any(name in part.images for name in names):
            what = "reference" if references else "picture of the gallery"
            listed = references or not part.missing_list
            known = f"{len(set(names))} are listed" if listed else f"nor their list, {part.missing_list}"
            raise NotFoundError(
                f"no {what} of {part.title} was found ({known}); "
                f"put the pictures into the dataset's folder as its release does"
            )
