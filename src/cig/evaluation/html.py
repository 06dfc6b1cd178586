"""A run as one HTML file that needs nothing else: scores, what pseudo-targets changed, and queries with their pictures.

Captions, names and tags come from strangers: everything is escaped, and the page's own policy lets it load nothing and
run no script but its own.
"""

from __future__ import annotations

import base64
import hashlib
import io
import re
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cig.errors import PictureError
from cig.evaluation.report import label, notes, present
from cig.io.feature_cache import FeatureCache
from cig.io.images import read_picture
from cig.types import TARGET, Benchmark, Query, Ranking, Report

if TYPE_CHECKING:
    from jinja2 import Template

MOST = 200  # queries on a page, as their pictures are inside it
FIRST = 10  # results of a query
SIDE, QUALITY = 160, 60  # of a thumbnail: its longest side, and WebP's quality
LONG = 160  # characters of a caption that are shown before it is folded
SURROGATES = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class Shown:
    """A picture by its name; without a path there is only the name."""

    name: str
    path: Path | None
    grade: int = 0  # of relevance, as in Query.relevant


@dataclass(frozen=True)
class Case:
    """One query as the page shows it."""

    id: str
    part: str
    captions: tuple[str, ...]
    tags: tuple[str, ...]
    reference: Shown
    pseudo_target: Path | None
    refused: bool  # the generator's pictures of it were all refused
    results: tuple[Shown, ...]  # the first ten
    targets: tuple[Shown, ...]  # empty where they are hidden
    rank: int | None  # of the target, from 1; None where it is hidden, missing, or the query could not run
    rank_alone: int | None  # the same without pseudo-targets
    missing: str  # why it could not run, or has no rank

    @property
    def moved(self) -> int | None:
        """Ranks that the target rose by, thanks to the pseudo-target; negative where it fell."""
        return self.rank_alone - self.rank if self.rank and self.rank_alone else None

    @property
    def change(self) -> str:
        """ "gained", "lost" or "unchanged"; "" where there is nothing to compare."""
        if self.moved is None:
            return ""
        return "gained" if self.moved > 0 else "lost" if self.moved < 0 else "unchanged"


def cases(
    benchmark: Benchmark,
    ranking: Ranking,
    alone: Ranking | None = None,
    pseudo_targets: Mapping[str, Path] | None = None,
    refused: Collection[str] = (),
) -> list[Case]:
    """Every query of the benchmark with what was found for it.

    Args:
        alone: the ranking without pseudo-targets.
        pseudo_targets: query id -> picture.
        refused: ids of the queries that have no accepted picture.
    """
    ranks, ranks_alone = _ranks(ranking), _ranks(alone)
    results = dict(zip(ranking.queries, ranking.ids, strict=True))
    return [
        Case(
            id=query.id,
            part=benchmark.part,
            captions=query.captions,
            tags=query.tags,
            reference=_shown(benchmark, query.reference),
            pseudo_target=(pseudo_targets or {}).get(query.id),
            refused=query.id in refused,
            results=tuple(_shown(benchmark, name, query) for name in results[query.id][:FIRST]),
            targets=tuple(_shown(benchmark, name, query) for name, own in query.relevant.items() if own == TARGET),
            rank=ranks.get(query.id),
            rank_alone=ranks_alone.get(query.id),
            missing=ranking.missing.get(query.id) or _no_rank(query, ranks),
        )
        for query in benchmark.queries
    ]


def _ranks(ranking: Ranking | None) -> dict[str, int | None]:
    return dict(zip(ranking.queries, ranking.target_ranks, strict=False)) if ranking else {}


def _no_rank(query: Query, ranks: Mapping[str, int | None]) -> str:
    lost = query.relevant and query.id in ranks and ranks[query.id] is None
    return "the target has no picture in the gallery" if lost else ""


def _shown(benchmark: Benchmark, name: str, query: Query | None = None) -> Shown:
    return Shown(name, benchmark.images.get(name), query.relevant.get(name, 0) if query else 0)


