"""Names of pictures in strangers' files: as a benchmark writes them, as file names, with zeros in front or without."""

from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath

from cig.errors import InputError, some
from cig.layout import SUFFIXES


def plain_name(name: str) -> str:
    """ "dev-1-0-img0" from "dev-1-0-img0.png"; "42" from COCO's "000000000042"."""
    path = PurePosixPath(name)
    stem = path.stem if path.suffix.lower() in SUFFIXES else path.name
    return (stem.lstrip("0") or "0") if stem.isdecimal() else stem


def placed_name(name: str) -> str:
    """As `plain_name`, with the folders that a name has: "n01/7" from "n01/007.png"."""
    return "/".join([*PurePosixPath(name).parts[:-1], plain_name(name)])


def index_names(
    names: Iterable[str], path: Path, repeats: bool = False, plain: Callable[[str], str] = plain_name
) -> dict[str, int]:
    """Plain name -> row.

    Args:
        repeats: a picture may be named again, and its first row counts.
        plain: name -> plain name.

    Raises:
        InputError: two rows claim one picture.
    """
    names = list(names)
    if (again := twice(names, plain)) and not repeats:
        raise InputError(f"{path} has names that stand for one picture: {some(again, 5)}; keep one row for each")
    rows: dict[str, int] = {}
    for row, name in enumerate(names):
        rows.setdefault(plain(name), row)
    return rows


def twice(names: Iterable[str], plain: Callable[[str], str] = plain_name) -> list[str]:
    """Names that stand for a picture which an earlier one stands for."""
    rows: dict[str, int] = {}
    return [name for row, name in enumerate(names) if rows.setdefault(plain(name), row) != row]
