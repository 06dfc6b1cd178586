"""ImageNet-R's domain conversion: Pic2Word's lists; ImageNet's pictures are imported by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from cig.benchmarks._check import wanted_pictures
from cig.download._release import Release
from cig.types import Benchmark


def _places(home: Path, parts: Sequence[Benchmark]) -> Mapping[str, Path]:
    """Only ImageNet's own names are unique; those of ImageNet-R repeat in each class and are laid out by unpacking."""
    names = {name for part in parts for name in wanted_pictures(part)}
    real = [Path(name) for name in names if Path(name).name.startswith("ILSVRC2012_val_")]
    return {path.stem: home / path.with_suffix("") for path in real}


RELEASE = Release(
    name="imagenet-r",
    benchmarks=("imagenet-r/val",),
    base="https://raw.githubusercontent.com/google-research/composed_image_retrieval/main/data/imgnet",
    files={
        "imgnet_real_query.txt": ("imgnet_real_query.txt", "bd1619ffc6da0f56aabe692f2a1b9782bf36b268"),
        "imgnet_targets.txt": ("imgnet_targets.txt", "d58628c7d0e0994c756fa31237c8a349c2203913"),
    },
    licence="lists Apache-2.0; ImageNet-R MIT; ImageNet's pictures for research, by those who accepted its terms",
    advice=(
        "ImageNet-R: unpack imagenet-r.tar (github.com/hendrycks/imagenet-r) into imgnet/.",
        "ImageNet's validation pictures (an account at image-net.org): --from-dir FOLDER, in any layout.",
    ),
    places=_places,
)
download = RELEASE.download
