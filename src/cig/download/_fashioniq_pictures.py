"""FashionIQ's pictures on disk: which exist, whether each is whole, and where new ones are written.

Files in `images/downloaded/` are ours to replace; the rest of `images/` is read, and never changed.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from cig.benchmarks._check import BLANK
from cig.benchmarks.fashioniq import picture_folders
from cig.download._folder_scan import link_file
from cig.download._ledger import FINAL, PRESENT, AddressTry, Ledger, LedgerLine
from cig.download._picture_checks import Content, Refused, check_files
from cig.io.dataset_paths import list_pictures
from cig.io.digests import file_digest
from cig.io.files import make_folder, read_bytes, remove, sweep, write_bytes
from cig.runtime import progress

PLACEHOLDER = "placeholder"


class PictureStore:
    """The pictures of some categories, with their ledger.

    Args:
        home: the dataset's folder.
        wanted: category -> ids.
        flat: write all pictures into one folder, not into one a category.

    Attributes:
        paths: category -> id -> the file that an evaluation would read, if it is whole.
        broken: category -> id -> what is wrong with that file.
        digests: of the whole files.
        suspicious: existing whole files that show nothing -> "tiny" or "one colour".
    """

    # An evaluation reads the first folder that has an id, and the user's folders come before ours. So a broken file
    # of the user's hides any picture that we would download: it is reported as in the way, and nothing is requested.
    # The ledger spares a rerun the decoding: a file that it names, of the size that it had, counts as checked.

    def __init__(self, home: Path, wanted: Mapping[str, Collection[str]], flat: bool) -> None:
        self.home, self.wanted, self.flat = home, wanted, flat
        self.downloaded = Path(os.path.normpath(home / "images" / "downloaded"))
        self.ledger = Ledger(self.downloaded)
        self.paths: dict[str, dict[str, Path]] = {}
        self.broken: dict[str, dict[str, Refused]] = {category: {} for category in wanted}
        self.digests: dict[Path, str] = {}
        self.suspicious: dict[Path, str] = {}

    @property
    def ids(self) -> list[str]:
        """All wanted ids, each once."""
        return list(dict.fromkeys(name for names in self.wanted.values() for name in names))

    def scan(self) -> None:
        """List the pictures, and decode those that the ledger does not vouch for."""
        for category, names in self.wanted.items():
            sweep(self._folder(category))
            listed = list_pictures(picture_folders(self.home, category))
            self.paths[category] = {name: listed[name] for name in names if name in listed}
        files = [(name, path) for paths in self.paths.values() for name, path in paths.items()]
        unchecked = {path: name for name, path in files if not self._is_checked(name, path)}
        contents = check_files(unchecked)
        for path, content in progress(contents, len(unchecked), "look at what is there", unit="picture"):
            name = unchecked[path]
            if isinstance(content, Content):
                self._record(name, [path], content, source=str(path))
                continue
            for category, paths in self.paths.items():
                if paths.get(name) == path:
                    del paths[name]
                    self.broken[category][name] = content

    def lacking(self, name: str) -> list[str]:
        """List the categories that want a picture and have none; not those where a broken file is in the way."""
        return [
            category
            for category, names in self.wanted.items()
            if name in names and name not in self.paths[category] and not self.in_the_way(category, name)
        ]

    def has(self, name: str) -> bool:
        """Tell whether every category that wants a picture has it."""
        return all(name in self.paths[category] for category, names in self.wanted.items() if name in names)

    def in_the_way(self, category: str, name: str) -> Path | None:
        """Return a broken file of the user's that an evaluation would read instead of a whole one of ours."""
        error = self.broken[category].get(name)
        return error.path if error and error.path and not self._is_ours(error.path) else None

    def blocking(self) -> list[str]:
        """List all broken files that are in the way."""
        paths = [self.in_the_way(category, name) for category, errors in self.broken.items() for name in errors]
        return list(dict.fromkeys(str(path) for path in paths if path))

    def put(
        self,
        name: str,
        content: Content,
        source: str,
        *,
        tries: Sequence[AddressTry] = (),
        link: Path | None = None,
    ) -> None:
        """Write a picture into every category that lacks it.

        Args:
            link: a file with this content, to make hard links of.
        """
        targets = {category: self._folder(category) / f"{name}{content.suffix}" for category in self.lacking(name)}
        paths = list(dict.fromkeys(targets.values()))
        self._record(name, paths, content, source=source, tries=tries)  # before the files: see _ledger
        for path in paths:
            if link:
                make_folder(path.parent)
                with contextlib.suppress(OSError):
                    path.unlink(missing_ok=True)
            if not link or not link_file(link, path):
                write_bytes(path, content.data)
        for category, path in targets.items():
            error = self.broken[category].pop(name, None)
            if error and error.path and error.path not in paths:
                remove(error.path)
            self.paths[category][name] = path

    def spread(self, name: str, twin: LedgerLine | None = None) -> bool:
        """Copy a picture on disk to where it is lacking; False if there is none, so that it has to be requested.

        Args:
            twin: the line of another id with the same picture; by default the id's own line, for other categories.
        """
        line = twin or self.ledger.lines.get(name)
        if not line or line.outcome != PRESENT or line.why in BLANK or not self.lacking(name):
            return False
        for path in map(self.downloaded.joinpath, line.files):
            if _size(path) == line.size and file_digest(path) == line.digest:
                self.put(name, Content(read_bytes(path), path.suffix, line.digest), line.source)
                return True
        return False

    def refuse(self, name: str, why: str) -> None:
        """Remove a picture of ours as a placeholder; one file of each content is kept in `.refused`, to look at."""
        line = self.ledger.lines[name]
        addresses = [source for source in (*line.final, line.source) if "://" in source]
        final = tuple(dict.fromkeys(addresses))
        self.ledger.add(replace(line, outcome=PLACEHOLDER, why=why, final=final))
        for path in map(self.downloaded.joinpath, line.files):
            self._set_aside(name, path, line.digest)

    def may_remove(self, name: str) -> bool:
        """Tell whether every file of an id is ours."""
        return all(self._is_ours(self.downloaded / file) for file in self.ledger.lines[name].files)

    def _is_checked(self, name: str, path: Path) -> bool:
        """Tell whether the ledger names this file, and it has the size that it had."""
        line = self.ledger.lines.get(name)
        if not line or self._relative(path) not in line.files or _size(path) != line.size:
            return False
        if line.outcome == PRESENT:
            self._remember([path], line)
        elif line.outcome == PLACEHOLDER and self._is_ours(path):  # a kill came between the line and the removal
            self._set_aside(name, path, line.digest)
        return line.outcome in (PRESENT, PLACEHOLDER)

    def _record(
        self, name: str, paths: Iterable[Path], content: Content, *, source: str, tries: Sequence[AddressTry] = ()
    ) -> None:
        before = self.ledger.lines.get(name)
        earlier = before.files if before and before.digest == content.digest and before.outcome == PRESENT else ()
        files = (*earlier, *map(self._relative, paths))
        final = (*self.ledger.final(name), *(one.address for one in tries if one.outcome in FINAL))
        line = LedgerLine(
            id=name,
            outcome=PRESENT,
            files=tuple(dict.fromkeys(files)),
            digest=content.digest,
            size=len(content.data),
            source=source,
            why=content.suspicious,
            final=tuple(dict.fromkeys(final)),
        )
        self.ledger.add(line, tries)
        self._remember(paths, line)

    def _remember(self, paths: Iterable[Path], line: LedgerLine) -> None:
        self.digests |= dict.fromkeys(paths, line.digest)
        self.suspicious |= dict.fromkeys(paths, line.why) if line.why in BLANK else {}

    def _set_aside(self, name: str, path: Path, digest: str) -> None:
        for paths in self.paths.values():
            if paths.get(name) == path:
                del paths[name]
        aside = make_folder(self.downloaded / ".refused") / f"{digest[:16]}{path.suffix}"
        if path.exists() and not aside.exists():
            os.replace(path, aside)
        remove(path)

    def _folder(self, category: str) -> Path:
        return self.downloaded if self.flat else self.downloaded / category

    def _is_ours(self, path: Path) -> bool:
        return Path(os.path.normpath(path)).is_relative_to(self.downloaded)

    def _relative(self, path: Path) -> str:
        return os.path.relpath(path, self.downloaded)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # a dead link
        return -1
