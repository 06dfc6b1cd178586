"""Check what a job needs of a benchmark before anything heavy is loaded; name everything that is missing at once."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path

from cig.errors import NotFoundError, UsageError, WrongNameError, did_you_mean
from cig.io.dataset_paths import is_walked
from cig.types import Benchmark


def need_all(
    load: Callable[[], tuple[Benchmark, ...]], checks: Iterable[Callable[[], object]]
) -> tuple[Benchmark, ...]:
    """Return the benchmark's parts; raise one NotFoundError for everything that the checks miss.

    Raises:
        WrongNameError: a name that is none of the choices; it goes first, as what it needs is then unknown.
    """
    problems: list[str] = []
    parts: tuple[Benchmark, ...] = ()
    try:
        parts = load()
    except WrongNameError:
        raise
    except NotFoundError as error:
        problems.append(str(error))
    for check in checks:
        try:
            check()
        except WrongNameError:
            raise
        except NotFoundError as error:
            problems.append(str(error))
    if problems:
        raise NotFoundError("\n".join(problems))
    return parts


def need_choice(what: str, name: str, choices: Collection[str]) -> None:
    """Raise UsageError unless a name is one of the choices; what: "CIRR split", say."""
    if name not in choices:
        raise UsageError(f'no {what} "{name}".{did_you_mean(name, choices)}')


def need_outside(parts: tuple[Benchmark, ...], out: Path) -> tuple[Benchmark, ...]:
    """Return the parts; raise UsageError if pictures made in `out` would be searched, too, as a folder is walked."""
    for part in parts:
        walked = getattr(part.images, "home", None)
        if walked and is_walked(out, home := walked.resolve()):
            raise UsageError(
                f"{out} is among the pictures, which are searched; give, or work in, a folder outside of {home}"
            )
    return parts


def need_list(parts: Sequence[Benchmark]) -> None:
    """Need the official gallery: scores on whatever pictures exist are not comparable with any other."""
    for part in parts:
        if part.missing_list:
            raise NotFoundError(
                f"the gallery of {part.title} is not known: its list {part.missing_list} is not there, "
                f"and the {len(part.gallery):,} pictures found are no official one"
            )


def need_pictures(parts: Sequence[Benchmark], references: bool = False) -> None:
    """Need at least one picture of each gallery, or one reference; the report names those that are missing."""
    for part in parts:
        names = [query.reference for query in part.queries] if references else part.gallery
        if not any(name in part.images for name in names):
            what = "reference" if references else "picture of the gallery"
            listed = references or not part.missing_list
            number = f"{len(set(names))} are listed" if listed else f"nor their list, {part.missing_list}"
            raise NotFoundError(
                f"no {what} of {part.title} was found ({number}{getattr(part.images, 'passed', '')}); "
                f"put the pictures into the dataset's folder as its release does"
            )
