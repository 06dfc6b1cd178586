"""Branches: from what people write, by flag or in cig.toml, to the pictures and methods of one part of a benchmark."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cig import config
from cig.errors import CigError, MismatchError, NotFoundError, UsageError, did_you_mean, some
from cig.generators import _controls
from cig.io.dataset_paths import existing_part
from cig.io.json_files import read_object
from cig.io.manifest import Manifest, is_stale
from cig.io.query_files import find_several_by_id, picture_name
from cig.retrieval.features import models_digest
from cig.retrieval.frozen_weights import frozen
from cig.retrieval.fusion import PSEUDO_TARGET, REFERENCE, check_names, reference_share
from cig.retrieval.requests import Branching, Searching, parse_method
from cig.runtime import Compute, resolve_device, say
from cig.types import Benchmark, Branch, Method

if TYPE_CHECKING:
    from cig.io.feature_cache import FeatureCache

PICTURES = (".png", ".jpg", ".jpeg", ".webp")
OURS = (PSEUDO_TARGET, "shuffled")  # made of the pictures in --generated-image-dir


# Asking


def check(searching: Searching) -> None:
    """Raises UsageError for branches that do not go together, NotFoundError for folders that are not there."""
    asked = searching.branches
    if asked and searching.weight is not None:
        raise UsageError("--fusion-weight is of the published recipe; with --branch each branch has its own weight")
    if searching.weight is not None and not searching.pseudo_targets:
        raise UsageError("--fusion-weight fuses in pseudo-targets; give their folder with --generated-image-dir")
    if searching.weights:
        _check_weights(searching)
    check_names([own.name for own in asked])
    reference_share([own.weight or 0 for own in asked])
    if asked and searching.pseudo_targets and not any(own.pictures in OURS for own in asked):
        raise UsageError(
            f"no branch looks at the pseudo-targets; add one with pictures={PSEUDO_TARGET}, or leave "
            "--generated-image-dir out"
        )
    for own in asked:
        need_place(own, searching)


def _check_weights(searching: Searching) -> None:
    read_object(searching.weights or Path())
    if searching.weight is not None or any(own.weight is not None for own in searching.branches):
        raise UsageError("--weights freezes the published recipe's weight; leave --fusion-weight and --branch out")
    if not searching.pseudo_targets and not searching.branches:
        raise UsageError("--weights fuses in pseudo-targets; give their folder with --generated-image-dir")


def need_place(asked: Branching, searching: Searching) -> None:
    """Raises UsageError or NotFoundError where a branch's pictures are nowhere."""
    if asked.pictures in OURS and not searching.pseudo_targets:
        raise UsageError(f"pictures={asked.pictures} are those of --generated-image-dir; give that folder")
    ready = [PSEUDO_TARGET, *_controls.names()]
    elsewhere = asked.pictures and asked.pictures not in ready and "{category}" not in asked.pictures
    if elsewhere and not os.path.isdir(asked.pictures):
        raise NotFoundError(
            f"branch {asked.name}: {asked.pictures} is not a folder; give one, or a ready-made name."
            f"{did_you_mean(asked.pictures, ready)}"
        )


# Making


