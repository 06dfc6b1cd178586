"""Read untrusted pickles: lists of str and dicts of such lists, one instruction at a time; nothing in them is run."""

from __future__ import annotations

import pickletools
from pathlib import Path
from typing import Any

from cig.errors import InputError, reason
from cig.io.files import read_bytes

STRINGS = ("SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "UNICODE")
MOST_CONTAINERS = 2**20  # lists and dicts: a list takes one byte in a pickle, and 60 in memory


def read_pickled_names(path: Path) -> list[str]:
    """Read a pickled flat list of str, such as SEARLE's `image_names.pkl`.

    Raises:
        InputError: the pickle holds something else, or has an instruction that such a list does not need.
    """
    value = _read(path, "a pickled list of names")
    if not _is_names(value):
        raise InputError(f"{path} is not a pickled list of names, and no other pickle is read")
    return value


def read_pickled_lists(path: Path) -> dict[str, list[str]]:
    """Read a pickled dict of str to flat lists of str, such as SEARLE's `concept_to_phrases.pkl`; raises InputError."""
    value = _read(path, "a pickled dict of lists of texts")
    if not isinstance(value, dict) or not all(isinstance(key, str) and _is_names(row) for key, row in value.items()):
        raise InputError(f"{path} is not a pickled dict of lists of texts, and no other pickle is read")
    return value


def _is_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def _read(path: Path, what: str) -> Any:
    machine = _Machine()
    try:
        for code, argument, _ in pickletools.genops(read_bytes(path)):
            machine.execute(code.name, argument)
        return machine.result()
    except (ValueError, TypeError, LookupError) as error:
        raise InputError(f"{path} is not {what}, and no other pickle is read: {reason(error)}") from error


class _Machine:
    """The part of pickle's stack machine that lists, dicts and strings need.

    A pickle is a program: `pickle.load` imports and calls whatever it names. This machine has only the instructions
    that build containers and strings. The memo yields strings alone, so each list and dict sits in one place: none
    contains itself, none is shared by a thousand others ("billion laughs"), and no value outgrows the file.
    """

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.containers = 0
        self.fresh = False  # whether the topmost value is new and may go into the memo

    def execute(self, code: str, argument: Any) -> None:
        """Run one instruction; raises ValueError, TypeError or LookupError if no list or dict of texts needs it."""
        if code in STRINGS:
            self._push(argument)
        elif code in ("EMPTY_LIST", "LIST", "EMPTY_DICT", "DICT"):
            self._push(self._container(code))
        elif code in ("MEMOIZE", "PUT", "BINPUT", "LONG_BINPUT"):
            self._memoize(argument)
        elif code in ("GET", "BINGET", "LONG_BINGET"):
            self._push(_need_text(self.memo[argument], "a list or dict is used twice"))
        elif code in ("APPEND", "APPENDS", "SETITEM", "SETITEMS"):
            self._fill(code)
        elif code == "MARK":
            self.marks.append(len(self.stack))
        elif code not in ("PROTO", "FRAME", "STOP"):
            raise ValueError(f"it has the instruction {code}")

    def result(self) -> Any:
        if len(self.stack) != 1:
            raise ValueError(f"it ends with {len(self.stack)} values")
        return self.stack[0]

    def _push(self, value: Any) -> None:
        self.stack.append(value)
        self.fresh = True

    def _container(self, code: str) -> list[Any] | dict[str, Any]:
        self.containers += 1
        if self.containers > MOST_CONTAINERS:
            raise ValueError(f"it has over {MOST_CONTAINERS} lists and dicts")
        if code.startswith("EMPTY"):
            return [] if code == "EMPTY_LIST" else {}
        return self._since_mark() if code == "LIST" else _pairs(self._since_mark())

    def _memoize(self, index: int | None) -> None:
        if not self.fresh:
            raise ValueError("it remembers a value twice")
        self.memo[len(self.memo) if index is None else index] = self.stack[-1]
        self.fresh = False

    def _fill(self, code: str) -> None:
        if not code.endswith("S"):  # one value, or one key and value, without a mark before it
            self.marks.append(len(self.stack) - (1 if code == "APPEND" else 2))
        items = self._since_mark()
        container = self.stack[-1]
        if code.startswith("APPEND") and isinstance(container, list):
            container += items
        elif code.startswith("SET") and isinstance(container, dict):
            container |= _pairs(items)
        else:
            raise ValueError(f"{code} of a {type(container).__name__}")

    def _since_mark(self) -> list[Any]:
        mark = self.marks.pop()
        if mark < 0:
            raise ValueError("it takes more than there is")
        items = self.stack[mark:]
        del self.stack[mark:]
        return items


def _pairs(items: list[Any]) -> dict[str, Any]:
    pairs = zip(items[::2], items[1::2], strict=True)
    return {_need_text(key, f"a key is a {type(key).__name__}"): value for key, value in pairs}


def _need_text(value: Any, problem: str) -> str:
    if not isinstance(value, str):
        raise ValueError(problem)
    return value
