"""The demo: composed retrieval over icons with what the package ships; no network, nothing of the user's.

Every method embeds the same queries over the same gallery, with one small CLIP that was trained on other icon sets.
"""

from __future__ import annotations

import difflib
import os
import time
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

from cig.benchmarks import Data
from cig.errors import MismatchError, NotFoundError, some
from cig.evaluation import report
from cig.evaluation.paired import compare_rankings
from cig.evaluation.score import evaluate
from cig.generators import presets
from cig.io.feature_cache import FeatureCache
from cig.io.files import writing
from cig.io.json_files import write_json
from cig.io.locks import hold
from cig.io.text_table import text_table
from cig.pipelines._models import make_targets
from cig.pipelines._search_benchmark import SearchResult, load_searcher, search_parts, write_reports
from cig.pipelines.search import FolderSearch, SearchAnswer, find, open_gallery
from cig.retrieval.fusion_weight import PSEUDO_TARGET
from cig.retrieval.requests import Branching, OwnSearching, Searching
from cig.runtime import Compute, Work, say
from cig.types import Benchmark, Report

BENCHMARK, QUERIES = "icons/val", 400
DRAWN_AT_ONCE = 32  # more leave a CPU's cache, and take longer a picture
ASKED = "pic2word/icons"  # what answers a free query
GENERATOR = "sdxl/icons"
REFERENCE_IMAGE = "reference-image"
MEASURES = ("map@10", "recall@1", "recall@10")


@dataclass(frozen=True)
class DemoRow:
    """A way to search."""

    name: str
    what: str
    method: str
    branches: tuple[Branching, ...] = ()


def by_image(name: str, weight: float) -> Branching:
    return Branching(name, weight, pictures=name, method="image/icons", caption=False)


BASELINES = (
    DemoRow("image/icons", "the reference alone", "image/icons"),
    DemoRow("text/icons", "the caption alone", "text/icons"),
    DemoRow("sum/icons", "the sum of both features", "sum/icons"),
)
INVERSIONS = (
    DemoRow(
        "lincir/icons", "the caption with the reference as a pseudo-word; phi learnt from captions", "lincir/icons"
    ),
    DemoRow(ASKED, "the same; phi learnt from pictures", ASKED),
)
CONTROL = DemoRow("+ reference", "the same, and the reference's image", ASKED, (by_image(REFERENCE_IMAGE, 0.35),))
IMAGINED = DemoRow(
    "+ pseudo-target", "the same, and the pseudo-target's image", ASKED, (by_image(PSEUDO_TARGET, 0.65),)
)
BOTH = DemoRow(
    "+ both", "the same, and both images", ASKED, (by_image(REFERENCE_IMAGE, 0.2), by_image(PSEUDO_TARGET, 0.5))
)
ROWS = (*BASELINES, *INVERSIONS, CONTROL, IMAGINED, BOTH)  # weights: recipes/icons/experiment.py, on icons/val


@dataclass(frozen=True)
class Entry:
    """A row of the demo's table."""

    row: DemoRow
    search: SearchResult
    report: Report

    @property
    def score(self) -> float:
        return self.report.scores[""][MEASURES[0]]

    @property
    def cells(self) -> list[str]:
        scores, intervals = self.report.scores[""], self.report.intervals[""]
        cells = [f"{scores[name]:.2f} [{intervals[name][0]:.2f}, {intervals[name][1]:.2f}]" for name in MEASURES]
        return [self.row.name, *cells, self.row.what]

    @property
    def json(self) -> dict[str, Any]:
        return report.to_json(self.report, self.row.method, self.search.branches, provenance=self.search.provenance)


def run(out: Path, full: bool = False, compute: Compute | None = None) -> list[Entry]:
    """The table of methods with 95% intervals; writes `scores.json`, `report.html` and pseudo-targets to `out`.

    Args:
        full: all queries of icons/val; else the first 400, which are in a random order.
    """
    started, compute = time.monotonic(), compute or Compute(batch_size=256)
    data = Data(BENCHMARK, limit=None if full else QUERIES)
    parts = data.load("val")
    say(f"{BENCHMARK}: {len(parts[0].queries)} queries over {len(parts[0].gallery)} pictures")
    with hold(out, "cig demo"):
        cache, pictures = FeatureCache(out / "features"), out / "pseudo-targets"
        drawing = replace(compute, batch_size=min(compute.batch_size, DRAWN_AT_ONCE))
        _imagine(parts, pictures, drawing, cache=cache)
        entries = [_entry(row, parts, data, compute=compute, cache=cache, pictures=pictures) for row in ROWS]
        imagined = entries[-2]
        write_reports(imagined.search, imagined.report, [out / "report.html"], cache=cache)
        write_json(out / "scores.json", [entry.json for entry in entries])
        say(f"{imagined.row.name} by query: {out / 'report.html'}; all scores: {out / 'scores.json'}")
        say(f"{time.monotonic() - started:.0f} s. Now ask: cig demo --query calendar --text 'has a check badge'")
        return entries


