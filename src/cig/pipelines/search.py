"""Search pictures of one's own, once or line by line; with imagine, through a pseudo-target."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cig.benchmarks._requirements import need_all
from cig.errors import CigError, IncompleteError, NotFoundError, UsageError, printable, some
from cig.evaluation.html import SURROGATES, inline_code, template, thumbnails
from cig.generators import Composing, Generation
from cig.io.dataset_paths import is_walked
from cig.io.feature_cache import FeatureCache
from cig.io.files import UNPRINTABLE
from cig.io.outputs import write_json_output, write_output
from cig.pipelines._imagine import imagine_by
from cig.pipelines._models import generator_checks, phi_checks
from cig.pipelines.index import Hit, Index
from cig.pipelines.open import cache_folder, open_place
from cig.retrieval.filters import Condition, Metadata, need_columns
from cig.retrieval.finder import REFERENCE_WEIGHT, ComposedQuery, Wanted, need_sight
from cig.retrieval.fusion_weight import check_reference_weight
from cig.retrieval.requests import FolderSearch, OwnSearching
from cig.runtime import Compute, say

ENLARGED = 480  # pixels of a picture's longer side on the page


@dataclass(frozen=True)
class OpenSearch:
    """A gallery that is open, and what is request of it."""

    index: Index
    request: FolderSearch
    wanted: Wanted
    reference_weight: float
    compute: Compute

    @property
    def question(self) -> ComposedQuery:
        request = self.request
        return ComposedQuery(
            images=request.image,
            text=request.text,
            without=request.without,
            without_weight=request.without_weight,
            reference_weight=self.reference_weight,
        )

    def find(self, query: ComposedQuery) -> list[Hit]:
        (hits,) = self.index.find([(query, self.wanted)], keep_reference=self.request.keep_reference)
        return hits

    def description(self) -> dict[str, str]:
        """What the page says of the search."""
        index, passing = self.index, self.index.count(self.wanted.select)
        facts = {
            "gallery": f"{index.gallery}: {len(index)} pictures",
            "filters": f"{passing} pictures pass" if passing < len(index) else "",
            "method": index.method.name,
            "not readable": some(index.changes.unreadable, 5),
        }
        return {key: value for key, value in facts.items() if value}

    def notes(self) -> Iterator[str]:
        """What is searched, and what was missing or not used."""
        index = self.index
        yield f"{len(index)} pictures of {index.gallery}, by {index.method.name}"
        if unreadable := index.changes.unreadable:
            yield f"pictures that cannot be read, and are not searched: {len(unreadable)} ({some(unreadable, 5)})"
        if passed := str(index.changes.passed):
            yield passed.removeprefix("; ")
        if self.request.metadata:
            table = Metadata(self.request.metadata)
            if unused := table.unused([entry.name for entry in index.entries()]):
                yield f"{table.path}: {unused} rows name no picture of {index.gallery}"


def check(request: FolderSearch) -> None:
    """Raises UsageError for what does not go together, NotFoundError for a picture that is not there."""
    if request.imagine and not (request.image and request.text):
        raise UsageError("--imagine makes a picture of --image and --text: give both")
    for image in request.image:
        if not os.path.isfile(image):  # unlike Path.is_file, no name is too long for it
            raise NotFoundError(f"--image {image} is not a file")


def open_gallery(
    request: FolderSearch,
    compute: Compute,
    searching: OwnSearching | None = None,
    *,
    composing: Composing | None = None,
    generation: Generation | None = None,
) -> OpenSearch:
    """Check everything that the search needs, then open the index, or list and embed the folder.

    Raises:
        NotFoundError: a folder without pictures, a picture or weights that are missing.
        IncompleteError: no picture passes the filters.
    """
    check(request)
    searching = searching or OwnSearching()
    weight = searching.reference_weight
    check_reference_weight(weight, "image")
    if request.imagine:
        composing, generation = composing or Composing(), generation or Generation()
        need_all(lambda: (), [*phi_checks(composing), *generator_checks(generation, compute)])
        if is_walked(folder := cache_folder(searching), request.gallery):
            raise UsageError(
                f"--feature-cache {folder} is in the gallery: what is imagined would be searched, too; give another"
            )
    index = open_place(request.gallery, searching, compute, build=False)
    need_sight(index.method, request.image)
    _need_columns(request, index)
    if index.is_folder:
        index.build(request.metadata, compute)
    wanted = index.wanted(
        request.k, request.where, names=request.name, group_by=request.group_by, min_score=request.min_score
    )
    wanted = replace(wanted, fold_copies=request.fold_copies)
    if not index.count(wanted.select):
        raise IncompleteError(f"none of the {len(index)} pictures passes --name and --where; ask for less")
    return OpenSearch(index, request, wanted, REFERENCE_WEIGHT if weight is None else weight, compute)


def _need_columns(request: FolderSearch, index: Index) -> None:
    """Check conditions before anything is embedded."""
    if not index.is_folder:
        if request.metadata:
            raise UsageError("--metadata is of a folder; an index has its own: give it to `cig index build`")
        return
    columns = Metadata(request.metadata).columns if request.metadata else index.columns()
    need_columns([Condition.parse(text).column for text in request.where], columns)


def parse_line(line: str, question: ComposedQuery, before: Sequence[Hit] = ()) -> ComposedQuery:
    """`TEXT`, `PICTURE | TEXT` or `PICTURE | TEXT | WITHOUT`; several pictures are parted by commas.

    Args:
        before: the hits of the line before; a picture may be one's number, from 1.
    """
    words = [word.strip() for word in line.split("|")]
    if len(words) > 3:
        raise UsageError("a line is TEXT, or PICTURE | TEXT, or PICTURE | TEXT | WITHOUT")
    images, text, without = ["", *words, ""] if len(words) == 1 else [*words, ""][:3]
    if UNPRINTABLE.search((text + without).replace("\t", " ")):
        raise UsageError(f"{line.strip()!r} is not UTF-8, or has control characters")
    paths = tuple(_picture(path.strip(), before) for path in images.split(",") if path.strip())
    return replace(question, images=paths, text=text, without=without or question.without)


def _picture(word: str, before: Sequence[Hit]) -> Path:
    if not word.isdecimal() or os.path.isfile(word):
        return Path(word)
    if not 1 <= int(word) <= len(before):
        raise UsageError(f"there is no hit {word}: the search before found {len(before)}")
    return before[int(word) - 1].path


def answers(opened: OpenSearch, lines: Iterable[str]) -> Iterator[tuple[ComposedQuery, list[Hit], float]]:
    """(query, hits, seconds) of each line that is not empty; one that cannot be answered is told, and left."""
    hits: list[Hit] = []
    for line in lines:
        if not line.strip():
            continue
        started = time.monotonic()
        try:
            query = parse_line(line, opened.question, hits)
            hits = opened.find(query)
        except CigError as error:
            say(f"cig: {error}")
        else:
            yield query, hits, time.monotonic() - started


# One search, from the question to its hits


@dataclass(frozen=True)
class SearchAnswer:
    """A question and its hits, nearest first."""

    question: ComposedQuery
    hits: list[Hit]
    description: Mapping[str, str]  # what a page says of the search


def find(
    opened: OpenSearch,
    composing: Composing | None = None,
    generation: Generation | None = None,
    *,
    json: Path | None = None,
    html: Path | None = None,
) -> SearchAnswer:
    """The nearest pictures of an open gallery to what is request; written where request for."""
    question = opened.question
    if opened.request.imagine:
        cache = opened.index.cache
        question = replace(
            question,
            pseudo_target=imagine_by(question, cache, opened.compute, composing=composing, generation=generation),
        )
    answer = SearchAnswer(question, opened.find(question), opened.description())
    if json:
        write_json_output(json, to_json(question, answer.hits, answer.description))
    if html:
        write_output(html, to_html(question, answer.hits, answer.description, cache=opened.index.cache).encode())
    return answer


# What a search found: for the terminal, for other programs, and as one page with the pictures inside


def to_text(hits: Sequence[Hit]) -> str:
    """A line a hit: rank, similarity, name; what cannot be printed in a name is escaped."""
    return "\n".join(f"{rank:3}  {hit.score:.4f}  {printable(hit.name)}" for rank, hit in enumerate(hits, 1))


def to_json(question: ComposedQuery, hits: Sequence[Hit], description: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "images": [str(image) for image in question.images],
        "text": question.text,
        "without": question.without,
        "pseudo_target": str(question.pseudo_target) if question.pseudo_target else None,
        "hits": [{"name": hit.name, "path": str(hit.path), "score": hit.score} for hit in hits],
        **description,
    }


def to_html(
    question: ComposedQuery, hits: Sequence[Hit], description: Mapping[str, str], *, cache: FeatureCache | None = None
) -> str:
    """The page; write it as UTF-8."""
    imagined = [question.pseudo_target] if question.pseudo_target else []
    shown = [*question.images, *imagined, *(hit.path for hit in hits)]
    paths = {hit.path: Path(os.path.abspath(hit.path)) for hit in hits}  # a page is read from other folders, too
    page = template("hits.html").render(
        **inline_code("hits.js", "search.css", "hits.css"),
        question=question,
        hits=hits,
        description=description,
        small=thumbnails(shown, cache, side=ENLARGED),
        paths=paths,
        links={path: location.as_uri() for path, location in paths.items()},
    )
    return SURROGATES.sub("\ufffd", page)
