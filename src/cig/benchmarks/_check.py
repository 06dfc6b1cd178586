"""Check a dataset: what is missing, broken or odd, how to mend it, and how many queries an evaluation would cover."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path, PurePosixPath
from typing import Any

from cig.benchmarks._web import count_reasons
from cig.errors import plain, some
from cig.io.dataset_paths import PassedOver
from cig.io.digests import set_digest
from cig.io.image_checks import SMALLEST, ReadableImage, UnreadableImage, check_images
from cig.types import TARGET, Benchmark, Query

EXAMPLES, LONG = 3, 200  # shown of a finding, and letters of each
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
    "not fetched": "references whose address gave no picture",
    "form": "pictures in a form that is not read",
    **BROKEN,
    "no reference": "queries without a reference",
    "no target": "queries whose target cannot be found",
    "not listed": "queries whose target is not in the gallery's list",
}
BLANK = {
    "tiny": f"pictures of less than {SMALLEST} pixels a side",
    "one colour": "pictures of one colour all over",
}
ODD = {
    **BLANK,
    "same": "groups of pictures with the same content",
    "passed over": "files and links that are not searched",
}
BY_HAND = "put the pictures into the dataset's folder as its release does"
LIST_BY_HAND = (
    "take the gallery's list (the split file, gallery.txt) of the release, or add these targets to it: no download of "
    "pictures brings them into the gallery"
)
HINTS = {  # where the benchmark's own command mends nothing
    "same": "",
    "passed over": "",
    "not listed": LIST_BY_HAND,
    "not fetched": "run it again if a server was busy; else put the picture into the folder, and give its name",
    "form": "convert these files to .jpg or .png, and keep their names",
}


@dataclass(frozen=True)
class Finding:
    """One kind of problem, and where it occurs."""

    kind: str
    what: str  # in words
    items: Mapping[str, str]  # name of a picture, or id of a query -> details, or ""
    mend: str = ""  # the command, or what to do by hand; "" if nothing need be done

    @property
    def count(self) -> int:
        return len(self.items)

    @property
    def examples(self) -> list[str]:
        texts = [f"{name}: {detail}" if detail else name for name, detail in islice(self.items.items(), EXAMPLES)]
        return [plain(text, LONG) for text in texts]


@dataclass(frozen=True)
class Checkup:
    """The state of one part of a benchmark."""

    title: str
    part: str
    queries: int
    evaluable: int  # queries whose reference and target both have a picture; where targets are hidden, the reference
    hidden: bool
    pictures: int  # that the annotations name; a lower bound if the list of the gallery is missing
    readable: int  # of these
    findings: tuple[Finding, ...]
    digests: Mapping[Path, str]  # of the readable pictures

    @property
    def whole(self) -> bool:
        return not any(finding.kind in SPOILING for finding in self.findings)

    @property
    def listed(self) -> bool:
        """Whether the gallery is the official one, not whatever pictures exist for lack of its list."""
        return not self._items("no list")

    @property
    def missing(self) -> tuple[str, ...]:
        """Names without a file."""
        return tuple(self._items("missing", "not fetched"))

    @property
    def unreadable(self) -> dict[str, str]:
        """Name -> why, for files that do not decode whole."""
        return self._items(*BROKEN)

    @property
    def suspicious(self) -> dict[str, str]:
        """Name -> details, for readable files that are probably placeholders."""
        return self._items(*BLANK)

    @property
    def unlisted(self) -> dict[str, str]:
        """Queries -> their target that the gallery does not list."""
        return self._items("not listed")

    def _items(self, *kinds: str) -> dict[str, str]:
        items: dict[str, str] = {}
        for finding in self.findings:
            items |= finding.items if finding.kind in kinds else {}
        return items


def check(part: Benchmark, workers: int = 4, mend: str = BY_HAND, *, decode: bool = True) -> Checkup:
    """Check every picture that the annotations name.

    Args:
        mend: the command that brings missing pictures.
        decode: if False, every existing file counts as readable, and contents are not checked.
    """
    wanted = wanted_pictures(part)
    paths = {name: part.images[name] for name in wanted if name in part.images}
    images = check_images(paths.values() if decode else (), workers, f"check {part.title}")
    checked = {name: images[path] for name, path in paths.items() if path in images}
    whole = {name: image for name, image in checked.items() if isinstance(image, ReadableImage)}
    readable = set(whole) if decode else set(paths)
    passed = getattr(part.images, "passed", PassedOver())
    other_form = {name: path for name in wanted if name not in paths and (path := _of_name(name, passed))}
    accounted = {*paths, *other_form, *part.not_fetched}
    # A blank picture is readable, and so is embedded: it is odd, but does not make an evaluation incomplete.
    items: dict[str, dict[str, str]] = {
        "no list": {part.missing_list.name: str(part.missing_list)} if part.missing_list else {},
        "missing": dict.fromkeys((name for name in wanted if name not in accounted), ""),
        "not fetched": dict(part.not_fetched),
        "form": {name: str(path) for name, path in other_form.items()},
        **{kind: _broken(checked, kind) for kind in BROKEN},
        **{kind: _suspicious(paths, whole, kind) for kind in BLANK},
        "no reference": _without_reference(part, readable),
        "no target": _without_target(part, readable),
        "not listed": unlisted_targets(part),
        "same": {" = ".join(names): "" for names in _same(whole)},
        "passed over": dict.fromkeys(passed.lines, ""),
    }
    convert = HINTS["form"]

    def explained(named: Mapping[str, str]) -> bool:
        return all(name in other_form for name in named.values())

    return Checkup(
        title=part.title,
        part=part.part,
        queries=len(part.queries),
        evaluable=evaluable(part, readable),
        hidden=part.hidden,
        pictures=len(wanted),
        readable=len(readable),
        findings=tuple(
            Finding(
                kind, SPOILING.get(kind) or ODD[kind], named, mend=_mend(kind, convert if explained(named) else mend)
            )
            for kind, named in items.items()
            if named
        ),
        digests={path: image.digest for path, image in images.items() if isinstance(image, ReadableImage)},
    )


def wanted_pictures(part: Benchmark) -> list[str]:
    """List the names that an evaluation reads: the gallery, then references outside of it.

    A target outside of a listed gallery cannot be retrieved, with a picture or without. Where the list is missing,
    the gallery is the pictures found, so targets are wanted, too.
    """
    references = [query.reference for query in part.queries]
    return list(dict.fromkeys((*part.gallery, *references, *(_all_targets(part) if part.missing_list else ()))))


def _all_targets(part: Benchmark) -> list[str]:
    return [name for query in part.queries for name in target_names(query)]


def target_names(query: Query) -> list[str]:
    """List the annotated targets of a query, without the other correct pictures."""
    return [name for name, grade in query.relevant.items() if grade == TARGET]


def evaluable(part: Benchmark, readable: Collection[str]) -> int:
    """Count the queries that could run and be scored with these pictures; where targets are hidden, run."""
    lost = {*_without_reference(part, readable), *_without_target(part, readable), *unlisted_targets(part)}
    return len(part.queries) - len(lost)


def unlisted_targets(part: Benchmark) -> dict[str, str]:
    """Map queries to the first of their targets that the gallery's list lacks; empty where the list is missing."""
    return {} if part.missing_list else _first_target(part, set(_all_targets(part)) - set(part.gallery))