class Branches:
    """Makes the branches of each part of a benchmark, each method loaded once."""

    def __init__(
        self, searching: Searching, searcher: Method, compute: Compute, cache: FeatureCache, single: bool
    ) -> None:
        """single: one category was asked for, whose pictures may lie in a flat folder."""
        self.searching, self.searcher, self.compute = searching, searcher, compute
        self.cache, self.single = cache, single
        self.methods: dict[str, Method] = {}

    def asked(self) -> tuple[Branching, ...]:
        """What was asked for, or the published recipe where there are pseudo-targets."""
        if self.searching.branches or not self.searching.pseudo_targets:
            return self.searching.branches
        return (Branching(PSEUDO_TARGET, None, PSEUDO_TARGET),)

    def weigh(self, asked: Branching, part: Benchmark) -> tuple[float, str]:
        """A branch's weight, and where it comes from."""
        own = self.searching
        if asked.weight is not None:
            return asked.weight, "--branch"
        if own.weight is not None:
            return 1 - own.weight, "--fusion-weight"
        if own.weights:
            known = frozen(own.weights, part.name.partition("/")[0], self.searcher.name, asked.name)
            if known.models != models_digest(self.searcher):
                raise MismatchError(
                    f"{own.weights}: the weight of {self.searcher.name} + {asked.name} was frozen with other models or "
                    f"options; sweep again with these"
                )
            return 1 - known.reference, known.cite(part.name, own.weights)
        return 1 - part.weight, part.weight_source + self._beside(asked, part)

    def _beside(self, asked: Branching, part: Benchmark) -> str:
        """What a sweep on val froze for it, where its file lies in the default place."""
        path = config.place("weights")
        try:
            known = frozen(path, part.name.partition("/")[0], self.searcher.name, asked.name)
        except CigError:  # nobody asked for that file
            return ""
        if known.models != models_digest(self.searcher):
            return ""
        return f"; on {known.split}, {known.reference:g} was frozen by {known.measure} (--weights {path})"

    def of(self, part: Benchmark) -> list[Branch]:
        """Raises NotFoundError for a folder that holds no picture of this part."""
        return [
            Branch(own.name, self._pictures(own, part), self.weigh(own, part)[0], self._method(own), own.caption)
            for own in self.asked()
        ]

    def describe(self, part: Benchmark) -> list[dict[str, Any]]:
        """Which pictures a part is searched with, their shares, and where these come from."""
        told: list[dict[str, Any]] = []
        for own in self.asked():
            weight, source = self.weigh(own, part)
            where = str(self.searching.pseudo_targets) if own.pictures == PSEUDO_TARGET else own.pictures
            line = {"name": own.name, "weight": weight, "source": source, "pictures": where}
            line |= {"method": own.method} if own.method else {}
            told.append(line | ({} if own.caption else {"caption": False}))
        rest = reference_share([line["weight"] for line in told])
        source = told[0]["source"] if told else "no pseudo-targets"
        return [{"name": REFERENCE, "weight": rest, "source": source}, *told]

    def folders(self, part: Benchmark) -> list[Path]:
        """Where pseudo-targets are read from."""
        places = [self.folder_of(own, part) for own in self.asked()]
        return list(dict.fromkeys(place for place in places if place))

    def folder_of(self, asked: Branching, part: Benchmark) -> Path | None:
        if asked.pictures in OURS:
            folder = self.searching.pseudo_targets
        else:
            folder = Path(asked.pictures) if asked.pictures and asked.pictures not in _controls.names() else None
        return existing_part(folder, part, self.single) if folder else None

    def _pictures(self, asked: Branching, part: Benchmark) -> _controls.Pictures:
        folder = self.folder_of(asked, part)
        found = _found(folder, part) if folder else {}
        if asked.pictures in _controls.names():
            home, own = config.place("controls"), self.compute
            making = _controls.Making(home, asked.copies, 0, asked.vae, asked.side, own.device, own.cache_dir)
            return _controls.pictures(asked.pictures, part, found, making)
        return found

    def method_of(self, asked: Branching) -> Method:
        """The one that looks at a branch's pictures."""
        return self._method(asked) or self.searcher

    def _method(self, asked: Branching) -> Method | None:
        spec = asked.method
        if spec == "image" and not asked.caption and getattr(self.searcher, "look_up", None):
            spec = None  # it knows pictures' own features, and no CLIP does
        if spec is None:
            self._need_sight(asked, self.searcher)
            return None
        if spec not in self.methods:
            self.methods[spec] = self._load(spec)
        self._need_sight(asked, self.methods[spec])
        return self.methods[spec]

    def _load(self, spec: str) -> Method:
        """On the searcher's CLIP and preprocessing, so that one gallery serves both."""
        from cig.methods import Source, recall_method, weights_of

        asked, mine = parse_method(spec), weights_of(self.searching.method).clip
        if getattr(self.searcher, "look_up", None):
            raise MismatchError(
                f"{spec} has a CLIP's features of pictures, {self.searcher.name} a file's; leave method out"
            )
        weights = weights_of(asked.method)
        by_default = not weights.clip or (weights.phi and not asked.phi)
        pad = getattr(self.searcher.preprocess, "pad", False)
        source = Source(
            clip=asked.clip or (None if by_default else self.searching.clip or mine or None),
            phi=asked.phi,
            device=resolve_device(self.compute.device),
            dtype=self._dtype(),
            cache_dir=self.compute.cache_dir,
            preprocessing="targetpad" if pad else "clip",
            options=asked.options,
        )
        return recall_method(asked.method, source, self.cache)

    def _dtype(self) -> str:
        """The searcher's own, which is its paper's where none was asked: one gallery serves both."""
        model = getattr(self.searcher, "picture_model", {})
        return str(model.get("dtype", self.compute.dtype)).removeprefix("torch.")

    def _need_sight(self, asked: Branching, method: Method) -> None:
        if asked.pictures and not method.uses_picture:
            raise UsageError(f"branch {asked.name}: {method.name} looks at no picture; leave pictures out")
        if not asked.pictures and method.uses_picture:
            raise UsageError(f"branch {asked.name}: {method.name} looks at pictures; give them with pictures=")


def _found(folder: Path, part: Benchmark) -> dict[str, tuple[Path, ...]]:
    lines = Manifest.read(folder)
    stale = [query.id for query in part.queries if is_stale(lines.get(query.id), query)]
    if stale:
        say(f"{folder}: pictures of queries that ask something else now, not used: {len(stale)} ({some(stale)})")
    ids = dict.fromkeys(query.id for query in part.queries)
    every = find_several_by_id(
        folder, [*ids, *(name for name in lines if name not in ids)], PICTURES
    )  # no id is a copy
    found = {query: every[query] for query in ids if query in every and query not in stale}
    refused = [name for name in ids if name not in stale and not lines.get(name, {}).get("accepted", True)]
    if not found and not refused:
        expected = picture_name(part.queries[0].id) if part.queries else "00000.png"
        raise NotFoundError(f"{folder} has no pseudo-target of {part.title}; expected names such as {expected}")
    return found


def refused(folder: Path) -> set[str]:
    """By the manifest of our own generation; elsewhere nothing is known of refusals."""
    return {name for name, line in Manifest.read(folder).items() if not line.get("accepted", True)}
