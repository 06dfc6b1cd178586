"""Read untrusted tensor files without running code in them, check them, and write them with the published keys."""

from __future__ import annotations

import io
import pickletools
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from cig.errors import InputError, MismatchError, reason, some
from cig.io.files import read_bytes, stat_file, write_bytes
from cig.types import ComposedEmbedding

if TYPE_CHECKING:
    from torch import Tensor

FLOATS = ("torch.float16", "torch.bfloat16", "torch.float32", "torch.float64")
LONGEST_NAME = 10_000  # characters, in a pickle


def read_tensors(path: Path) -> dict[str, Any]:
    """Read a `.pt` or `.safetensors` file as a dict; raises InputError."""
    loaded = _load(path)
    if not isinstance(loaded, dict):
        raise InputError(f"{path}: expected a dict of tensors, found {type(loaded).__name__}")
    return loaded


def read_matrix(path: Path) -> Tensor:
    """Read [N, d] floats from a `.pt` or `.safetensors` file: a tensor, a list of rows, or a dict with only that.

    Raises:
        InputError: the file holds something else, or a value is not finite.
    """
    import torch

    loaded = _load(path)
    if isinstance(loaded, dict) and len(loaded) == 1:
        loaded = next(iter(loaded.values()))
    if isinstance(loaded, list | tuple) and loaded and all(map(is_plain, loaded)):
        rows = [row.flatten() for row in loaded]
        loaded = torch.stack(rows) if len({row.shape for row in rows}) == 1 else None
    if not is_plain(loaded) or loaded.dim() != 2:
        raise InputError(f"{path}: expected one tensor of floats [N, d], found {_shape_of(loaded)}")
    if not torch.isfinite(loaded).all():
        raise InputError(f"{path} has values that are not finite")
    return loaded.float()


def _shape_of(value: Any) -> str:
    shape = getattr(value, "shape", None)
    return f"{type(value).__name__} {tuple(shape)}" if shape is not None else type(value).__name__


def _load(path: Path) -> Any:
    import safetensors.torch
    import torch

    # A pickle is a program, so torch loads weights only, and checks what a hostile file can still do to it come first.
    data = read_bytes(path)
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load(data)
        _refuse_bombs(io.BytesIO(data))
        return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:
        raise _unreadable(path, error) from error


def read_header(path: Path) -> dict[str, tuple[int, ...]]:
    """Map the names in a safetensors file to shapes, without reading numbers; raises InputError unless it is whole."""
    from safetensors import safe_open

    stat_file(path)
    try:
        with safe_open(path, "numpy") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except Exception as error:
        raise InputError(f"{path} is not a whole safetensors file: {reason(error)}") from error


def read_tensor(path: Path, name: str) -> Tensor:
    """Read one tensor of a safetensors file whose header was read; raises InputError."""
    from safetensors import safe_open

    try:
        with safe_open(path, "pt") as file:
            tensor: Tensor = file.get_tensor(name)
            return tensor
    except Exception as error:
        raise InputError(f"{path} is not a whole safetensors file: {reason(error)}") from error


def map_tensors(path: Path) -> dict[str, Tensor]:
    """Map a safetensors file into memory, which reads a row from the disk on access; raises InputError."""
    from safetensors.torch import load_file

    stat_file(path)
    try:
        return load_file(path)
    except Exception as error:
        raise InputError(f"{path} is not a whole safetensors file: {reason(error)}") from error


def map_checkpoint(path: Path) -> dict[str, Any]:
    """Map a large `.pt` file into memory as a dict, which reads its numbers on access; raises InputError."""
    import torch

    stat_file(path)
    try:
        with path.open("rb") as file:
            _refuse_bombs(file)
        loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:
        raise _unreadable(path, error) from error
    if not isinstance(loaded, dict):
        raise InputError(f"{path}: expected a dict of tensors, found {type(loaded).__name__}")
    return loaded


def _unreadable(path: Path, error: Exception) -> InputError:
    return InputError(f"{path} cannot be read as tensors (pickled programs are refused): {reason(error)}")


def _refuse_bombs(file: BinaryIO) -> None:
    """Raise ValueError for a file that would fill the memory, or keep torch busy for hours.

    torch matches its message about a refused name against a pattern, in time quadratic in the name's length.
    """
    for pickled in _pickles(file):
        for _, argument, _ in pickletools.genops(pickled):
            if isinstance(argument, str) and len(argument) > LONGEST_NAME:
                raise ValueError(f"a name of {len(argument)} characters")


