"""Show what the package logs on stderr, as the command line does: one plain line a message."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Iterator

from cig.errors import printable


class TerminalHandler(logging.Handler):
    """Write messages to sys.stderr as it is at that time, with control characters escaped."""

    def emit(self, record: logging.LogRecord) -> None:
        print(printable(record.getMessage(), "\n\t"), file=sys.stderr, flush=True)


@contextlib.contextmanager
def messages_on_stderr() -> Iterator[None]:
    """Show the messages of the block; they also go to the handlers that the user's program has."""
    logger, handler = logging.getLogger("cig"), TerminalHandler()
    if any(isinstance(other, TerminalHandler) for other in logger.handlers):  # a call within a call
        yield
        return
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
