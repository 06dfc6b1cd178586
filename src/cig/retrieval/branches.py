"""Branches: from requests, by flag or in cig.toml, to the pictures and methods of one part of a benchmark."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cig import config
from cig.errors import MismatchError, NotFoundError, UsageError, WrongNameError, check_type, did_you_mean, some
from cig.generators import _controls
from cig.generators._generate import Imagined
from cig.io.dataset_paths import SUFFIXES, existing_part
from cig.io.manifest import Manifest, is_stale
from cig.io.query_files import find_several_by_id, picture_name
from cig.retrieval.fusion_weight import PSEUDO_TARGET, REFERENCE, check_weights, find_branch_weight, to_reference_weight
from cig.retrieval.requests import Branching, Searching, parse_method
from cig.runtime import Compute, resolve_device, warn
from cig.types import Benchmark, Branch, Method

if TYPE_CHECKING:
    from cig.io.feature_cache import FeatureCache

PseudoTargets = Imagined | Mapping[str, Path] | Mapping[str, str] | str | Path
OF_PSEUDO_TARGETS = (PSEUDO_TARGET, "shuffled")  # branches of the pictures in --generated-image-dir


def check(searching: Searching) -> None:
    """Raise UsageError for branches that do not go together, NotFoundError for folders that are missing."""
    check_weights(searching)
    branches = searching.branches
    if branches and searching.pseudo_targets and not any(branch.pictures in OF_PSEUDO_TARGETS for branch in branches):
        raise UsageError(
            f"no branch looks at the pseudo-targets; add one with pictures={PSEUDO_TARGET}, or leave "
            "--generated-image-dir out"
        )
    for branching in branches:
        need_folder(branching, searching)


def need_folder(branching: Branching, searching: Searching) -> None:
    """Raise UsageError or WrongNameError where a branch's pictures have no folder."""
    pictures = branching.pictures
    if pictures in OF_PSEUDO_TARGETS and not searching.pseudo_targets:
        raise UsageError(f"pictures={pictures} are those of --generated-image-dir; give that folder")
    ready = [PSEUDO_TARGET, *_controls.names()]
    if pictures and pictures not in ready and "{category}" not in pictures and not os.path.isdir(pictures):
        raise WrongNameError(
            f"branch {branching.name}: {pictures} is not a folder; give one, or a ready-made name."
            f"{did_you_mean(pictures, ready)}"
        )


class Branches:
    """The branches of each part of a benchmark, each method loaded once."""

    def __init__(
        self, searching: Searching, searcher: Method, compute: Compute, *, cache: FeatureCache, single: bool
    ) -> None:
        """Keep what the branches are built from.

        Args:
            single: only one category is searched, so its pictures may lie in a flat folder.
        """
        self.searching, self.searcher, self.compute = searching, searcher, compute
        self.cache, self.single = cache, single
        self.methods: dict[str, Method] = {}

    def requests(self) -> tuple[Branching, ...]:
        """Return the requested branches; without any, the published recipe's where there are pseudo-targets."""
        if self.searching.branches or not self.searching.pseudo_targets:
            return self.searching.branches
        return (Branching(PSEUDO_TARGET, None, PSEUDO_TARGET),)

    def weigh(self, branching: Branching, part: Benchmark) -> tuple[float, str]:
        """Return a branch's weight, and where it comes from."""
        return find_branch_weight(branching, part, searching=self.searching, searcher=self.searcher)

    def build(self, part: Benchmark) -> list[Branch]:
        """Build a part's branches; raise NotFoundError for a folder that holds no picture of this part."""
        return [
            Branch(
                name=branching.name,
                pictures=self._pictures(branching, part),
                weight=self.weigh(branching, part)[0],
                method=self._method(branching),
                caption=branching.caption,
            )
            for branching in self.requests()
        ]

    def describe(self, part: Benchmark) -> list[dict[str, Any]]:
        """List the reference and the branches of a part: their weights, where these come from, and their pictures."""
        described: list[dict[str, Any]] = []
        for branching in self.requests():
            weight, source = self.weigh(branching, part)
            is_recipe = branching.pictures == PSEUDO_TARGET
            pictures = str(self.searching.pseudo_targets) if is_recipe else branching.pictures
            line = {"name": branching.name, "weight": weight, "source": source, "pictures": pictures}
            line |= {"method": branching.method} if branching.method else {}
            described.append(line | ({} if branching.caption else {"caption": False}))
        reference_weight = to_reference_weight([line["weight"] for line in described])
        source = described[0]["source"] if described else "no pseudo-targets"
        return [{"name": REFERENCE, "weight": reference_weight, "source": source}, *described]

    def folders(self, part: Benchmark) -> list[Path]:
        """List the folders that the branches of a part are read from, each once."""
        folders = [self.folder_of(branching, part) for branching in self.requests()]
        return list(dict.fromkeys(folder for folder in folders if folder))

    def folder_of(self, branching: Branching, part: Benchmark) -> Path | None:
        """Return the folder of a branch's pictures; None for a control that reads none."""
        if branching.pictures in OF_PSEUDO_TARGETS:
            folder = self.searching.pseudo_targets
        elif branching.pictures and branching.pictures not in _controls.names():
            folder = Path(branching.pictures)
        else:
            folder = None
        return existing_part(folder, part, self.single) if folder else None

    def _pictures(self, branching: Branching, part: Benchmark) -> _controls.Pictures:
        folder = self.folder_of(branching, part)
        pictures = find_pictures(folder, part) if folder else {}
        if branching.pictures not in _controls.names():
            return pictures
        making = _controls.ControlOptions(
            folder=config.path("controls"),
            copies=branching.copies,
            vae=branching.vae,
            side=branching.side,
            device=self.compute.device,
            cache_dir=self.compute.cache_dir,
        )
        return _controls.pictures(branching.pictures, part, pictures, options=making)

    def method_of(self, branching: Branching) -> Method:
        """Return the method that embeds a branch's pictures."""
        return self._method(branching) or self.searcher

    def _method(self, branching: Branching) -> Method | None:
        spec = branching.method
        if spec == "image" and not branching.caption and getattr(self.searcher, "look_up", None):
            spec = None  # a method of stored features knows pictures' features by name, which no CLIP computes
        if spec is not None and spec not in self.methods:
            self.methods[spec] = self._load(spec)
        method = self.methods[spec] if spec is not None else None
        used = method or self.searcher
        if branching.pictures and not used.uses_picture:
            raise UsageError(f"branch {branching.name}: {used.name} looks at no picture; leave pictures out")
        if not branching.pictures and used.uses_picture:
            raise UsageError(f"branch {branching.name}: {used.name} looks at pictures; give them with pictures=")
        return method

    def _load(self, spec: str) -> Method:
        """Load a branch's method on the searcher's CLIP, dtype and preprocessing, so that one gallery serves both."""
        from cig.methods import Source, load_method_lazily, weights_of

        request, searcher_clip = parse_method(spec), weights_of(self.searching.method).clip
        if getattr(self.searcher, "look_up", None):
            raise MismatchError(
                f"{spec} has a CLIP's features of pictures, {self.searcher.name} a file's; leave method out"
            )
        checkpoints = weights_of(request.method)
        # A variant's CLIP stays where the method has its own phi, which fits no other.
        by_default = not checkpoints.clip or (checkpoints.phi and not request.phi)
        picture_model = getattr(self.searcher, "picture_model", {})
        source = Source(
            clip=request.clip or (None if by_default else self.searching.clip or searcher_clip or None),
            phi=request.phi,
            device=resolve_device(self.compute.device),
            dtype=str(picture_model.get("dtype", self.compute.dtype)).removeprefix("torch."),
            cache_dir=self.compute.cache_dir,
            preprocessing="targetpad" if getattr(self.searcher.preprocess, "pad", False) else "clip",
            options=request.options,
        )
        return load_method_lazily(request.method, source, self.cache)


