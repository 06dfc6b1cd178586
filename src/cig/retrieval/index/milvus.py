"""The Milvus engine: a file of milvus-lite, a server or a cluster, told apart by the address alone.

The collection holds everything, so several machines may serve one index; the index's folder holds the collection's
name. Its index is FLAT and its metric the inner product: exact, as everywhere in this package. Conditions become
Milvus expressions on a field for each kind of value: `n_` a number, `t_` a text that is none, `f_` the folded text,
each followed by the column's name in hexadecimal digits, since columns have any names.
"""

from __future__ import annotations

import json
import logging
import os
import re
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fnmatch import translate
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cig.errors import InputError, UsageError, reason
from cig.io.json_files import read_object, write_json
from cig.retrieval.filters import Condition, cells, text_of
from cig.retrieval.index import EVERYTHING, IndexEntry, Row, Selection
from cig.retrieval.index._order import MARGIN, Candidate
from cig.runtime import batches

FILE = "milvus.json"
FIELDS = ["name", "content", "stamp", "file", "metadata"]
WRITE = 500  # rows a request
NAMES = 500  # values an expression
MOST = 16384  # hits a request: Milvus's own bound
PATH = 4096  # bytes of a name
LONGEST = 60_000  # bytes of a picture's metadata: Milvus bounds a text at 65,535


def open_engine(folder: Path, address: str, dimensions: int | None) -> Milvus:
    if not address:
        raise UsageError("--store milvus needs an address: milvus:pictures.db, or milvus:http://localhost:19530")
    return Milvus(folder, address, dimensions)


