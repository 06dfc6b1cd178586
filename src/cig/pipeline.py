"""The walk, as sentences of verbs: what the command line's four verbs do, and Python can call. Read this file first.

extract   reference + caption -> composed embeddings       (CIG, stage 1)
generate  composed embeddings -> pseudo-targets            (CIG, stage 2)
evaluate  reference and pseudo-target -> rankings, scores  (CIG, stage 3, where targets are public)
submit    reference and pseudo-target -> the official files (where they are not)
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cig import plugins, settings
from cig.benchmarks import load_benchmarks, split_name
from cig.errors import IncompleteError, NotFoundError, UsageError, some
from cig.formats import find_by_id, write_json
from cig.images import Preprocessing
from cig.layout import existing_part, part_folder
from cig.preflight import need_all, need_embeddings, need_phi, need_pictures, need_unet
from cig.runtime import (
    Seeds,
    commit,
    device_name,
    jsonable,
    resolve_device,
    resolve_dtype,
    say,
    versions,
)
from cig.types import Benchmark, Generator, Method, Ranking, Report

if TYPE_CHECKING:
    from cig.generators.sdxl import Offload
    from cig.retrieval import PictureFeatures

PICTURES = (".png", ".jpg", ".jpeg", ".webp")


@dataclass(frozen=True)
class Data:
    """Which queries over which pictures."""

    name: str  # "cirr" or "cirr/val"
    path: Path | None = None  # the dataset's own folder or its parent; by default the published place
    categories: tuple[str, ...] = ()  # FashionIQ
    gallery: str | None = None  # FashionIQ: full or val

    def load(self, default_split: str) -> tuple[Benchmark, ...]:
        family, split = split_name(self.name, default_split)
        options = {"categories": self.categories or None, "gallery": self.gallery}
        given = {key: value for key, value in options.items() if value is not None}
        return load_benchmarks(f"{family}/{split}", self.path, **given)

    def default_folder(self, key: str, default_split: str) -> Path:
        """`./outputs/embeddings/cirr_test1`, say."""
        return settings.place(key) / "_".join(split_name(self.name, default_split))


@dataclass(frozen=True)
class Compute:
    """Where and how fast."""

    device: str = "auto"
    dtype: str = "auto"
    batch_size: int = 32
    workers: int = 4
    cache_dir: Path | None = None  # of the hub


def extract(
    data: Data,
    compute: Compute,
    out: Path | None = None,
    clip: str = "openai/clip-vit-large-patch14",
    clip2: str = "Geonmo/CLIP-Giga-config-fixed",
    phi: Path | None = None,
    phi2: Path | None = None,
    preprocessing: Preprocessing = "clip",
    overwrite: bool = False,
) -> Path:
    """One `{id}.pt` a query into `out`; returns that folder.

    Raises:
        NotFoundError: weights or data that are not there, all named at once.
        IncompleteError: references that are missing or unreadable; the other queries were done.
    """
    phi, phi2 = phi or settings.place("phi_vit"), phi2 or settings.place("phi_giga")
    parts = need_all(
        lambda: data.load("test"),
        [lambda: need_phi(phi, "phi_vit", "--phi"), lambda: need_phi(phi2, "phi_giga", "--phi2")],
    )
    from cig.composition import extract as extract_part
    from cig.inversion import load_composer

    need_pictures(parts, references=True)
    out = out or data.default_folder("embeddings", "test")
    device = resolve_device(compute.device)
    dtype = resolve_dtype(compute.dtype, device)
    composer = load_composer(clip, clip2, phi, phi2, device, dtype, compute.cache_dir, preprocessing)
    missing: dict[str, str] = {}
    for part in parts:
        folder = part_folder(out, part)
        done = extract_part(part, composer, folder, compute.batch_size, overwrite, compute.workers)
        say(f"{part.title}: {done.made} embeddings written to {folder}, {done.kept} kept")
        _say_foreign(done.foreign)
        missing |= {f"{part.title}/{query}": reason for query, reason in done.missing.items()}
    _complain(missing, "had no readable reference and have no embedding")
    return out


@dataclass(frozen=True)
class Generation:
    """The generator and how its pictures are accepted; the defaults are the published ones."""

    model_path: Path | None = None
    sdxl_repo: str = "stabilityai/stable-diffusion-xl-base-1.0"
    vae_repo: str = "madebyollin/sdxl-vae-fp16-fix"
    height: int = 512
    width: int = 512
    steps: int = 50
    guidance: float = 5.0
    seed: int = 1600
    seeds: Seeds = "published"
    brightness_thresh: float = 10.0
    max_retries: int = 5
    offload: Offload = "none"
    vae_slicing: bool = False
    vae_tiling: bool = False
    attention_slicing: bool = False


def generate(
    data: Data,
    compute: Compute,
    generation: Generation,
    embeddings: Path | None = None,
    out: Path | None = None,
    overwrite: bool = False,
    retry_rejected: bool = False,
) -> Path:
    """One pseudo-target a query into `out`, from a folder of embeddings; returns `out`.

    Raises:
        NotFoundError: weights, data or embeddings that are not there, all named at once.
        IncompleteError: queries without an embedding; the others were done.
    """
    model_path = generation.model_path or settings.place("sdxl_checkpoint")
    embeddings = embeddings or data.default_folder("embeddings", "test")
    out = out or data.default_folder("generated_images", "test")
    parts = need_all(lambda: data.load("test"), [lambda: need_unet(model_path), lambda: need_embeddings(embeddings)])
    from cig.composition import EmbeddingFolder
    from cig.generation import Imagining, imagine

    sources = [EmbeddingFolder(part, existing_part(embeddings, part, len(data.categories) == 1)) for part in parts]
    if not any(source.files for source in sources):
        raise NotFoundError(f"{embeddings} has no embedding of {parts[0].name}; run `cig extract` for it first")
    generator = _load_sdxl(model_path, compute, generation)
    how = Imagining(generation.seed, generation.seeds, generation.brightness_thresh, generation.max_retries)
    missing: dict[str, str] = {}
    for part, source in zip(parts, sources, strict=True):
        folder = part_folder(out, part)
        done = imagine(part, source, generator, folder, how, compute.batch_size, overwrite, retry_rejected)
        kept = len(done.pictures) + len(done.refused) - done.made
        say(f"{part.title}: {len(done.pictures)} pseudo-targets in {folder} ({done.made} queries done, {kept} kept)")
        _say_foreign(done.foreign)
        if done.refused:
            say(f"{len(done.refused)} queries have no accepted picture: {some(done.refused)}")
        missing |= {f"{part.title}/{query}": reason for query, reason in done.missing.items()}
    _complain(missing, "have no embedding and no pseudo-target")
    return out


def _load_sdxl(model_path: Path, compute: Compute, generation: Generation) -> Generator:
    from cig.generators import load_generator

    acceptance = ("model_path", "seed", "seeds", "brightness_thresh", "max_retries")
    options = {key: value for key, value in vars(generation).items() if key not in acceptance}
    where = {"device": compute.device, "dtype": compute.dtype, "cache_dir": compute.cache_dir}
    return load_generator("sdxl", model_path=model_path, **where, **options)


@dataclass(frozen=True)
class Searching:
    """A method, its weights, and the published recipe of pseudo-targets."""

    method: str = "searle"
    clip: str | None = None
    phi: Path | None = None
    preprocessing: Preprocessing | None = None  # by default the method's
    pseudo_targets: Path | None = None  # a folder of pictures by query id
    weight: float | None = None  # the reference's share; by default the published one


def evaluate(
    data: Data, compute: Compute, searching: Searching, json: Path | None = None, rankings: Path | None = None
) -> Report:
    """Prints the table of scores and returns it; JSON and rankings are written where asked for.

    Raises:
        UsageError: the split's targets are hidden, which is said before any model is loaded.
        IncompleteError: after everything is written, if queries could not run for lack of their reference.
    """
    from cig import report
    from cig.evaluation import evaluate as score

    parts = _load_for_search(data, "val", searching)
    if any(part.hidden for part in parts):
        raise UsageError(f"the targets of {parts[0].name} are hidden; use `cig submit`, or evaluate val")
    found = _search(parts, data, compute, searching)
    result = score(parts, found.rankings, found.alone)
    if json:
        write_json(json, report.to_json(result, found.method.name, found.branches, found.provenance))
    if rankings:
        write_json(rankings, _rankings(parts, found.rankings))
    say(f"{found.method.name}: {_branches_text(found.branches)}")
    say(f"protocol: {', '.join(f'{key}: {value}' for key, value in result.protocol.items())}")
    print(report.to_text(result))
    _complain(_missing_references(parts, found.rankings), "could not run and score 0")
    return result


def submit(
    data: Data,
    compute: Compute,
    searching: Searching,
    name: str,
    out: Path | None = None,
    rankings: Path | None = None,
    allow_missing: bool = False,
) -> list[Path]:
    """The official files of a hidden split; returns their paths.

    Raises:
        UsageError: the benchmark has no evaluation server.
        IncompleteError: references are missing and allow_missing is off; nothing is written.
    """
    from cig.report import notes

    family, _ = split_name(data.name, "test")
    module = plugins.load("benchmarks", family)
    if not hasattr(module, "submission"):
        raise UsageError(f"{family} has no evaluation server; use `cig evaluate`")
    if Path(name).name != name or name.startswith("."):
        raise UsageError(f'--submission-name "{name}" names a file: no folders and no leading dot')
    parts = _load_for_search(data, "test", searching)
    found = _search(parts, data, compute, searching, allow_missing)
    missing = _missing_references(parts, found.rankings)
    if not allow_missing:
        _complain(missing, "could not run, so nothing was written; --allow-missing ranks them by text")
    out = out or settings.place("submissions") / family
    paths = []
    for prefix, content in module.submission(found.rankings[0]).items():
        paths.append(out / f"{prefix}{name}.json")
        write_json(paths[-1], content)
    if missing:
        write_json(out / f"{name}.missing.json", missing, indent=1)
    if rankings:
        write_json(rankings, _rankings(parts, found.rankings))
    from cig.evaluation import missing_of

    for line in (f"{found.method.name}: {_branches_text(found.branches)}", *notes(missing_of(parts, found.rankings))):
        say(line)
    return paths


# What evaluate and submit share


@dataclass(frozen=True)
class Found:
    method: Method
    rankings: list[Ranking]
    alone: list[Ranking] | None  # without pseudo-targets, where they were fused
    branches: list[dict[str, Any]]
    provenance: dict[str, Any]


def _load_for_search(data: Data, default_split: str, searching: Searching) -> tuple[Benchmark, ...]:
    from cig.methods import Source, check_flags, split_method

    family, variant = split_method(searching.method)
    source = Source(clip=searching.clip, phi=searching.phi)
    check_flags(searching.method, source)
    weights = plugins.load("methods", family).VARIANTS[variant]
    checks = [lambda: source.phi_file(weights)] if weights.phi else []
    if searching.weight is not None and not 0 <= searching.weight <= 1:
        raise UsageError(f"--fusion-weight {searching.weight} is the reference's share: from 0 to 1")
    if searching.weight is not None and not searching.pseudo_targets:
        raise UsageError("--fusion-weight fuses in pseudo-targets; give their folder with --generated-image-dir")
    return need_all(lambda: data.load(default_split), checks)


def _search(
    parts: Sequence[Benchmark], data: Data, compute: Compute, searching: Searching, allow_missing: bool = False
) -> Found:
    from cig.methods import Source, load_method
    from cig.retrieval import embed_pictures, search, wanted_pictures

    started = time.monotonic()
    targets = [_pseudo_targets(part, data, searching) for part in parts]
    need_pictures(parts)
    device = resolve_device(compute.device)
    source = Source(searching.clip, searching.phi, device, compute.dtype, compute.cache_dir, searching.preprocessing)
    method = load_method(searching.method, source)
    if not method.uses_picture and searching.pseudo_targets:
        say(f"{method.name} looks at no picture, so pseudo-targets change nothing; they are not fused")
        targets = [None] * len(parts)
    wanted = [path for part, own in zip(parts, targets, strict=True) for path in wanted_pictures(part, method, own)]
    pictures = embed_pictures(method, wanted, compute.batch_size, compute.workers)
    rankings = [
        search(part, method, own, searching.weight, pictures, allow_missing)
        for part, own in zip(parts, targets, strict=True)
    ]
    fused = targets[0] is not None
    alone = [search(part, method, pictures=pictures, allow_missing=allow_missing) for part in parts] if fused else None
    branches = _branches(parts[0], searching, fused)
    provenance = _provenance(method, pictures, searching, compute, started)
    return Found(method, rankings, alone, branches, provenance)


def _pseudo_targets(part: Benchmark, data: Data, searching: Searching) -> dict[str, Path] | None:
    if not searching.pseudo_targets:
        return None
    folder = existing_part(searching.pseudo_targets, part, len(data.categories) == 1)
    found = find_by_id(folder, [query.id for query in part.queries], PICTURES)
    if not found:
        from cig.formats import picture_name

        expected = picture_name(part.queries[0].id) if part.queries else "00000.png"
        raise NotFoundError(f"{folder} has no pseudo-target of {part.title}; expected names such as {expected}")
    return found


def _branches(part: Benchmark, searching: Searching, fused: bool) -> list[dict[str, Any]]:
    """Which pictures were searched with, their shares, and where these come from."""
    if not fused:
        return [{"name": "reference", "weight": 1.0, "source": "no pseudo-targets"}]
    weight = part.weight if searching.weight is None else searching.weight
    source = part.weight_source if searching.weight is None else "--fusion-weight"
    pictures = str(searching.pseudo_targets)
    return [
        {"name": "reference", "weight": weight, "source": source},
        {"name": "pseudo-target", "weight": 1 - weight, "source": source, "pictures": pictures},
    ]


def _branches_text(branches: Sequence[Mapping[str, Any]]) -> str:
    return ", ".join(f"{branch['name']} {branch['weight']:.2f}" for branch in branches) + f" ({branches[0]['source']})"


def _provenance(
    method: Method, pictures: PictureFeatures, searching: Searching, compute: Compute, started: float
) -> dict[str, Any]:
    return {
        "versions": versions(),
        "commit": commit(),
        "settings": jsonable({**vars(searching), **vars(compute), "preprocess": vars(method.preprocess)}),
        "models": jsonable(dict(method.identity)),
        "picture_set": pictures.digest(),
        "counts": {"pictures": len(pictures.rows), "unreadable": len(pictures.failed)},
        "seconds": round(time.monotonic() - started, 3),
        "device": device_name(resolve_device(compute.device)),
    }


def _rankings(parts: Sequence[Benchmark], rankings: Sequence[Ranking]) -> dict[str, dict[str, list[str]]]:
    return {
        part.part: dict(zip(ranking.queries, map(list, ranking.ids), strict=True))
        for part, ranking in zip(parts, rankings, strict=True)
    }


def _missing_references(parts: Sequence[Benchmark], rankings: Sequence[Ranking]) -> dict[str, str]:
    return {
        f"{part.title}/{query}": reason
        for part, ranking in zip(parts, rankings, strict=True)
        for query, reason in ranking.missing.items()
    }


def _say_foreign(names: Sequence[str]) -> None:
    if names:
        say(f"{len(names)} files were there without a line in the manifest, and are kept: {some(names)}")


def _complain(missing: Mapping[str, str], what: str) -> None:
    """Raises IncompleteError that names the queries and their reasons."""
    if missing:
        lines = [f"  {query}: {reason}" for query, reason in list(missing.items())[:20]]
        more = [f"  and {len(missing) - 20} more"] if len(missing) > 20 else []
        raise IncompleteError("\n".join([f"{len(missing)} queries {what}:", *lines, *more]))
