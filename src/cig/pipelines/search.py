"""`cig search`: one search over a folder, or one a line that comes in; with --imagine, through a pseudo-target."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from cig import config
from cig.errors import CigError, IncompleteError, NotFoundError, PictureError, UsageError, some
from cig.generators import Generation
from cig.io.dataset_paths import is_walked
from cig.io.digests import digest_of, file_digest, fingerprints
from cig.io.feature_cache import FeatureCache
from cig.io.files import UNSAYABLE
from cig.pipelines._search_benchmark import check_searching, source_of
from cig.retrieval.filters import Condition, Metadata, allowed, need_columns
from cig.retrieval.finder import Asked, Finder, Hit, need_sight
from cig.retrieval.requests import Searching
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

    def __init__(self, finding: Finding, compute: Compute, searching: Searching) -> None:
        """Raises NotFoundError or UsageError before anything is embedded."""
        from cig.methods import recall_method

        check_searching(replace(searching, weight=None))
        if searching.weight is not None and not 0 <= searching.weight <= 1:
            raise UsageError(f"--fusion-weight {searching.weight} is the image's share: from 0 to 1")
        self.finding, self.compute = finding, compute
        self.conditions = [Condition.parse(text) for text in finding.where]
        self.metadata = Metadata(finding.metadata) if finding.metadata else None
        self.place = searching.cache or config.user_cache()
        need_columns(self.conditions, self.metadata)
        if finding.imagine and is_walked(self.place, finding.gallery):
            raise UsageError(
                f"--feature-cache {self.place} is in the gallery: what is imagined would be searched, too; give another"
            )
        self.cache = FeatureCache(self.place)
        self.weight = WEIGHT if searching.weight is None else searching.weight
        method = recall_method(searching.method, source_of(searching, compute), self.cache)
        need_sight(method, finding.images)
        self.finder = Finder(finding.gallery, method, self.cache, compute.batch_size, compute.workers)
        self.allowed = self._allowed()

    def _allowed(self) -> NDArray[np.bool_]:
        names = self.finder.gallery.names
        keep = allowed(names, self.finding.names, self.metadata, self.conditions)
        if not keep.any():
            raise IncompleteError(f"none of the {len(names)} pictures passes --name and --where; ask for less")
        return keep

    def find(self, asked: Asked) -> list[Hit]:
        return self.finder.find(asked, self.finding.k, self.allowed, self.finding.keep_reference)

    @property
    def asked(self) -> Asked:
        own = self.finding
        return Asked(own.images, own.text, own.without, own.without_weight, weight=self.weight)

    def about(self) -> dict[str, str]:
        """What the page says of the search."""
        gallery = self.finder.gallery
        known = {
            "gallery": f"{gallery.home}: {len(gallery.names)} pictures",
            "filters": f"{int(self.allowed.sum())} pictures pass" if not self.allowed.all() else "",
            "method": self.finder.method.name,
            "not readable": some(gallery.unreadable, 5),
        }
        return {key: own for key, own in known.items() if own}

    def notes(self) -> Iterator[str]:
        """What was missing, or not used."""
        gallery = self.finder.gallery
        if gallery.unreadable:
            names = some(gallery.unreadable, 5)
            yield f"pictures that cannot be read, and are not searched: {len(gallery.unreadable)} ({names})"
        if self.metadata and (unused := self.metadata.unused(gallery.names)):
            yield f"{self.metadata.path}: {unused} rows name no picture of {gallery.home}"


def check(finding: Finding) -> None:
    """Raises UsageError for what does not go together, NotFoundError for a picture that is not there."""
    if finding.imagine and not (finding.images and finding.text):
        raise UsageError("--imagine makes a picture of --image and --text: give both")
    for image in finding.images:
        if not os.path.isfile(image):  # unlike Path.is_file, no name is too long for it
            raise NotFoundError(f"--image {image} is not a file")


def parse_line(line: str, asked: Asked) -> Asked:
    """`TEXT`, `PICTURE | TEXT` or `PICTURE | TEXT | WITHOUT`; several pictures are parted by commas."""
    words = [word.strip() for word in line.split("|")]
    if len(words) > 3:
        raise UsageError("a line is TEXT, or PICTURE | TEXT, or PICTURE | TEXT | WITHOUT")
    images, text, without = ["", *words, ""] if len(words) == 1 else [*words, ""][:3]
    if UNSAYABLE.search((text + without).replace("\t", " ")):
        raise UsageError(f"{line.strip()!r} is not UTF-8, or has control characters")
    paths = tuple(Path(own.strip()) for own in images.split(",") if own.strip())
    return replace(asked, images=paths, text=text, without=without or asked.without)


def answers(lookup: Lookup, lines: Iterable[str]) -> Iterator[tuple[Asked, list[Hit], float]]:
    """(what was asked, hits, seconds) of each line that is not empty; one that cannot be answered is told, and left."""
    for line in lines:
        if not line.strip():
            continue
        started = time.monotonic()
        try:
            asked = parse_line(line, lookup.asked)
            yield asked, lookup.find(asked), time.monotonic() - started
        except CigError as error:
            say(f"cig: {error}")


# A pseudo-target of one's own query


def imagine(asked: Asked, load: Callable[[], tuple[Composer, Generator]], how: Generation, place: Path) -> Path:
    """The picture that is imagined of a search's first image and text: made once, kept by what it was made of.

    Raises:
        IncompleteError: the generator's pictures were all refused.
        PictureError: the image cannot be read.
    """
    from cig.generators._compose import Composed
    from cig.generators._generate import Imagining
    from cig.generators._generate import imagine as imagine_all

    reference = asked.images[0]
    query = Query(digest_of([file_digest(reference), asked.text]), "reference", (asked.text,))
    part = Benchmark("search", (query,), {"reference": reference}, (), (), False, WEIGHT, SOURCE)
    trying = Imagining(how.seed, how.seeds, how.brightness_thresh, how.max_retries)
    composer, generator = load()
    composed = Composed(part, composer)
    made_by = [asdict(trying), generator.settings, fingerprints(generator.identity), composed.settings]
    folder = place / "imagined" / digest_of(jsonable(made_by))
    done = imagine_all(part, composed, generator, folder, trying, batch_size=1)
    if why := done.missing.get(query.id):
        raise PictureError(why)
    if query.id not in done.pictures:
        raise IncompleteError("the generator's pictures were all refused; try another --seed, or leave --imagine out")
    return done.pictures[query.id]


@dataclass(frozen=True)
class Finding:
    """A search over a folder of pictures: which, and how many of them are wanted."""

    gallery: Path
    images: tuple[Path, ...] = ()
    text: str = ""
    without: str = ""
    without_weight: float = 0.3  # of the unwanted text; ours, no paper's
    k: int = 10
    names: tuple[str, ...] = ()  # patterns that a picture's name must match one of
    metadata: Path | None = None
    where: tuple[str, ...] = ()  # conditions on columns of the metadata, all of which must hold
    keep_reference: bool = False
    imagine: bool = False

    @property
    def from_lines(self) -> bool:
        """Nothing was asked yet: searches come line by line."""
        return not (self.images or self.text)