def find_pictures(folder: Path, part: Benchmark) -> dict[str, tuple[Path, ...]]:
    """Find the pictures of a part's queries, by query id.

    The folder's manifest, where there is one, states which query each picture was made for. A picture whose query has
    another reference or caption now is stale: it is reported and not used. A folder whose every picture was refused
    holds none, which is a result; a folder without any picture of the part is a wrong path.

    Raises:
        NotFoundError: no picture of this part is there, and none was refused.
    """
    lines = Manifest.read(folder)
    stale = [query.id for query in part.queries if is_stale(lines.get(query.id), query)]
    if stale:
        warn(f"{folder}: pictures of queries that ask something else now, not used: {len(stale)} ({some(stale)})")
    ids = dict.fromkeys(query.id for query in part.queries)
    others = [name for name in lines if name not in ids]  # so that no other query's picture is taken for a copy
    by_id = find_several_by_id(folder, [*ids, *others], SUFFIXES)
    pictures = {query: by_id[query] for query in ids if query in by_id and query not in stale}
    refused = [name for name in ids if name not in stale and not lines.get(name, {}).get("accepted", True)]
    if not pictures and not refused:
        expected = picture_name(part.queries[0].id) if part.queries else "00000.png"
        raise NotFoundError(f"{folder} has no pseudo-target of {part.title}; expected names such as {expected}")
    return pictures


def pseudo_target_pictures(pseudo_targets: PseudoTargets, benchmark: Benchmark) -> dict[str, tuple[Path, ...]]:
    """Return the pictures of each query, from any form of pseudo-targets that `cig.search` takes.

    Raises:
        WrongTypeError: none of these forms.
        NotFoundError: a path that is not a folder, or a folder without a picture of this benchmark.
    """
    if isinstance(pseudo_targets, str | Path):
        if not os.path.isdir(pseudo_targets):
            raise NotFoundError(f"pseudo_targets: {pseudo_targets} is not a folder; give the `out` of cig.imagine")
        return find_pictures(Path(pseudo_targets), benchmark)
    pictures = pseudo_targets.pictures if isinstance(pseudo_targets, Imagined) else pseudo_targets
    wanted = "what cig.imagine returned, a mapping from query ids to paths, or a folder"
    check_type(pictures, Mapping, name="pseudo_targets", wanted=wanted)
    for path in pictures.values():
        check_type(path, (str, Path), name="each of pseudo_targets", wanted="a path")
    return {query: (Path(path),) for query, path in pictures.items()}


def refused_queries(folder: Path) -> set[str]:
    """Return ids of queries whose pictures were all refused, by the folder's manifest; without one, none are known."""
    return {name for name, line in Manifest.read(folder).items() if not line.get("accepted", True)}
