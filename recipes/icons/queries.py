"""Writes the queries and the gallery of icons/val and icons/test, from the packed corpus, and prints their digests.

    python recipes/icons/queries.py                      # -> src/cig/assets/icons/{val,test}.json.xz

No model takes part. The test split's digest is frozen in tests/benchmarks/test_icons.py before any model is trained.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import permutations
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from cig.benchmarks._icons.corpus import INKS, SPLITS, Icon, compress, picture_name, read_split
from cig.io.files import write_bytes
from duplicates import nearest, prints
from wordings import say

ATTRIBUTES = ("badge", "enclosure", "direction", "style")
SAME = 0.985  # cosine of prints from which drawings of two names are interchangeable, if their attributes agree
SIMILAR = 0.6  # from which drawings of one name are
UNCHANGED = 0.995  # from which a change cannot be seen
WANTED = {  # queries of each type in one set, at most
    "val": {"badge added": 400, "badge removed": 200, "badge swapped": 300, "style": 300, "direction": 200}
    | {"enclosure": 150, "object": 250, "ink": 250, "two at once": 450},
    "test": {"badge added": 400, "badge removed": 250, "badge swapped": 250, "style": 250, "direction": 250}
    | {"enclosure": 250, "object": 200, "ink": 150, "two at once": 320},
}
FROM_ONE_OBJECT = 8  # pairs of a type, at most
Pair = tuple[Icon, Icon]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("src/cig/assets/icons"))
    arguments = parser.parse_args()
    for split in ("val", "test"):
        content = encode(build(split))
        write_bytes(arguments.out / f"{split}.json.xz", compress(content))
        print(split, hashlib.sha256(content).hexdigest())


def encode(benchmark: dict[str, Any]) -> bytes:
    return json.dumps(benchmark, ensure_ascii=False, separators=(",", ":")).encode()


def build(split: str) -> dict[str, Any]:
    """{"queries": [[id, reference, caption, targets, also correct, tags, cluster], ...], "gallery": [names]}."""
    icons, drawings = read_split(split)
    looks = Looks(icons, drawings)
    rng = Random(f"icons/{split}")
    drafts = [draft for prefix in SPLITS[split] for draft in drafted(split, prefix, icons, looks, rng)]
    rng.shuffle(drafts)
    gallery = Gallery(icons, drafts, rng)
    tags = Familiarity(icons, drawings)
    queries = []
    for number, (kind, changes, reference, target, ink) in enumerate(drafts):
        caption = say(split, changes, reference, target, ink, rng)
        right = gallery.also_correct(target, ink, looks, reference)
        own = [kind, *tags(target)]
        picture, wanted = picture_name(reference, base_ink(reference)), picture_name(target, ink)
        queries.append([f"{split}-{number:05}", picture, caption, wanted, right, own, reference.object])
    print(split, len(queries), "queries,", len(gallery.names), "pictures;", dict(Counter(draft[0] for draft in drafts)))
    return {"queries": queries, "gallery": sorted(gallery.names)}


def base_ink(icon: Icon) -> str:
    """The ink of most pictures of an object, by its name, so that a change of ink alone never tells objects apart."""
    number = int.from_bytes(hashlib.sha256(icon.object.encode()).digest()[:4], "big")
    return list(INKS)[number % len(INKS)]


class Looks:
    """Which drawings look the same."""

    def __init__(self, icons: Sequence[Icon], drawings: np.ndarray) -> None:
        self.place = {(icon.prefix, icon.name): i for i, icon in enumerate(icons)}
        self.icons, self.prints = icons, prints(drawings)

    def alike(self, one: Icon, other: Icon) -> float:
        first, second = (self.place[icon.prefix, icon.name] for icon in (one, other))
        return float(self.prints[first] @ self.prints[second])

    def interchangeable(self, icon: Icon) -> set[Icon]:
        """Of the same name (by another hand) and similar, or of the same attributes and the same to the eye.

        Names that end in a number or letter are no words for a look: "rosette number 8" is not "number 9".
        """
        cosines = self.prints @ self.prints[self.place[icon.prefix, icon.name]]
        near = [(self.icons[i], cosines[i]) for i in np.flatnonzero(cosines > SIMILAR)]
        same_name = {other for other, _ in near if other.key == icon.key}
        same_look = {other for other, cosine in near if cosine > SAME and other.key[1:] == icon.key[1:]}
        return same_name | {other for other in same_look if not _spelt(other) and not _spelt(icon)}


def _spelt(icon: Icon) -> bool:
    last = icon.object.split()[-1]
    return len(last) == 1 or any(map(str.isdigit, icon.object))


# Pairs


def drafted(split: str, prefix: str, icons: Sequence[Icon], looks: Looks, rng: Random) -> Iterator[tuple[Any, ...]]:
    """(type, changes, reference, target, ink of the target) of one set, in a random order, no type over its number."""
    own = [icon for icon in icons if icon.prefix == prefix]
    for kind, pairs in pairs_of(own, rng).items():
        changes, wanted = changes_of(kind, pairs), WANTED[split][kind]
        rng.shuffle(changes)
        count: Counter[str] = Counter()
        for change, reference, target in changes:
            if "ink" not in change and looks.alike(reference, target) > UNCHANGED:
                continue
            if count[reference.object] < FROM_ONE_OBJECT and count.total() < wanted:
                count[reference.object] += 1
                yield kind, change, reference, target, _other_ink(reference, rng, "ink" in change)


def _other_ink(reference: Icon, rng: Random, other: bool) -> str:
    own = base_ink(reference)
    return rng.choice([ink for ink in INKS if ink != own]) if other else own


def pairs_of(icons: Sequence[Icon], rng: Random) -> dict[str, dict[tuple[str, ...], list[Pair]]]:
    """Type -> what changes -> pairs (reference, target) of one set."""
    by = {attribute: list(differing(icons, (attribute,))) for attribute in ATTRIBUTES}
    badge = by["badge"]
    ink = [(icon, icon) for icon in icons]
    two = {
        ("badge", "style"): [pair for pair in differing(icons, ("badge", "style")) if _plain(pair)],
        **{(attribute, "ink"): rng.sample(by[attribute], min(len(by[attribute]), 2000)) for attribute in ATTRIBUTES},
    }
    return {
        "badge added": {("badge",): [pair for pair in badge if not pair[0].badge]},
        "badge removed": {("badge",): [pair for pair in badge if not pair[1].badge]},
        "badge swapped": {("badge",): [pair for pair in badge if pair[0].badge and pair[1].badge]},
        "style": {("style",): by["style"]},
        "direction": {("direction",): by["direction"]},
        "enclosure": {("enclosure",): by["enclosure"]},
        "object": {("object",): objects_differing(icons, rng)},
        "ink": {("ink",): ink},
        "two at once": two,
    }


def changes_of(kind: str, pairs: dict[tuple[str, ...], list[Pair]]) -> list[tuple[tuple[str, ...], Icon, Icon]]:
    return [(changes, *pair) for changes, own in pairs.items() for pair in own]


def differing(icons: Sequence[Icon], attributes: tuple[str, ...]) -> Iterator[Pair]:
    """Ordered pairs that differ in each of these attributes and in nothing else."""
    groups = defaultdict(list)
    for icon in icons:
        groups[replace(icon, name="", **dict.fromkeys(attributes, ""))].append(icon)
    for group in groups.values():
        for pair in permutations(group, 2):
            changed = all(getattr(pair[0], own) != getattr(pair[1], own) for own in attributes)
            if changed and ("direction" not in attributes or (pair[0].direction and pair[1].direction)):
                yield pair


def objects_differing(icons: Sequence[Icon], rng: Random) -> list[Pair]:
    """Two things with the same badge; the target's name can be said."""
    groups = defaultdict(list)
    for icon in icons:
        if icon.badge:
            groups[replace(icon, name="", object="", variant="")].append(icon)
    sayable = {key: [icon for icon in group if _sayable(icon.object)] for key, group in groups.items()}
    return [
        (reference, target)
        for key, group in groups.items()
        for reference in group
        for target in rng.sample(sayable[key], min(3, len(sayable[key])))
        if target.object != reference.object
    ]