def _without_reference(part: Benchmark, readable: Collection[str]) -> dict[str, str]:
    return {query.id: query.reference for query in part.queries if query.reference not in readable}


def _without_target(part: Benchmark, readable: Collection[str]) -> dict[str, str]:
    """Map queries to the first of their targets that the gallery lists and that has no picture."""
    listed = set(_all_targets(part)) if part.missing_list else set(part.gallery)
    return _first_target(part, listed - set(readable))


def _first_target(part: Benchmark, names: Collection[str]) -> dict[str, str]:
    """Map queries to the first of their targets that is among the names."""
    firsts = {query.id: next((name for name in target_names(query) if name in names), "") for query in part.queries}
    return {query: name for query, name in firsts.items() if name}


def _broken(checked: Mapping[str, ReadableImage | UnreadableImage], kind: str) -> dict[str, str]:
    unreadable = {name: image for name, image in checked.items() if isinstance(image, UnreadableImage)}
    return {name: image.why for name, image in unreadable.items() if image.kind == kind}


def _suspicious(paths: Mapping[str, Path], whole: Mapping[str, ReadableImage], kind: str) -> dict[str, str]:
    sizes = {name: image.size for name, image in whole.items() if image.suspicious == kind}
    return {name: f"{paths[name]}: {width} x {height}" for name, (width, height) in sizes.items()}


