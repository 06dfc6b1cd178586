"""FashionIQ: annotations from the official repository; pictures from the shop's addresses, mirrors, or a folder.

Annotations go where the release has them, pictures into `images/downloaded/{category}/`, beside `download.jsonl`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from cig.benchmarks import load_benchmarks
from cig.benchmarks._check import wanted_pictures
from cig.benchmarks._requirements import need_choice
from cig.benchmarks.fashioniq import CATEGORIES, SPLITS
from cig.download import FetchSettings, Outcome
from cig.download._annotation_files import fetch_files
from cig.download._bulk_pictures import check_sources
from cig.download._fashioniq_pictures import PLACEHOLDER, PictureStore
from cig.download._fashioniq_report import Tally, summarise
from cig.download._fetch_pictures import FetchResult, PictureFetcher, PictureJob, group_shared
from cig.download._hosts import Hosts
from cig.download._ledger import PRESENT, LedgerLine
from cig.download._local_pictures import import_pictures
from cig.download._mirrors import addresses, check_mirrors
from cig.download._picture_checks import DECODERS
from cig.download._summary import count
from cig.download._url_lists import ASIN, UrlList, check_list, read_urls
from cig.errors import IncompleteError, UsageError
from cig.io.http import Web
from cig.io.locks import hold
from cig.runtime import progress
from cig.types import Benchmark

ANNOTATIONS = "https://raw.githubusercontent.com/XiaoxiaoGuo/fashion-iq/master"
URLS = "https://raw.githubusercontent.com/hongwang600/fashion-iq-metadata/master/image_url"
SAME = 5  # addresses: content that so many serve is a placeholder


def download(
    root: Path,
    settings: FetchSettings,
    categories: Sequence[str] = CATEGORIES,
    *,
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
    """Download annotations, then find pictures on disk, in the user's folder, and on the web, in this order.

    Raises:
        UsageError: a category, split, mirror or folder that does not exist.
        IncompleteError: annotations that cannot be downloaded.
    """
    categories, splits = tuple(dict.fromkeys(categories)), tuple(dict.fromkeys(splits))
    _check_flags(categories, splits, placeholder_at)
    check_sources(from_dir, (), link)
    templates, bases = check_mirrors(mirror), (annotations_from, urls_from)
    settings.rules(bases)  # raises UsageError for what is no address
    with hold(root, "cig download fashioniq"):
        notes = _fetch_annotations(root, settings, bases, categories=categories, splits=splits)
        parts = [part for name in splits for part in load_benchmarks(f"fashioniq/{name}", root, categories=categories)]
        lists = _read_lists(root, categories)
        if no_pictures:
            return count(parts, notes)
        store = _open_store(root, parts, flat)
        adopted = import_pictures(store, from_dir, store.ids, most=settings.most, link=link) if from_dir else None
        listed = {name: url for listing in lists.values() for name, url in listing.urls.items()}
        _refuse_placeholders(store, listed, placeholder_at)
        jobs = _jobs(store, listed, templates, retry_final=retry_final)
        notes += _fetch(store, jobs, settings, named=(*bases, *mirror))
        _refuse_placeholders(store, listed, placeholder_at)
        tallies = [Tally.of(part, store, listed) for part in parts]
        return summarise(tallies, store, lists, adopted=adopted, notes=notes)


def _check_flags(categories: Sequence[str], splits: Sequence[str], placeholder_at: int) -> None:
    for category in categories:
        need_choice("FashionIQ category", category, CATEGORIES)
    for split in splits:
        need_choice("FashionIQ split", split, SPLITS)
    if placeholder_at < 2:
        raise UsageError(f"--placeholder-at {placeholder_at}: at least 2 addresses")


def _fetch_annotations(
    root: Path,
    settings: FetchSettings,
    bases: tuple[str, str],
    *,
    categories: Sequence[str],
    splits: Sequence[str],
) -> list[str]:
    """Download captions, splits and lists of addresses.

    Args:
        bases: the addresses that annotations and lists are below.

    Returns:
        A note for each list that cannot be had: mirrors may do without.
    """
    annotations, urls = (base.rstrip("/") for base in bases)
    names = [
        name
        for category in categories
        for split in splits
        for name in (f"captions/cap.{category}.{split}.json", f"image_splits/split.{category}.{split}.json")
    ]
    failed = fetch_files({root / name: f"{annotations}/{name}" for name in names}, settings, bases)
    if failed:
        first = next(iter(failed.values()))
        raise IncompleteError(
            f"{len(failed)} annotation files cannot be had: {first}. Put captions/ and image_splits/ of "
            f"github.com/XiaoxiaoGuo/fashion-iq into {root}, give their address by --annotations-from, or ask for "
            f"fewer --categories and --splits"
        )
    lists = {
        root / "image_url" / f"asin2url.{category}.txt": f"{urls}/asin2url.{category}.txt"
        for category in categories
        if not any(path.exists() for path in _list_paths(root, category))
    }
    return [f"no list of addresses: {why}" for why in fetch_files(lists, settings, bases, check=check_list).values()]


def _list_paths(root: Path, category: str) -> list[Path]:
    """Return where a category's list of addresses may be: the release's places, then that of CIG's code."""
    return [root / "image_url" / f"asin2url.{category}.txt"] + [
        root / folder / f"{category}.json" for folder in ("image_url", "images")
    ]


