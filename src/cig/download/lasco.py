"""LaSCo: annotations from the authors' repository; COCO's val2014 is imported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from cig.benchmarks._check import wanted_pictures
from cig.download._release import Release
from cig.types import Benchmark


def _places(home: Path, parts: Sequence[Benchmark]) -> Mapping[str, Path]:
    ids = {name for part in parts for name in wanted_pictures(part) if name.isdecimal()}
    stems = [f"COCO_val2014_{int(name):012d}" for name in ids]
    return {stem: home / "val2014" / stem for stem in stems}


RELEASE = Release(
    name="lasco",
    benchmarks=("lasco/val",),
    base="https://raw.githubusercontent.com/levymsn/LaSCo/main/downloads",
    files={
        "lasco_val.json": ("lasco_val.json", "b7f5c7d668d824250eb171d7a3a31b51cfda6c62"),
        "lasco_val_corpus.json": ("lasco_val_corpus.json", "222abe35e0e6bb2cf5c874d8622f830d2b5aa49b"),
    },
    licence="annotations MIT; pictures of COCO have Flickr's terms",
    advice=("Pictures: val2014.zip of images.cocodataset.org/zips (6 GB); then --from-zip val2014.zip.",),
    places=_places,
)
download = RELEASE.download