def _same(whole: Mapping[str, ReadableImage]) -> list[list[str]]:
    groups: dict[str, list[str]] = {}
    for name, image in whole.items():
        groups.setdefault(image.digest, []).append(name)
    return [names for names in groups.values() if len(names) > 1]


def _of_name(name: str, passed: PassedOver) -> Path | None:
    """Return a file of a picture's name, with or without its suffix, that is not read as a picture."""
    return passed.paths.get(name) or passed.paths.get(PurePosixPath(name).stem)


def _mend(kind: str, bring: str) -> str:
    if kind in HINTS:
        return HINTS[kind]
    return f"remove these files, then {bring}" if kind in {**BROKEN, **BLANK} else bring


def picture_set(checkups: Sequence[Checkup]) -> str:
    """Compute the digest that results on these pictures carry in their provenance."""
    return set_digest({path: digest for checkup in checkups for path, digest in checkup.digests.items()}.values())


# Output


def to_json(checkups: Sequence[Checkup]) -> dict[str, Any]:
    """Return the fields of docs/check.md."""
    return {
        "whole": all(checkup.whole for checkup in checkups),
        "picture_set": picture_set(checkups),
        "parts": {
            checkup.part: {
                "benchmark": checkup.title,
                **{key: getattr(checkup, key) for key in ("whole", "queries", "evaluable", "pictures", "readable")},
                "findings": [fields(finding) for finding in checkup.findings],
            }
            for checkup in checkups
        },
    }


def fields(finding: Finding) -> dict[str, Any]:
    """Return a finding for JSON, with every name, so that another program can use them."""
    facts = {key: getattr(finding, key) for key in ("kind", "what", "count", "examples", "mend")}
    return {**facts, "found": dict(finding.items)}


def to_text(checkup: Checkup) -> str:
    """Show a checkup in a few lines: the counts, each finding with three examples, and how to mend it."""
    wanted = f"{checkup.pictures:,}" if checkup.listed else f"at least {checkup.pictures:,}"
    if checkup.hidden:
        able = f"{checkup.evaluable:,} of {checkup.queries:,} queries can run"
    else:
        rest = "; the others would score 0" if checkup.evaluable < checkup.queries else ""
        able = f"an evaluation would stand on {checkup.evaluable:,} of {checkup.queries:,} queries{rest}"
    lines = [f"{checkup.title}: {checkup.readable:,} of {wanted} pictures are there and can be read; {able}"]
    for mend, group in groupby(checkup.findings, key=lambda finding: finding.mend):
        lines += [*map(line, group), *([f"    -> {mend}"] if mend else [])]
    return "\n".join(lines)


def line(finding: Finding) -> str:
    """Show a finding: its count and some examples; of addresses, each reason."""
    if finding.kind == "not fetched":
        return f"  {finding.what}: {count_reasons(finding.items)}"
    if finding.kind == "passed over":
        return f"  {finding.what}: {some(finding.items, 10)}"
    rest = finding.count - len(finding.examples)
    more = f" and {rest:,} more" if rest else ""
    return f"  {finding.what}: {finding.count:,} ({', '.join(finding.examples)}{more})"
