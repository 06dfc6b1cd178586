"""COCO object composition: draws our list from COCO's instances, and cuts the objects out of its val2017."""

from __future__ import annotations

from pathlib import Path

from cig.benchmarks import load_benchmarks
from cig.benchmarks._check import check
from cig.benchmarks.coco_composition import CUT_OUTS, LIST, SEED, cut_out, draw_objects
from cig.download import FetchSettings, Outcome
from cig.download._summary import summarise
from cig.errors import CigError, IncompleteError
from cig.io.dataset_paths import list_pictures
from cig.io.digests import digest
from cig.io.files import make_folder, sweep, write_bytes, write_png
from cig.io.images import read_picture
from cig.io.json_files import to_bytes
from cig.io.locks import hold
from cig.runtime import progress, say

INSTANCES = "annotations/instances_val2017.json"
ADVICE = (
    "COCO's val2017.zip and annotations_trainval2017.zip are at images.cocodataset.org; unpack both into one folder,",
    "and run this again with --from-dir FOLDER, or put val2017/ and annotations/ into the dataset's own folder.",
)
LICENCE = "annotations of COCO CC BY 4.0; its pictures have Flickr's terms"


def download(root: Path, settings: FetchSettings, *, from_dir: Path | None = None) -> Outcome:
    """Draw the list and cut the objects out; what is there is kept. Nothing is asked of a server.

    Args:
        from_dir: a folder with COCO's `annotations/` and `val2017/`; by default the dataset's own.

    Raises:
        IncompleteError: no list of instances.
    """
    coco = next((base for base in (from_dir, root) if base and (base / INSTANCES).is_file()), None)
    if coco is None:
        raise IncompleteError(f"no {INSTANCES} in {from_dir or root}. " + " ".join(ADVICE))
    with hold(root, "cig download coco-composition"):
        say(f"coco-composition: {LICENCE}")
        drawn = draw_objects(coco / INSTANCES)
        entries = [{key: entry[key] for key in ("image", "object", "box", "classes")} for entry in drawn]
        write_bytes(make_folder(root) / LIST, to_bytes(entries))
        folder = make_folder(root / CUT_OUTS)
        sweep(folder)
        pictures = list_pictures([root / "val2017", coco / "val2017"])
        broken: dict[str, str] = {}
        for entry in progress(drawn, len(drawn), "cut objects out", unit="object"):
            path, source = folder / f"{entry['image']}.png", pictures.get(f"{int(entry['image']):012d}")
            if source is None or path.exists():
                continue
            try:
                write_png(path, cut_out(read_picture(source).image, entry["box"], entry["segmentation"]))
            except CigError as error:
                broken[str(entry["image"])] = str(error)
        _link_pictures(root, coco)
        notes = [
            f"  drawn with the seed {SEED}: {len(entries):,} objects; {LIST} has sha256 {digest(to_bytes(entries))}",
            *(f"  not cut out: {name}: {why}" for name, why in broken.items()),
        ]
        checkups = [check(part, decode=False) for part in load_benchmarks("coco-composition/val", root)]
        return summarise(checkups, [], notes=notes, advice=ADVICE, decoded=False)


def _link_pictures(root: Path, coco: Path) -> None:
    """Make `val2017` of another folder the dataset's, by a link: 1 GB need not lie on the disk twice."""
    if coco != root and not (root / "val2017").exists():
        (root / "val2017").symlink_to((coco / "val2017").resolve(), target_is_directory=True)
