"""The experiment's searchers, small and large, and what each of them makes of every component."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from cig.generators._controls import ControlOptions, Pictures, shuffled
from cig.io.feature_cache import FeatureCache
from cig.methods import Source, load_method
from cig.models.composer import Composer
from cig.types import Benchmark, Branch, Method
from imagined import Made, composer_of
from prior import PriorMethod
from spaces import Space, System, look

BY_IMAGE = ("image", "augmented", "vae", "oracle", "blurred", "triplets")
OF_LARGE = ("image", "pseudo x4")  # the larger CLIP's systems have no others


@dataclass(frozen=True)
class Seen:
    """Spaces by searcher and draw; they are made when they are asked for."""

    part: Benchmark
    made: Made
    small: Sequence[Method]  # searchers that differ in phi's seed
    large: Method
    priors: Mapping[str, Path]  # component -> its folder
    composer: Composer
    cache: FeatureCache

    @property
    def searchers(self) -> int:
        return len(self.small)

    @property
    def draws(self) -> int:
        return len(self.made.draws)

    @property
    def components(self) -> set[str]:
        return {"caption", "pseudo", "pseudo x4", "pseudo with caption", "shuffled", *self.made.others, *self.priors}

    def of(self, system: System, searcher: int, draw: int) -> list[Space]:
        return [self._space(name, searcher, draw) for name in system.spaces]

    def _space(self, name: str, searcher: int, draw: int) -> Space:
        key = (name, searcher if name == "small" else 0, draw)
        if key not in self._known:
            method = self.small[searcher] if name == "small" else self.large
            self._known[key] = look(self.part, method, self._branches(method, draw), self.cache)
        return self._known[key]

    @cached_property
    def _known(self) -> dict[tuple[str, int, int], Space]:
        return {}

    def _branches(self, method: Method, draw: int) -> list[Branch]:
        clip = Source(method.identity["clip"]["source"])
        image, text, pseudo = load_method("image", clip), load_method("text", clip), self.made.draws[draw]
        others = {name: own for name, own in self.made.others.items() if name in BY_IMAGE}
        seen: Mapping[str, Pictures] = {
            **others,
            "pseudo": pseudo,
            "pseudo x4": _together(self.made.draws),
            "shuffled": shuffled(self.part, pseudo, ControlOptions(Path())),
        }
        if method is self.large:
            return [Branch(name, seen[name], 0.0, method=image, caption=False) for name in OF_LARGE]
        return [
            *(Branch(name, pictures, 0.0, method=image, caption=False) for name, pictures in seen.items()),
            Branch("pseudo with caption", pseudo, 0.0),
            Branch("caption", {}, 0.0, method=text),
            *(Branch(name, self.made.others["image"], 0.0, method=own) for name, own in self.prior_methods.items()),
        ]

    @cached_property
    def prior_methods(self) -> dict[str, PriorMethod]:
        """By component."""
        image = load_method("image", Source(self.small[0].identity["clip"]["source"]))
        return {name: PriorMethod(folder, self.composer, image) for name, folder in self.priors.items()}


def spaces_of(folder: Path, part: Benchmark, made: Made) -> Seen:
    clip, large = str(folder / "clip"), str(folder / "large")
    phis = sorted(folder.glob("pic2word-[0-9]/phi.safetensors"))
    small = [load_method("pic2word", Source(clip, phi)) for phi in phis]
    other = load_method("pic2word", Source(large, folder / "large-phi" / "phi.safetensors"))
    priors = {"prior": folder / "prior", "triplets prior": folder / "triplets-prior"}
    there = {name: own for name, own in priors.items() if own.is_dir()}
    return Seen(part, made, small, other, there, composer_of(folder), FeatureCache(folder / "features"))


def _together(draws: Sequence[Pictures]) -> Pictures:
    queries = dict.fromkeys(query for own in draws for query in own)
    return {query: tuple(path for own in draws for path in own.get(query, ())) for query in queries}
