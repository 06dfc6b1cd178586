"""Get a released benchmark: annotation files from its repository, and the user's own pictures.

Files are known by git's digest of their content, which a repository's tree states for every file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from cig.benchmarks import load_benchmarks
from cig.benchmarks._check import check
from cig.download import FetchSettings, Outcome
from cig.download._annotation_files import fetch_files
from cig.download._bulk_pictures import BulkImport, check_sources, import_folder, import_zip
from cig.download._summary import count, summarise
from cig.errors import IncompleteError, InputError
from cig.io.dataset_paths import list_pictures
from cig.io.locks import hold
from cig.runtime import say
from cig.types import Benchmark

Places = Callable[[Path, Sequence[Benchmark]], Mapping[str, Path]]  # home, parts -> file name -> where it goes


@dataclass(frozen=True)
class Release:
    """Where a benchmark's files come from.

    Attributes:
        benchmarks: that are loaded once the annotations are there.
        base: the address that the annotation files are below.
        files: path below the dataset's folder -> path below the base, and git's digest of the content.
        licence: in one line, said before anything is asked for.
        advice: how to get missing pictures.
        places: the pictures' names, without suffix, and where each goes.
    """

    name: str
    benchmarks: Sequence[str]
    base: str
    files: Mapping[str, tuple[str, str]]
    licence: str
    advice: Sequence[str]
    places: Places

    def download(
        self,
        root: Path,
        settings: FetchSettings,
        *,
        annotations_from: str | None = None,
        from_dir: Path | None = None,
        from_zip: Sequence[Path] = (),
        link: bool = False,
        no_pictures: bool = False,
    ) -> Outcome:
        """Download the annotations, then import pictures that the user has.

        Raises:
            UsageError: a folder or zip that does not exist.
            IncompleteError: annotations that cannot be downloaded, or are other than the released ones.
        """
        base = annotations_from or self.base
        settings.rules([base])  # raises UsageError for what is no address
        sources = check_sources(from_dir, from_zip, link)
        with hold(root, f"cig download {self.name}"):
            say(f"{self.name}: {self.licence}")
            _fetch_annotations(root, settings, self, base=base)
            parts = _load(self, root)
            if no_pictures:
                return count(parts)
            imports = [_import(source, self.places(root, parts), link=link) for source in sources]
            checkups = [check(part, decode=False) for part in _load(self, root)]
            notes = [f"  no picture was decoded; cig check {self.benchmarks[0]} does"]
            return summarise(checkups, imports, notes=notes, advice=self.advice, decoded=False)


def _load(release: Release, root: Path) -> list[Benchmark]:
    return [part for name in release.benchmarks for part in load_benchmarks(name, root)]


def _fetch_annotations(root: Path, settings: FetchSettings, release: Release, *, base: str) -> None:
    failed: dict[Path, str] = {}
    for name, (address, digest) in release.files.items():
        files = {root / name: f"{base.rstrip('/')}/{address}"}
        named = [base] if base != release.base else []
        failed |= fetch_files(files, settings, named, check=partial(need_content, digest=digest))
    if failed:
        raise IncompleteError(
            f"{len(failed)} annotation files cannot be had: {next(iter(failed.values()))}. Put "
            f"{', '.join(path.name for path in failed)} of {release.base} into {root}, or give another address by "
            f"--annotations-from"
        )


def need_content(data: bytes, digest: str) -> None:
    """Raise InputError unless git has this digest (SHA-1 of a header and the content) for it."""
    made = hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
    if made != digest:
        raise InputError(f"the content is not the released one: git's digest is {made}, not {digest}")


def _import(source: Path, places: Mapping[str, Path], *, link: bool) -> BulkImport:
    """Import the missing pictures from a folder or zip."""
    existing = list_pictures(dict.fromkeys(path.parent for path in places.values()))
    present = {name: existing[name] for name in places if name in existing}
    missing = {name: path for name, path in places.items() if name not in present}
    if source.is_dir():
        return import_folder(source, missing, present, name_of=str, link=link)
    return import_zip(source, missing, present, name_of=str)
