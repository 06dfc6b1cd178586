"""The page that people search with."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files

from cig.evaluation.html import inline_code, template
from cig.pipelines.index import Index

TEMPLATE, SCRIPT, STYLE = "search.html", "search.js", "search.css"
PLACEHOLDER = "<!doctype html><title>cig</title><p>This service is up. Ask it by POST /v1/search; see /openapi.json."


@dataclass(frozen=True)
class ServedPage:
    content: str
    policy: str  # its Content-Security-Policy


def render(index: Index, *, imagine: bool) -> ServedPage:
    """Render the page of an index."""
    if not (files("cig") / "assets" / "templates" / TEMPLATE).is_file():
        return ServedPage(PLACEHOLDER, "default-src 'none'; frame-ancestors 'none'")
    code = inline_code(SCRIPT, STYLE, connect_src="'self'", img_src="'self' data: blob:", frame_ancestors="'none'")
    content = template(TEMPLATE).render(
        code, pictures=len(index), columns=index.columns(), imagine=imagine, method=index.method.name
    )
    return ServedPage(content, code["policy"])
