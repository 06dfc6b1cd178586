"""CIRCUS's labels: the CSV files of the authors' repository, out of GitHub's zip of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cig.download import FetchSettings, Outcome
from cig.errors import IncompleteError, InputError, NotFoundError
from cig.io.files import make_folder, remove, sweep
from cig.io.http import Web
from cig.io.locks import hold
from cig.io.resumable import Expected, fetch_file
from cig.io.zips import Archive, Bounds
from cig.runtime import say

REPOSITORY = "https://codeload.github.com/matteoattimonelli/CIRCUS/zip/refs/heads/main"
LABELS = "exports/"  # a folder of the archive; the repository says where it lies
CSV = Bounds((".csv",), member=2**27)
LICENCE = "its repository states no licence: use the labels, do not pass them on"


def download(
    root: Path,
    settings: FetchSettings,
    *,
    annotations_from: str = REPOSITORY,
    from_zip: Sequence[Path] = (),
) -> Outcome:
    """Unpack the labels from the user's zip of the repository, or from GitHub's.

    Raises:
        NotFoundError: a zip that does not exist.
        IncompleteError: no zip can be had, or it holds no labels.
    """
    for path in from_zip:
        if not path.is_file():
            raise NotFoundError(f"--from-zip {path} is not a file")
    settings.rules([annotations_from])  # raises UsageError for what is no address
    with hold(root, "cig download circus"):
        say(f"circus: {LICENCE}")
        names = [name for path in from_zip for name in _unpack(path, root)]
        if not from_zip:
            names = _fetch(root, settings, annotations_from)
    if not names:
        raise IncompleteError(f"no CSV file below {LABELS} in {from_zip[0] if from_zip else annotations_from}")
    text = [f"circus: {len(names)} files of labels in {root}", *(f"  {name}" for name in names)]
    return Outcome(
        "\n".join([*text, f"use them by: cig evaluate cirr/val --circus {root}"]), {"parts": {}, "files": names}
    )


def _fetch(root: Path, settings: FetchSettings, address: str) -> list[str]:
    path = make_folder(root) / "circus.zip"
    try:
        with Web(settings.rules([address] if address != REPOSITORY else [])) as web:
            fetch_file(web, address, path, expected=Expected(starts=b"PK", most=2**31), waits=settings.waits)
        names = _unpack(path, root)
    except InputError as error:
        raise IncompleteError(
            f"{error}\nThe labels cannot be had: give a zip of github.com/matteoattimonelli/CIRCUS by --from-zip"
        ) from error
    remove(path)
    return names


def _unpack(path: Path, root: Path) -> list[str]:
    """Unpack the labels' files, one at a time, each by its last name."""
    sweep(make_folder(root))
    with Archive(path, CSV) as archive:
        members = [name for name in archive.members if LABELS in name]
        for name in members:
            archive.unpack(name, root / Path(name).name)
    return sorted(Path(name).name for name in members)
