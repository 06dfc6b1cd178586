"""The tables of the exact engine, and selections as conditions of SQL on them."""

from __future__ import annotations

from typing import Any

from cig.retrieval.filters import Condition, text_of
from cig.retrieval.index import Selection

TABLES = """
CREATE TABLE IF NOT EXISTS fact (key TEXT PRIMARY KEY, value INTEGER);
CREATE TABLE IF NOT EXISTS picture (
    id INTEGER PRIMARY KEY, name TEXT UNIQUE, content TEXT, stamp TEXT, file TEXT, metadata TEXT, slot INTEGER UNIQUE,
    checksum INTEGER);
CREATE INDEX IF NOT EXISTS picture_content ON picture (content);
CREATE TABLE IF NOT EXISTS cell (picture INTEGER, column TEXT, text TEXT, number REAL);
CREATE INDEX IF NOT EXISTS cell_picture ON cell (picture);
CREATE INDEX IF NOT EXISTS cell_number ON cell (column, number);
CREATE INDEX IF NOT EXISTS cell_text ON cell (column, text);
CREATE TABLE IF NOT EXISTS dead (slot INTEGER PRIMARY KEY);
"""

EACH_COLUMN = """
WITH RECURSIVE each_column(name) AS (
    SELECT min(column) FROM cell
    UNION ALL SELECT (SELECT min(column) FROM cell WHERE column > name) FROM each_column WHERE name IS NOT NULL)
SELECT name FROM each_column WHERE name IS NOT NULL
"""  # a step along the index for each column, where DISTINCT reads every cell


def sql_of(select: Selection) -> tuple[str, list[Any]]:
    """Return a condition on the table picture, and its values."""
    parts, values = ["1"], list[Any]()
    if select.where:
        parts.append("metadata != '{}'")  # a picture that nothing is known of fulfils no condition
    for condition in select.where:
        part, more = _condition(condition)
        parts.append(part)
        values += more
    if select.patterns:
        parts.append("(" + " OR ".join(["name GLOB ?"] * len(select.patterns)) + ")")
        values += [pattern.replace("[!", "[^") for pattern in select.patterns]
    if select.leave_out:
        parts.append(f"name NOT IN ({','.join('?' * len(select.leave_out))})")
        values += select.leave_out
    return " AND ".join(parts), values


def _condition(condition: Condition) -> tuple[str, list[Any]]:
    """As Condition.holds, in SQL."""
    sign, inside = condition.sign, "IN"
    value: str | float
    if sign == "!=":
        sign, inside = "=", "NOT IN"
    if sign == "~":
        test, value = "instr(folded(text), ?)", condition.value.casefold()
    elif condition.number is not None:
        test, value = f"number {sign} ?", condition.number
    else:
        test, value = f"number IS NULL AND text {sign} ?", text_of(condition.value)
    return f"id {inside} (SELECT picture FROM cell WHERE column = ? AND {test})", [condition.column, value]
