"""Draws what experiment.py and sampling.py found: gains of systems, gains by type of change, steps beside cost.

python recipes/icons/plots.py build/icons/experiment icons-test docs/experiment.png
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cig.io.files import write_bytes
from cig.io.json_files import read_object
from imagined import SAMPLING

COLOURS = {"control": "0.45", "pseudo-target": "tab:blue", "pixel-free": "tab:orange", "triplets": "tab:green"}
OTHER = "tab:purple"  # of the larger CLIP, and of both
Interval = tuple[float, float, float]  # mean, low, high


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("home", type=Path)
    parser.add_argument("part", help="whose results: icons-test, icons-val")
    parser.add_argument("out", type=Path)
    asked = parser.parse_args()
    figure = drawn(read_object(asked.home / f"{asked.part}.json"), read_object(asked.home / SAMPLING))
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    write_bytes(asked.out, buffer.getvalue())


def drawn(found: Mapping[str, Any], sampling: Mapping[str, Any]) -> Figure:
    figure = Figure(figsize=(15, 6), layout="constrained")
    systems, tags, steps = figure.subplots(1, 3, width_ratios=(3, 2, 2))
    shown = {name: own for name, own in found["gains"].items() if found["kinds"][name] != "bound"}
    gains_of(systems, shown, [COLOURS.get(found["kinds"][name], OTHER) for name in shown])
    systems.set_title(f"mAP@10 over: {found['control']}", fontsize=9)
    gains_of(tags, {f"{kind} ({own[0]})": own[1:] for kind, own in found["by tag"].items()}, ["tab:blue"])
    tags.set_title(f"by type of change: {found['best']}", fontsize=9)
    steps_of(steps, sampling["by steps"])
    return figure


def gains_of(axes: Axes, rows: Mapping[str, Interval], colours: Sequence[str]) -> None:
    """A line a row, from above, with its 95% interval."""
    for place, (mean, low, high) in enumerate(rows.values()):
        colour = colours[place % len(colours)]
        axes.plot([low, high], [place, place], color=colour)
        axes.plot(mean, place, "o", color=colour)
    axes.axvline(0, color="0.8", zorder=0)
    axes.set_yticks(range(len(rows)), list(rows), fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("points, with 95% intervals over objects", fontsize=8)


def steps_of(axes: Axes, trials: Sequence[Mapping[str, float]]) -> None:
    axes.plot([own["operations"] / 1e9 for own in trials], [own["score"] for own in trials], "o-")
    for own in trials:
        place = own["operations"] / 1e9, own["score"]
        axes.annotate(f"{own['steps']}", place, textcoords="offset points", xytext=(4, 4), fontsize=8)
    axes.set_xscale("log")
    axes.set_xlabel("GFLOP a picture", fontsize=8)
    axes.set_ylabel("mAP@10, icons/val, + pseudo-target's image", fontsize=8)
    axes.set_title("steps", fontsize=9)


if __name__ == "__main__":
    main()
