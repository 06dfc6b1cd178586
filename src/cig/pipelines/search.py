"""Search anyone's folder of pictures, once or line by line; with imagine, through a pseudo-target."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cig import config
from cig.benchmarks._requirements import need_all
from cig.errors import CigError, IncompleteError, NotFoundError, PictureError, UsageError, printable, some
from cig.evaluation.html import SURROGATES, inline_code, template, thumbnails
from cig.generators import Composing, Generation
from cig.io.dataset_paths import is_walked
from cig.io.digests import digest_of, file_digest, fingerprints
from cig.io.feature_cache import FeatureCache
from cig.io.files import UNPRINTABLE, write_bytes
from cig.io.json_files import write_json
from cig.io.locks import hold
from cig.pipelines._models import compose_first, generator_checks, load_composer, load_sdxl, phi_checks
from cig.pipelines._search_benchmark import check_searching, load_searcher
from cig.retrieval.filters import Condition, Metadata, allowed, need_columns
from cig.retrieval.finder import ComposedQuery, Finder, Hit, need_sight
from cig.retrieval.fusion import check_reference_weight
from cig.retrieval.requests import FolderSearch, Searching
from cig.runtime import Compute, jsonable, say
from cig.types import Benchmark, Query

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    from cig.models.composer import Composer
    from cig.types import Generator

WEIGHT, SOURCE = 0.7, "as published for CIRCO test"  # of the images' feature against the pseudo-target's


class Lookup:
    """A gallery that is open, and what is needed to ask it."""

    def __init__(self, finding: FolderSearch, compute: Compute, searching: Searching) -> None:
        """Raises NotFoundError or UsageError before anything is embedded."""
        check_searching(replace(searching, reference_weight=None))
        check_reference_weight(searching.reference_weight, "image")
        self.finding, self.compute = finding, compute
        self.conditions = [Condition.parse(text) for text in finding.where]
        self.metadata = Metadata(finding.metadata) if finding.metadata else None
        self.folder = searching.feature_cache or config.user_cache()
        need_columns(self.conditions, self.metadata)
        if finding.imagine and is_walked(self.folder, finding.gallery):
            raise UsageError(
                f"--feature-cache {self.folder} is in the gallery: "
                "what is imagined would be searched, too; give another"
            )
        self.cache = FeatureCache(self.folder)
        reference_weight = searching.reference_weight
        self.reference_weight = WEIGHT if reference_weight is None else reference_weight
        method = load_searcher(searching, compute, self.cache)
        need_sight(method, finding.image)
        self.finder = Finder(
            finding.gallery, method, self.cache, batch_size=compute.batch_size, workers=compute.num_workers
        )
        self.allowed = self._allowed()

    def _allowed(self) -> NDArray[np.bool_]:
        names = self.finder.gallery.names
        keep = allowed(names, self.finding.name, self.metadata, where=self.conditions)
        if not keep.any():
            raise IncompleteError(f"none of the {len(names)} pictures passes --name and --where; ask for less")
        return keep

    def find(self, query: ComposedQuery) -> list[Hit]:
        return self.finder.find(query, self.finding.k, self.allowed, keep_reference=self.finding.keep_reference)

    @property
    def question(self) -> ComposedQuery:
        finding = self.finding
        return ComposedQuery(
            images=finding.image,
            text=finding.text,
            without=finding.without,
            without_weight=finding.without_weight,
            reference_weight=self.reference_weight,
        )

    def description(self) -> dict[str, str]:
        """What the page says of the search."""
        gallery = self.finder.gallery
        facts = {
            "gallery": f"{gallery.home}: {len(gallery.names)} pictures",
            "filters": f"{int(self.allowed.sum())} pictures pass" if not self.allowed.all() else "",
            "method": self.finder.method.name,
            "not readable": some(gallery.unreadable, 5),
        }
        return {key: value for key, value in facts.items() if value}

    def notes(self) -> Iterator[str]:
        """What was missing, or not used."""
        gallery = self.finder.gallery
        if gallery.unreadable:
            names = some(gallery.unreadable, 5)
            yield f"pictures that cannot be read, and are not searched: {len(gallery.unreadable)} ({names})"
        if self.metadata and (unused := self.metadata.unused(gallery.names)):
            yield f"{self.metadata.path}: {unused} rows name no picture of {gallery.home}"


def check(finding: FolderSearch) -> None:
    """Raises UsageError for what does not go together, NotFoundError for a picture that is not there."""
    if finding.imagine and not (finding.image and finding.text):
        raise UsageError("--imagine makes a picture of --image and --text: give both")
    for image in finding.image:
        if not os.path.isfile(image):  # unlike Path.is_file, no name is too long for it
            raise NotFoundError(f"--image {image} is not a file")


def parse_line(line: str, question: ComposedQuery) -> ComposedQuery:
    """`TEXT`, `PICTURE | TEXT` or `PICTURE | TEXT | WITHOUT`; several pictures are parted by commas."""
    words = [word.strip() for word in line.split("|")]
    if len(words) > 3:
        raise UsageError("a line is TEXT, or PICTURE | TEXT, or PICTURE | TEXT | WITHOUT")
    images, text, without = ["", *words, ""] if len(words) == 1 else [*words, ""][:3]
    if UNPRINTABLE.search((text + without).replace("\t", " ")):
        raise UsageError(f"{line.strip()!r} is not UTF-8, or has control characters")
    paths = tuple(Path(path.strip()) for path in images.split(",") if path.strip())
    return replace(question, images=paths, text=text, without=without or question.without)


def answers(lookup: Lookup, lines: Iterable[str]) -> Iterator[tuple[ComposedQuery, list[Hit], float]]:
    """(what was asked, hits, seconds) of each line that is not empty; one that cannot be answered is told, and left."""
    for line in lines:
        if not line.strip():
            continue
        started = time.monotonic()
        try:
            query = parse_line(line, lookup.question)
            yield query, lookup.find(query), time.monotonic() - started
        except CigError as error:
            say(f"cig: {error}")


# A pseudo-target of one's own query


def imagine(
    question: ComposedQuery,
    load: Callable[[], tuple[Composer, Generator]],
    how: Generation,
    *,
    compute: Compute,
    cache_folder: Path,
) -> Path:
    """The picture that is imagined of a search's first image and text: made once, kept by what it was made of.

    Raises:
        IncompleteError: the generator's pictures were all refused.
        PictureError: the image cannot be read.
    """
    from cig.generators._compose import ComposedConditions
    from cig.generators._generate import ImagineTask

    reference = question.images[0]
    query = Query(digest_of([file_digest(reference), question.text]), "reference", (question.text,))
    part = Benchmark("search", (query,), {"reference": reference}, (), (), False, WEIGHT, SOURCE)
    trying = how.imagining
    composer, generator = load()
    composed = ComposedConditions(part, composer)
    made_by = [asdict(trying), generator.settings, fingerprints(generator.identity), composed.settings]
    folder = cache_folder / "imagined" / digest_of(jsonable(made_by))
    with hold(folder, "a pseudo-target"):
        task = ImagineTask(part, composed, generator, out=folder, how=trying, batch_size=1)
        compose_first([task], [composed], composer, generation=how, compute=compute)
        done = task.make()
    if why := done.missing.get(query.id):
        raise PictureError(why)
    if query.id not in done.pictures:
        raise IncompleteError("the generator's pictures were all refused; try another --seed, or leave --imagine out")
    return done.pictures[query.id]


# One search, from the question to its hits


@dataclass(frozen=True)
class SearchAnswer:
    """A question and its hits, nearest first."""

    question: ComposedQuery
    hits: list[Hit]
    description: Mapping[str, str]  # what a page says of the search


def open_gallery(
    finding: FolderSearch,
    compute: Compute,
    searching: Searching | None = None,
    *,
    composing: Composing | None = None,
    generation: Generation | None = None,
) -> Lookup:
    """Check everything that the search needs, then list and embed the folder.

    Raises:
        NotFoundError: a folder without pictures, a picture or weights that are missing.
        IncompleteError: no picture passes the filters.
    """
    check(finding)
    if finding.imagine:
        composing, generation = composing or Composing(), generation or Generation()
        need_all(lambda: (), [*phi_checks(composing), *generator_checks(generation, compute)])
    return Lookup(finding, compute, searching or Searching())


def find(
    lookup: Lookup,
    composing: Composing | None = None,
    generation: Generation | None = None,
    *,
    json: Path | None = None,
    html: Path | None = None,
) -> SearchAnswer:
    """The nearest pictures of an open gallery to what its finding asks for; written where asked for."""
    question = lookup.question
    if lookup.finding.imagine:
        composing, generation = composing or Composing(), generation or Generation()

        def load() -> tuple[Composer, Generator]:
            composer = load_composer(composing, lookup.compute, lookup.cache)
            return composer, load_sdxl(generation, lookup.compute, lookup.cache)

        picture = imagine(question, load, generation, compute=lookup.compute, cache_folder=lookup.folder)
        question = replace(question, pseudo_target=picture)
    answer = SearchAnswer(question, lookup.find(question), lookup.description())
    if json:
        write_json(json, to_json(question, answer.hits, answer.description))
    if html:
        write_bytes(html, to_html(question, answer.hits, answer.description, cache=lookup.cache).encode())
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
    page = template("hits.html").render(
        **inline_code("hits.js", "report.css", "hits.css"),
        question=question,
        hits=hits,
        description=description,
        small=thumbnails(shown, cache),
    )
    return SURROGATES.sub("\ufffd", page)