class Milvus:
    """See Engine."""

    def __init__(self, folder: Path, address: str, dimensions: int | None = None) -> None:
        """Raises UsageError without pymilvus, InputError where there is no server or no such collection."""
        try:
            from pymilvus import MilvusClient
        except ImportError as error:
            raise UsageError("--store milvus needs pymilvus: pip install 'cig[index]'") from error
        logging.getLogger("pymilvus").setLevel(logging.CRITICAL)  # it logs what it raises, with tracebacks
        self.address, self._facts = address, folder / FILE
        if dimensions is not None and not os.path.isfile(self._facts):
            write_json(self._facts, {"collection": f"cig_{uuid.uuid4().hex}", "columns": []})
        self._collection = str(read_object(self._facts)["collection"])
        with self._errors():
            self._client = MilvusClient(uri=address, timeout=30)
            if not self._client.has_collection(self._collection):
                if dimensions is None:
                    raise InputError(f"{address} has no collection {self._collection}; make it with `cig index build`")
                self._create(dimensions)
            self._client.load_collection(self._collection)

    def _create(self, dimensions: int) -> None:
        from pymilvus import DataType

        schema = self._client.create_schema(auto_id=False, enable_dynamic_field=True)
        schema.add_field("name", DataType.VARCHAR, is_primary=True, max_length=PATH)
        for field in ("content", "stamp", "file", "metadata"):
            schema.add_field(field, DataType.VARCHAR, max_length=LONGEST if field == "metadata" else PATH)
        schema.add_field("described", DataType.BOOL)
        schema.add_field("feature", DataType.FLOAT_VECTOR, dim=dimensions)
        index = self._client.prepare_index_params()
        index.add_index("feature", index_type="FLAT", metric_type="IP")
        options = {"schema": schema, "index_params": index, "consistency_level": "Strong"}
        self._client.create_collection(self._collection, **options)

    def close(self) -> None:
        self._client.close()

    def __len__(self) -> int:
        return self.count(EVERYTHING)

    # Writing

    def put(self, rows: Sequence[Row]) -> None:
        self._note_columns([row.entry for row in rows])
        for chunk in batches(rows, WRITE):
            with self._errors():
                self._client.upsert(self._collection, [_fields(row) for row in chunk])

    def describe(self, entries: Sequence[IndexEntry]) -> None:
        by_name = {entry.name: entry for entry in entries}
        self.put([Row(by_name[name], row.feature) for name, row in self.get(list(by_name)).items()])

    def remove(self, names: Sequence[str]) -> int:
        removed = 0
        for chunk in batches(list(dict.fromkeys(names)), NAMES):
            with self._errors():
                rows = self._query(f"name in {_list(chunk)}", ["name"])
                self._client.delete(self._collection, ids=[row["name"] for row in rows] or [""])
            removed += len(rows)
        return removed

    def _note_columns(self, entries: Sequence[IndexEntry]) -> None:
        before = self.columns()
        columns = sorted({*before, *(column for entry in entries for column, _, _ in cells(entry.metadata))})
        if columns != before:
            write_json(self._facts, {"collection": self._collection, "columns": columns})

    # Reading

    def entries(
        self, select: Selection = EVERYTHING, *, after: str = "", limit: int | None = None
    ) -> Iterator[IndexEntry]:
        expression = " and ".join(filter(None, [f"name > {_text(after)}" if after else "", self._expression(select)]))
        for row in self._each(expression, FIELDS, limit):
            yield _entry(row)

    def get(self, names: Sequence[str]) -> dict[str, Row]:
        rows_of: dict[str, Row] = {}
        for chunk in batches(list(dict.fromkeys(names)), NAMES):
            with self._errors():
                rows = self._query(f"name in {_list(chunk)}", [*FIELDS, "feature"])
            rows_of |= {row["name"]: Row(_entry(row), np.array(row["feature"], np.float32)) for row in rows}
        return rows_of

    def features(self, contents: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        features: dict[str, NDArray[np.float32]] = {}
        for chunk in batches(list(dict.fromkeys(contents)), NAMES):
            for row in self._each(f"content in {_list(chunk)}", ["content", "feature"]):
                features[row["content"]] = np.array(row["feature"], np.float32)
        return features

    def count(self, select: Selection) -> int:
        with self._errors():
            return int(self._query(self._expression(select), ["count(*)"])[0]["count(*)"])

    def columns(self) -> list[str]:
        return list(read_object(self._facts)["columns"])

    def nearest(self, queries: NDArray[np.float32], k: int, select: Selection = EVERYTHING) -> list[list[Candidate]]:
        expression = self._expression(select)
        first = self._search(queries, k + 16, expression)
        return [
            self._with_ties(query, hits, k=k, expression=expression) for query, hits in zip(queries, first, strict=True)
        ]

    def _with_ties(
        self, query: NDArray[np.float32], hits: Sequence[Any], *, k: int, expression: str
    ) -> list[Candidate]:
        """Ask for more hits until the last is worse than the k-th, or there are no more."""
        size = k + 16
        while len(hits) == size < MOST and hits[-1]["distance"] >= hits[k - 1]["distance"] - MARGIN:
            size = min(size * 8, MOST)
            (hits,) = self._search(query[None], size, expression)
        enough = hits[min(k, len(hits)) - 1]["distance"] - MARGIN if hits else 0.0
        return [_candidate(hit["entity"]) for hit in hits if hit["distance"] >= enough]

    def _search(self, queries: NDArray[np.float32], size: int, expression: str) -> list[Any]:
        with self._errors():
            return self._client.search(
                self._collection,
                data=list(np.asarray(queries, np.float32)),
                limit=min(size, MOST),
                filter=expression,
                output_fields=["name", "file", "metadata", "feature"],
                consistency_level="Strong",
            )

    def _query(self, expression: str, fields: list[str]) -> list[dict[str, Any]]:
        return self._client.query(self._collection, filter=expression, output_fields=fields, consistency_level="Strong")

    def _each(self, expression: str, fields: list[str], limit: int | None = None) -> Iterator[dict[str, Any]]:
        """Yield rows in the order of their names, a batch at a time."""
        with self._errors():
            rows = self._client.query_iterator(
                self._collection,
                batch_size=min(limit or 1000, 1000),
                limit=-1 if limit is None else limit,
                filter=expression,
                output_fields=fields,
                consistency_level="Strong",
            )
            try:
                while batch := rows.next():
                    yield from batch
            finally:
                rows.close()

    # Selections as Milvus expressions

    def _expression(self, select: Selection) -> str:
        parts = ["described == true"] if select.where else []
        parts += [self._condition(condition) for condition in select.where]
        if select.patterns:
            tests = [re.compile(translate(pattern)) for pattern in select.patterns]
            parts.append(self._named_as(lambda row: any(test.match(row["name"]) for test in tests), ["name"]))
        if select.leave_out:
            parts.append(f"not (name in {_list(select.leave_out)})")
        return " and ".join(parts)

    def _condition(self, condition: Condition) -> str:
        """As Condition.holds; milvus-lite says of a missing cell neither that it equals a value nor that it differs."""
        column, sign = condition.column.encode().hex(), {"=": "=="}.get(condition.sign, condition.sign)
        if sign == "~":
            return self._contains(f"f_{column}", condition.value.casefold())
        if condition.number is not None:
            field, value = f"n_{column}", repr(condition.number)
        else:
            field, value = f"t_{column}", _text(text_of(condition.value))
        test = f"{field} {sign} {value}"
        return f"((not (exists {field})) or {test})" if sign == "!=" else test

    def _contains(self, field: str, part: str) -> str:
        """Return the expression; a server before 2.4 knows no such pattern, and % and _ have another sense in it."""
        from pymilvus import MilvusException

        expression = f"{field} like {_text(f'%{part}%')}"
        if not re.search(r"[%_\\]", part):
            try:
                self._query(f'{expression} and name == ""', ["name"])
            except MilvusException:
                pass
            else:
                return expression
        return self._named_as(lambda row: part in row.get(field, ""), ["name", field])

    def _named_as(self, holds: Any, fields: list[str]) -> str:
        """Return an expression that lists the names of the rows for which a test holds."""
        return f"name in {_list([row['name'] for row in self._each('', fields) if holds(row)])}"

    @contextmanager
    def _errors(self) -> Iterator[None]:
        from pymilvus import MilvusException

        try:
            yield
        except (MilvusException, OSError) as error:
            said = str(getattr(error, "message", "") or reason(error)).strip().partition("\n")[0]
            raise InputError(f"Milvus at {self.address} cannot be used: {said}; is it running, and whole?") from error


def _fields(row: Row) -> dict[str, Any]:
    entry, metadata = row.entry, json.dumps(dict(row.entry.metadata), default=str)
    if len(entry.name.encode()) > PATH or len(metadata.encode()) > LONGEST:
        raise InputError(f"{entry.name[:80]}: Milvus takes names of {PATH} bytes and metadata of {LONGEST}")
    fields: dict[str, Any] = {"name": entry.name, "content": entry.content, "stamp": entry.stamp, "file": entry.file}
    fields |= {"metadata": metadata, "described": bool(entry.metadata), "feature": row.feature.astype(np.float32)}
    for column, text, number in cells(entry.metadata):
        key = column.encode().hex()
        fields[f"f_{key}"] = text.casefold()
        fields |= {f"t_{key}": text} if number is None else {f"n_{key}": number}
    return fields


def _entry(row: dict[str, Any]) -> IndexEntry:
    return IndexEntry(row["name"], row["content"], row["stamp"], row["file"], json.loads(row["metadata"]))


def _candidate(row: dict[str, Any]) -> Candidate:
    feature = np.array(row["feature"], np.float32)
    return Candidate(row["name"], feature, row["file"], json.loads(row["metadata"]))


def _text(value: str) -> str:
    """Quote a text for an expression."""
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _list(values: Sequence[str]) -> str:
    return "[" + ", ".join(map(_text, values)) + "]"
