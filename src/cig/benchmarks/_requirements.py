"""What a job needs of a benchmark before anything heavy is loaded. Everything that is missing is named at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from cig.errors import NotFoundError, UsageError
from cig.io.dataset_paths import is_walked
from cig.types import Benchmark


def need_all(
    load: Callable[[], tuple[Benchmark, ...]], checks: Iterable[Callable[[], object]]
) -> tuple[Benchmark, ...]:
    """The benchmark's parts, if every check passes; raises one NotFoundError with all that is not there."""
    problems: list[str] = []
    parts: tuple[Benchmark, ...] = ()
    try:
        parts = load()
    except NotFoundError as error:
        problems.append(str(error))
    for check in checks:
        try:
            check()
        except NotFoundError as error:
            problems.append(str(error))
    if problems:
        raise NotFoundError("\n".join(problems))
    return parts


def need_outside(parts: tuple[Benchmark, ...], out: Path) -> tuple[Benchmark, ...]:
    """The parts; raises UsageError where pictures that are made in `out` would be searched, too: a folder is walked."""
    for part in parts:
        walked = getattr(part.images, "home", None)
        if walked and is_walked(out, home := walked.resolve()):
            raise UsageError(
                f"{out} is among the pictures, which are searched; give, or work in, a folder outside of {home}"
            )
    return parts


def need_list(parts: Sequence[Benchmark]) -> None:
    """The official gallery, not whatever pictures were found: no number on these is comparable with any other."""
    for part in parts:
        if part.missing_list:
            raise NotFoundError(
                f"the gallery of {part.title} is not known: its list {part.missing_list} is not there, "
                f"and the {len(part.gallery):,} pictures found are no official one"
            )


def need_pictures(parts: Sequence[Benchmark], references: bool = False) -> None:
    """At least one picture of each gallery, or one reference; which ones are missing is for the report to say."""
    for part in parts:
        names = [query.reference for query in part.queries] if references else part.gallery
        if not any(name in part.images for name in names):
            what = "reference" if references else "picture of the gallery"
            listed = references or not part.missing_list
            known = f"{len(set(names))} are listed" if listed else f"nor their list, {part.missing_list}"
            raise NotFoundError(
                f"no {what} of {part.title} was found ({known}); "
                f"put the pictures into the dataset's folder as its release does"
            )
