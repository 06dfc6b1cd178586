"""Validation of submission files: would the official evaluation server accept the file, and if not, why."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cig import registry
from cig.benchmarks import load_benchmark
from cig.benchmarks._requirements import need_list
from cig.errors import InputError, NotFoundError, UsageError, did_you_mean, some
from cig.io.files import read_bytes
from cig.types import Benchmark, Query, SubmissionForm

HEADER = ("version", "metric")


def forms() -> list[SubmissionForm]:
    """List the submission forms of every benchmark that a server scores."""
    modules = (registry.load("benchmarks", name) for name in registry.names("benchmarks"))
    return [form for module in modules for form in getattr(module, "SUBMISSIONS", ())]


def validate(path: Path, dataset: Path | None = None, split: str | None = None) -> tuple[SubmissionForm, list[str]]:
    """Return which submission a file is, by its keys, and every problem with it; none if it is valid.

    Args:
        dataset: the dataset's folder; without it, names, references and subset membership are not checked.
        split: "circo/val" or "val"; by default the one that the file's header, queries and their number fit best.

    Raises:
        InputError: not JSON, or not an object of lists.
        NotFoundError: the dataset, or the list of its gallery, is missing.
        UsageError: no server judges that split.
    """
    content, twice = _read(path)
    header = {key: content.pop(key) for key in HEADER if key in content}
    choices = _of_split(split) if split else forms()
    alike = [form for form in choices if form.header == header] or choices
    benchmarks = _load(alike, dataset) if dataset else {}
    benchmark_ids = {name: {query.id for query in benchmark.queries} for name, benchmark in benchmarks.items()}

    def misfit(form: SubmissionForm) -> tuple[int, int]:
        ids = benchmark_ids.get(form.benchmark, set(content))
        return len(ids ^ set(content)), abs(form.queries - len(content))

    form = min(alike, key=misfit)
    problems = [*_header_problems(header, form), *(f"query {name} occurs twice" for name in twice)]
    benchmark = benchmarks.get(form.benchmark)
    need_list([benchmark] if benchmark else [])
    problems += _id_problems(content, form, benchmark)
    others = sorted(
        {f"{other.queries} of {other.benchmark}" for other in alike} - {f"{form.queries} of {form.benchmark}"}
    )
    if others and not benchmark and len(content) != form.queries:
        problems.append(f"a file for another split would have {', '.join(others)}: say which it is for with --split")
    queries = {query.id: query for query in benchmark.queries} if benchmark else {}
    for name, ranked in content.items():
        of_list = _list_problems(ranked, form, benchmark, query=queries.get(name))
        problems += [f"query {name}: {problem}" for problem in of_list]
    return form, problems


def _of_split(split: str) -> list[SubmissionForm]:
    """Return the forms of a split, which may be named with its benchmark or alone; raise UsageError without any."""
    family, _, name = split.rpartition("/")

    def fits(form: SubmissionForm) -> bool:
        home, _, release = form.benchmark.partition("/")
        return family in ("", home) and registry.load("benchmarks", home).SPLITS.get(name) == release

    fitting = list(filter(fits, forms()))
    if not fitting:
        names = dict.fromkeys(form.benchmark for form in forms())
        raise UsageError(f'no server judges the split "{split}".{did_you_mean(split, names)}')
    return fitting


def _load(choices: Sequence[SubmissionForm], dataset: Path) -> dict[str, Benchmark]:
    """Load those benchmarks of these forms that the dataset has; raise NotFoundError if it has none."""
    benchmarks, missing = {}, []
    for name in dict.fromkeys(form.benchmark for form in choices):
        try:
            benchmarks[name] = load_benchmark(name, dataset)
        except NotFoundError as error:
            missing.append(error)
    if not benchmarks:
        raise missing[0]
    return benchmarks


def _read(path: Path) -> tuple[dict[str, Any], list[str]]:
    """Read the object, and the keys that occur twice in it.

    JSON readers keep the last of two equal keys without a word, so a query that was written twice would lose a list
    here and perhaps another one on the server; only a hook on the pairs sees both.
    """
    twice: list[str] = []

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        twice.extend(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        return dict(pairs)

    try:
        content = json.loads(read_bytes(path).decode("utf-8-sig"), object_pairs_hook=unique)
    except (ValueError, RecursionError, MemoryError) as error:
        raise InputError(f"{path}: not JSON: {error}") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: expected an object of query ids and lists, found {type(content).__name__}")
    return content, twice


def _header_problems(header: Mapping[str, Any], form: SubmissionForm) -> Iterator[str]:
    wanted = form.header
    for key in HEADER:
        if header.get(key) == wanted.get(key):
            continue
        if key not in wanted:
            yield f'"{key}" has no place in a file for {form.benchmark}'
        elif key == "metric":
            choices = " or ".join(f'"{other.metric}"' for other in forms() if other.benchmark == form.benchmark)
            yield f'"metric" should be {choices}, found {header.get(key)!r}'
        else:
            yield f'"{key}" should be "{wanted[key]}", found {header.get(key)!r}'


def _id_problems(content: Mapping[str, Any], form: SubmissionForm, benchmark: Benchmark | None) -> Iterator[str]:
    expected = len(benchmark.queries) if benchmark else form.queries
    if len(content) != expected:
        yield f"{len(content)} queries, expected {expected}"
    ids = {query.id for query in benchmark.queries} if benchmark else set(content)
    if missing := sorted(ids - set(content)):
        yield f"without queries {some(missing, 5)}"
    for name in content:
        if not (name.isascii() and name.isdecimal()):
            yield f'"{name}" is no query id'
        elif name not in ids:
            yield f"query {name} is not in {form.benchmark}"


def _list_problems(
    ranked: Any, form: SubmissionForm, benchmark: Benchmark | None, *, query: Query | None
) -> Iterator[str]:
    if not isinstance(ranked, list) or not all(isinstance(name, str | int) and name is not True for name in ranked):
        yield "should be a list of picture names"
        return
    names = [str(name) for name in ranked]
    expected = _expected(form, benchmark, query)
    if len(names) != expected:
        yield f"{len(names)} names, expected {expected}"
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        yield f"names {some(twice, 3)} more than once"
    if benchmark and query:
        yield from _name_problems(names, form, benchmark, query=query)


def _expected(form: SubmissionForm, benchmark: Benchmark | None, query: Query | None) -> int:
    """Return how many names a list needs: fewer where the gallery, or the query's picture set, has fewer."""
    if not benchmark or not query:
        return form.names
    pool = set(query.subset) if form.subset else set(benchmark.gallery)
    return min(form.names, len(pool - ({query.reference} if benchmark.drop_reference else set())))


def _name_problems(names: Sequence[str], form: SubmissionForm, benchmark: Benchmark, *, query: Query) -> Iterator[str]:
    if unknown := sorted(set(names) - set(benchmark.gallery)):
        yield f"{some(unknown, 3)} not in the gallery of {benchmark.name}"
    if benchmark.drop_reference and query.reference in names:
        yield f"names its own reference {query.reference}"
    if form.subset and (outside := sorted(set(names) - set(query.subset) - set(unknown))):
        yield f"{some(outside, 3)} not in its own set"
