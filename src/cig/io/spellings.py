"""Find pictures of a folder by the names that people's tables have for them."""

from __future__ import annotations

import difflib
import os
import posixpath
import unicodedata
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

MOST_GUESSED = 20_000  # names: among more, a guess takes seconds


class Spellings:
    """The pictures below a folder, by name.

    Case, spaces around a name, `./`, backslashes and the Unicode form do not count, nor does the suffix. A name may
    also be an absolute path, or one from the working folder or from the folder above.
    """

    def __init__(self, names: Iterable[str], home: Path) -> None:
        self.names, self.home = list(names), home
        self._pictures: dict[str, list[str]] = defaultdict(list)
        self._stems: dict[str, list[str]] = defaultdict(list)
        for name in self.names:
            key = loose(name)
            self._pictures[key].append(name)
            self._stems[posixpath.splitext(key)[0]].append(name)

    def find(self, name: str) -> list[str]:
        """Return the names of the pictures that a name may mean."""
        keys = [loose(name), *self._below_home(name)]
        for index in (self._pictures, self._stems):
            if pictures := next((index[key] for key in keys if key in index), None):
                return pictures
        return []

    def _below_home(self, name: str) -> Iterable[str]:
        """Yield a name's spellings from the folder on, where it leads there."""
        text = unicodedata.normalize("NFC", name).strip().replace("\\", "/")
        for resolve in (os.path.abspath, os.path.realpath):
            start = os.path.join(loose(resolve(self.home)), "")
            if (path := loose(resolve(text))).startswith(start):
                yield path.removeprefix(start)
        if (path := loose(text)).startswith(start := loose(self.home.resolve().name) + "/"):
            yield path.removeprefix(start)

    def guess(self, name: str) -> str:
        """Return ' (did you mean a.jpg?)' for a name that no picture has; "" without a near one."""
        if len(self.names) > MOST_GUESSED:
            return ""
        near = difflib.get_close_matches(name, self.names, n=1, cutoff=0.7)
        return f" (did you mean {near[0]}?)" if near else ""


def loose(name: str) -> str:
    """Return what all spellings of a name share."""
    text = unicodedata.normalize("NFC", name).strip().replace("\\", "/")
    return unicodedata.normalize("NFC", posixpath.normpath(text).casefold())
