"""Weights that came from elsewhere get their place: a release's `.pt` as safetensors, a hand-downloaded folder's files.

A `.pt` is read without running what it says; what it was is noted in a small JSON beside what it became.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from cig.errors import CigError, InputError, MismatchError, NotFoundError, OutputError, reason, some
from cig.io import hub
from cig.io.digests import digest, file_digest, folder_digest
from cig.io.files import make_folder, stat_file, write_bytes, writing
from cig.io.json_files import read_object, write_json
from cig.weights.verify import Finding, compare_widths, inspect, weight_files

if TYPE_CHECKING:
    from cig.weights.catalogue import Weight

MOST_PHI = 2**31  # bytes; the largest published phi, with what trained it, has a quarter of them
MOST_CONFIG = 2**20
SUFFIXES = (".pt", ".pth", hub.WEIGHTS)
UNET = "diffusion_pytorch_model*.safetensors"


def adopt_phi(weight: Weight, original: Path, address: str) -> Path:
    """Converts a release's file into the weight's place, and notes what it was; returns the place.

    Args:
        address: where the file came from, for the note.

    Raises:
        InputError: no phi, or a pickle that would run something.
        MismatchError: not the content that the release is known by, or widths that do not fit its CLIP.
    """
    import safetensors.torch

    from cig.models.phi import kind_of, read_phi

    if (size := stat_file(original).st_size) > MOST_PHI:
        raise InputError(f"{original} has {size:,} bytes, more than any phi; refused")
    content = file_digest(original)
    if weight.sha256 and original.suffix != hub.WEIGHTS and content != weight.sha256:
        raise MismatchError(f"{original} is of sha256 {content}, but its release's file of {weight.sha256}; refused")
    weights, (width, _, out) = read_phi(original, kind_of(original, weight.network))
    compare_widths(weight, original, (width, out))
    data = safetensors.torch.save({name: own.contiguous() for name, own in weights.items()})
    place = Path(weight.place).with_suffix(hub.WEIGHTS)
    note = {"file": weight.file, "from": address, "sha256": content, "licence": weight.licence}
    write_bytes(place, data)
    write_json(place.with_suffix(".json"), {**note, "converted": digest(data)}, indent=1)
    return place


def stands_in_the_way(before: Finding) -> bool:
    """Whether what is there is not ours to replace: it is the user's to move.

    Ours are a phi that we converted, and a UNet's folder without the configuration, which we copy last.
    """
    if before.state != "broken" or before.path is None:
        return False
    if before.weight.kind == "unet":
        return (before.path / "config.json").exists()
    return before.weight.kind == "phi" and not _converted(before.path)


def _converted(phi: Path) -> bool:
    """Whether a note beside it says so."""
    try:
        return phi.suffix == hub.WEIGHTS and "converted" in read_object(phi.with_suffix(".json"))
    except CigError:
        return False


# A folder that was fetched by hand


def adopt_folder(weights: Sequence[Weight], folder: Path, link: bool = False) -> list[Finding]:
    """What of the weights lies anywhere below a folder goes to its place; one that is there and sound is kept.

    Args:
        link: the UNet's files are linked to, not copied; a phi, which is small, is converted in either case.

    Raises:
        NotFoundError: no such folder.
    """
    if not os.path.isdir(folder):
        raise NotFoundError(f"{folder} is not a folder; give the one that you downloaded with --from-dir")
    files = sorted(_files(folder))
    return [found for weight in weights if (found := _adopted(weight, files, link))]


def _files(folder: Path) -> Iterator[Path]:
    """Every file below, at any depth; links to folders are not followed."""
    for home, _, names in os.walk(folder):
        yield from (Path(home) / name for name in names)


def _adopted(weight: Weight, files: Sequence[Path], link: bool) -> Finding | None:
    """None where the folder has nothing of it."""
    offered = _offered(weight, files)
    if not offered:
        return None
    before = inspect(weight)
    if before.state == "sound":
        return replace(before, about=f"was there already and is kept: {before.about}")
    if stands_in_the_way(before):
        return before
    try:
        chosen = _one_of(offered)
        if weight.kind == "phi":
            adopt_phi(weight, chosen, str(chosen))
        else:
            _place_unet(weight, chosen.parent, link)
    except OutputError:
        raise
    except CigError as error:
        return Finding(weight, "broken", about=str(error), hint="download that file again")
    return inspect(weight)


def _offered(weight: Weight, files: Sequence[Path]) -> list[Path]:
    """Files that bear a phi's name, or the configurations of UNets."""
    if weight.kind == "phi" and not weight.shipped:
        stem = Path(weight.file).stem
        return [path for path in files if path.stem == stem and path.suffix in SUFFIXES]
    if weight.kind == "unet" and not weight.on_hub:
        return [path for path in files if path.name == "config.json" and _is_unet(path)]
    return []


def _is_unet(config: Path) -> bool:
    try:
        kind = read_object(config).get("_class_name") if stat_file(config).st_size <= MOST_CONFIG else None
    except CigError:  # any other program's
        return False
    return kind == "UNet2DConditionModel" and bool(weight_files(config.parent, UNET))


def _one_of(offered: Sequence[Path]) -> Path:
    """Raises MismatchError where it holds several that differ; a configuration stands for its folder."""
    if len({folder_digest(own.parent) if own.name == "config.json" else file_digest(own) for own in offered}) > 1:
        raise MismatchError(f"it has several that differ: {some(map(str, offered))}; keep the one you mean")
    return offered[0]


def _place_unet(weight: Weight, source: Path, link: bool) -> None:
    """The configuration comes last, so that what a kill left is not taken for a UNet."""
    target = make_folder(Path(weight.place) / "unet")
    files = [*weight_files(source, UNET), *sorted(source.glob("*.index.json")), source / "config.json"]
    for path in files:
        own = target / path.name
        if own.exists() and own.samefile(path):
            continue
        with writing(own):
            own.unlink(missing_ok=True)
            if link:
                own.symlink_to(path.resolve())
            else:
                _copy(path, own)


def _copy(path: Path, target: Path) -> None:
    aside = target.with_name(f"{target.name}.part")
    try:
        shutil.copyfile(path, aside)
        os.replace(aside, target)
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise OutputError(f"{path} cannot be copied to {target}: {reason(error)}") from error
