"""Each phi that train.sh made against sum, on icons/val: paired differences, objects resampled (docs/icons.md).

python recipes/icons/seeds.py build/icons      # the folder that train.sh was given
"""

from __future__ import annotations

import sys
from pathlib import Path

from cig.benchmarks import Data
from cig.cli.terminal import messages_on_stderr
from cig.evaluation.paired import compare_rankings
from cig.io.feature_cache import FeatureCache
from cig.pipelines._search_benchmark import SearchResult, load_searcher, search_parts
from cig.retrieval.requests import Searching
from cig.runtime import Compute

MEASURES = ("map@10", "recall@10")


@messages_on_stderr()
def main() -> None:
    folder = Path(sys.argv[1])
    data, compute, cache = Data("icons/val"), Compute(batch_size=256), FeatureCache(folder / "features")
    parts, clip = data.load("val"), str(folder / "clip")

    def search(searching: Searching) -> SearchResult:
        return search_parts(parts, load_searcher(searching, compute, cache), searching, compute=compute, cache=cache)

    base = search(Searching(method="sum", clip=clip))
    for phi in sorted(folder.glob("*-[0-9]/phi.safetensors")):
        method, _, seed = phi.parent.name.rpartition("-")
        found = search(Searching(method=method, clip=clip, phi=phi))
        versus = compare_rankings(found.parts, base.rankings, found.rankings)
        told = [
            f"{name} {own.difference:+.2f} [{own.interval[0]:+.2f}, {own.interval[1]:+.2f}], p = {own.p:.4f}"
            for name, own in ((name, versus[name]) for name in MEASURES)
        ]
        print(f"{method}, seed {seed}, against sum: {'; '.join(told)}", flush=True)


if __name__ == "__main__":
    main()