def _pickles(file: BinaryIO) -> Iterator[BinaryIO]:
    """Yield the pickles in a `.pt` file: members of an archive or, as torch wrote before 1.6, five in a row."""
    is_archive = file.read(4) == b"PK\x03\x04"
    file.seek(0)
    if not is_archive:
        yield from [file] * 5  # the same stream: the reader of each stops at its end
        return
    archive = zipfile.ZipFile(file)
    unpacked, size = sum(member.file_size for member in archive.infolist()), file.seek(0, io.SEEK_END)
    if unpacked > size:  # torch.save does not compress, so this is a zip bomb
        raise ValueError(f"an archive of {size} bytes that unpacks to {unpacked}")
    for member in archive.infolist():
        if member.filename.lower().endswith(".pkl"):
            yield io.BytesIO(archive.read(member))


def is_plain(value: Any) -> bool:
    """Tell whether a value is a dense tensor of floats whose numbers all exist in memory.

    A file may describe other tensors: sparse, quantized, nested, on the meta device, or one stored number with strides
    that repeat it 2^40 times, which fills the memory as soon as something copies it.
    """
    import torch

    if not isinstance(value, torch.Tensor) or str(value.dtype) not in FLOATS:
        return False
    if value.layout is not torch.strided or value.device.type != "cpu" or value.is_nested:
        return False
    return 0 < value.numel() * value.element_size() <= value.untyped_storage().nbytes()


def write_embedding(path: Path, composed: ComposedEmbedding, row: int) -> None:
    """Write one query's `{id}.pt`, with the published keys."""
    import torch

    tensors = {
        "conditioning": composed.conditioning[row],
        "conditioning2": composed.conditioning2[row],
        "pooled": composed.last[row],
        "pooled2": composed.pooled2[row],
    }
    buffer = io.BytesIO()  # torch.save writes the name of its file into the archive, so bytes would depend on it
    torch.save({key: tensor.detach().cpu().clone() for key, tensor in tensors.items()}, buffer)
    write_bytes(path, buffer.getvalue())


def read_embedding(path: Path) -> dict[str, Tensor]:
    """Read a query's conditioning [L, h1], conditioning2 [L, h2], pooled [L, h1] and pooled2 [p2].

    Published files may have a leading dimension of 1.

    Raises:
        InputError: a key is absent (except pooled, which no generator reads), a shape is wrong, a value is not finite.
    """
    loaded = read_tensors(path)
    dims = {"conditioning": 2, "conditioning2": 2, "pooled2": 1} | ({"pooled": 2} if "pooled" in loaded else {})
    return {key: _tensor(loaded, key, dim=dim, path=path) for key, dim in dims.items()}


def _tensor(loaded: Mapping[str, Any], key: str, *, dim: int, path: Path) -> Tensor:
    import torch

    value = loaded.get(key)
    if not isinstance(value, torch.Tensor):
        raise InputError(f'{path}: no tensor "{key}"; it has {some(map(str, loaded))}')
    if not is_plain(value):
        raise InputError(f'{path}: "{key}" should be a dense tensor of floats, found {value.dtype} on {value.device}')
    if value.dim() == dim + 1 and value.shape[0] == 1:
        value = value[0]
    if value.dim() != dim:
        raise InputError(f'{path}: "{key}" is {tuple(value.shape)}, expected {dim} dimensions')
    if not torch.isfinite(value).all():
        raise InputError(f'{path}: "{key}" has values that are not finite')
    return value


def stack_embeddings(ids: Sequence[str], rows: Sequence[Mapping[str, Tensor]]) -> ComposedEmbedding:
    """Stack the embeddings of queries into a batch; raises MismatchError if their shapes differ."""
    import torch

    shapes = {tuple(tuple(row[key].shape) for key in ("conditioning", "conditioning2", "pooled2")) for row in rows}
    if len(shapes) > 1:
        raise MismatchError(f"the embeddings of {some(ids)} differ in shape: {sorted(shapes)}; extract them in one run")
    stacked = {key: torch.stack([row[key] for row in rows]) for key in ("conditioning", "conditioning2", "pooled2")}
    last = torch.stack([row.get("pooled", row["conditioning"]) for row in rows])
    return ComposedEmbedding(tuple(ids), last=last, **stacked)