def to_text(entries: list[Entry]) -> str:
    """The table, and the paired differences that matter."""
    control, imagined, both = entries[-3:]
    best = _best(entries, INVERSIONS)
    pairs = (best, _best(entries, BASELINES)), (imagined, best), (imagined, control), (both, control)
    compared = [against(entry, other) for entry, other in pairs]
    return "\n".join([*table(entries), "", *compared, "(paired; queries of one object are resampled together)"])


def _imagine(parts: tuple[Benchmark, ...], pictures: Path, compute: Compute, *, cache: FeatureCache) -> None:
    """What an earlier release's generator drew, or another device, is put aside: nobody is asked what to do with it."""
    try:
        make_targets(parts, *presets(GENERATOR), out=pictures, compute=compute, work=Work(), cache=cache)
    except MismatchError:
        aside = next(folder for n in count(1) if not (folder := pictures.with_name(f"{pictures.name}-{n}")).exists())
        with writing(aside):
            os.replace(pictures, aside)
        say(f"{pictures} were made with other settings, and are in {aside} now")
        make_targets(parts, *presets(GENERATOR), out=pictures, compute=compute, work=Work(), cache=cache)


def _entry(
    row: DemoRow, parts: tuple[Benchmark, ...], data: Data, *, compute: Compute, cache: FeatureCache, pictures: Path
) -> Entry:
    searching = Searching(method=row.method, branches=row.branches, pseudo_targets=pictures if row.branches else None)
    result = search_parts(parts, load_searcher(searching, compute, cache), searching, compute=compute, cache=cache)
    return Entry(row, result, evaluate(parts, result.rankings))


def _best(entries: list[Entry], rows: tuple[DemoRow, ...]) -> Entry:
    return max((entry for entry in entries if entry.row in rows), key=lambda entry: entry.score)


def table(entries: list[Entry]) -> list[str]:
    """A line a method: percent with 95% intervals."""
    lines = [["method", *MEASURES, "what it searches with"], *(entry.cells for entry in entries)]
    return text_table(lines)


def against(entry: Entry, other: Entry) -> str:
    paired = compare_rankings(entry.search.parts, other.search.rankings, entry.search.rankings)[MEASURES[0]]
    low, high = paired.interval
    return (
        f"{entry.row.name} against {other.row.name}: {MEASURES[0]} {paired.difference:+.2f} [{low:+.2f}, {high:+.2f}], "
        f"p = {paired.p:.4f}"
    )


def ask(
    name: str, text: str, out: Path, *, k: int = 20, imagine: bool = False, compute: Compute | None = None
) -> SearchAnswer:
    """One free query over the gallery of icons/val, answered as `out/query.html`, too.

    Args:
        name: an icon, "folder", "tabler/folder" or "tabler/folder.orange".
        imagine: make a pseudo-target by the shipped generator first, and search with it, too.

    Raises:
        NotFoundError: no such icon, or not in that ink; the message names similar ones, or its inks.
    """
    (part,) = Data(BENCHMARK, limit=1).load("val")
    picture = reference(name, part)
    say(f"{picture}: {text}")
    page, folder = out / "query.html", part.images[picture].parents[1]
    finding = FolderSearch(folder, (part.images[picture],), text, k=k, imagine=imagine)
    method, (composing, generation) = OwnSearching(method=ASKED, feature_cache=out / "features"), presets(GENERATOR)
    compute = compute or Compute(batch_size=256)
    opened = open_gallery(finding, compute, method, composing=composing, generation=generation)
    answer = find(opened, composing, generation, html=page)
    say(f"{page} shows them")
    return answer


def reference(name: str, part: Benchmark) -> str:
    """The gallery's picture that a name means: of that set and ink where they are said, else the first."""
    icon, _, ink = name.lower().removesuffix(".png").partition(".")
    pictures = [picture for picture in part.gallery if icon in _names(picture)]
    for picture in pictures:
        if ink in ("", _ink(picture)):
            return picture
    if pictures:
        inks, example = some(map(_ink, pictures)), pictures[0].removesuffix(".png")
        raise NotFoundError(f'no "{name}" in {part.name}; {icon} is there in {inks}: --query {example}')
    raise NotFoundError(f'no icon "{name}" among {_of_all(icon, part)}')


def _names(picture: str) -> tuple[str, str]:
    """ "tabler/folder" and "folder" of "tabler/folder.orange.png" """
    icon = picture.partition(".")[0]
    return icon, icon.rpartition("/")[2]


def _ink(picture: str) -> str:
    return picture.split(".")[1]


def _of_all(icon: str, part: Benchmark) -> str:
    """How many icons there are, and those with names like this one's."""
    names, wanted = list(dict.fromkeys(_names(picture)[1] for picture in part.gallery)), icon.rpartition("/")[2]
    near = difflib.get_close_matches(wanted, names, 5) or [name for name in names if wanted in name][:5]
    return f"the {len(names)} of {part.name}" + (f"; there are {', '.join(near)}" if near else "")
