"""The commands of an index: build it, look at it, verify it, add and remove pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from cig.cli.flags import ComputeFlags, OwnSearchFlags, computing, without
from cig.errors import IncompleteError, NotFoundError
from cig.retrieval.requests import OwnSearching
from cig.runtime import Compute, say

if TYPE_CHECKING:
    from cig.pipelines.index import Index


def build(
    gallery: Path,
    /,
    *,
    out: Path,
    metadata: Path | None = None,
    store: str = "exact",
    search: Annotated[OwnSearchFlags, without("frozen_weights", "reference_weight")] = OwnSearching(),
    compute: ComputeFlags = Compute(),
    batch_size: int = 32,
) -> None:
    """Embed a folder's pictures, or bring its index up to date: what is new is added, what is gone is dropped.

    Parameters
    ----------
    gallery
        The folder; pictures in all folders below it are indexed.
    out
        The index's folder. A rerun goes on from where it was stopped.
    metadata
        A table about the pictures (CSV, JSON, JSONL, Parquet) with a column name: for filters and groups.
    store
        exact, in the index's folder; or milvus:FILE.db, or milvus:http://HOST:19530.
    batch_size
        Pictures embedded at once.
    """
    from cig.pipelines.open import make_index

    index = make_index(gallery, out, search, compute=computing(compute, batch_size), store=store, metadata=metadata)
    print(f"{out}: {len(index)} pictures of {index.gallery}, by {index.method.name}: {index.changes}")
    say(f"now search it: cig search {out} --text 'what it should show'; or: cig serve {out}")


def info(index: Path, /, *, json_output: Annotated[bool, Parameter(name="--json", negative="")] = False) -> None:
    """Say what an index holds: pictures, folder, method, store, columns of the metadata.

    Parameters
    ----------
    index
        The index's folder.
    json_output
        Print it as JSON.
    """
    facts = _open(index).info()
    if json_output:
        print(json.dumps(facts, indent=2))
        return
    width = max(map(len, facts))
    for key, value in facts.items():
        print(f"{key:{width}}  {', '.join(value) if isinstance(value, list) else value}")


def verify(index: Path, /) -> None:
    """Compare every picture's file with what the index knows of it; exit code 1 where something is wrong.

    Parameters
    ----------
    index
        The index's folder.
    """
    opened = _open(index)
    troubles = opened.verify()
    for trouble in troubles:
        print(trouble)
    if troubles:
        raise IncompleteError(
            f"{len(troubles)} of {len(opened)} pictures differ; bring the index up to date: cig index build "
            f"{opened.gallery} --out {index}"
        )
    print(f"{index}: {len(opened)} pictures, all as they were indexed")


def add(index: Path, /, *files: Path) -> None:
    """Add pictures, or replace those of the same names.

    Parameters
    ----------
    index
        The index's folder.
    files
        Pictures of the index's folder, or others, which are called by their file names.
    """
    if not files:
        raise NotFoundError("which pictures are added? Give their files: cig index add INDEX FILE...")
    opened = _open(index)
    print(f"{index}: {opened.add(*files)}")


def remove(index: Path, /, *names: str) -> None:
    """Forget pictures; their files stay where they are.

    Parameters
    ----------
    index
        The index's folder.
    names
        Their names in the index: paths below its folder.
    """
    if not names:
        raise NotFoundError("which pictures are removed? Give their names: cig index remove INDEX NAME...")
    opened = _open(index)
    print(f"{index}: {opened.remove(*names)} removed, {len(opened)} left")


def _open(folder: Path) -> Index:
    from cig.pipelines.open import is_index, open_place

    if not is_index(folder):
        raise NotFoundError(f"{folder} is no index; make one with cig index build GALLERY --out {folder}")
    return open_place(folder, OwnSearching(), Compute(device="cpu"))
