"""A caption of the reference, joined with the relative caption: text features of `a photo of {it} that {caption}`.

This is SEARLE's prompt with a caption instead of the pseudo-word: the baseline "Captioning" of its paper (Baldrati et
al., ICCV 2023). The captions come from a file or from a captioner.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from cig.errors import InputError, UsageError, reason
from cig.io.digests import identity
from cig.io.files import read_bytes
from cig.io.images import read_picture
from cig.io.json_files import read_object
from cig.methods import Option, Source
from cig.methods._dual import VARIANTS as VARIANTS
from cig.methods._dual import DualTower
from cig.methods._inversion import over_orders
from cig.methods._picture_names import Names
from cig.models.prompts import join_captions
from cig.types import Query

if TYPE_CHECKING:
    from cig.models.captioner import Captioner

OPTIONS = {
    "captions": Option("a file of captions: a JSON object {name: caption}, or a CSV of two columns", is_model=True),
    "captioner": Option("an image-to-text model of transformers, by hub id or folder", is_model=True),
}
TEMPLATE, BARE = "a photo of {} that {}", "a photo of {}"


class CaptionFile:
    """Captions of pictures from a file."""

    def __init__(self, path: Path) -> None:
        self.path, self.identity = path, identity(path)
        pairs = [(name, text) for name, text in _pairs(path) if text.strip()]
        self.names, self.captions = Names.of([name for name, _ in pairs], path), [text for _, text in pairs]

    def lacking(self, paths: Sequence[Path]) -> dict[Path, str]:
        return self.names.lacking(paths, "caption", self.path)

    def lacking_own(self, paths: Sequence[Path], gallery: Sequence[Path], *, bare: bool) -> dict[Path, str]:
        return self.names.lacking_own(paths, gallery, "caption", source=self.path, bare=bare)

    def of(self, paths: Sequence[Path]) -> list[str]:
        """Return the captions of pictures; raises InputError that names every picture without one."""
        rows = self.names.rows_of(paths, "caption", self.path, hint="caption them, too")
        return [self.captions[row] for row in rows]


class GeneratedCaptions:
    """Captions of pictures by a captioner, which sees each picture once."""

    def __init__(self, captioner: Captioner) -> None:
        self.captioner, self.identity = captioner, captioner.identity
        self.captions: dict[str, str] = {}  # by content, since the file of a name may be replaced

    def lacking(self, paths: Sequence[Path]) -> dict[Path, str]:
        return {}

    def lacking_own(self, paths: Sequence[Path], gallery: Sequence[Path], *, bare: bool) -> dict[Path, str]:
        return {}

    def of(self, paths: Sequence[Path]) -> list[str]:
        """Return the captions of pictures; raises PictureError for one that cannot be decoded."""
        pictures = {path: read_picture(path) for path in dict.fromkeys(paths)}
        new = {picture.digest: picture.image for picture in pictures.values() if picture.digest not in self.captions}
        self.captions |= dict(zip(new, self.captioner([*new.values()]) if new else (), strict=True))
        return [self.captions[pictures[path].digest] for path in paths]


class JoinedCaptions(DualTower):
    """The method. A picture without a caption can be in the gallery, but not be a reference."""

    family = "caption"
    asks_for_queries = True

    def __init__(self, variant: str, source: Source) -> None:
        options = source.options
        if ("captions" in options) == ("captioner" in options):
            raise UsageError("caption wants one of two: --method-option captions=FILE or captioner=HUB_ID_OR_FOLDER")
        self.captions: CaptionFile | GeneratedCaptions
        if "captions" in options:
            self.captions = CaptionFile(Path(options["captions"]))
        else:
            from cig.models.captioner import load_captioner

            captioner = load_captioner(options["captioner"], *source.compute(), cache_dir=source.cache_dir)
            self.captions = GeneratedCaptions(captioner)
        super().__init__(variant, source)
        self.identity: Mapping[str, Any] = {**self.identity, "captions": self.captions.identity}

    def no_query(self, paths: Sequence[Path]) -> dict[Path, str]:
        return self.captions.lacking(paths)

    def no_entry(self, paths: Sequence[Path], gallery: Sequence[Path], *, bare: bool = False) -> dict[Path, str]:
        return self.captions.lacking_own(paths, gallery, bare=bare)

    def embed_queries(
        self,
        image_features: Tensor,
        captions: Sequence[tuple[str, ...]],
        *,
        queries: Sequence[Query],
        paths: Sequence[Path],
    ) -> Tensor:
        pairs = zip(self.captions.of(paths), captions, strict=True)
        return over_orders([joined(reference, texts) for reference, texts in pairs], self.tower.embed_texts)


def joined(reference: str, captions: Sequence[str]) -> tuple[str, ...]:
    """Join a reference's caption with each order of the relative captions; without these, return it alone."""
    reference = reference.strip(".?, ")
    texts = tuple(TEMPLATE.format(reference, caption) for caption in join_captions(captions))
    return texts or (BARE.format(reference),)


def _pairs(path: Path) -> Iterator[tuple[str, str]]:
    """Yield (name, caption) of each entry; raises InputError that names an entry of another form."""
    if path.suffix.lower() == ".csv":
        yield from _rows(path)
        return
    for name, caption in read_object(path).items():
        if not isinstance(caption, str):
            raise InputError(f'{path}: the caption of "{name}" should be a text, found {type(caption).__name__}')
        yield name, caption


def _rows(path: Path) -> Iterator[tuple[str, str]]:
    reader = csv.reader(io.StringIO(read_bytes(path).decode("utf-8-sig", "replace")), strict=True)
    try:
        for row in reader:
            if len(row) != 2:
                raise InputError(
                    f"{path}, line {reader.line_num}: expected a name and a caption, found {len(row)} fields"
                )
            yield row[0], row[1]
    except csv.Error as error:
        raise InputError(f"{path}, line {reader.line_num}: not CSV: {reason(error)}") from error


load = JoinedCaptions
