"""How much guidance by the caption and by the reference, how many steps? Chosen on icons/val, for the experiment.

    python recipes/icons/sampling.py build/icons        # -> build/icons/experiment/sampling.json

First guidance, at 8 steps; then guidance by the reference's image; then steps, at both. Judged by the branch of the
pseudo-target's image alone, at its best weight, on the first queries (which are in a random order). The fewest steps
within 0.2 of the best are taken.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict, dataclass
from pathlib import Path

from cig.benchmarks.icons import read
from cig.cli.terminal import messages_on_stderr
from cig.generators._compose import ComposedConditions, ConditionsWithReferences
from cig.io.feature_cache import FeatureCache
from cig.io.json_files import write_json
from cig.methods import Source, load_method
from cig.runtime import say
from cig.types import Benchmark, Branch
from imagined import SAMPLING, composer_of, drawn, generator_of
from prices import BATCH, price
from spaces import System, choose, look

GUIDANCES, IMAGE_GUIDANCES = (1.0, 1.5, 2.0, 3.0, 5.0), (1.0, 1.25, 1.5, 2.0, 2.5, 3.0)
STEPS = (1, 2, 4, 8, 16, 50)
FIRST_STEPS, QUERIES, TIE = 8, 1000, 0.2
JUDGED = System("+ pseudo-target's image", "pseudo-target", ("pseudo",))


@dataclass(frozen=True)
class Trial:
    """A way to sample, and what it gives."""

    guidance: float
    image_guidance: float
    steps: int
    score: float  # mAP@10, percent
    weight: float  # of the pseudo-target, at that score
    operations: float  # of one picture
    seconds: float


@messages_on_stderr()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--limit", type=int, default=QUERIES)
    asked = parser.parse_args()
    lab = Lab(asked.folder, read("val", asked.limit))
    by_guidance = [lab.trial(guidance, IMAGE_GUIDANCES[0], FIRST_STEPS) for guidance in GUIDANCES]
    guidance = max(by_guidance, key=lambda own: own.score).guidance
    able = IMAGE_GUIDANCES if guidance > 1 else IMAGE_GUIDANCES[:1]  # the one wants the other
    by_image = [lab.trial(guidance, own, FIRST_STEPS) for own in able]
    image_guidance = max(by_image, key=lambda own: own.score).image_guidance
    by_steps = [lab.trial(guidance, image_guidance, steps) for steps in STEPS]
    best = max(own.score for own in by_steps)
    steps = min(own.steps for own in by_steps if own.score >= best - TIE)
    trials = {"by guidance": by_guidance, "by image guidance": by_image, "by steps": by_steps}
    chosen = {"guidance": guidance, "image_guidance": image_guidance, "steps": steps, "queries": asked.limit}
    told = {name: [asdict(own) for own in rows] for name, rows in trials.items()}
    write_json(asked.folder / "experiment" / SAMPLING, {**chosen, **told}, 1)
    say(f"chosen: {steps} steps, guidance {guidance:g}, by the reference {image_guidance:g}")


class Lab:
    """What trials share."""

    def __init__(self, folder: Path, part: Benchmark) -> None:
        self.folder, self.part, self.composer = folder, part, composer_of(folder)
        clip = str(folder / "clip")
        self.method = load_method("pic2word", Source(clip, folder / "pic2word-0" / "phi.safetensors"))
        self.image, self.cache = load_method("image", Source(clip)), FeatureCache(folder / "features")

        self.condition = ConditionsWithReferences(part, ComposedConditions(part, self.composer))(
            [part.queries[place % len(part.queries)] for place in range(BATCH)]
        )

    def trial(self, guidance: float, image_guidance: float, steps: int) -> Trial:
        own = {"guidance": guidance, "image_guidance": image_guidance, "steps": steps}
        generator = generator_of(self.folder / "generator", own)
        out = self.folder / "experiment" / "sampling" / "-".join(f"{name}-{value:g}" for name, value in own.items())
        pictures = drawn(generator, self.composer, self.part, out, 1600)
        branch = Branch("pseudo", pictures, 0.0, method=self.image, caption=False)
        weights, _, score = choose(JUDGED, [look(self.part, self.method, [branch], self.cache)])
        cost = price(lambda: generator(self.condition, range(BATCH)), rounds=2)
        found = Trial(**own, score=score, weight=weights["pseudo"], operations=cost.operations, seconds=cost.seconds)
        say(f"{found}")
        return found


if __name__ == "__main__":
    main()
