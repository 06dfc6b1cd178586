"""What a search found: for the terminal, for other programs, and as one HTML page with the pictures inside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cig.errors import printable
from cig.evaluation.html import SURROGATES, own_code, template, thumbnails
from cig.io.feature_cache import FeatureCache
from cig.retrieval.finder import Asked, Hit


def to_text(hits: Sequence[Hit]) -> str:
    """A line a hit: rank, similarity, name; what cannot be printed in a name is escaped."""
    return "\n".join(f"{place:3}  {hit.score:.4f}  {printable(hit.name)}" for place, hit in enumerate(hits, 1))


def to_json(asked: Asked, hits: Sequence[Hit], about: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "images": [str(image) for image in asked.images],
        "text": asked.text,
        "without": asked.without,
        "pseudo_target": str(asked.pseudo_target) if asked.pseudo_target else None,
        "hits": [{"name": hit.name, "path": str(hit.path), "score": hit.score} for hit in hits],
        **about,
    }


def to_html(asked: Asked, hits: Sequence[Hit], about: Mapping[str, str], cache: FeatureCache | None = None) -> str:
    """The page; write it as UTF-8."""
    imagined = [asked.pseudo_target] if asked.pseudo_target else []
    shown = [*asked.images, *imagined, *(hit.path for hit in hits)]
    page = template("hits.html").render(
        **own_code("hits.js", "report.css", "hits.css"),
        asked=asked,
        hits=hits,
        about=about,
        small=thumbnails(shown, cache),
    )
    return SURROGATES.sub("\ufffd", page)
