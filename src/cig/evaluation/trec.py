"""TREC's run and qrels files, so that other tools can check us, and systems that we cannot run can be compared.

A run line is `query Q0 name rank score tag`, a qrels line `query 0 name grade`. Ids of a benchmark with parts are
`part/id`. White space, % and what cannot be printed are percent-quoted in names.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import quote, unquote

import numpy as np

from cig.errors import InputError, UsageError
from cig.io.files import read_bytes, write_bytes
from cig.types import Benchmark, Ranking

Run = Mapping[str, Sequence[str]]  # query -> names, best first
Qrels = Mapping[str, Mapping[str, int]]  # query -> name -> grade: 2 target, 1 also correct, 0 known to be wrong
UNSAFE = re.compile(r"[\s%\x00-\x20\x7f-\xa0\ud800-\udfff]")


def write_run(path: Path, parts: Sequence[Benchmark], rankings: Sequence[Ranking], tag: str = "cig") -> None:
    """The first 50 of each query, in our order."""
    lines = (
        f"{_id(part, query)} Q0 {_quoted(name)} {place} {score!r} {_quoted(tag)}"
        for part, ranking in zip(parts, rankings, strict=True)
        for query, names, scores in zip(ranking.queries, ranking.ids, ranking.scores, strict=True)
        for place, (name, score) in enumerate(zip(names, falling(scores), strict=True), 1)
    )
    write_bytes(path, "".join(f"{line}\n" for line in lines).encode())


def falling(scores: Iterable[float]) -> Iterator[float]:
    """The scores, equal ones a float32's smallest step apart: trec_eval keeps 32 bits, sorts by score, then by name."""
    last = np.float32(np.inf)
    for score in scores:
        last = min(np.float32(score), np.nextafter(last, np.float32(-np.inf)))
        yield float(last)


def write_qrels(path: Path, parts: Sequence[Benchmark]) -> None:
    """Raises UsageError where targets are hidden."""
    hidden = next((part for part in parts if part.hidden), None)
    if hidden:
        raise UsageError(f"the targets of {hidden.name} are hidden, so there are no qrels; --run alone can be written")
    lines = (
        f"{_id(part, query.id)} 0 {_quoted(name)} {grade}"
        for part in parts
        for query in part.queries
        for name, grade in {**dict.fromkeys(query.negatives, 0), **query.relevant}.items()
    )
    write_bytes(path, "".join(f"{line}\n" for line in lines).encode())


def read_run(path: Path) -> Run:
    """By score, equal ones by rank; raises InputError with the line."""
    rows: dict[str, dict[str, tuple[float, int]]] = {}
    for line, (query, _, name, place, score, _) in _lines(path, 6):
        own = rows.setdefault(query, {})
        if unquote(name) in own:
            raise InputError(f"{path}, line {line}: {name} is listed twice for query {query}")
        own[unquote(name)] = -_number(path, line, score, "score"), int(_number(path, line, place, "rank"))
    return {query: sorted(own, key=own.__getitem__) for query, own in rows.items()}


def read_qrels(path: Path) -> Qrels:
    """Raises InputError with the line."""
    grades: dict[str, dict[str, int]] = {}
    for line, (query, _, name, grade) in _lines(path, 4):
        own = grades.setdefault(query, {})
        if unquote(name) in own:
            raise InputError(f"{path}, line {line}: {name} is judged twice for query {query}")
        own[unquote(name)] = int(_number(path, line, grade, "grade"))
    return grades


def _lines(path: Path, columns: int) -> Iterator[tuple[int, list[str]]]:
    """(line number, columns) of every line that is not empty."""
    try:
        text = read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8: {error}") from error
    found = False
    for line, words in enumerate(map(str.split, text.split("\n")), 1):
        if words and len(words) != columns:
            raise InputError(f"{path}, line {line}: expected {columns} columns, found {len(words)}")
        if words:
            found = True
            yield line, words
    if not found:
        raise InputError(f"{path} is empty")


def _number(path: Path, line: int, text: str, what: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InputError(f"{path}, line {line}: the {what} {text[:40]!r} is not a number")
    return value


def _id(part: Benchmark, query: str) -> str:
    return "/".join(filter(None, (part.part, query)))


def _quoted(name: str) -> str:
    return UNSAFE.sub(lambda mark: quote(mark.group().encode("utf-8", "surrogatepass"), safe=""), name)
