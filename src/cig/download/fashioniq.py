"""FashionIQ: annotations from the official repository, pictures from the shop's addresses, its mirrors, or a folder.

Annotations go where the release has them, pictures into `images/downloaded/{category}/`, beside `download.jsonl`.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from cig.benchmarks import load_benchmarks
from cig.benchmarks.fashioniq import CATEGORIES, SPLITS
from cig.download import Asking, Outcome
from cig.download._annotation_files import fetch_files
from cig.download._fashioniq_pictures import PLACEHOLDER, Shelf
from cig.download._fashioniq_report import Tally, tell, wanted_by
from cig.download._fetch_pictures import Getter, Got, Job, side_by_side
from cig.download._hosts import Hosts
from cig.download._ledger import PRESENT, Line
from cig.download._local_pictures import adopt
from cig.download._mirrors import addresses, check_mirrors
from cig.download._picture_checks import DECODERS
from cig.download._url_lists import ASIN, UrlList, check_list, read_urls
from cig.errors import IncompleteError, NotFoundError, UsageError, did_you_mean
from cig.io.http import Web
from cig.runtime import progress
from cig.types import Benchmark

ANNOTATIONS = "https://raw.githubusercontent.com/XiaoxiaoGuo/fashion-iq/master"
URLS = "https://raw.githubusercontent.com/hongwang600/fashion-iq-metadata/master/image_url"
SAME = 5  # addresses: what so many serve is no picture of a product


def download(
    root: Path,
    asking: Asking,
    categories: Sequence[str] = CATEGORIES,
    splits: Sequence[str] = tuple(SPLITS),
    mirror: Sequence[str] = (),
    annotations_from: str = ANNOTATIONS,
    urls_from: str = URLS,
    from_dir: Path | None = None,
    link: bool = False,
    flat: bool = False,
    retry_final: bool = False,
    placeholder_at: int = SAME,
    no_pictures: bool = False,
) -> Outcome:
    """Annotations, then pictures: those that are there, those of a folder, those of the web.

    Raises:
        UsageError: a category, split, mirror or folder that is not.
        IncompleteError: annotations that cannot be had.
    """
    categories, splits = tuple(dict.fromkeys(categories)), tuple(dict.fromkeys(splits))
    _check(categories, splits, from_dir, link, placeholder_at)
    templates, named = check_mirrors(mirror), (annotations_from, urls_from, *mirror)
    parts, notes = _annotations(root, asking, categories, splits, annotations_from, urls_from)
    lists = _lists(root, categories)
    if no_pictures:
        facts = {"parts": {own.title: {"queries": len(own.queries)} for own in parts}, "notes": notes}
        return Outcome("\n".join([*map(_count, parts), *notes]), facts, tuple(notes))
    wanted: dict[str, dict[str, None]] = {}
    for part in parts:
        wanted.setdefault(part.part, {}).update(dict.fromkeys(filter(ASIN.fullmatch, wanted_by(part))))
    shelf = Shelf(root, wanted, flat)
    shelf.look()
    ids = dict.fromkeys(name for names in wanted.values() for name in names)
    for name in ids:
        shelf.spread(name)
    adopted = adopt(shelf, from_dir, ids, asking.most, link) if from_dir else None
    listed = {name: url for own in lists.values() for name, url in own.urls.items()}
    _set_placeholders_apart(shelf, listed, placeholder_at)
    jobs = _without_twins(shelf, _jobs(shelf, ids, listed, templates, retry_final))
    notes += _fetch(shelf, jobs, asking, named)
    _set_placeholders_apart(shelf, listed, placeholder_at)
    return tell([Tally.of(part, shelf, listed) for part in parts], shelf, lists, adopted, notes)


def _check(categories: Sequence[str], splits: Sequence[str], from_dir: Path | None, link: bool, at: int) -> None:
    for what, asked, known in (("category", categories, CATEGORIES), ("split", splits, tuple(SPLITS))):
        for name in asked:
            if name not in known:
                raise UsageError(f'no FashionIQ {what} "{name}".{did_you_mean(name, known)}')
    if from_dir and not os.path.isdir(from_dir):
        raise NotFoundError(f"--from-dir {from_dir} is not a folder")
    if link and not from_dir:
        raise UsageError("--link is for --from-dir: give the folder whose pictures should be linked")
    if at < 2:
        raise UsageError(f"--placeholder-at {at}: at least 2 addresses")


def _annotations(
    root: Path, asking: Asking, categories: Sequence[str], splits: Sequence[str], base: str, urls: str
) -> tuple[list[Benchmark], list[str]]:
    """(parts, what the lists of addresses lack); raises IncompleteError without captions."""
    names = [
        name
        for category in categories
        for split in splits
        for name in (f"captions/cap.{category}.{split}.json", f"image_splits/split.{category}.{split}.json")
    ]
    named = (base, urls)
    failed = fetch_files({root / name: f"{base.rstrip('/')}/{name}" for name in names}, asking, named)
    if failed:
        first = next(iter(failed.values()))
        raise IncompleteError(
            f"{len(failed)} annotation files cannot be had: {first}. Put captions/ and image_splits/ of "
            f"github.com/XiaoxiaoGuo/fashion-iq into {root}, give their address by --annotations-from, or ask for "
            f"fewer --categories and --splits"
        )
    lists = {
        root / "image_url" / f"asin2url.{category}.txt": f"{urls.rstrip('/')}/asin2url.{category}.txt"
        for category in categories
        if not (root / "image_url" / f"{category}.json").exists()
    }
    notes = [f"no list of addresses: {why}" for why in fetch_files(lists, asking, named, check_list).values()]
    loaded = [load_benchmarks(f"fashioniq/{split}", root, categories=categories) for split in splits]
    return [part for parts in loaded for part in parts], notes


def _lists(root: Path, categories: Sequence[str]) -> dict[str, UrlList]:
    """Category -> its list of addresses, in either form."""
    found = {}
    for category in categories:
        paths = [root / "image_url" / name for name in (f"asin2url.{category}.txt", f"{category}.json")]
        known = next((path for path in paths if path.exists()), None)
        if known:
            found[category] = read_urls(known)
    return found


def _count(part: Benchmark) -> str:
    return f"{part.title}: {len(part.queries):,} queries, {len(wanted_by(part)):,} pictures"


def _jobs(
    shelf: Shelf, ids: Mapping[str, None], listed: Mapping[str, str], templates: Sequence[str], retry_final: bool
) -> list[Job]:
    """What is asked for: nothing that is there, and no address that is known to have nothing."""
    jobs = []
    for name in filter(shelf.lacking, ids):
        known = () if retry_final else shelf.ledger.final(name)
        left = tuple(own for own in addresses(templates, name, listed.get(name)) if own not in known)
        if left:
            jobs.append(Job(name, left))
    return jobs


def _without_twins(shelf: Shelf, jobs: Sequence[Job]) -> list[Job]:
    """The jobs that are left once ids have what their address gave another id in an earlier run."""
    came = {line.source: line for line in shelf.ledger.lines.values() if line.outcome == PRESENT}
    twins = [(job, came.get(job.addresses[0])) for job in jobs]
    return [job for job, twin in twins if not twin or not shelf.spread(job.id, twin)]


def _fetch(shelf: Shelf, jobs: Sequence[Job], asking: Asking, named: Sequence[str]) -> list[str]:
    """Returns what is to be said of hosts that were left alone."""
    if not jobs:
        return []
    rules, hosts = replace(asking.rules(named), accept="image/*"), Hosts(1 + asking.retries)
    with Web(rules, guard=hosts.mind) as web, ThreadPoolExecutor(DECODERS) as pool:
        getter = Getter(web, asking.waits, pool, jobs)
        with contextlib.closing(web.each(side_by_side(jobs), getter.get, asking.at_once)) as answers:
            for job, got in progress(answers, len(jobs), "pictures", "picture"):
                _keep(shelf, job, got)
    return hosts.told()


def _keep(shelf: Shelf, job: Job, got: Got) -> None:
    if got.content:
        shelf.put(job.id, got.content, got.outcome.address, got.tries)
        return
    final = tuple(dict.fromkeys((*shelf.ledger.final(job.id), *got.final)))
    known = shelf.ledger.lines.get(job.id)
    failed = Line(job.id, got.outcome.outcome, why=got.outcome.why, final=final)
    set_apart = known is not None and known.outcome == PLACEHOLDER  # what it was says more than that nothing else came
    shelf.ledger.add(replace(known, final=final) if known and set_apart else failed, got.tries)


def _set_placeholders_apart(shelf: Shelf, listed: Mapping[str, str], at: int) -> None:
    """Contents that many addresses share: a shop has one picture for all that it has no picture of."""
    by: dict[str, dict[str, list[str]]] = {}  # content -> address -> ids
    for name, line in shelf.ledger.lines.items():
        if line.digest and line.outcome in (PRESENT, PLACEHOLDER):
            by.setdefault(line.digest, {}).setdefault(listed.get(name, name), []).append(name)
    for content, sources in by.items():
        for name in [name for names in sources.values() for name in names] if len(sources) >= at else ():
            if shelf.ledger.lines[name].outcome == PRESENT and shelf.is_ours(name):
                shelf.refuse(name, f"{len(sources)} addresses serve this content, {content[:16]}")
