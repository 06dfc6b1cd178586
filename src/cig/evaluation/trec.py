"""TREC's run and qrels files: other tools can check our scores, and systems that we cannot run can be compared.

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
from cig.io.files import read_bytes
from cig.io.outputs import write_output
from cig.types import Benchmark, Ranking

Run = Mapping[str, Sequence[str]]  # query -> names, best first
Qrels = Mapping[str, Mapping[str, int]]  # query -> name -> grade: 2 target, 1 also correct, 0 known to be wrong
UNSAFE = re.compile(r"[\s%\x00-\x20\x7f-\xa0\ud800-\udfff]")


def write_run(path: Path, parts: Sequence[Benchmark], rankings: Sequence[Ranking], *, tag: str = "cig") -> None:
    """Write the first 50 of each query, in the ranking's order."""
    lines = (
        f"{_id(part, query)} Q0 {_quoted(name)} {rank} {score!r} {_quoted(tag)}"
        for part, ranking in zip(parts, rankings, strict=True)
        for query, names, scores in zip(ranking.queries, ranking.ids, ranking.scores, strict=True)
        for rank, (name, score) in enumerate(zip(names, falling(scores), strict=True), 1)
    )
    write_output(path, "".join(f"{line}\n" for line in lines).encode())


def falling(scores: Iterable[float]) -> Iterator[float]:
    """Yield the scores, equal ones moved apart by a float32's smallest step.

    trec_eval ignores the rank column: it keeps scores as 32 bits, sorts by them, and breaks ties by name. Without the
    steps, equal scores would be ranked there in another order than here.
    """
    last = np.float32(np.inf)
    for score in scores:
        last = min(np.float32(score), np.nextafter(last, np.float32(-np.inf)))
        yield float(last)


def write_qrels(path: Path, parts: Sequence[Benchmark]) -> None:
    """Write the judgements; raise UsageError where targets are hidden."""
    hidden = next((part for part in parts if part.hidden), None)
    if hidden:
        raise UsageError(f"the targets of {hidden.name} are hidden, so there are no qrels; --run alone can be written")
    lines = (
        f"{_id(part, query.id)} 0 {_quoted(name)} {grade}"
        for part in parts
        for query in part.queries
        for name, grade in {**dict.fromkeys(query.negatives, 0), **query.relevant}.items()
    )
    write_output(path, "".join(f"{line}\n" for line in lines).encode())


def read_run(path: Path) -> Run:
    """Read a run, ranked by score, then by rank; raise InputError with the line."""
    rows: dict[str, dict[str, tuple[float, int]]] = {}
    for line, (query, _, name, rank, score, _) in _lines(path, 6):
        row = rows.setdefault(query, {})
        if unquote(name) in row:
            raise InputError(f"{path}, line {line}: {name} is listed twice for query {query}")
        row[unquote(name)] = (
            -_number(score, "score", path, line=line),
            int(_number(rank, "rank", path, line=line)),
        )
    return {query: sorted(row, key=row.__getitem__) for query, row in rows.items()}


def read_qrels(path: Path) -> Qrels:
    """Read the judgements; raise InputError with the line."""
    grades: dict[str, dict[str, int]] = {}
    for line, (query, _, name, grade) in _lines(path, 4):
        row = grades.setdefault(query, {})
        if unquote(name) in row:
            raise InputError(f"{path}, line {line}: {name} is judged twice for query {query}")
        row[unquote(name)] = int(_number(grade, "grade", path, line=line))
    return grades


def _lines(path: Path, columns: int) -> Iterator[tuple[int, list[str]]]:
    """Yield (line number, columns) of every line that is not empty."""
    try:
        text = read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8: {error}") from error
    empty = True
    for line, words in enumerate(map(str.split, text.split("\n")), 1):
        if words and len(words) != columns:
            raise InputError(f"{path}, line {line}: expected {columns} columns, found {len(words)}")
        if words:
            empty = False
            yield line, words
    if empty:
        raise InputError(f"{path} is empty")


def _number(text: str, column: str, path: Path, *, line: int) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InputError(f"{path}, line {line}: the {column} {text[:40]!r} is not a number")
    return value


def _id(part: Benchmark, query: str) -> str:
    return "/".join(filter(None, (part.part, query)))


def _quoted(name: str) -> str:
    return UNSAFE.sub(lambda mark: quote(mark.group().encode("utf-8", "surrogatepass"), safe=""), name)