def _plain(pair: Pair) -> bool:
    return bool(pair[0].badge or pair[1].badge)


def _sayable(name: str) -> bool:
    return len(name.split()) <= 2 and name.replace(" ", "").isalpha()


# Pictures


class Gallery:
    """Every icon in its base ink, every target, and for half of the queries the target's drawing in one more ink."""

    def __init__(self, icons: Sequence[Icon], drafts: Sequence[tuple[Any, ...]], rng: Random) -> None:
        self.names = {picture_name(icon, base_ink(icon)) for icon in icons}
        for *_, target, ink in drafts:
            self.names.add(picture_name(target, ink))
            if rng.random() < 0.5:
                self.names.add(picture_name(target, rng.choice([other for other in INKS if other != ink])))

    def also_correct(self, target: Icon, ink: str, looks: Looks, reference: Icon) -> list[str]:
        """What is interchangeable with the target, in its ink, but not with the reference (where its ink stays)."""
        others = looks.interchangeable(target)
        if ink == base_ink(reference):
            others -= looks.interchangeable(reference)
        names = {picture_name(icon, ink) for icon in others} & self.names
        return sorted(names - {picture_name(target, ink), picture_name(reference, base_ink(reference))})


class Familiarity:
    """What training has seen of a target: its object, the object with its attributes, a drawing like it (quartiles)."""

    def __init__(self, icons: Sequence[Icon], drawings: np.ndarray) -> None:
        seen, seen_drawings = read_split("train")
        self.objects = {icon.object for icon in seen}
        self.combinations = {icon.key[:4] for icon in seen}
        cosines = nearest(drawings, seen_drawings)[0]
        cuts = np.quantile(cosines, [0.25, 0.5, 0.75])
        self.quartile = {
            (icon.prefix, icon.name): int(np.searchsorted(cuts, own)) + 1
            for icon, own in zip(icons, cosines, strict=True)
        }

    def __call__(self, icon: Icon) -> list[str]:
        known = "seen" if icon.object in self.objects else "unseen"
        combined = "seen" if icon.key[:4] in self.combinations else "unseen"
        near = self.quartile[icon.prefix, icon.name]
        return [f"object {known}", f"combination {combined}", f"likeness to training {near} of 4"]


if __name__ == "__main__":
    main()
