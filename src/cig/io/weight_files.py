"""Write safetensors and `.pt` files whole or not at all, without a second copy of the tensors in memory."""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cig.io.files import replacing

if TYPE_CHECKING:
    from torch import Tensor


def write_safetensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write tensors as they are in memory, from any device."""
    from safetensors.torch import save_file

    # The library refuses other layouts, such as channels_last, which convolutions return for batches on a CPU.
    rows = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with replacing(path) as file, _system_errors():
        save_file(rows, file.name, metadata=dict(metadata) if metadata else None)


def write_pt(path: Path, content: Any) -> None:
    """Write a `.pt` file, whose bytes do not depend on its name: torch names an archive after a path, not a file."""
    import torch

    with replacing(path) as file, _system_errors():
        torch.save(content, file)


@contextlib.contextmanager
def _system_errors() -> Iterator[None]:
    """Raise what a library makes of a full disk as the system's error."""
    try:
        yield
    except Exception as error:
        if isinstance(error.__context__, OSError):  # torch
            raise error.__context__ from error
        if code := re.search(r"\(os error (\d+)\)", str(error)):  # safetensors
            raise OSError(int(code[1]), os.strerror(int(code[1]))) from error
        raise


def write_weights(path: Path, weights: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write the float16 weights of a model, one after the other."""
    shapes = {name: weight.shape for name, weight in weights.items()}
    stream_weights(path, shapes, weights.__getitem__, metadata=metadata)


def stream_weights(
    path: Path,
    shapes: Mapping[str, Sequence[int]],
    weight_of: Callable[[str], Tensor],
    *,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write a file of float16 weights, each of which is made just before it is written.

    Args:
        shapes: of all weights, by name.
        weight_of: returns the weight of a name.
        metadata: of the file; a model that other libraries load has {"format": "pt"}.
    """
    # The library writes tensors that are all in memory: of SDXL's UNet, 5 GB more beside the UNet itself. The bytes
    # here are the library's, which the tests compare: a length, a header in JSON padded to 8 bytes, the numbers.
    header: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    names, end = sorted(shapes), 0
    for name in names:
        begin, end = end, end + 2 * math.prod(shapes[name])
        header[name] = {"dtype": "F16", "shape": list(shapes[name]), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    with replacing(path) as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in names:
            file.write(weight_of(name).detach().half().cpu().contiguous().numpy().data)
