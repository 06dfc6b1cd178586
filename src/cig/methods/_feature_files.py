"""Files of features from other programs, `.npz` or Parquet. They are untrusted: bounded, and never unpickled."""

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
MOST_PACKED = 200  # a file may unpack to so many times its size
PAIRS = (("names", "features"), ("queries", "query_features"))


@dataclass(frozen=True)
class Table:
    """Features of pictures and, if the file has them, of queries."""

    names: tuple[str, ...]  # [N] of pictures
    features: NDArray[np.float32]  # [N, d] finite
    queries: tuple[str, ...]  # [Q] ids
    query_features: NDArray[np.float32]  # [Q, d] finite


def read_table(path: Path) -> Table:
    """Read a file of features.

    `.npz`: arrays `names` [N] and `features` [N, d]; optionally `queries` [Q] and `query_features` [Q, d].
    `.parquet`: columns `name` and `feature`; optionally `query`: a row with a query is that query's, not a picture's.

    Raises:
        NotFoundError: the file does not exist.
        InputError: the file is damaged or too large, or its parts do not fit together.
        UsageError: the name has another suffix.
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
    except Exception as error:  # on a damaged file, its reader may raise anything
        raise InputError(f"{path} cannot be read as features: {reason(error)}") from error
    names, features = parts["names"]
    queries, query_features = parts.get("queries", ((), features[:0]))
    if query_features.shape[1] != features.shape[1]:
        raise InputError(f"{path}: query_features have width {query_features.shape[1]}, features {features.shape[1]}")
    return Table(names=names, features=features, queries=queries, query_features=query_features)


def _part(arrays: dict[str, Any], names: str, features: str) -> tuple[tuple[str, ...], NDArray[np.float32]]:
    """Return a pair of arrays, checked; raises ValueError."""
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


# A file of kilobytes may claim, or unpack to, more than the memory holds. So sizes are checked before anything is
# unpacked: those in the zip's directory and in each array's header, and the number of values in Parquet's metadata.


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
    """Read an array; numpy would allocate what its header claims before it finds that the data are shorter."""
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
    file = parquet.ParquetFile(io.BytesIO(data))
    _bound(_unpacked(file.metadata), len(data))
    columns = file.schema_arrow.names
    wanted = [name for name in ("name", "feature", "query") if name in columns]
    if not {"name", "feature"} <= set(wanted):
        raise ValueError(f"it has columns {', '.join(columns)}, but wants name and feature")
    texts = [name for name in wanted if name != "feature"]
    table = parquet.ParquetFile(io.BytesIO(data), read_dictionary=texts).read(columns=wanted)
    names, rows = _column(table["name"]), np.concatenate([_matrix(chunk) for chunk in table["feature"].chunks])
    queries = _column(table["query"]) if "query" in wanted else [None] * len(names)
    is_query = np.array([query is not None for query in queries], dtype=bool)
    pictures = [name for name, query in zip(names, queries, strict=True) if query is None]
    if None in pictures:
        raise ValueError("a row has neither a name nor a query")
    return {
        "names": pictures,
        "features": rows[~is_query],
        "queries": [query for query in queries if query is not None],
        "query_features": rows[is_query],
    }


def _unpacked(metadata: Any) -> int:
    """Bound the bytes in memory from above, by the count of values: Parquet stores a run of equal ones once."""
    groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
    columns = [group.column(i) for group in groups for i in range(group.num_columns)]
    return sum(max(column.total_uncompressed_size, 4 * column.num_values) for column in columns)


def _column(column: Any) -> list[Any]:
    """Return a column's values as texts; equal ones are one object, however often a small file repeats them."""
    values: list[Any] = []
    for chunk in column.chunks:
        encoded = chunk if hasattr(chunk, "dictionary") else chunk.dictionary_encode()
        words = [str(word) for word in encoded.dictionary.to_pylist()]
        values += [None if i is None else words[i] for i in encoded.indices.to_pylist()]
    return values


def _matrix(chunk: Any) -> NDArray[Any]:
    """Return a list column as [n, d]; raises ValueError if its rows have different widths."""
    lengths: Sequence[int | None] = chunk.value_lengths().unique().to_pylist() if len(chunk) else [0]
    if len(lengths) != 1 or lengths[0] is None:
        raise ValueError(f"features of different widths: {lengths[:5]}")
    return np.asarray(chunk.flatten().to_numpy(zero_copy_only=False)).reshape(len(chunk), lengths[0])
