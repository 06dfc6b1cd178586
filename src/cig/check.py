"""What a dataset on this machine is good for: what is missing or unreadable, and how many queries can be evaluated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cig.errors import some
from cig.formats import set_digest
from cig.images import read_batches
from cig.runtime import progress
from cig.types import TARGET, Benchmark

BATCH = 64


@dataclass(frozen=True)
class Finding:
    """Of one part of a benchmark."""

    title: str
    queries: int
    hidden: bool
    pictures: int  # that the annotations name
    missing: tuple[str, ...]  # names without a file
    unreadable: Mapping[str, str]  # name -> why
    same: tuple[tuple[str, ...], ...]  # groups of names whose files hold the same bytes
    no_reference: tuple[str, ...]  # ids of queries that cannot run
    no_target: tuple[str, ...]  # ids of queries that run, but whose target cannot be found
    digests: Mapping[Path, str]  # of the pictures that can be read

    @property
    def whole(self) -> bool:
        return not self.missing and not self.unreadable

    @property
    def evaluable(self) -> int:
        return self.queries - len({*self.no_reference, *self.no_target})


def check(part: Benchmark, workers: int = 4) -> Finding:
    """Decodes every picture that the annotations name."""
    wanted = _wanted(part)
    paths = {name: part.images[name] for name in wanted if name in part.images}
    digests: dict[Path, str] = {}
    failed: dict[Path, str] = {}
    distinct = list(dict.fromkeys(paths.values()))
    read = read_batches(distinct, [], BATCH, workers)
    for batch in progress(read, -(-len(distinct) // BATCH), f"check {part.title}", "batch"):
        digests |= dict(zip(batch.paths, batch.digests, strict=True))
        failed |= batch.failed
    readable = {name for name, path in paths.items() if path in digests}
    return Finding(
        title=part.title,
        queries=len(part.queries),
        hidden=part.hidden,
        pictures=len(wanted),
        missing=tuple(name for name in wanted if name not in paths),
        unreadable={name: failed[path] for name, path in paths.items() if path in failed},
        same=_same({name: digests[path] for name, path in paths.items() if path in digests}),
        no_reference=tuple(query.id for query in part.queries if query.reference not in readable),
        no_target=tuple(query.id for query in part.queries if _targets(query.relevant) - readable),
        digests=digests,
    )


def _wanted(part: Benchmark) -> list[str]:
    mentioned = [name for query in part.queries for name in (query.reference, *_targets(query.relevant))]
    return list(dict.fromkeys((*part.gallery, *mentioned)))


def _targets(relevant: Mapping[str, int]) -> set[str]:
    return {name for name, grade in relevant.items() if grade == TARGET}


def _same(digests: Mapping[str, str]) -> tuple[tuple[str, ...], ...]:
    groups: dict[str, list[str]] = {}
    for name, content in digests.items():
        groups.setdefault(content, []).append(name)
    return tuple(tuple(names) for names in groups.values() if len(names) > 1)


def picture_set(findings: Sequence[Finding]) -> str:
    """The digest that results on these pictures carry in their provenance."""
    return set_digest({path: name for own in findings for path, name in own.digests.items()}.values())


def to_text(finding: Finding) -> str:
    """A few lines for the terminal; each kind of trouble with its count and its first names."""
    able = f"{finding.queries - len(finding.no_reference)} of {finding.queries} queries can run"
    if not finding.hidden:
        able = f"an evaluation would stand on {finding.evaluable} of {finding.queries} queries"
        able += "; the others would score 0" if finding.evaluable < finding.queries else ""
    troubles = {
        "pictures missing": finding.missing,
        "pictures unreadable": list(finding.unreadable.values()),
        "groups of pictures with the same content": [" = ".join(names) for names in finding.same],
        "queries without a reference": finding.no_reference,
        "queries whose target cannot be found": () if finding.hidden else finding.no_target,
    }
    told = [f"  {what}: {len(names)} ({some(names, 5)})" for what, names in troubles.items() if names]
    found = finding.pictures - len(finding.missing) - len(finding.unreadable)
    head = f"{finding.title}: {found} of {finding.pictures} pictures are there and can be read; {able}"
    return "\n".join([head, *told])
