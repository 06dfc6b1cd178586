"""Tables for the terminal: columns of equal width, two spaces apart."""

from __future__ import annotations

from collections.abc import Sequence


def text_table(rows: Sequence[Sequence[str]], *, numbers: bool = False) -> list[str]:
    """Format rows, one a line; all rows have as many cells as the first.

    Args:
        numbers: align every column but the first to the right.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *others in rows:
        cells = zip(others, widths[1:], strict=True)
        aligned = [cell.rjust(width) if numbers else cell.ljust(width) for cell, width in cells]
        lines.append("  ".join((first.ljust(widths[0]), *aligned)).rstrip())
    return lines
