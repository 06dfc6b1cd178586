"""An index over pictures of one's references: open it, search it, keep it up to date.

    index = cig.open("photos")                      # embeds what is new, and remembers it in the user's cache
    index.search("sofa.jpg", "but blue", k=5)       # [Hit('blue-sofa.jpg', 0.871), ...]

A folder's index lies in the user's cache. `cig index build` makes one that stands by itself: with metadata, with
pictures that were added one by one, and with Milvus as its store.
"""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from cig.errors import InputError, NotFoundError, UsageError, check_type
from cig.io.dataset_paths import PassedOver
from cig.io.feature_cache import FeatureCache
from cig.io.files import stamp, write_png
from cig.io.images import upright
from cig.io.json_files import write_json
from cig.io.locks import hold
from cig.pipelines import _hidden
from cig.pipelines._index_build import Builder, Changes, Listed, below, list_folder, need_names, verify
from cig.retrieval.filters import Condition, Metadata, need_columns, unchanged_table
from cig.retrieval.finder import ComposedQuery, Found, Wanted, embed_composed, find, leaving_out
from cig.retrieval.index import EVERYTHING, Engine, IndexEntry, Selection, open_engine
from cig.runtime import Compute

if TYPE_CHECKING:
    from cig.types import Method

Picture = str | Path | Image.Image

FILE = "index.json"


@dataclass(frozen=True)
class Hit:
    """A picture that a search found."""

    name: str  # in the index
    score: float  # cosine similarity to the query, or the method's own score
    path: Path
    metadata: Mapping[str, Any]
    copies: tuple[str, ...] = ()  # near-identical pictures, or others of its group, that stand behind it

    def __repr__(self) -> str:
        return f"Hit({self.name!r}, {self.score:.3f})"


class Hits(list[Hit]):
    """Hits, nearest first; a notebook shows their pictures."""

    def _repr_html_(self) -> str:
        from cig.evaluation.html import hits_inline

        return hits_inline([(hit.path, f"{hit.name} {hit.score:.3f}") for hit in self])


