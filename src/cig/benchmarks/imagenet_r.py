"""Domain conversion on ImageNet-R: Pic2Word's definition (Saito et al., CVPR 2023), and FREEDOM's (WACV 2025).

`val`: 10,000 real pictures ask for pictures of their class in each of four domains; recall@k is the share of these
pictures among the first k. `all`: every picture of the list of targets asks for its class in each of the four other
domains, real ones among them; AP over whole rankings. A class without a picture in a domain scores 0, as published.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from cig.benchmarks import NO_WEIGHT, need_names
from cig.errors import InputError
from cig.io.dataset_paths import find_home
from cig.io.files import read_bytes
from cig.types import TARGET, Benchmark, Query

SPLITS = {"val": "val", "test": "val", "pic2word": "val", "all": "all", "freedom": "all"}
DOMAINS = ("cartoon", "origami", "toy", "sculpture")  # in the order of the lists' labels
PHOTO = "photo"  # FREEDOM's word for the real pictures
CLASSES = 1000  # a target's label is its class plus this times its domain
LABELS = 7000  # the released list has the real pictures among the targets, with the domain 6
QUERIES, TARGETS = "imgnet_real_query.txt", "imgnet_targets.txt"
ODDITIES = ("one query asks for many pictures; a class may have none in a domain, and its queries then score 0",)
GALLERY = "the list of targets, the real pictures among them, each query's own, too"


@dataclass(frozen=True)
class _Lists:
    references: Mapping[str, int]  # of Pic2Word's queries: name -> class
    targets: Mapping[str, int]  # name -> label
    images: Mapping[str, Path]
    gallery: tuple[str, ...]


def load(root: Path, split: str) -> tuple[Benchmark, ...]:
    """Load the four domains, or the 20 pairs of two domains, each a part.

    The lists and `imgnet/` lie in the root or in its `data/`.
    """
    home = find_home(root, "imagenet-r", [QUERIES, f"data/{QUERIES}", f"imgnet/{QUERIES}"])
    folder = next(home / name for name in ("", "data", "imgnet") if (home / name / QUERIES).exists())
    references, targets = _labels(folder / QUERIES), _labels(folder / TARGETS)
    images = {name: path for name in (*references, *targets) if (path := _file(home, folder, name))}
    lists = _Lists(references, targets, images, need_names(list(targets), folder / TARGETS))
    return _four_domains(lists) if split == "val" else _all_pairs(lists)


def _four_domains(lists: _Lists) -> tuple[Benchmark, ...]:
    by_label = _relevant((name, label) for name, label in lists.targets.items())
    return tuple(
        Benchmark(
            name="imagenet-r/val",
            queries=tuple(
                Query(str(i), name, (domain,), by_label.get(label + CLASSES * number, {}), cluster=str(label))
                for i, (name, label) in enumerate(lists.references.items())
            ),
            images=lists.images,
            gallery=lists.gallery,
            measures=("recall@10", "recall@50"),
            drop_reference=False,
            weight=0.7,
            weight_source=NO_WEIGHT,
            part=domain,
            protocol={
                "definition": "Pic2Word's: real pictures to four domains",
                "gallery": GALLERY,
                "relevance": "recall: the share of all pictures of the class in the domain",
                "captions": "the domain's name; Pic2Word's own prompt is 'a {domain} of *'",
            },
        )
        for number, domain in enumerate(DOMAINS)
    )


def _all_pairs(lists: _Lists) -> tuple[Benchmark, ...]:
    domain_of = {name: _domain(label) for name, label in lists.targets.items()}
    class_of = {name: label % CLASSES for name, label in lists.targets.items()}
    relevant = {
        domain: _relevant((name, class_of[name]) for name in lists.targets if domain_of[name] == domain)
        for domain in (PHOTO, *DOMAINS)
    }
    return tuple(
        Benchmark(
            name="imagenet-r/all",
            queries=tuple(
                Query(str(i), name, (target,), relevant[target].get(class_of[name], {}), cluster=str(class_of[name]))
                for i, name in enumerate(name for name in lists.targets if domain_of[name] == source)
            ),
            images=lists.images,
            gallery=lists.gallery,
            measures=("trapezoid_map", "recall@10", "recall@50"),
            drop_reference=False,
            weight=0.7,
            weight_source=NO_WEIGHT,
            part=f"{source}-to-{target}",
            protocol={
                "definition": "FREEDOM's: every domain to every other; the mean of 20 pairs",
                "gallery": GALLERY,
                "relevance": "AP over the whole ranking by the trapezoid rule; 0 where a class has no picture",
                "captions": f"the domain's name; {PHOTO} for the real pictures",
            },
        )
        for source in (PHOTO, *DOMAINS)
        for target in (PHOTO, *DOMAINS)
        if source != target and any(domain == source for domain in domain_of.values())
    )


def _domain(label: int) -> str:
    number = label // CLASSES
    return DOMAINS[number] if number < len(DOMAINS) else PHOTO


def _relevant(labelled: Iterable[tuple[str, int]]) -> dict[int, dict[str, int]]:
    """Group names by label, each as a target."""
    by_label: dict[int, dict[str, int]] = defaultdict(dict)
    for name, label in labelled:
        by_label[label][name] = TARGET
    return by_label


def mend(part: Benchmark) -> str:
    """Return what brings missing pictures."""
    return (
        "get ImageNet's validation pictures from image-net.org and ImageNet-R from github.com/hendrycks/imagenet-r, "
        "and lay them out as the lists name them: imgnet/real/WNID/ and imgnet/imagenet-r/WNID/"
    )


def _labels(path: Path) -> dict[str, int]:
    """Read a list: a path and a label a line."""
    labels: dict[str, int] = {}
    for number, line in enumerate(read_bytes(path).decode("utf-8", "replace").splitlines(), 1):
        name, _, label = line.strip().rpartition(" ")
        if not line.strip():
            continue
        if not name or not label.isdecimal() or int(label) >= LABELS or not _is_below(name):
            raise InputError(f"{path}, line {number}: expected a path below imgnet/ and a label, found {line[:80]!r}")
        labels[name] = int(label)
    return labels


def _is_below(name: str) -> bool:
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts and "\0" not in name


def _file(home: Path, folder: Path, name: str) -> Path | None:
    return next(
        (path for base in dict.fromkeys((home, folder, home / "data")) if (path := base / name).is_file()), None
    )