def choose(cases: Sequence[Case], most: int = MOST) -> list[Case]:
    """At most `most`, in their order: a quarter that rose most, a quarter that fell most, the rest evenly spaced."""
    if len(cases) <= most:
        return list(cases)
    order = sorted(range(len(cases)), key=lambda i: cases[i].moved or 0)
    fell = [i for i in order[: most // 4] if cases[i].change == "lost"]
    rose = [i for i in order[::-1][: most // 4] if cases[i].change == "gained"]
    rest = sorted(set(order) - {*fell, *rose})
    room = most - len(fell) - len(rose)
    spaced = [rest[j * len(rest) // room] for j in range(room)]
    return [cases[i] for i in sorted([*fell, *rose, *spaced])]


def to_html(
    report: Report | None,
    cases: Sequence[Case],
    total: int,
    method: str,
    branches: Sequence[Mapping[str, Any]],
    provenance: Mapping[str, Any],
    title: str = "",
    cache: FeatureCache | None = None,
) -> str:
    """The page; write it as UTF-8.

    Args:
        report: of all queries; None, or one without scores, where targets are hidden.
        cases: those to show, chosen with `choose`.
        total: how many queries there are.
        title: by default the report's benchmark.
        cache: where small pictures are kept for the next page.
    """
    report = report or Report(title, {}, {}, {}, {}, {}, {})
    urls = thumbnails((path for case in cases for path in _paths(case)), cache)
    pictures = {url: place for place, url in enumerate(dict.fromkeys(urls.values()))}
    page = template("report.html").render(
        **own_code("report.js", "report.css"),
        title=title or report.benchmark,
        report=report,
        cases=cases,
        total=total,
        method=method,
        branches=branches,
        provenance=provenance,
        missing=notes(report.missing),
        place={path: pictures[url] for path, url in urls.items()},
        pictures=list(pictures),
        parts=list(dict.fromkeys(case.part for case in cases if case.part)),
        tags=sorted({tag for case in cases for tag in case.tags}),
        imagined=any(case.pseudo_target or case.refused for case in cases),
        compared=any(case.change for case in cases),
        label=label,
        present=present,
        long=LONG,
    )
    return SURROGATES.sub("\ufffd", page)


def template(name: str) -> Template:
    """One of ours: everything that is put into it is escaped."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    house = Environment(loader=PackageLoader("cig", "assets/templates"), autoescape=True, undefined=StrictUndefined)
    house.trim_blocks = house.lstrip_blocks = True
    return house.get_template(name)


def own_code(script: str, *styles: str, **more: str) -> dict[str, Any]:
    """The script and styles of a page, and the policy that allows these and nothing else.

    Args:
        more: directives to add to the policy; connect_src="'self'" lets a page ask its own server.
    """
    from markupsafe import Markup

    folder = files("cig") / "assets" / "templates"
    code, *rules = ((folder / name).read_text(encoding="utf-8") for name in (script, *styles))
    style = "".join(rules)
    allowed = {"default-src": "'none'", "img-src": "data:", "base-uri": "'none'", "form-action": "'none'"}
    allowed |= {"style-src": _source(style), "script-src": _source(code)}
    allowed |= {name.replace("_", "-"): whence for name, whence in more.items()}
    policy = "; ".join(f"{what} {whence}" for what, whence in allowed.items())
    return {"style": Markup(style), "script": Markup(code), "policy": policy}


def _source(code: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()}'"


# Pictures


def _paths(case: Case) -> list[Path]:
    shown = (case.reference, *case.targets, *case.results)
    return [path for path in (case.pseudo_target, *(each.path for each in shown)) if path]


def thumbnails(paths: Iterable[Path], cache: FeatureCache | None = None, side: int = SIDE) -> dict[Path, str]:
    """path -> data URL of a small WebP, each distinct path once; those that cannot be read are left out.

    Args:
        side: the longest, in pixels.
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
        fresh = {path: own for path, own in made if own}
    cache.write_bytes(space, dict(fresh.values()))
    cache.write_digests({path: name for path, (name, _) in fresh.items()}, since)
    small |= {path: data for path, (_, data) in fresh.items()}
    return {path: f"data:image/webp;base64,{base64.b64encode(data).decode()}" for path, data in small.items()}


def _thumbnail(path: Path, side: int) -> tuple[str, bytes] | None:
    """(digest of the picture, its WebP), upright as stored, as the models saw it."""
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
