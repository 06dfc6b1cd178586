"""What a query costs in each system: operations (a multiplication is two, counted by torch), and seconds beside.

Counted and timed are the models of one query: pictures at hand are encoded, read and written files are not counted. A
reference's own features are paid for by every system; what a system shares between its components, it pays once.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial, reduce

import torch
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from cig.benchmarks._icons.pairs import SIDE
from cig.generators.sdxl import SDXL
from spaces import System
from views import Seen

BATCH, ROUNDS = 32, 5
COPIES = 4  # of an augmented reference
DRAWN = {"pseudo": 1, "pseudo with caption": 1, "pseudo x4": 4, "shuffled": 1, "triplets": 1}  # component -> pictures


@dataclass(frozen=True)
class Price:
    """Of one query."""

    operations: float = 0.0
    seconds: float = 0.0

    def __add__(self, other: Price) -> Price:
        return Price(self.operations + other.operations, self.seconds + other.seconds)

    def __mul__(self, times: float) -> Price:
        return Price(self.operations * times, self.seconds * times)

    @property
    def cells(self) -> list[str]:
        return [f"{self.operations / 1e9:.3g}", f"{1000 * self.seconds:.1f}"]


def price(call: Callable[[], object], rounds: int = ROUNDS) -> Price:
    """Of a call over BATCH queries; the fastest of its rounds, so that what else the machine does counts least."""
    with FlopCounterMode(display=False) as counter:
        call()
    return Price(counter.get_total_flops() / BATCH, min(seconds(call) for _ in range(rounds)) / BATCH)


def seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def prices(seen: Seen, generator: SDXL) -> dict[str, Price]:
    """Of each part that systems are made of."""
    queries = [seen.part.queries[place % len(seen.part.queries)] for place in range(BATCH)]
    captions = [query.captions for query in queries]
    composer = seen.composer
    small, large = (clip.size for clip in (composer.first.clip, composer.second.clip))
    pixels = [torch.zeros(BATCH, 3, side, side) for side in (small, large)]
    features = composer.embed_images(pixels)
    vae = generator.pipeline.vae
    drawings = torch.zeros(BATCH, 3, SIDE, SIDE, device=vae.device, dtype=vae.dtype)
    composed = composer.compose([query.id for query in queries], features, captions)
    composed = replace(composed, references=(Image.new("RGB", (SIDE, SIDE)),) * BATCH)
    parts: dict[str, Callable[[], object]] = {
        "picture": lambda: composer.first.clip.embed_images(pixels[0]),
        "large picture": lambda: composer.second.clip.embed_images(pixels[1]),
        "words": lambda: seen.small[0].embed_queries(features[0], captions),
        "large words": lambda: seen.large.embed_queries(features[1], captions),
        "composed": lambda: composer.compose([query.id for query in queries], features, captions),
        "imagined": lambda: generator(composed, list(range(BATCH))),
        "round trip": lambda: vae.decode(vae.encode(drawings).latent_dist.mode()),
    }
    parts |= {f"{name}'s layers": partial(own.prior, composed, features) for name, own in seen.prior_methods.items()}
    with torch.no_grad():
        return {name: price(call) for name, call in parts.items()}


def of(system: System, known: Mapping[str, Price]) -> Price | None:
    """A system's, or None of a bound, which nobody can buy."""
    if system.kind == "bound":
        return None
    return reduce(Price.__add__, (known[name] * count for name, count in needed(system).items()))


def needed(system: System) -> Counter[str]:
    """Part -> how often. A picture is what is encoded: the reference, one drawn, an augmented copy."""
    components = set(system.components)
    drawn = max((DRAWN.get(name, 0) for name in components), default=0)
    priors = [name for name in components if "prior" in name]
    pictures = 1 + drawn + ("vae" in components) + COPIES * ("augmented" in components)
    texts = 1 + ("caption" in components) + ("pseudo with caption" in components)
    count: Counter[str] = Counter()
    for space in system.spaces:
        mark = "large " if space == "large" else ""
        count.update({f"{mark}picture": pictures, f"{mark}words": texts})
    if drawn or priors:
        count["composed"] = 1
        count |= Counter({"picture": 1, "large picture": 1})
    count.update({"imagined": drawn, "round trip": int("vae" in components)})
    count.update(f"{name}'s layers" for name in priors)
    return +count
