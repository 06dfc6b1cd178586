"""The doctor: what of a dataset is missing, broken or odd, how to mend it, and on how many queries a result stands."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path
from typing import Any

from cig.errors import plain
from cig.io.digests import set_digest
from cig.io.image_checks import SMALLEST, ReadableImage, UnreadableImage, check_images
from cig.types import TARGET, Benchmark

EXAMPLES, LONG = 3, 200  # of a finding, and letters of each
BROKEN = {
    "empty": "pictures that are empty files",
    "web page": "web pages saved as pictures",
    "no picture": "other content saved as pictures",
    "damaged": "pictures cut off or damaged",
    "too large": "pictures of too many pixels",
}
SPOILING = {  # an evaluation is incomplete with any of these
    "no list": "lists of the gallery missing, so that it is no more than the pictures found",
    "missing": "pictures missing",
    **BROKEN,
    "no reference": "queries without a reference",
    "no target": "queries whose target cannot be found",
}
BLANK = {
    "tiny": f"pictures of less than {SMALLEST} pixels a side",
    "one colour": "pictures of one colour all over",
}
ODD = {**BLANK, "same": "groups of pictures with the same content"}
BY_HAND = "put the pictures into the dataset's folder as its release does"


@dataclass(frozen=True)
class Finding:
    """One kind of thing that is not as it should be."""

    kind: str
    what: str  # in words
    found: Mapping[str, str]  # name of a picture, or id of a query -> more about it, or ""
    mend: str = ""  # the command, or what to do by hand; "" where nothing need be done

    @property
    def count(self) -> int:
        return len(self.found)

    @property
    def examples(self) -> list[str]:
        told = [f"{name}: {about}" if about else name for name, about in islice(self.found.items(), EXAMPLES)]
        return [plain(own, LONG) for own in told]


@dataclass(frozen=True)
class Checkup:
    """Of one part of a benchmark."""

    title: str
    part: str
    queries: int
    evaluable: int  # queries whose reference and target can both be found; where targets are hidden, the reference
    hidden: bool
    pictures: int  # that the annotations name; at least so many, where the list of the gallery is missing
    readable: int  # of them
    findings: tuple[Finding, ...]
    digests: Mapping[Path, str]  # of the pictures that can be read

    @property
    def whole(self) -> bool:
        return not any(finding.kind in SPOILING for finding in self.findings)

    @property
    def listed(self) -> bool:
        """Whether the gallery is the official one, not the pictures that were found for lack of its list."""
        return not self._found("no list")

    @property
    def missing(self) -> tuple[str, ...]:
        """Names without a file."""
        return tuple(self._found("missing"))

    @property
    def unreadable(self) -> dict[str, str]:
        """Name -> why, of files that are no whole pictures."""
        return self._found(*BROKEN)

    @property
    def suspicious(self) -> dict[str, str]:
        """Name -> more about it, of files that can be read and are placeholders, in all likelihood."""
        return self._found(*BLANK)

    def _found(self, *kinds: str) -> dict[str, str]:
        found: dict[str, str] = {}
        for finding in self.findings:
            found |= finding.found if finding.kind in kinds else {}
        return found


def check(part: Benchmark, workers: int = 4, mend: str = BY_HAND, decode: bool = True) -> Checkup:
    """Looks at every picture that the annotations name.

    Args:
        mend: the command that brings missing pictures.
        decode: without, what has a file counts as readable, and nothing is said of its content.
    """
    wanted = _wanted(part)
    paths = {name: part.images[name] for name in wanted if name in part.images}
    looks = check_images(paths.values() if decode else (), workers, f"check {part.title}")
    seen = {name: looks[path] for name, path in paths.items() if path in looks}
    whole = {name: own for name, own in seen.items() if isinstance(own, ReadableImage)}
    readable = set(whole) if decode else set(paths)
    found: dict[str, dict[str, str]] = {
        "no list": {part.missing_list.name: str(part.missing_list)} if part.missing_list else {},
        "missing": {name: "" for name in wanted if name not in paths},
        **{kind: _broken(seen, kind) for kind in BROKEN},
        **{kind: _suspicious(paths, whole, kind) for kind in BLANK},
        "no reference": _without_reference(part, readable),
        "no target": _without_target(part, readable),
        "same": {" = ".join(names): "" for names in _same(whole)},
    }
    return Checkup(
        title=part.title,
        part=part.part,
        queries=len(part.queries),
        evaluable=evaluable(part, readable),
        hidden=part.hidden,
        pictures=len(wanted),
        readable=len(readable),
        findings=tuple(Finding(kind, _what(kind), own, _mend(kind, mend)) for kind, own in found.items() if own),
        digests={path: own.digest for path, own in looks.items() if isinstance(own, ReadableImage)},
    )


def _wanted(part: Benchmark) -> list[str]:
    mentioned = [name for query in part.queries for name in (query.reference, *_targets(query.relevant))]
    return list(dict.fromkeys((*part.gallery, *mentioned)))


def _targets(relevant: Mapping[str, int]) -> list[str]:
    return [name for name, grade in relevant.items() if grade == TARGET]


def _broken(seen: Mapping[str, ReadableImage | UnreadableImage], kind: str) -> dict[str, str]:
    return {name: own.why for name, own in seen.items() if isinstance(own, UnreadableImage) and own.kind == kind}


def evaluable(part: Benchmark, readable: Collection[str]) -> int:
    """How many queries could run and be scored with these pictures; where targets are hidden, run."""
    return len(part.queries) - len({*_without_reference(part, readable), *_without_target(part, readable)})


def _without_reference(part: Benchmark, readable: Collection[str]) -> dict[str, str]:
    return {query.id: query.reference for query in part.queries if query.reference not in readable}


def _without_target(part: Benchmark, readable: Collection[str]) -> dict[str, str]:
    """Query -> the first of its targets that cannot be found: it has no picture, or the gallery does not list it."""
    gallery = set(part.gallery)
    lost: dict[str, str] = {}
    for query in part.queries:
        for name in _targets(query.relevant):
            if name not in readable:
                lost.setdefault(query.id, name)
            elif name not in gallery:
                lost.setdefault(query.id, f"{name} is not in the gallery")
    return lost


def _suspicious(paths: Mapping[str, Path], whole: Mapping[str, ReadableImage], kind: str) -> dict[str, str]:
    """Name -> the file and its size, of pictures that can be read, and so are embedded, and show nothing."""
    sizes = {name: own.size for name, own in whole.items() if own.suspicious == kind}
    return {name: f"{paths[name]}: {width} x {height}" for name, (width, height) in sizes.items()}


def _same(whole: Mapping[str, ReadableImage]) -> list[list[str]]:
    groups: dict[str, list[str]] = {}
    for name, own in whole.items():
        groups.setdefault(own.digest, []).append(name)
    return [names for names in groups.values() if len(names) > 1]


def _what(kind: str) -> str:
    return SPOILING.get(kind) or ODD[kind]


def _mend(kind: str, bring: str) -> str:
    if kind == "same":
        return ""
    return f"remove these files, then {bring}" if kind in {**BROKEN, **BLANK} else bring


def picture_set(checkups: Sequence[Checkup]) -> str:
    """The digest that results on these pictures carry in their provenance."""
    return set_digest({path: name for own in checkups for path, name in own.digests.items()}.values())


# Shown


def to_json(checkups: Sequence[Checkup]) -> dict[str, Any]:
    """The fields of docs/check.md."""
    return {
        "whole": all(own.whole for own in checkups),
        "picture_set": picture_set(checkups),
        "parts": {
            own.part: {
                "benchmark": own.title,
                **{key: getattr(own, key) for key in ("whole", "queries", "evaluable", "pictures", "readable")},
                "findings": [fields(finding) for finding in own.findings],
            }
            for own in checkups
        },
    }


def fields(finding: Finding) -> dict[str, Any]:
    """All that was found, too, so that another program can go on with it."""
    told = {key: getattr(finding, key) for key in ("kind", "what", "count", "examples", "mend")}
    return {**told, "found": dict(finding.found)}


def to_text(own: Checkup) -> str:
    """A few lines for the terminal: what stands, each finding with its count and three examples, and what mends it."""
    wanted = f"{own.pictures:,}" if own.listed else f"at least {own.pictures:,}"
    head = f"{own.title}: {own.readable:,} of {wanted} pictures are there and can be read; {_able(own)}"
    return "\n".join([head, *_lines(own.findings)])


def _able(own: Checkup) -> str:
    if own.hidden:
        return f"{own.evaluable:,} of {own.queries:,} queries can run"
    rest = "; the others would score 0" if own.evaluable < own.queries else ""
    return f"an evaluation would stand on {own.evaluable:,} of {own.queries:,} queries{rest}"


def _lines(findings: Sequence[Finding]) -> Iterator[str]:
    for mend, group in groupby(findings, key=lambda finding: finding.mend):
        yield from map(line, group)
        if mend:
            yield f"    -> {mend}"


def line(finding: Finding) -> str:
    rest = finding.count - len(finding.examples)
    more = f" and {rest:,} more" if rest else ""
    return f"  {finding.what}: {finding.count:,} ({', '.join(finding.examples)}{more})"
