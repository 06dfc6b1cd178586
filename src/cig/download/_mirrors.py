"""Addresses of a picture: that of the list, and templates of mirrors, in order."""

from __future__ import annotations

import re
from collections.abc import Sequence
from urllib.parse import quote, urlsplit

from cig.errors import UsageError

LISTED = "{url}"  # the template that stands for the list's address
FIELD = re.compile(r"\{(\w*)\}")
FIELDS = ("asin", "name", "url", "quoted")


def check_mirrors(templates: Sequence[str]) -> tuple[str, ...]:
    """Return the templates, with the list's own address first unless it is among them; raises UsageError."""
    for template in templates:
        unknown = [name for name in FIELD.findall(template) if name not in FIELDS]
        if unknown:
            fields = ", ".join(f"{{{name}}}" for name in FIELDS)
            raise UsageError(f"--mirror {template}: no {{{unknown[0]}}}; there are {fields}")
        if template != LISTED and not _is_template(template):
            raise UsageError(
                f"--mirror {template}: should be an http or https address with {{asin}}, {{name}}, {{url}} or "
                f"{{quoted}} behind its host, such as https://mirror.example/{{asin}}.jpg"
            )
    return tuple(dict.fromkeys(templates if LISTED in templates else (LISTED, *templates)))


def _is_template(template: str) -> bool:
    try:
        parts = urlsplit(template)
    except ValueError:
        return False
    # A field in the host would let a line of a downloaded list choose which server is contacted.
    fixed_host = bool(parts.netloc) and not FIELD.search(parts.netloc)
    return parts.scheme in ("http", "https") and fixed_host and bool(FIELD.search(template))


def addresses(templates: Sequence[str], asin: str, url: str | None) -> tuple[str, ...]:
    """Fill in the templates for an id; without a listed address, only those that do not need it."""
    values = {"asin": asin}
    if url is not None:
        values |= {"url": url, "quoted": quote(url, safe=""), "name": urlsplit(url).path.rpartition("/")[2]}
    usable = [template for template in templates if set(FIELD.findall(template)) <= set(values)]
    return tuple(dict.fromkeys(FIELD.sub(lambda field: values[field[1]], template) for template in usable))
