"""The pictures of the experiment: pseudo-targets in several draws, controls, the oracle and its blurred twin."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image, ImageFilter
from torch.nn.functional import cosine_similarity

from cig.benchmarks._icons.pairs import SIDE
from cig.generators import _controls, sdxl
from cig.generators._compose import ComposedConditions
from cig.generators._controls import ControlOptions, Pictures
from cig.generators._generate import Imagining, imagine
from cig.io.files import write_png
from cig.io.json_files import read_object, write_json
from cig.methods import Source, load_method
from cig.models.composer import Composer, load_composer
from cig.retrieval.features import embed_pictures
from cig.runtime import progress
from cig.types import Benchmark

DRAWS = 4  # sampling seeds
SAMPLING = "sampling.json"  # what sampling.py chose
BATCH = 32  # what is drawn together stays in the cache of a core


@dataclass(frozen=True)
class Made:
    """Query id -> pictures, by component."""

    draws: list[Pictures]  # of the generator, one picture a query each
    others: Mapping[str, Pictures]


def make(folder: Path, part: Benchmark, home: Path) -> Made:
    """All of them, once: what is there is kept."""
    place = home / part.name.replace("/", "-")
    sampling, composer = sampling_of(home), composer_of(folder)
    generator = generator_of(folder / "generator", sampling)
    draws = [drawn(generator, composer, part, place / f"draw-{draw}", 1600 + draw) for draw in range(DRAWS)]
    making = ControlOptions(home / "controls", vae=str(folder / "vae"), side=SIDE)
    others = {
        "image": _controls.reference_image(part, {}, making),
        "augmented": _controls.reference_augmented(part, {}, making),
        "vae": _controls.pictures("reference-vae", part, {}, options=making),
        "oracle": _controls.oracle(part, {}, making),
    }
    others["blurred"] = blurred(folder, part, others["oracle"], draws[0], place / "blurred")
    if (folder / "triplets").is_dir():
        other = generator_of(folder / "triplets", sampling)
        others["triplets"] = drawn(other, composer, part, place / "triplets", 1600)
    return Made(draws, others)


def sampling_of(home: Path) -> dict[str, float]:
    """Guidance and steps; ends the run where they are not chosen yet."""
    if not (home / SAMPLING).exists():
        raise SystemExit(f"how to sample is not chosen yet: python recipes/icons/sampling.py {home.parent}")
    chosen = read_object(home / SAMPLING)
    return {name: chosen.get(name, 1.0) for name in ("guidance", "image_guidance", "steps")}


def composer_of(folder: Path) -> Composer:
    phis = folder / "pic2word-0" / "phi.safetensors", folder / "large-phi" / "phi.safetensors"
    return load_composer(folder / "clip", folder / "large", phi=phis[0], phi2=phis[1])


def generator_of(weights: Path, sampling: Mapping[str, float]) -> sdxl.SDXL:
    size = {"height": SIDE, "width": SIDE}
    return sdxl.load(weights, str(weights), str(weights / "vae"), device="auto", **size, **sampling)  # type: ignore[arg-type]


def drawn(generator: sdxl.SDXL, composer: Composer, part: Benchmark, out: Path, seed: int) -> Pictures:
    """One pseudo-target a query, each from a seed of its own."""
    how = Imagining(seed=seed, seeds="per-query", brightness_thresh=0, max_retries=1)
    done = imagine(part, ComposedConditions(part, composer), generator, out=out, how=how, batch_size=BATCH)
    return {query: (path,) for query, path in done.pictures.items()}


def blurred(folder: Path, part: Benchmark, oracle: Pictures, pseudo: Pictures, out: Path) -> Pictures:
    """The targets, blurred until they are as like themselves as pseudo-targets are: what likeness alone is worth."""
    told = out / "blur.json"
    if not told.exists():
        write_json(told, {"radius": radius_for(folder, oracle, pseudo)})
    radius = read_object(told)["radius"]
    lacking = [path for path in sorted({path for (path,) in oracle.values()}) if not (out / name_of(path)).exists()]
    for path in progress(lacking, len(lacking), "blur", unit="picture"):
        write_png(out / name_of(path), blur(path, radius))
    return {query: (out / name_of(path),) for query, (path,) in oracle.items()}


def radius_for(folder: Path, oracle: Pictures, pseudo: Pictures, sample: int = 200) -> float:
    """In pixels, by halving; likeness is the searching CLIP's cosine, averaged over the first queries."""
    method = load_method("image", Source(str(folder / "clip")))
    queries = [query for query in oracle if query in pseudo][:sample]
    targets, made = ([own[query][0] for query in queries] for own in (oracle, pseudo))
    seen = embed_pictures(method, [*targets, *made], 256)
    wanted = cosine_similarity(seen.of(targets), seen.of(made)).mean()

    def likeness(radius: float) -> float:
        pixels = torch.stack([method.preprocess(blur(path, radius)) for path in targets])
        return float(cosine_similarity(seen.of(targets), method.embed_images(pixels)).mean())

    low, high = 0.0, 16.0
    for _ in range(8):
        middle = (low + high) / 2
        low, high = (middle, high) if likeness(middle) > wanted else (low, middle)
    return round((low + high) / 2, 3)


def blur(path: Path, radius: float) -> Image.Image:
    return Image.open(path).convert("RGB").filter(ImageFilter.GaussianBlur(radius))


def name_of(path: Path) -> str:
    return f"{path.parent.name}-{path.stem}.png"
