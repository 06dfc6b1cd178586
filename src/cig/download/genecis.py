"""GeneCIS: annotations from the authors' repository; COCO's and Visual Genome's pictures are imported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from cig.benchmarks._check import wanted_pictures
from cig.download._release import Release
from cig.types import Benchmark

TASKS = {
    "change_attribute": "074b39e5c2483b252cb99e10ee3256c9ca82f06a",
    "change_object": "f06e61063c121f1ec68bea021ab3b08887d517d5",
    "focus_attribute": "9f81b1777d5e4a849c85ab1b3e293dfb9bd054f3",
    "focus_object": "8aa323433948d115beb48d18058208dff586edd0",
}


def _places(home: Path, parts: Sequence[Benchmark]) -> Mapping[str, Path]:
    """COCO's names have twelve digits; a crop's name begins with its picture's in Visual Genome, which has fewer."""
    places = {}
    for part in parts:
        for name in wanted_pictures(part):
            picture, _, box = name.partition("-")
            stem = picture if box else f"{int(picture):012d}"
            places[stem] = home / ("VG_100K_all" if box else "val2017") / stem
    return places


RELEASE = Release(
    name="genecis",
    benchmarks=("genecis/val",),
    base="https://raw.githubusercontent.com/facebookresearch/genecis/main/genecis",
    files={f"genecis/{task}.json": (f"{task}.json", digest) for task, digest in TASKS.items()},
    licence="annotations CC BY-NC 4.0; pictures of COCO (Flickr's terms) and Visual Genome (CC BY 4.0)",
    advice=(
        "Pictures: val2017.zip of images.cocodataset.org/zips, and images.zip and images2.zip of Visual Genome",
        "(homes.cs.washington.edu/~ranjay/visualgenome); then --from-zip FILE, as often as there are files.",
    ),
    places=_places,
)
download = RELEASE.download