def _read_lists(root: Path, categories: Sequence[str]) -> dict[str, UrlList]:
    """Map each category to its list of addresses, in either form."""
    existing = {name: next(filter(Path.exists, _list_paths(root, name)), None) for name in categories}
    return {category: read_urls(path) for category, path in existing.items() if path}


def _open_store(root: Path, parts: Sequence[Benchmark], flat: bool) -> PictureStore:
    """Scan the pictures that all splits of each category want, and spread those on disk to where they are lacking."""
    wanted: dict[str, dict[str, None]] = {}
    for part in parts:
        wanted.setdefault(part.part, {}).update(dict.fromkeys(filter(ASIN.fullmatch, wanted_pictures(part))))
    store = PictureStore(root, wanted, flat)
    store.scan()
    for name in store.ids:
        store.spread(name)
    return store


def _jobs(
    store: PictureStore, listed: Mapping[str, str], templates: Sequence[str], *, retry_final: bool
) -> list[PictureJob]:
    """List what to request: no picture on disk, and no address that had nothing in an earlier run.

    What was never requested comes first: old failures may fail again until their host is given up. Ids may share an
    address. Where an earlier run took its picture for one of them, the others copy it from disk.
    """
    jobs = []
    for name in sorted(filter(store.lacking, store.ids), key=lambda name: name in store.ledger.lines):
        final = () if retry_final else store.ledger.final(name)
        left = tuple(url for url in addresses(templates, name, listed.get(name)) if url not in final)
        if left:
            jobs.append(PictureJob(name, left))
    sources = {line.source: line for line in store.ledger.lines.values() if line.outcome == PRESENT}
    twins = [(job, sources.get(job.addresses[0])) for job in jobs]
    return [job for job, twin in twins if not twin or not store.spread(job.id, twin)]


def _fetch(
    store: PictureStore, jobs: Sequence[PictureJob], settings: FetchSettings, *, named: Sequence[str]
) -> list[str]:
    """Request the pictures, and return notes on hosts that were left alone."""
    if not jobs:
        return []
    # Anyone may have written the lists of addresses, so each IP address is checked, which a proxy would choose itself.
    rules, hosts = replace(settings.rules(named), accept="image/*", proxies=False), Hosts(1 + settings.retries)
    with Web(rules, guard=hosts.guard) as web, ThreadPoolExecutor(DECODERS) as pool:
        fetcher = PictureFetcher(web, settings.waits, pool, jobs=jobs)
        with contextlib.closing(web.each(group_shared(jobs), fetcher.get, settings.at_once)) as results:
            for job, result in progress(results, len(jobs), "pictures", unit="picture"):
                _keep(store, job, result)
    return hosts.lines()


def _keep(store: PictureStore, job: PictureJob, result: FetchResult) -> None:
    """Write a picture, or record why there is none."""
    outcome = result.outcome
    if result.content:
        store.put(job.id, result.content, outcome.address, tries=result.tries)
        return
    final = tuple(dict.fromkeys((*store.ledger.final(job.id), *result.final)))
    line = store.ledger.lines.get(job.id)
    if line and line.outcome == PLACEHOLDER:  # more telling than a failure of the other addresses
        store.ledger.add(replace(line, final=final), result.tries)
    else:
        store.ledger.add(LedgerLine(job.id, outcome.outcome, why=outcome.why, final=final), result.tries)


def _refuse_placeholders(store: PictureStore, listed: Mapping[str, str], at: int) -> None:
    """Remove downloaded contents that at least `at` addresses serve.

    A shop answers with one and the same "no image" picture for every product that it has no picture of: a whole
    picture, with status 200. Only the repetition shows it. Ids that share an address do not count as a repetition.
    """
    sources: dict[str, dict[str, list[str]]] = {}  # content -> address -> ids
    for name, line in store.ledger.lines.items():
        if line.digest and line.outcome in (PRESENT, PLACEHOLDER):
            sources.setdefault(line.digest, {}).setdefault(listed.get(name, name), []).append(name)
    for content, serving in sources.items():
        if len(serving) < at:
            continue
        for name in [name for names in serving.values() for name in names]:
            if store.ledger.lines[name].outcome == PRESENT and store.may_remove(name):
                store.refuse(name, f"{len(serving)} addresses serve this content, {content[:16]}")
