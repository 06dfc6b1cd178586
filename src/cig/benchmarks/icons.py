"""Icons: composed retrieval over the embedded corpus; needs no download. docs/icons.md is the datasheet.

Pictures are painted once, into the user's cache. The targets of icons/test are closed: `recipes/icons/open_test.py`
opens them, and logs that it did.
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
    """The queries of a split; `root` is not used: everything is in the package.

    Args:
        limit: the first so many queries; they are in a random order.
    """
    return (read(split, limit, hidden=split == "test"),)


def read(split: str, limit: int | None = None, hidden: bool = False) -> Benchmark:
    """A split with its targets, unless they are to stay hidden. Who reads test's opens it: see docs/results.md."""
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
    """Icons and captions to train on: train, or plain, the same without made-up words. Else raises UsageError."""
    from cig.benchmarks._icons.pairs import IconPairs

    if split not in ("train", "plain"):
        raise UsageError(f"icons/{split} is not for training; icons/train and icons/plain are")
    return IconPairs(made_up_words=split == "train")


def scenes(split: str, limit: int | None = None) -> Scenes:
    """Icons to draw, each from a view of itself (train), from one altered by rule (altered), or from another icon
    (triplets). Else raises UsageError.

    Args:
        limit: the first so many, of a random order.
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
    """The drawings of train, each in an ink of its own, in a random order. Else raises UsageError."""
    if split != "train":
        raise UsageError(f"icons/{split} is not for training; icons/train is")
    icons, _ = read_split("train")
    chosen = Random("inks of pictures")
    names = [picture_name(icon, chosen.choice(list(INKS))) for icon in icons]
    chosen.shuffle(names)
    folder = painted("train", names)
    return {name: folder / name for name in names}


def mend(part: Benchmark) -> str:
    """They are painted again by whoever asks next."""
    return f"rm -r {user_cache() / 'icons'}"


def _query(row: list[Any], hidden: bool) -> Query:
    name, reference, caption, target, also, tags, cluster = row
    relevant = {} if hidden else {target: TARGET, **dict.fromkeys(also, ALSO_CORRECT)}
    return Query(name, reference, (caption,), relevant, tags=tuple(tags), cluster=cluster)


def painted(split: str, names: Iterable[str], home: Path | None = None) -> Path:
    """The folder of a split's pictures, `SET/ICON.INK.png`; made whole or not at all, and once for each content.

    Raises:
        OutputError: a full disk, or a cache that is another's.
    """
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
            if not folder.is_dir():  # else another process was quicker
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
