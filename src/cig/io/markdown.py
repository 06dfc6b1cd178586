"""Put text of others into Markdown, so that it is read as text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

# What starts emphasis, code, a link, HTML, an entity, a cell or a formula. Numbers in brackets, as intervals are
# written, and underscores within words start nothing.
MARKS = re.compile(
    r"[\\`*~$|]|(?<![^\W_])_|_(?![^\W_])|\[(?![-+\d., ]+\](?![(\[:]))|(?<=:)//|(?<=www)\.", re.IGNORECASE
)
BLOCK = re.compile(r"(?P<number>\d+)(?=[.)](?:\s|$))|(?=#{1,6}(?:\s|$)|>|[-+](?:\s|$)|[-=]{2})")  # of a line's start


def escape(value: Any) -> str:
    """Return a value on one line, with nothing in it that Markdown or HTML obeys."""
    text = " ".join(str(value).split())
    text = MARKS.sub(lambda mark: f"\\{mark[0]}", text).replace("&", "&amp;").replace("<", "&lt;")
    return BLOCK.sub(lambda start: f"{start[0]}\\", text, count=1) if BLOCK.match(text) else text


def fenced(lines: Sequence[str], language: str = "") -> list[str]:
    """Return lines as a block of code, between fences that none of them ends."""
    longest = max((len(run) for line in lines for run in re.findall("`+", line)), default=0)
    fence = "`" * max(3, longest + 1)
    return [fence + language, *lines, fence]
