"""Controls: pictures instead of pseudo-targets, which show where the gain of pseudo-targets comes from.

reference-image      the reference itself: is it just more weight on the picture?
reference-augmented  the reference, cropped, mirrored and tinted: is it just averaging over views?
reference-vae        the reference after the generator's VAE: is it the look of generated pictures?
shuffled             another query's pseudo-target, for the same kind of change: does it matter whose it is?
oracle               the target: what could a perfect generator give?
"""

from __future__ import annotations

import functools
import math
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from cig.benchmarks._requirements import need_outside
from cig.errors import PictureError, UsageError
from cig.finite import naming
from cig.generators import VAE_REPO
from cig.io.digests import digest_of, fingerprints, identity
from cig.io.files import write_png
from cig.io.images import read_picture
from cig.io.json_files import write_json
from cig.runtime import progress, seed_of
from cig.types import TARGET, Benchmark, Query

Pictures = Mapping[str, tuple[Path, ...]]  # query id -> pictures


@dataclass(frozen=True)
class ControlOptions:
    """How the pictures of a control are made, and the folder that keeps them."""

    folder: Path
    copies: int = 4  # augmented references a query
    seed: int = 0
    vae: str = VAE_REPO
    side: int = 512  # of the pictures that the VAE encodes, in pixels; the published generator's
    device: str = "auto"
    cache_dir: Path | None = None  # of the hub


def names() -> list[str]:
    return list(_CONTROLS)


def pictures(name: str, part: Benchmark, pseudo_targets: Pictures, *, options: ControlOptions) -> Pictures:
    """Return the pictures of a control for every query that can have some.

    Raises:
        UsageError: the oracle of a benchmark whose targets are hidden; shuffled without pseudo-targets.
    """
    return _CONTROLS[name](part, pseudo_targets, options)


def reference_image(part: Benchmark, pseudo_targets: Pictures, options: ControlOptions) -> Pictures:
    return {query.id: (part.images[query.reference],) for query in part.queries if query.reference in part.images}


def oracle(part: Benchmark, pseudo_targets: Pictures, options: ControlOptions) -> Pictures:
    if part.hidden:
        raise UsageError(f"the targets of {part.name} are hidden, so there is no oracle")
    targets = {query.id: [name for name, grade in query.relevant.items() if grade == TARGET] for query in part.queries}
    paths = {query: [part.images[name] for name in row if name in part.images] for query, row in targets.items()}
    return {query: (row[0],) for query, row in paths.items() if row}


def shuffled(part: Benchmark, pseudo_targets: Pictures, options: ControlOptions) -> Pictures:
    """Give each query the pseudo-target of the query whose change is most alike, by tags and words of the caption.

    It is never its own, nor that of a query with the same reference or a common target.
    """
    rows = [i for i, query in enumerate(part.queries) if query.id in pseudo_targets]
    givers = [part.queries[i] for i in rows]
    if not givers:
        raise UsageError("shuffled takes other queries' pseudo-targets; give them with --generated-image-dir")
    kinds = _kinds(part.queries)
    candidates = kinds[rows]
    rng = np.random.default_rng(options.seed)
    chosen = {}
    for query, row in zip(part.queries, kinds, strict=True):
        likeness = candidates @ row + 1e-6 * rng.random(len(givers))  # the random part breaks ties
        order = (givers[i] for i in np.argsort(-likeness))
        other = next((giver for giver in order if _unrelated(query, giver)), None)
        if other:
            chosen[query.id] = pseudo_targets[other.id]
    return chosen


def _unrelated(query: Query, other: Query) -> bool:
    return query.id != other.id and query.reference != other.reference and not set(query.relevant) & set(other.relevant)


