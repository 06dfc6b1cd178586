"""FashionIQ's pictures on the disk: which there are, that each is whole, and where others are put.

What lies in `images/downloaded/` is ours to replace; the rest of `images/` is read, and never changed.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

from cig.benchmarks._check import BLANK
from cig.benchmarks.fashioniq import picture_folders
from cig.download._ledger import FINAL, PRESENT, Ledger, Line, Try
from cig.download._picture_checks import Content, Refused, look_at_files
from cig.io.dataset_paths import list_pictures
from cig.io.digests import file_digest
from cig.io.files import make_folder, read_bytes, remove, sweep, write_bytes
from cig.runtime import progress

PLACEHOLDER = "placeholder"
Names = Mapping[str, Collection[str]]  # category -> ids


class Shelf:
    """Attributes:
    found: category -> id -> the file that an evaluation would read, if it is whole.
    broken: category -> id -> what is wrong with that file.
    digests: of the files that are whole.
    suspicious: of these, those that lay there and show nothing -> "tiny" or "one colour".
    """

    def __init__(self, home: Path, wanted: Names, flat: bool) -> None:
        self.home, self.wanted, self.flat = home, wanted, flat
        self.own = Path(os.path.normpath(home / "images" / "downloaded"))
        self.ledger = Ledger(self.own)
        self.found: dict[str, dict[str, Path]] = {}
        self.broken: dict[str, dict[str, Refused]] = {category: {} for category in wanted}
        self.digests: dict[Path, str] = {}
        self.suspicious: dict[Path, str] = {}

    def look(self) -> None:
        """Lists the pictures; those that the ledger does not know are decoded."""
        for category, names in self.wanted.items():
            sweep(self._folder(category))
            there = list_pictures(picture_folders(self.home, category))
            self.found[category] = {name: there[name] for name in names if name in there}
        new = {path: name for name, path in self._files() if not self._known(name, path)}
        seen = look_at_files(new)
        for path, content in progress(seen, len(new), "look at what is there", "picture"):
            if isinstance(content, Content):
                self._note(new[path], (path,), content, str(path), self.ledger.final(new[path]))
            else:
                self._break(new[path], path, content)

    def lacking(self, name: str) -> list[str]:
        """The categories that want a picture and have none; none where a broken file of the user's is in the way."""
        return [
            category
            for category, names in self.wanted.items()
            if name in names and name not in self.found[category] and not self.in_the_way(category, name)
        ]

    def has(self, name: str) -> bool:
        """Whether every category that wants a picture has it."""
        return all(name in self.found[category] for category, names in self.wanted.items() if name in names)

    def in_the_way(self, category: str, name: str) -> Path | None:
        """A file outside of ours that is broken, and would be read in the place of a whole one of ours."""
        error = self.broken[category].get(name)
        return error.path if error and error.path and not self._is_own(error.path) else None

    def put(
        self, name: str, content: Content, source: str, tries: Sequence[Try] = (), link: Path | None = None
    ) -> None:
        """Into every category that lacks it.

        Args:
            link: a file with this content, to make hard links of.
        """
        targets = {category: self._folder(category) / f"{name}{content.suffix}" for category in self.lacking(name)}
        paths = tuple(dict.fromkeys(targets.values()))
        final = tuple(dict.fromkeys((*self.ledger.final(name), *_final(tries))))
        self._note(name, paths, content, source, final, tries)
        for path in paths:
            if not link or not _linked(link, path):
                write_bytes(path, content.data)
        for category, path in targets.items():
            spoilt = self.broken[category].pop(name, None)
            if spoilt and spoilt.path and spoilt.path not in paths:
                remove(spoilt.path)
            self.found[category][name] = path

    def spread(self, name: str, twin: Line | None = None) -> bool:
        """Whether a picture that lies there was put where it lacks, which needs not be asked for again.

        Args:
            twin: of another id that has the same picture; by default what lies in another category.
        """
        line = twin or self.ledger.lines.get(name)
        if not line or line.outcome != PRESENT or line.why in BLANK or not self.lacking(name):
            return False
        for path in map(self.own.joinpath, line.files):
            if _size(path) == line.size and file_digest(path) == line.digest:
                self.put(name, Content(read_bytes(path), path.suffix, line.digest), line.source)
                return True
        return False

    def refuse(self, name: str, why: str) -> None:
        """Takes a picture of ours away as a placeholder; one of each content is kept to look at."""
        line = self.ledger.lines[name]
        final = tuple(dict.fromkeys(filter(_is_address, (*line.final, line.source))))
        self.ledger.add(Line(name, PLACEHOLDER, line.files, line.digest, line.size, line.source, why, final))
        for path in map(self.own.joinpath, line.files):
            self._forget(name, path)
            self._set_aside(path, line.digest)

    def is_ours(self, name: str) -> bool:
        """Whether every file of an id may be taken away."""
        return all(self._is_own(self.own / file) for file in self.ledger.lines[name].files)

    def _files(self) -> list[tuple[str, Path]]:
        return [(name, path) for own in self.found.values() for name, path in own.items()]

    def _known(self, name: str, path: Path) -> bool:
        """Whether the ledger speaks of this file, and it has the size that it had."""
        line = self.ledger.lines.get(name)
        if not line or self._relative(path) not in line.files or _size(path) != line.size:
            return False
        if line.outcome == PRESENT:
            self._remember([path], line)
        elif line.outcome == PLACEHOLDER and self._is_own(path):  # a kill came between the line and the removal
            self._forget(name, path)
            self._set_aside(path, line.digest)
        return line.outcome in (PRESENT, PLACEHOLDER)

    def _note(
        self,
        name: str,
        paths: Iterable[Path],
        content: Content,
        source: str,
        final: tuple[str, ...],
        tries: Sequence[Try] = (),
    ) -> None:
        before = self.ledger.lines.get(name)
        known = before.files if before and before.digest == content.digest and before.outcome == PRESENT else ()
        files = tuple(dict.fromkeys((*known, *map(self._relative, paths))))
        line = Line(name, PRESENT, files, content.digest, len(content.data), source, content.suspicious, final)
        self.ledger.add(line, tries)
        self._remember(paths, line)

    def _remember(self, paths: Iterable[Path], line: Line) -> None:
        self.digests |= dict.fromkeys(paths, line.digest)
        self.suspicious |= dict.fromkeys(paths, line.why) if line.why in BLANK else {}

    def _break(self, name: str, path: Path, error: Refused) -> None:
        for category, own in self.found.items():
            if own.get(name) == path:
                del own[name]
                self.broken[category][name] = error

    def _forget(self, name: str, path: Path) -> None:
        for own in self.found.values():
            if own.get(name) == path:
                del own[name]

    def _set_aside(self, path: Path, digest: str) -> None:
        aside = make_folder(self.own / ".refused") / f"{digest[:16]}{path.suffix}"
        if path.exists() and not aside.exists():
            os.replace(path, aside)
        remove(path)

    def _folder(self, category: str) -> Path:
        return self.own if self.flat else self.own / category

    def _is_own(self, path: Path) -> bool:
        return Path(os.path.normpath(path)).is_relative_to(self.own)

    def _relative(self, path: Path) -> str:
        return os.path.relpath(path, self.own)


def _linked(source: Path, target: Path) -> bool:
    """False where the disk does not allow it."""
    make_folder(target.parent)
    with contextlib.suppress(OSError):
        target.unlink(missing_ok=True)
        os.link(os.path.realpath(source), target)  # not a link to a link
        return True
    return False


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # a link to nowhere
        return -1


def _final(tries: Sequence[Try]) -> tuple[str, ...]:
    return tuple(one.address for one in tries if one.outcome in FINAL)


def _is_address(source: str) -> bool:
    return "://" in source