class Index:
    """Pictures of one's references, searched by one method. `cig.open` makes it; several threads may use it."""

    def __init__(
        self, folder: Path, method: Method, cache: FeatureCache, *, facts: Mapping[str, Any], is_folder: bool = False
    ) -> None:
        self.folder, self.method, self.cache, self.facts = folder, method, cache, dict(facts)
        self.gallery, self.store = Path(facts["gallery"]), str(facts["store"])
        self.changes = Changes()  # what the last build did
        self.engine: Engine | None = None
        self.is_folder = is_folder  # its index is in the user's cache, and follows the folder
        self._lock = threading.RLock()  # models and the cache serve one thread at a time
        if "dimensions" in facts:
            self.engine = open_engine(self.store, folder)

    def __len__(self) -> int:
        return len(self.engine) if self.engine is not None else 0

    def __repr__(self) -> str:
        return f"<Index of {self.gallery}: {len(self)} pictures, by {self.method.name}, in {self.store}>"

    def close(self) -> None:
        if self.engine is not None:
            self.engine.close()

    # Searching

    def search(
        self,
        image: Picture | Sequence[Picture] | None = None,
        text: str = "",
        *,
        k: int = 10,
        without: str = "",
        where: str | Sequence[str] | None = None,
        group_by: str | None = None,
        min_score: float | None = None,
        imagine: bool = False,
        fold_copies: bool = False,
        keep_reference: bool = False,
    ) -> list[Hit]:
        """Return the nearest pictures to pictures, a text or both, nearest first; equal ones by name.

        Args:
            image: one or several: a path, or a PIL picture.
            without: what should not be in the picture.
            where: conditions on the metadata, all of which hold: "price<50", "colour=red", "title~summer".
            group_by: a column: only the nearest picture of each of its values.
            min_score: the least cosine similarity.
            imagine: make a pseudo-target of the first image and the text, and search with it, too.
            fold_copies: near-identical pictures stand behind the nearest of them, in Hit.copies.
            keep_reference: find the query's references pictures, too.

        Raises:
            UsageError: nothing is looked for, or a column that the metadata lack.
            PictureError: a picture cannot be read.
        """
        conditions = [where] if isinstance(where, str) else list(where or ())
        wanted = self.wanted(k, conditions, group_by=group_by, min_score=min_score)
        with self._paths(image) as images:
            query = ComposedQuery(images, text, without)
            if imagine:
                query = replace(query, pseudo_target=self.imagine(query))
            return self.find([(query, replace(wanted, fold_copies=fold_copies))], keep_reference=keep_reference)[0]

    def wanted(
        self,
        k: int = 10,
        where: Sequence[str] = (),
        *,
        names: Sequence[str] = (),
        group_by: str | None = None,
        min_score: float | None = None,
    ) -> Wanted:
        """Return which hits are wanted; raise UsageError for columns that no picture has."""
        check_type(k, int, name="k", wanted="a whole number")
        if k < 1:
            raise UsageError(f"k is {k}; ask for 1 or more")
        conditions = tuple(Condition.parse(text) for text in where)
        needed = [*(one.column for one in conditions), *([group_by] if group_by else [])]
        if needed:
            need_columns(needed, self.columns())
        select = Selection(where=conditions, patterns=tuple(names))
        return Wanted(k, select, group_by or "", min_score)

    def find(
        self, requests: Sequence[tuple[ComposedQuery, Wanted]], *, keep_reference: bool = False, keep: bool = True
    ) -> list[Hits]:
        """Answer several queries at once.

        Args:
            keep: remember the queries' features in the cache.
        """
        if self.engine is None:
            return [Hits() for _ in requests]
        with self._lock:
            cache = self.cache if keep else FeatureCache()
            composed = [query for query, _ in requests]
            features = embed_composed(self.method, composed, cache, no_entry=self._no_entry)
        limited = []
        for query, wanted in requests:
            references = [] if keep_reference else self.names_of(query.images)
            limited.append(replace(wanted, select=leaving_out(wanted.select, references)))
        score = getattr(self.method, "score", None)
        return [Hits(map(self._hit, hits)) for hits in find(self.engine, features, limited, score=score)]

    def _no_entry(self, images: Sequence[Path], made: bool) -> Mapping[Path, str]:
        """Return the images from outside of the gallery for which a method of stored entries has none."""
        no_entry = getattr(self.method, "no_entry", None)
        outside = [image for image in images if below(self.gallery, image) is None] if no_entry else []
        gallery = [self.path_of(entry) for entry in self.entries()] if outside else []
        return no_entry(outside, gallery, bare=not made) if no_entry and gallery else {}

    def imagine(self, query: ComposedQuery) -> Path:
        """Return the pseudo-target of a query's first picture and text."""
        from cig.pipelines._imagine import imagine_by

        return imagine_by(query, self.cache, Compute())

    def names_of(self, paths: Sequence[Path]) -> list[str]:
        """Return the names of those files that are in the index."""
        names = {name for path in paths if (name := below(self.gallery, path))}
        return [*names, *(path.name for path in paths if below(self.folder, path))]

    def path_of(self, entry: IndexEntry) -> Path:
        return self._path(entry.name, entry.file)

    def _path(self, name: str, file: str) -> Path:
        return self.folder / file if file else self.gallery / name

    def _hit(self, hit: Found) -> Hit:
        one = hit.candidate
        return Hit(one.name, hit.score, self._path(one.name, one.file), one.metadata, hit.copies)

    @contextmanager
    def _paths(self, image: Picture | Sequence[Picture] | None) -> Iterator[tuple[Path, ...]]:
        """Give every picture a path: PIL pictures are written to a temporary folder meanwhile."""
        images: list[Any] = [] if image is None else list(image) if isinstance(image, (list, tuple)) else [image]
        with ExitStack() as stack:
            paths = []
            for one in images:
                if isinstance(one, (str, os.PathLike)):
                    paths.append(Path(one))
                    continue
                check_type(one, Image.Image, name="image", wanted="a path or a PIL picture")
                folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cig-")))
                write_png(folder / "image.png", upright(one))
                paths.append(folder / "image.png")
            yield tuple(paths)

    # Pictures and their metadata

    def columns(self) -> list[str]:
        """List the columns of the metadata."""
        return self.engine.columns() if self.engine is not None else []

    def count(self, select: Selection) -> int:
        return self.engine.count(select) if self.engine is not None else 0

    def entries(
        self, select: Selection = EVERYTHING, *, after: str = "", limit: int | None = None
    ) -> Iterator[IndexEntry]:
        """Yield what the index knows of each picture, by name."""
        return self.engine.entries(select, after=after, limit=limit) if self.engine is not None else iter(())

    def get(self, name: str) -> IndexEntry | None:
        """Return what the index knows of a picture."""
        rows = self.engine.get([name]) if self.engine is not None else {}
        return rows[name].entry if name in rows else None

    # Changing

    def build(self, metadata: Path | None = None, compute: Compute | None = None) -> Changes:
        """Make the index hold the folder's pictures as they are now; embed only what is new."""
        passed = PassedOver()
        listed = _hidden.shown(self.folder, list_folder(self.gallery, passed))
        table = Metadata(metadata) if metadata else self._table()
        with hold(self.folder, "cig index build"), self._lock:
            builder = self._builder(compute or Compute(), table)
            builder.changes.passed = passed
            self.changes = builder.update(listed)
            if self.engine is None:
                why = next(iter(self.changes.unreadable.values()))
                raise InputError(f"none of the {len(listed)} pictures in {self.gallery} can be read: {why}")
            if metadata and self.facts.get("metadata") != str(metadata.resolve()):
                self._note(metadata=str(metadata.resolve()))
        return self.changes

    def add(self, *files: str | Path, metadata: Mapping[str, Any] | None = None) -> Changes:
        """Add pictures, or replace those of the same names: files of the folder, or others by their file names."""
        pictures = [_listed(Path(file), below(self.gallery, Path(file)) or Path(file).name) for file in files]
        outside = {
            picture.name: str(picture.path.resolve())
            for picture in pictures
            if below(self.gallery, picture.path) is None
        }
        return self.write(pictures, outside, {p.name: metadata for p in pictures} if metadata else None)

    def write(
        self,
        pictures: Sequence[Listed],
        files: Mapping[str, str],
        metadata: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> Changes:
        """Embed and write pictures; what is written is durable on return.

        Args:
            files: name -> where its file is, of pictures that are not in the gallery's folder.
        """
        with self._lock:
            builder = self._builder(Compute(), self._table())
            present = set(self.engine.get([picture.name for picture in pictures])) if self.engine is not None else set()
            builder.write(pictures, present, files=files, metadata=metadata)
        if builder.changes.unreadable:
            raise InputError(next(iter(builder.changes.unreadable.values())))
        return builder.changes

    def remove(self, *names: str) -> int:
        """Forget pictures; their files stay where they are. Raises UsageError for names that the index lacks."""
        if self.engine is None:
            return 0
        need_names(names, self.engine.get(names))
        return self.engine.remove(names)

    def hide(self, name: str) -> None:
        """Forget a picture for good: an index that follows its folder does not take it again at its next opening."""
        if self.is_folder:
            _hidden.hide(self.folder, name, self.gallery / name)
        self.remove(name)

    def verify(self) -> list[str]:
        """Compare every file with what the index knows of it; return what is wrong, a line a picture."""
        return list(verify(self.engine, self.path_of)) if self.engine is not None else []

    def info(self) -> dict[str, Any]:
        """Return what the index is: pictures, folder, method, store, columns."""
        facts = {key: self.facts.get(key) for key in ("gallery", "store", "metadata", "dimensions")}
        return {"index": str(self.folder), "pictures": len(self), "method": self.method.name, **facts} | {
            "columns": self.columns()
        }

    def _builder(self, compute: Compute, metadata: Metadata | None) -> Builder:
        return Builder(
            self.method,
            self.cache,
            batch_size=compute.batch_size,
            workers=compute.num_workers,
            metadata=metadata,
            engine=self.engine,
            make_engine=self._make_engine,
        )

    def _table(self) -> Metadata | None:
        """Return the table that the last build was given, where it is still present."""
        path = self.facts.get("metadata")
        return unchanged_table(Path(path)) if path and os.path.isfile(path) else None

    def _make_engine(self, dimensions: int) -> Engine:
        self.engine = open_engine(self.store, self.folder, dimensions)
        self._note(dimensions=dimensions)
        return self.engine

    def _note(self, **facts: Any) -> None:
        self.facts |= facts
        write_json(self.folder / FILE, self.facts)


def _listed(path: Path, name: str) -> Listed:
    try:
        return Listed(name, path, stamp(path.stat()))
    except OSError as error:
        raise NotFoundError(f"{path} is not a file that can be read") from error