def _kinds(queries: Sequence[Query]) -> np.ndarray:
    """Return [Q, words + tags] float32: unit tf-idf words of the captions, and unit tags, of twice the weight."""
    words = [Counter(" ".join(query.captions).lower().split()) for query in queries]
    frequency = Counter(word for counts in words for word in counts)
    tags = (("tag", tag) for query in queries for tag in query.tags)  # pairs, so that no word equals a tag
    columns: dict[object, int] = {name: i for i, name in enumerate(dict.fromkeys([*frequency, *tags]))}
    table = np.zeros((len(queries), len(columns)), np.float32)
    for row, query, counts in zip(table, queries, words, strict=True):
        weights = {word: count * math.log(1 + len(queries) / frequency[word]) for word, count in counts.items()}
        length = math.hypot(*weights.values()) or 1
        for word, weight in weights.items():
            row[columns[word]] = weight / length
        for tag in query.tags:
            row[columns["tag", tag]] = math.sqrt(2 / len(query.tags))
    return table


def reference_augmented(part: Benchmark, pseudo_targets: Pictures, options: ControlOptions) -> Pictures:
    """Crop 50 to 100% of the area, mirror half of the time, change brightness, contrast and colour by up to 20%."""
    settings = {"control": "reference-augmented", "copies": options.copies, "seed": options.seed}
    return _make(part, options.folder, settings, load=lambda: _augment, copies=options.copies)


def _augment(image: Image.Image, rng: random.Random) -> Image.Image:
    share = math.sqrt(rng.uniform(0.5, 1))
    width, height = (max(1, round(side * share)) for side in image.size)
    left, top = rng.randint(0, image.width - width), rng.randint(0, image.height - height)
    image = image.crop((left, top, left + width, top + height))
    image = ImageOps.mirror(image) if rng.random() < 0.5 else image
    for enhance in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        image = enhance(image).enhance(rng.uniform(0.8, 1.2))
    return image


def reference_vae(part: Benchmark, pseudo_targets: Pictures, options: ControlOptions) -> Pictures:
    """Encode by the VAE, take the latent's mean, and decode it."""
    settings = {
        "control": "reference-vae",
        "side": options.side,
        "decoded": "as a generator does",  # in float32 if the VAE asks for it; earlier versions decoded otherwise
        **fingerprints({"vae": identity(options.vae, options.cache_dir)}),
    }

    def load() -> Callable[[Image.Image, random.Random], Image.Image]:
        from cig.generators._round_trip import load_round_trip

        trip = load_round_trip(options.vae, options.device, options.side, cache_dir=options.cache_dir)
        return lambda image, rng: trip(image)

    return _make(part, options.folder, settings, load=load, copies=1)


def _make(
    part: Benchmark,
    folder: Path,
    settings: Mapping[str, object],
    *,
    load: Callable[[], Callable[[Image.Image, random.Random], Image.Image]],
    copies: int,
) -> Pictures:
    """Make the pictures of each distinct reference, but for those that exist, in a folder of these settings."""
    # The folder is named after a digest of the settings, and a picture after the reference's content: so runs with
    # other settings or a replaced reference never take each other's pictures, and all runs share those that fit.
    home = folder / f"{settings['control']}-{digest_of(settings)}"
    need_outside((part,), home)
    write_json(home / "settings.json", settings, indent=1)
    references = {query.id: part.images[query.reference] for query in part.queries if query.reference in part.images}
    distinct = list(dict.fromkeys(references.values()))
    make = functools.cache(load)  # loads the VAE when the first picture is due, if any is
    made: dict[Path, tuple[Path, ...]] = {}
    for path in progress(distinct, len(distinct), str(settings["control"]), unit="picture"):
        try:
            picture = read_picture(path)
        except PictureError:
            continue  # counted among the unreadable ones when it is embedded
        made[path] = tuple(home / f"{picture.digest[:32]}_{copy}.png" for copy in range(copies))
        for copy, target in enumerate(made[path]):
            if not target.exists():
                seed = seed_of(
                    "per-query",
                    int(str(settings.get("seed", 0))),
                    benchmark=home.name,
                    query=picture.digest,
                    attempt=copy,
                )
                with naming([path]):
                    write_png(target, make()(picture.image.convert("RGB"), random.Random(seed)))
    return {query: made[path] for query, path in references.items() if path in made}


_CONTROLS: dict[str, Callable[[Benchmark, Pictures, ControlOptions], Pictures]] = {
    "reference-image": reference_image,
    "reference-augmented": reference_augmented,
    "reference-vae": reference_vae,
    "shuffled": shuffled,
    "oracle": oracle,
}
