"""Icons: composed retrieval over the embedded corpus, without a download. docs/icons.md is the datasheet.

Pictures are painted once, into the user's cache. The targets of icons/test are hidden: `recipes/icons/open_test.py`
reads them, and logs that it did.
"""

from __future__ import annotations

import json
import lzma
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from random import Random
from typing import Any

from cig.benchmarks._icons.corpus import INKS, assets, paint, picture_name, read_split
from cig.config import user_cache
from cig.errors import UsageError
from cig.io.digests import digest
from cig.io.files import make_folder, writing
from cig.types import ALSO_CORRECT, TARGET, Benchmark, Pairs, Query, Scenes

SPLITS = {"val": "val", "test": "test"}
MEASURES = ("map@10", "map@50", "recall@1", "recall@5", "recall@10", "recall@50")


def load(root: Path, split: str, limit: int | None = None) -> tuple[Benchmark]:
    """Load a split; `root` is not used, as everything is in the package.

    Args:
        limit: how many queries, from the first; they are in a random order.
    """
    return (read(split, limit, hidden=split == "test"),)


def read(split: str, limit: int | None = None, hidden: bool = False) -> Benchmark:
    """Read a split with its targets, unless hidden. Reading those of test opens it: see docs/results.md."""
    content = lzma.decompress(assets().joinpath(f"{split}.json.xz").read_bytes())
    parts: dict[str, Any] = json.loads(content)
    queries = tuple(_query(row, hidden) for row in parts["queries"][:limit])
    folder = painted(split, parts["gallery"])
    names = tuple(parts["gallery"])
    return Benchmark(
        name=f"icons/{split}",
        queries=queries,
        images={name: folder / name for name in names},
        gallery=names,
        measures=MEASURES,
        drop_reference=True,
        weight=0.7,
        weight_source="none published: frozen on icons/val by `cig compare --sweep`",
        hidden=hidden,
        protocol={
            "gallery": f"{len(names)} pictures, without the query's reference",
            "queries": f"{len(queries)} of {len(parts['queries'])}, digest {digest(content)[:12]}",
            "relevance": "recall: the target; mAP: interchangeable drawings, too",
        },
    )


def pairs(split: str) -> Pairs:
    """Load icons and captions to train on: train, or plain (without made-up words); raises UsageError for others."""
    from cig.benchmarks._icons.pairs import IconPairs

    if split not in ("train", "plain"):
        raise UsageError(f"icons/{split} is not for training; icons/train and icons/plain are")
    return IconPairs(made_up_words=split == "train")


def scenes(split: str, limit: int | None = None) -> Scenes:
    """Load icons to draw, with the view that each is conditioned on.

    The view is the icon itself (train), the icon altered by rule (altered), or another icon (triplets).

    Args:
        limit: how many, from the first of a random order.

    Raises:
        UsageError: another split.
    """
    from cig.benchmarks._icons.altered import AlteredScenes
    from cig.benchmarks._icons.scenes import IconScenes
    from cig.benchmarks._icons.triplets import IconTriplets

    kinds: dict[str, Callable[[int | None], Scenes]] = {
        "train": IconScenes,
        "altered": AlteredScenes,
        "triplets": IconTriplets,
    }
    if split not in kinds:
        raise UsageError(f"icons/{split} is not for training; icons/train, icons/altered and icons/triplets are")
    return kinds[split](limit)


def pictures(split: str) -> dict[str, Path]:
    """Paint the drawings of train, each in a random ink, in a random order; raises UsageError for other splits."""
    if split != "train":
        raise UsageError(f"icons/{split} is not for training; icons/train is")
    icons, _ = read_split("train")
    chosen = Random("inks of pictures")
    names = [picture_name(icon, chosen.choice(list(INKS))) for icon in icons]
    chosen.shuffle(names)
    folder = painted("train", names)
    return {name: folder / name for name in names}


def mend(part: Benchmark) -> str:
    """Return the command that removes the painted pictures; the next load paints them again."""
    return f"rm -r {user_cache() / 'icons'}"


def _query(row: list[Any], hidden: bool) -> Query:
    name, reference, caption, target, also, tags, cluster = row
    relevant = {} if hidden else {target: TARGET, **dict.fromkeys(also, ALSO_CORRECT)}
    return Query(name, reference, (caption,), relevant, tags=tuple(tags), cluster=cluster)


def painted(split: str, names: Iterable[str], home: Path | None = None) -> Path:
    """Return the folder of a split's pictures, `SET/ICON.INK.png`; paint them if it is absent.

    Raises:
        OutputError: a full disk, or a cache that may not be written.
    """
    # The folder's name holds a digest of its content, so an update of the corpus paints a new one. Pictures are painted
    # into a folder beside it, which then takes the name: a killed process leaves no half-filled cache, and of two
    # processes that paint at once, the slower one finds the name taken and drops its copy.
    names = tuple(names)
    folder = (home or user_cache() / "icons") / f"{split}-{digest(chr(10).join(names).encode())[:12]}"
    if folder.is_dir():
        return folder
    make_folder(folder.parent)
    with writing(folder):
        aside = Path(tempfile.mkdtemp(prefix=".painting-", dir=folder.parent))
        try:
            _paint_all(split, frozenset(names), aside)
            os.replace(aside, folder)
        except OSError:
            if not folder.is_dir():  # another process was quicker
                raise
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    return folder


def _paint_all(split: str, wanted: frozenset[str], folder: Path) -> None:
    icons, drawings = read_split(split)
    for prefix in {icon.prefix for icon in icons}:
        (folder / prefix).mkdir()
    for icon, drawing in zip(icons, drawings, strict=True):
        for ink in INKS:
            if (name := picture_name(icon, ink)) in wanted:
                paint(drawing, ink).save(folder / name)
