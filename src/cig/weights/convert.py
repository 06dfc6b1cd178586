"""Checkpoints from elsewhere: a release's `.pt` becomes safetensors, a hand-downloaded folder's files are put in place.

A `.pt` is read without running what it contains; a small JSON beside the converted file notes what it was.
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
from cig.io.digests import digest, folder_digest, read_digest
from cig.io.files import make_folder, stat_file, write_bytes, writing
from cig.io.json_files import read_object, write_json
from cig.weights.verify import Inspection, checkpoint_files, compare_widths, inspect

if TYPE_CHECKING:
    from cig.weights.catalogue import ModelCheckpoint

MOST_PHI = 2**31  # bytes; the largest published phi, with what trained it, has a quarter of them
MOST_CONFIG = 2**20
SUFFIXES = (".pt", ".pth", hub.WEIGHTS)
UNET = "diffusion_pytorch_model*.safetensors"


def convert_phi(checkpoint: ModelCheckpoint, original: Path, address: str) -> Path:
    """Convert a release's file into the checkpoint's location, note what it was, and return the new path.

    The file comes from a stranger. Its size is bounded before it is read, its digest is compared where the release's is
    known, and it is read as tensors only: a pickle that would call anything is refused.

    Args:
        address: where the file came from, for the note.

    Raises:
        InputError: not a phi, or a pickle that would run something.
        MismatchError: not the release's content, or widths that do not fit its CLIP.
    """
    import safetensors.torch

    from cig.models.phi import checkpoint_kind, read_phi

    if (size := stat_file(original).st_size) > MOST_PHI:
        raise InputError(f"{original} has {size:,} bytes, more than any phi; refused")
    content = read_digest(original)
    if checkpoint.sha256 and original.suffix != hub.WEIGHTS and content != checkpoint.sha256:
        raise MismatchError(
            f"{original} is of sha256 {content}, but its release's file of {checkpoint.sha256}; refused"
        )
    tensors, (width, _, out) = read_phi(original, checkpoint_kind(original, checkpoint.network))
    compare_widths(checkpoint, original, (width, out))
    data = safetensors.torch.save({name: tensor.contiguous() for name, tensor in tensors.items()})
    path = Path(checkpoint.location).with_suffix(hub.WEIGHTS)
    note = {"file": checkpoint.file, "from": address, "sha256": content, "licence": checkpoint.licence}
    write_bytes(path, data)
    write_json(path.with_suffix(".json"), {**note, "converted": digest(data)}, indent=1)
    return path


def belongs_to_user(before: Inspection) -> bool:
    """Return whether a broken checkpoint is the user's, who has to move it: only our files are replaced.

    Ours are a phi with a note of its conversion, and a UNet's folder without the configuration, which is copied last.
    """
    if before.state != "broken" or before.path is None:
        return False
    if before.checkpoint.kind == "unet":
        return (before.path / "config.json").exists()
    return before.checkpoint.kind == "phi" and not _is_converted(before.path)


def _is_converted(phi: Path) -> bool:
    try:
        return phi.suffix == hub.WEIGHTS and "converted" in read_object(phi.with_suffix(".json"))
    except CigError:
        return False


# A folder that was downloaded by hand


def import_checkpoints(checkpoints: Sequence[ModelCheckpoint], folder: Path, link: bool = False) -> list[Inspection]:
    """Put the checkpoints that are anywhere below a folder in place; sound ones that are in place are kept.

    Args:
        link: link to the UNet's files instead of copying them; a phi, which is small, is converted in either case.

    Raises:
        NotFoundError: no such folder.
    """
    if not os.path.isdir(folder):
        raise NotFoundError(f"{folder} is not a folder; give the one that you downloaded with --from-dir")
    files = sorted(Path(home) / name for home, _, names in os.walk(folder) for name in names)
    results = (_import(checkpoint, files, link) for checkpoint in checkpoints)
    return [result for result in results if result]


def _import(checkpoint: ModelCheckpoint, files: Sequence[Path], link: bool) -> Inspection | None:
    """Import one checkpoint; return None where none of the files is of it."""
    candidates = list(_candidates(checkpoint, files))
    if not candidates:
        return None
    before = inspect(checkpoint)
    if before.state == "sound":
        return replace(before, detail=f"was there already and is kept: {before.detail}")
    if belongs_to_user(before):
        return before
    try:
        chosen = _only_one(candidates)
        if checkpoint.kind == "phi":
            convert_phi(checkpoint, chosen, str(chosen))
        else:
            _copy_unet(checkpoint, chosen.parent, link)
    except OutputError:
        raise
    except CigError as error:
        return Inspection(checkpoint, "broken", detail=str(error), hint="download that file again")
    return inspect(checkpoint)


def _candidates(checkpoint: ModelCheckpoint, files: Sequence[Path]) -> Iterator[Path]:
    """Find files that have a phi's name, or the configurations of UNets."""
    stem = Path(checkpoint.file).stem
    for path in files:
        if checkpoint.kind == "phi" and not checkpoint.shipped and path.stem == stem and path.suffix in SUFFIXES:
            yield path
        if checkpoint.kind == "unet" and not checkpoint.on_hub and path.name == "config.json" and _is_unet(path):
            yield path


def _is_unet(config: Path) -> bool:
    try:
        kind = read_object(config).get("_class_name") if stat_file(config).st_size <= MOST_CONFIG else None
    except CigError:  # another program's config.json
        return False
    return kind == "UNet2DConditionModel" and bool(checkpoint_files(config.parent, UNET))


def _only_one(candidates: Sequence[Path]) -> Path:
    """Return the first; raise MismatchError where they differ. A configuration stands for its folder."""
    contents = {folder_digest(path.parent) if path.name == "config.json" else read_digest(path) for path in candidates}
    if len(contents) > 1:
        raise MismatchError(f"it has several that differ: {some(map(str, candidates))}; keep the one you mean")
    return candidates[0]


def _copy_unet(checkpoint: ModelCheckpoint, source: Path, link: bool) -> None:
    """Copy or link a UNet's files. The configuration comes last: a folder without it, after a kill, is no UNet."""
    folder = make_folder(Path(checkpoint.location) / "unet")
    files = [*checkpoint_files(source, UNET), *sorted(source.glob("*.index.json")), source / "config.json"]
    for path in files:
        target = folder / path.name
        if target.exists() and target.samefile(path):
            continue
        with writing(target):
            target.unlink(missing_ok=True)
            if link:
                target.symlink_to(path.resolve())
            else:
                _copy(path, target)


def _copy(path: Path, target: Path) -> None:
    partial = target.with_name(f"{target.name}.part")
    try:
        shutil.copyfile(path, partial)
        os.replace(partial, target)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise OutputError(f"{path} cannot be copied to {target}: {reason(error)}") from error
