"""Where a picture may be had: the address of the list, and templates of others, in order."""

from __future__ import annotations

import re
from collections.abc import Sequence
from urllib.parse import quote, urlsplit

from cig.errors import UsageError

OWN = "{url}"
FIELD = re.compile(r"\{(\w*)\}")
FIELDS = ("asin", "name", "url", "quoted")


def check_mirrors(templates: Sequence[str]) -> tuple[str, ...]:
    """The templates, with the list's own address first unless it is among them; raises UsageError."""
    for template in templates:
        unknown = [name for name in FIELD.findall(template) if name not in FIELDS]
        if unknown:
            known = ", ".join(f"{{{name}}}" for name in FIELDS)
            raise UsageError(f"--mirror {template}: no {{{unknown[0]}}}; there are {known}")
        if template != OWN and not _is_template(template):
            raise UsageError(
                f"--mirror {template}: should be an http or https address with {{asin}}, {{name}}, {{url}} or "
                f"{{quoted}} behind its host, such as https://mirror.example/{{asin}}.jpg"
            )
    return tuple(dict.fromkeys(templates if OWN in templates else (OWN, *templates)))


def _is_template(template: str) -> bool:
    try:
        parts = urlsplit(template)
    except ValueError:
        return False
    return (
        parts.scheme in ("http", "https")
        and bool(parts.netloc)
        and not FIELD.search(parts.netloc)
        and bool(FIELD.search(template))
    )


def addresses(templates: Sequence[str], asin: str, url: str | None) -> tuple[str, ...]:
    """Those of one id; without an address of its own, of the templates that need none."""
    parts = {"asin": asin}
    if url is not None:
        parts |= {"url": url, "quoted": quote(url, safe=""), "name": urlsplit(url).path.rpartition("/")[2]}
    usable = [one for one in templates if set(FIELD.findall(one)) <= set(parts)]
    return tuple(dict.fromkeys(FIELD.sub(lambda field: parts[field[1]], one) for one in usable))
