"""Notice that another process has put another index in the place of an open one; changes within it need no notice."""

from __future__ import annotations

import os
import threading

from cig.errors import InputError
from cig.io.json_files import read_object
from cig.pipelines.index import FILE, Index
from cig.retrieval.index import open_engine
from cig.retrieval.index.exact import FILE as ROWS


class IndexFollower:
    """Keeps an open index at what its folder holds; several threads may use it."""

    def __init__(self, index: Index) -> None:
        self._index, self._lock, self._rows = index, threading.Lock(), _identity(index)

    def check(self) -> None:
        """Open the folder's index anew where it is another one; raise InputError where it does not fit any more."""
        if _identity(self._index) == self._rows:
            return
        with self._lock:
            index, rows = self._index, _identity(self._index)
            if rows < 0:
                raise InputError(f"{index.folder} is gone; `cig index build` makes it again")
            facts = read_object(index.folder / FILE)
            if any(facts.get(key) != index.facts.get(key) for key in ("space", "gallery", "store", "dimensions")):
                raise InputError(f"{index.folder} is now another index; start the service again")
            index.engine = open_engine(index.store, index.folder)  # what is under way ends with the old one
            self._rows = rows


def _identity(index: Index) -> int:
    """Return what tells one file of rows from another; an open file keeps its number."""
    path = index.folder / ROWS
    if not index.store.startswith("exact"):
        return 0
    return path.stat().st_ino if os.path.isfile(path) else -1
