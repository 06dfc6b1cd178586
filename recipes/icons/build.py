"""Packs the corpus: fetches the icon sets from the npm registry, parses their names, renders, removes near-duplicates.

pip install resvg-py==0.5.0
python recipes/icons/build.py build/icons            # -> src/cig/assets/icons
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import lzma
import subprocess
import tarfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import resvg_py
from PIL import Image

import grammar
from cig.benchmarks._icons.corpus import SIDE, SPLITS, Icon, compress, pack, rows
from cig.io.files import write_bytes
from duplicates import near_duplicates

# Licences were read in the authors' own packages, not in metadata: Remix Icon (a licence of its own since January
# 2026) and Unicons (IconScout Simple License) are left out for that.
VERSIONS = {
    "mdi": "1.2.3",
    "ph": "1.2.2",
    "material-symbols": "1.2.98",
    "lucide": "1.2.137",
    "carbon": "1.2.29",
    "bi": "1.2.7",
    "mingcute": "1.2.8",
    "iconoir": "1.2.11",
    "hugeicons": "1.2.35",
    "tabler": "1.2.41",
    "fluent": "1.2.60",
    "tdesign": "1.2.19",
    "mynaui": "1.2.19",
    "clarity": "1.2.4",
    "f7": "1.2.2",
    "majesticons": "1.2.5",
    "stash": "1.2.4",
    "proicons": "1.2.20",
}
ALLOWED = {"MIT", "Apache-2.0", "ISC"}
Package = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path, help="where packages are kept")
    parser.add_argument("--out", type=Path, default=Path("src/cig/assets/icons"))
    arguments = parser.parse_args()
    corpus, drawings = {}, {}
    for prefix, version in VERSIONS.items():
        package = fetch(prefix, version, arguments.work)
        corpus[prefix], drawings[prefix] = drawn(read_icons(prefix, package), package)
        print(f"{prefix:18}{len(corpus[prefix]):6} icons", flush=True)
    counts = without_duplicates(corpus, drawings)
    write(corpus, drawings, counts, arguments.work, arguments.out)


def fetch(prefix: str, version: str, work: Path) -> Package:
    """The package's icons.json, info.json and metadata.json, taken out of the registry's archive."""
    archive = work / f"iconify-json-{prefix}-{version}.tgz"
    if not archive.exists():
        work.mkdir(parents=True, exist_ok=True)
        subprocess.run(["npm", "pack", "--silent", f"@iconify-json/{prefix}@{version}"], cwd=work, check=True)
    with tarfile.open(archive) as packed:
        parts = {}
        for name in ("icons", "info", "metadata"):
            member = packed.extractfile(f"package/{name}.json")
            assert member is not None, f"{archive} has no {name}.json"
            parts[name] = json.load(member)
    assert parts["info"]["license"]["spdx"] in ALLOWED, f"{prefix}: {parts['info']['license']}"
    return parts


def read_icons(prefix: str, package: Package) -> list[Icon]:
    """Parsed names, in alphabetical order but for sizes: 24 px comes before 20."""
    names = [name for name, own in package["icons"]["icons"].items() if not own.get("hidden")]
    left_out = grammar.brands(package["metadata"].get("categories", {}))
    names = sorted(set(names) - left_out, key=lambda name: ("-20-" in name, name))
    parsed = (grammar.parse(prefix, name) for name in names)
    return sorted(grammar.one_of_each(icon for icon in parsed if icon), key=lambda icon: icon.name)


def drawn(icons: list[Icon], package: Package) -> tuple[list[Icon], np.ndarray]:
    """Those that give a drawing, neither blank nor full, and [N, 64, 64] uint8; one of those that are equal."""
    kept: dict[bytes, tuple[Icon, np.ndarray]] = {}
    for icon in icons:
        drawing = render(icon.name, package["icons"])
        if drawing.max() > 60 and (drawing > 40).mean() < 0.97:
            kept.setdefault(drawing.tobytes(), (icon, drawing))
    return [icon for icon, _ in kept.values()], np.stack([drawing for _, drawing in kept.values()])


def render(name: str, icons: dict[str, Any]) -> np.ndarray:
    """[64, 64] uint8, 255 = ink; an oblong icon is centred in a square."""
    own = icons["icons"][name]
    left, top = (own.get(key, icons.get(key, 0)) for key in ("left", "top"))
    width, height = (own.get(key, icons.get(key, 16)) for key in ("width", "height"))
    side = max(width, height)
    box = f"{left + (width - side) / 2} {top + (height - side) / 2} {side} {side}"
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" viewBox="{box}" '
        f'width="{SIDE}" height="{SIDE}">{own["body"].replace("currentColor", "black")}</svg>'
    )
    drawing = Image.open(io.BytesIO(bytes(resvg_py.svg_to_bytes(svg_string=svg)))).convert("RGBA")
    paper = Image.new("RGBA", drawing.size, "white")
    return 255 - np.asarray(Image.alpha_composite(paper, drawing).convert("L"))


def without_duplicates(corpus: dict[str, list[Icon]], drawings: dict[str, np.ndarray]) -> dict[str, int]:
    """Takes out of the training sets what val or test have, too; returns how many, by set."""
    held = np.concatenate([drawings[prefix] for split in ("val", "test") for prefix in SPLITS[split]])
    counts = {}
    for prefix in SPLITS["train"]:
        double = near_duplicates(drawings[prefix], held)
        corpus[prefix] = [icon for icon, drop in zip(corpus[prefix], double, strict=True) if not drop]
        drawings[prefix] = drawings[prefix][~double]
        counts[prefix] = int(double.sum())
    print("near-duplicates of val or test taken out of training:", counts, sum(counts.values()))
    return counts


def write(
    corpus: dict[str, list[Icon]], drawings: dict[str, np.ndarray], counts: dict[str, int], work: Path, out: Path
) -> None:
    sets, digest = {}, hashlib.sha256()
    for prefix, icons in corpus.items():
        info = fetch(prefix, VERSIONS[prefix], work)["info"]
        about = {
            "title": info["name"],
            "author": info["author"]["name"],
            "author_url": info["author"].get("url", ""),
            "version": VERSIONS[prefix],
            "licence": info["license"]["spdx"],
        }
        sets[prefix] = {"about": about, "icons": list(rows(icons))}
        packed = pack(drawings[prefix])
        digest.update(lzma.decompress(packed))
        write_bytes(out / f"{prefix}.xz", packed)
    content = json.dumps({"sets": sets, "near_duplicates": counts}, separators=(",", ":"), ensure_ascii=False).encode()
    digest.update(content)
    write_bytes(out / "corpus.json.xz", compress(content))
    print(sum(map(len, corpus.values())), "icons", Counter({own: len(icons) for own, icons in corpus.items()}))
    print("digest", digest.hexdigest())


if __name__ == "__main__":
    main()
