"""The index of a gallery: one protocol, and an engine a file. `exact` is embedded, `milvus` is a file or a server.

An engine keeps a row for each picture: its name, how its file looked when it was read, its feature, its metadata. It
filters, and proposes the nearest rows; `_order` ranks them, so that every engine gives the same answer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from cig import registry
from cig.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from cig.retrieval.filters import Condition
    from cig.retrieval.index._order import Candidate


@dataclass(frozen=True)
class IndexEntry:
    """What an index knows of a picture, beside its feature."""

    name: str  # path below the gallery, in POSIX form; unique in the index
    content: str  # sha256 of the file
    stamp: str = ""  # how the file looked when it was read; "" asks the next build to read it again
    file: str = ""  # where the file is: "" for gallery/name, else a path, relative to the index's folder
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Row:
    """An entry and its feature."""

    entry: IndexEntry
    feature: NDArray[np.float32]  # [d], a unit row


@dataclass(frozen=True)
class Selection:
    """Which pictures may be found."""

    where: tuple[Condition, ...] = ()  # all of them hold
    patterns: tuple[str, ...] = ()  # the name matches any of them: dresses/*
    leave_out: tuple[str, ...] = ()  # names


EVERYTHING = Selection()


class Engine(Protocol):
    """Rows of pictures, in a store that may outlive the process. What a method wrote is durable when it returns."""

    def __len__(self) -> int: ...

    def put(self, rows: Sequence[Row]) -> None:
        """Add rows; a row of a name that is there takes its place. All of them, or after a kill none."""

    def describe(self, entries: Sequence[IndexEntry]) -> None:
        """Replace entries whose pictures are there, and keep their features."""

    def remove(self, names: Sequence[str]) -> int:
        """Remove the rows of these names; return how many there were."""

    def entries(
        self, select: Selection = EVERYTHING, *, after: str = "", limit: int | None = None
    ) -> Iterator[IndexEntry]:
        """Yield entries in the order of their names, from the first after a name."""

    def get(self, names: Sequence[str]) -> dict[str, Row]:
        """Return the rows of those names that are there."""

    def features(self, contents: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        """Return the features [d] of those contents that are there, whatever their names."""

    def count(self, select: Selection) -> int:
        """Count the pictures of a selection."""

    def columns(self) -> list[str]:
        """List the columns of the metadata, sorted."""

    def nearest(self, queries: NDArray[np.float32], k: int, select: Selection = EVERYTHING) -> list[list[Candidate]]:
        """Propose, for each unit row of queries [Q, d], its k nearest and all that are as near as the k-th."""

    def close(self) -> None: ...


def open_engine(store: str, folder: Path, dimensions: int | None = None) -> Engine:
    """Open the engine of `exact`, or of NAME:ADDRESS (`milvus:http://localhost:19530`).

    Args:
        folder: the index's; where an engine keeps its files.
        dimensions: of the features, to make the store; None where it must be there.

    Raises:
        UsageError: no engine has this name, or its address is none.
        InputError: the store is damaged, or cannot be reached.
    """
    name, _, address = store.partition(":")
    if name not in registry.names("retrieval.index"):
        raise UsageError(f"--store {store}: there is {', '.join(registry.names('retrieval.index'))}")
    return registry.load("retrieval.index", name).open_engine(folder, address, dimensions)
