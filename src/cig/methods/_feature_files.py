"""Features that someone else computed: `.npz` or Parquet, read within bounds and without running what they say."""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cig.errors import InputError, UsageError, reason
from cig.io.files import read_bytes

MOST_BYTES = 2**35  # of features: ten million pictures of width 768
MOST_PACKED = 200  # times a file's size that it may unpack to
PAIRS = (("names", "features"), ("queries", "query_features"))


@dataclass(frozen=True)
class Table:
    """Names [N] and features [N, d] float32, finite; queries [Q] and theirs [Q, d], none where the file has none."""

    names: tuple[str, ...]
    features: NDArray[np.float32]
    queries: tuple[str, ...]
    query_features: NDArray[np.float32]


def read_table(path: Path) -> Table:
    """A file of features.

    `.npz`: arrays `names` [N] and `features` [N, d], and perhaps `queries` [Q] and `query_features` [Q, d].
    `.parquet`: columns `name` and `feature`, and perhaps `query`; where that is not null, the row is a query's.

    Raises:
        NotFoundError: it is not there.
        InputError: it is neither, too large, or its parts do not fit together.
    """
    readers = {".npz": _read_npz, ".parquet": _read_parquet}
    if path.suffix not in readers:
        raise UsageError(f"{path}: features come as .npz or .parquet")
    data = read_bytes(path)
    try:
        arrays = readers[path.suffix](data)
        parts = {key: _part(arrays, key, features) for key, features in PAIRS if key in arrays or key == "names"}
    except UsageError:
        raise
    except Exception as error:  # damaged files make their readers raise whatever
        raise InputError(f"{path} cannot be read as features: {reason(error)}") from error
    names, features = parts["names"]
    queries, own = parts.get("queries", ((), features[:0]))
    if own.shape[1] != features.shape[1]:
        raise InputError(f"{path}: query_features have width {own.shape[1]}, features {features.shape[1]}")
    return Table(names, features, queries, own)


def _part(arrays: dict[str, Any], names: str, features: str) -> tuple[tuple[str, ...], NDArray[np.float32]]:
    """Raises ValueError for what does not fit."""
    lacking = [key for key in (names, features) if key not in arrays]
    if lacking:
        raise ValueError(f"it has no {' and no '.join(lacking)}, but {', '.join(arrays) or 'nothing'}")
    ids, rows = arrays[names], arrays[features]
    if rows.ndim != 2 or rows.dtype.kind != "f" or len(ids) != len(rows):
        raise ValueError(
            f"{features} are {rows.dtype} {rows.shape}, expected floats ({len(ids)}, d), a row for each name"
        )
    rows = rows.astype(np.float32)
    infinite = np.flatnonzero(~np.isfinite(rows).all(1))
    if len(infinite):
        raise ValueError(f"the {features} of {ids[infinite[0]]} are not finite")
    return tuple(map(str, ids)), rows


def _bound(unpacked: int, packed: int) -> None:
    if unpacked > min(MOST_BYTES, MOST_PACKED * packed):
        raise ValueError(f"{packed} bytes that unpack to {unpacked}")


# NumPy


def _read_npz(data: bytes) -> dict[str, Any]:
    archive = zipfile.ZipFile(io.BytesIO(data))
    _bound(sum(member.file_size for member in archive.infolist()), len(data))
    wanted = {f"{key}.npy": key for pair in PAIRS for key in pair}
    members = [member for member in archive.infolist() if member.filename in wanted]
    arrays = {wanted[member.filename]: _read_npy(archive.read(member)) for member in members}
    return {key: array if key.endswith("features") else _texts(array) for key, array in arrays.items()}


def _read_npy(content: bytes) -> NDArray[Any]:
    """Its header may claim more than there is, and numpy would make room for that first."""
    file = io.BytesIO(content)
    headers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    shape, _, dtype = headers[np.lib.format.read_magic(file)](file)
    if dtype.hasobject or math.prod(shape) * dtype.itemsize > len(content):
        raise ValueError(f"it claims {dtype} {shape}, which it does not hold")
    return np.asarray(np.lib.format.read_array(io.BytesIO(content), allow_pickle=False))


def _texts(array: NDArray[Any]) -> list[str]:
    if array.ndim != 1 or array.dtype.kind not in "USiu":
        raise ValueError(f"names are {array.dtype} {array.shape}, expected texts (N,)")
    return [str(name) for name in array.astype(str).tolist()]


# Parquet


def _read_parquet(data: bytes) -> dict[str, Any]:
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise UsageError("Parquet is read by pyarrow: pip install pyarrow, or give an .npz") from error
    about = parquet.ParquetFile(io.BytesIO(data))
    _bound(_unpacked(about.metadata), len(data))
    there = about.schema_arrow.names
    known = [name for name in ("name", "feature", "query") if name in there]
    if not {"name", "feature"} <= set(known):
        raise ValueError(f"it has columns {', '.join(there)}, but wants name and feature")
    texts = [name for name in known if name != "feature"]
    table = parquet.ParquetFile(io.BytesIO(data), read_dictionary=texts).read(columns=known)
    names, rows = _column(table["name"]), np.concatenate([_matrix(chunk) for chunk in table["feature"].chunks])
    queries = _column(table["query"]) if "query" in known else [None] * len(names)
    asks = np.array([query is not None for query in queries], dtype=bool)
    own = [name for name, query in zip(names, queries, strict=True) if query is None]
    if None in own:
        raise ValueError("a row has neither a name nor a query")
    pictures = {"names": own, "features": rows[~asks]}
    return {**pictures, "queries": [q for q in queries if q is not None], "query_features": rows[asks]}


def _unpacked(metadata: Any) -> int:
    """At least so many bytes as it takes in memory: the numbers are counted, because runs of one are stored once."""
    groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
    columns = [group.column(i) for group in groups for i in range(group.num_columns)]
    return sum(max(column.total_uncompressed_size, 4 * column.num_values) for column in columns)


def _column(column: Any) -> list[Any]:
    """Its values; equal ones are one object, however often a small file repeats them."""
    values: list[Any] = []
    for chunk in column.chunks:
        own = chunk if hasattr(chunk, "dictionary") else chunk.dictionary_encode()
        words = [str(word) for word in own.dictionary.to_pylist()]
        values += [None if i is None else words[i] for i in own.indices.to_pylist()]
    return values


def _matrix(chunk: Any) -> NDArray[Any]:
    """A list column as [n, d]."""
    lengths: Sequence[int | None] = chunk.value_lengths().unique().to_pylist() if len(chunk) else [0]
    if len(lengths) != 1 or lengths[0] is None:
        raise ValueError(f"features of different widths: {lengths[:5]}")
    return np.asarray(chunk.flatten().to_numpy(zero_copy_only=False)).reshape(len(chunk), lengths[0])
