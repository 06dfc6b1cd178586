"""The time that a server asks to wait before the next request."""

from __future__ import annotations

import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime


def seconds_to_wait(headers: Mapping[str, str]) -> float:
    """Parse a Retry-After header, a number or a date, into seconds; 0 if it is absent or malformed.

    A date is compared with the response's own Date: the server's clock may differ from ours.
    """
    text = headers.get("retry-after", "").strip()
    if text.isascii() and text.isdecimal():
        return float(text[:9])
    until, now = _seconds(text), _seconds(headers.get("date", ""))
    return 0.0 if until is None else min(max(0.0, until - (time.time() if now is None else now)), 1e9)


def _seconds(date: str) -> float | None:
    """Parse a date of HTTP into seconds since 1970; None if it is malformed."""
    try:
        return parsedate_to_datetime(date).timestamp()
    except (TypeError, ValueError, OverflowError):
        return None
