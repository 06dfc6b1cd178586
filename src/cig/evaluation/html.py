"""The report as one self-contained HTML file: scores, the effect of pseudo-targets, and queries with their pictures.

Captions, names and tags are untrusted: everything is escaped, and the page's content security policy lets it load
nothing and run no script but the one inside it.
"""

from __future__ import annotations

import base64
import hashlib
import io
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cig.errors import PictureError
from cig.evaluation.outcome import Paired, described, highlights, outcome
from cig.evaluation.query_cards import QueryCard
from cig.evaluation.report import label, notes, present
from cig.io.feature_cache import FeatureCache
from cig.io.images import read_picture
from cig.types import Report

if TYPE_CHECKING:
    from jinja2 import Template

SIDE, QUALITY = 224, 60  # of a thumbnail: its longest side, and WebP's quality
LONG = 160  # characters of a caption above which it is folded
SURROGATES = re.compile("[\ud800-\udfff]")


def to_html(
    report: Report,
    cards: Sequence[QueryCard],
    total: int,
    *,
    method: str,
    branches: Sequence[Mapping[str, Any]],
    provenance: Mapping[str, Any],
    paired: Paired | None = None,
    cache: FeatureCache | None = None,
) -> str:
    """Render the page; write it as UTF-8.

    Args:
        report: of all queries; one without scores where targets are hidden.
        cards: the queries to show, chosen with `choose`.
        total: how many queries the benchmark has.
        paired: the scores with pseudo-targets minus those without, by part and measure.
        cache: where thumbnails are kept.
    """
    urls = thumbnails((path for card in cards for path in _paths(card)), cache)
    index_of = {url: index for index, url in enumerate(dict.fromkeys(urls.values()))}
    page = template("report.html").render(
        **inline_code("report.js", "report.css"),
        title=report.benchmark,
        report=report,
        cards=cards,
        total=total,
        method=method,
        branches=[(branch, described(branch, method)) for branch in branches],
        provenance=provenance,
        paired=paired or {},
        outcome=outcome(report, paired or {}),
        highlights=highlights(cards),
        places={(card.part, card.id): f"query-{index}" for index, card in enumerate(cards, 1)},
        missing=notes(report.missing, report.unused),
        picture_index={path: index_of[url] for path, url in urls.items()},
        pictures=list(index_of),
        parts=list(dict.fromkeys(card.part for card in cards if card.part)),
        tags=sorted({tag for card in cards for tag in card.tags}),
        imagined=any(card.pseudo_target or card.refused for card in cards),
        compared=any(card.change for card in cards),
        label=label,
        present=present,
        long=LONG,
    )
    return SURROGATES.sub("\ufffd", page)


def template(name: str) -> Template:
    """Load a template of the package; everything that is put into it is escaped."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    loader = PackageLoader("cig", "assets/templates")
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined)
    environment.trim_blocks = environment.lstrip_blocks = True
    return environment.get_template(name)


def inline_code(script: str, *styles: str, **more: str) -> dict[str, Any]:
    """Return a page's script and styles, and the policy that allows these and nothing else.

    The policy names the script and the style by their sha256. Escaping should keep a caption from becoming a script; if
    it ever fails, the browser still refuses any script that this function did not hash, and any address to load from.

    Args:
        script: "" for a page without one.
        more: directives to add to the policy; connect_src="'self'" lets a page ask its server.
    """
    from markupsafe import Markup

    folder = files("cig") / "assets" / "templates"
    code, *rules = ((folder / name).read_text(encoding="utf-8") if name else "" for name in (script, *styles))
    style = "".join(rules)
    allowed = {"default-src": "'none'", "img-src": "data:", "base-uri": "'none'", "form-action": "'none'"}
    allowed |= {"style-src": _source(style), "script-src": _source(code)}
    allowed |= {name.replace("_", "-"): sources for name, sources in more.items()}
    policy = "; ".join(f"{directive} {sources}" for directive, sources in allowed.items())
    return {"style": Markup(style), "script": Markup(code), "policy": policy}


def _source(code: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()}'"


# Pictures


def _paths(card: QueryCard) -> list[Path]:
    pictures = (card.reference, *card.targets, *card.results)
    return [path for path in (card.pseudo_target, *(picture.path for picture in pictures)) if path]


def thumbnails(paths: Iterable[Path], cache: FeatureCache | None = None, side: int = SIDE) -> dict[Path, str]:
    """Make path -> data URL of a small WebP, each distinct path once; unreadable pictures are left out.

    Args:
        side: the longer side, in pixels.
    """
    distinct = list(dict.fromkeys(paths))
    cache = cache or FeatureCache()
    space = cache.space({"thumbnails": [side, QUALITY]}, f"thumbnails of {side} pixels")
    digests = cache.read_digests(distinct)
    stored, since = dict(cache.read_bytes(space, digests.values())), time.time()
    small = {path: stored[name] for path, name in digests.items() if name in stored}
    with ThreadPoolExecutor(8) as pool:
        made = zip(
            distinct, pool.map(lambda path: None if path in small else _thumbnail(path, side), distinct), strict=True
        )
        fresh = {path: thumbnail for path, thumbnail in made if thumbnail}
    cache.write_bytes(space, dict(fresh.values()))
    cache.write_digests({path: name for path, (name, _) in fresh.items()}, since)
    small |= {path: data for path, (_, data) in fresh.items()}
    return {path: f"data:image/webp;base64,{base64.b64encode(data).decode()}" for path, data in small.items()}


def _thumbnail(path: Path, side: int) -> tuple[str, bytes] | None:
    """Return the picture's digest and its WebP; it is not rotated by EXIF, as models see it."""
    buffer = io.BytesIO()
    try:
        picture = read_picture(path)
        image = picture.image
        small = image.convert("RGBA" if image.has_transparency_data else "RGB")
        small.thumbnail((side, side))
        small.save(buffer, "WEBP", quality=QUALITY)
    except (PictureError, OSError, ValueError, MemoryError):
        return None
    return picture.digest, buffer.getvalue()


def hits_inline(hits: Sequence[tuple[Path, str]]) -> str:
    """Return pictures with a line below each, as a fragment of a page: what a notebook shows of hits."""
    from markupsafe import escape

    small = thumbnails([path for path, _ in hits], None)
    style = "display:inline-block;margin:4px;width:160px;font:12px sans-serif;vertical-align:top;overflow-wrap:anywhere"
    figure = '<figure style="{}"><img src="{}" alt=""><figcaption>{}</figcaption></figure>'
    return "".join(figure.format(style, small.get(path, ""), escape(text)) for path, text in hits)
