"""What does a pseudo-target add on icons, to whom, at what cost? Written down before icons/test was opened.

    python recipes/icons/experiment.py build/icons choose                     # weights, on icons/val; they are frozen
    python recipes/icons/experiment.py build/icons test "why it is opened"    # icons/test, at those; docs/results.md

`build/icons` is what train.sh and generator.sh made. **Primary endpoint:** mAP@10 on icons/test, the branch set with
pseudo-targets that is best on val, minus the control without generation that is best on val, all weights frozen there;
paired, resampled by the reference's object. **Matched encoders:** the same of the larger CLIP, which conditions the
generator, against itself: what holds only against the small searcher is called that. All rows against the first
control are corrected together (Holm).
Every row is the mean over searchers (phis of several seeds) and, with one picture a query, over sampling seeds.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cig.benchmarks.icons import read
from cig.cli.terminal import messages_on_stderr
from cig.evaluation import significance
from cig.evaluation.metrics import Values
from cig.evaluation.score import clusters_of
from cig.io.digests import digest_of, file_digest
from cig.io.files import write_bytes
from cig.io.json_files import read_object, write_json
from cig.runtime import commit, say
from cig.types import Benchmark
from imagined import generator_of, make, sampling_of
from open_test import RESULTS, log
from prices import Price, of, prices
from spaces import REFERENCE, System, choose, scores
from views import Seen, spaces_of

MEASURES = ("map@10", "recall@10")
OPENED = "opened.json"  # written before icons/test is read, whatever becomes of the run
ROUNDING = 1e-9  # of means over as many draws as a system has
SYSTEMS = (
    System("searcher alone", "control"),
    System("+ reference's image", "control", ("image",)),
    System("+ reference, augmented", "control", ("augmented",)),
    System("+ reference after the VAE", "control", ("vae",)),
    System("+ reference's image, caption", "control", ("image", "caption")),
    System("+ reference's image, another's pseudo-target", "control", ("image", "shuffled")),
    System("+ pseudo-target with caption (published)", "pseudo-target", ("pseudo with caption",)),
    System("+ pseudo-target's image", "pseudo-target", ("pseudo",)),
    System("+ 4 pseudo-targets' images", "pseudo-target", ("pseudo x4",)),
    System("+ reference's and pseudo-target's images", "pseudo-target", ("image", "pseudo")),
    System("+ reference's and 4 pseudo-targets' images", "pseudo-target", ("image", "pseudo x4")),
    System("+ what a prior without pixels says", "pixel-free", ("prior",)),
    System("+ reference's image, prior without pixels", "pixel-free", ("image", "prior")),
    System("+ pseudo-target of a generator with triplets", "triplets", ("image", "triplets")),
    System("+ prior without pixels, with triplets", "triplets", ("image", "triplets prior")),
    System("+ the target (oracle)", "bound", ("oracle",)),
    System("+ the target, blurred to the generator's likeness", "bound", ("blurred",)),
    System("larger CLIP alone", "larger control", (), ("large",)),
    System("larger CLIP + reference's image", "larger control", ("image",), ("large",)),
    System("larger CLIP + 4 pseudo-targets' images", "larger", ("pseudo x4",), ("large",)),
    System("larger CLIP + reference's and 4 pseudo-targets' images", "larger", ("image", "pseudo x4"), ("large",)),
    System("both CLIPs, fused late", "both", ("image",), ("small", "large")),
)


@dataclass(frozen=True)
class Chosen:
    """A system's weights, by icons/val."""

    weights: dict[str, float]
    shares: list[float]  # of its spaces
    score: float  # there


@messages_on_stderr()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("step", choices=("choose", "test"))
    parser.add_argument("why", nargs="?", help="test: what is written into the log")
    parser.add_argument("--limit", type=int, help="the first so many queries")
    parser.add_argument("--split", default="test", help="test: another split, for a trial that opens nothing")
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    home = arguments.folder / "experiment"
    if arguments.step == "choose":
        need_closed(home)
        freeze(arguments.folder, read("val", arguments.limit), home)
    elif not arguments.why:
        parser.error("test takes a reason, which is logged")
    else:
        frozen = read_frozen(arguments.folder, home)
        if arguments.split == "test":
            need_all_of_val(frozen)
            log(arguments.results, f"{arguments.why}; recipes/icons/experiment.py")
            write_json(home / OPENED, {"why": arguments.why})
        report(arguments.folder, read(arguments.split, arguments.limit), home, frozen)


def freeze(folder: Path, part: Benchmark, home: Path) -> None:
    """Chooses every system's weights by mAP@10, with the first searcher and the first sampling seed."""
    seen = spaces_of(folder, part, make(folder, part, home))
    able = [system for system in SYSTEMS if set(system.components) <= seen.components]
    chosen = {}
    for system in able:
        chosen[system.name] = Chosen(*choose(system, seen.of(system, 0, 0)))
        say(f"{system.name}: {chosen[system.name]}")
    left_out = [system.name for system in SYSTEMS if system not in able]
    frozen = {"commit": commit(), "split": part.name, "queries": len(part.queries), "left out": left_out}
    frozen |= {"models": models_of(folder)}
    say(f"left out, for want of weights: {', '.join(left_out) or 'none'}")
    write_json(home / "frozen.json", {**frozen, "systems": {name: asdict(own) for name, own in chosen.items()}}, 1)


def need_closed(home: Path) -> None:
    """Weights are chosen before icons/test is opened, never after."""
    if (home / OPENED).exists() or (home / "icons-test.json").exists():
        raise SystemExit(f"{home} has opened icons/test; what is chosen now would be chosen by it")


def read_frozen(folder: Path, home: Path) -> dict[str, Any]:
    """Ends the run where nothing was chosen, or for other models."""
    if not (home / "frozen.json").exists():
        raise SystemExit(f"nothing is frozen in {home}: python recipes/icons/experiment.py {folder} choose")
    frozen = read_object(home / "frozen.json")
    if frozen["models"] != models_of(folder):
        raise SystemExit(
            f"{home}/frozen.json was chosen for other models or sampling than {folder} has now: choose again"
        )
    return frozen


def need_all_of_val(frozen: Mapping[str, Any]) -> None:
    """Before icons/test is opened: a trial on a few queries has frozen nothing."""
    if frozen["queries"] != len(read("val").queries):
        raise SystemExit(f"chosen on {frozen['queries']} queries of icons/val: choose on all of them first")


def models_of(folder: Path) -> str:
    """The digest of all weights that take part, and of how is sampled."""
    names = ("clip", "pic2word-*", "large", "large-phi", "vae", "generator", "triplets", "prior", "triplets-prior")
    files = sorted(path for name in names for path in folder.glob(f"{name}/**/*.safetensors"))
    own = [path for path in files if not any(part.startswith("shelf-") for part in path.parts)]
    weights = [[str(path.relative_to(folder)), file_digest(path)] for path in own]
    return digest_of([sampling_of(folder / "experiment"), *weights])


def report(folder: Path, part: Benchmark, home: Path, frozen: Mapping[str, Any]) -> None:
    """Scores every system at its frozen weights, and writes `home/PART.{md,json}`."""
    chosen = {name: Chosen(**own) for name, own in frozen["systems"].items()}
    seen = spaces_of(folder, part, make(folder, part, home))
    systems = [system for system in SYSTEMS if system.name in chosen]
    values = {system.name: averaged(system, chosen[system.name], seen) for system in systems}
    known = prices(seen, generator_of(folder / "generator", sampling_of(home)))
    table = Table(part, systems, chosen, values, {system.name: of(system, known) for system in systems})
    name = part.name.replace("/", "-")
    write_bytes(home / f"{name}.md", "\n".join([*table.lines(), ""]).encode())
    write_json(home / f"{name}.json", table.facts(), 1)
    print("\n".join(table.lines()))


def averaged(system: System, own: Chosen, seen: Seen) -> Values:
    """[Q, M] percent, the mean over searchers and, where one picture a query is drawn, over sampling seeds."""
    draws = range(seen.draws) if {"pseudo", "pseudo with caption", "shuffled"} & set(system.components) else [0]
    every = [
        scores(seen.of(system, searcher, draw), own.weights, own.shares)
        for searcher in range(seen.searchers)
        for draw in draws
    ]
    return np.mean(every, axis=0)


class Table:
    """Every system against the best control, and the primary endpoint in the first line."""

    def __init__(
        self,
        part: Benchmark,
        systems: Sequence[System],
        chosen: Mapping[str, Chosen],
        values: Mapping[str, Values],
        cost: Mapping[str, Price | None],
    ) -> None:
        self.part, self.systems, self.chosen, self.values, self.cost = part, systems, chosen, values, cost
        self.columns = [part.measures.index(name) for name in MEASURES]
        self.clusters = clusters_of(part)
        self.control = self._best("control")
        self.best = self._best("pseudo-target")
        others = [system.name for system in systems if system.name not in (self.control, self.best)]
        corrected = significance.holm([self.p(name) for name in others])
        self.corrected = dict(zip(others, corrected, strict=True))

    def _best(self, kind: str) -> str:
        """By its score on icons/val."""
        return max((own.name for own in self.systems if own.kind == kind), key=lambda name: self.chosen[name].score)

    def gain(self, name: str, control: str = "") -> Values:
        """[Q] mAP@10 over the best control's, or another's."""
        column = self.columns[0]
        gained: Values = self.values[name][:, column] - self.values[control or self.control][:, column]
        return gained

    def p(self, name: str) -> float:
        return significance.paired_p([self.gain(name)], [self.clusters])

    def interval(self, values: Values) -> str:
        low, high = self._bounds(values)
        return f"[{low:+.2f}, {high:+.2f}]"

    def _bounds(self, values: Values, rows: Sequence[int] | None = None) -> tuple[float, float]:
        """Of 95%, objects resampled; `rows`: which queries the values are of, where not of all."""
        clusters = (
            self.clusters if rows is None else significance.labels([self.part.queries[row].cluster for row in rows])
        )
        return significance.interval(significance.bootstrap(values[:, None], clusters)[:, 0])

    def lines(self) -> list[str]:
        """Markdown."""
        head = "| system | kind | weights | mAP@10 | R@10 | mAP@10 - control | p (Holm) | harmed | GFLOP | ms |"
        rows = [self._row(system) for system in self.systems]
        matched = self.claim("With matched encoders", self._best("larger"), self._best("larger control"))
        first = self.claim(self.part.name, self.best, self.control)
        return [first, "", matched, "", *self.beside_pixel_free(), head, "|---" * 10 + "|", *rows, "", *self.by_tag()]

    def claim(self, what: str, name: str, control: str) -> str:
        gain = self.gain(name, control)
        holds = gain.mean() >= 1.0 and significance.paired_p([gain], [self.clusters]) < 0.01
        told = "holds" if holds else "does not hold"
        return f"**{what}: the claim {told}.** {self.compared(name, control)} (claimed: +1.0 at least, p < 0.01)."

    def beside_pixel_free(self) -> list[str]:
        """Whether a picture was needed: not claimed, but told; nothing where no prior was trained."""
        if not any(system.kind == "pixel-free" for system in self.systems):
            return []
        return [f"**Without pixels:** {self.compared(self.best, self._best('pixel-free'))}.", ""]

    def compared(self, name: str, control: str) -> str:
        gain = self.gain(name, control)
        p = significance.paired_p([gain], [self.clusters])
        return f"{name} minus {control}: mAP@10 {gain.mean():+.2f} {self.interval(gain)}, p = {p:.4f}"

    def _row(self, system: System) -> str:
        name = system.name
        means = [f"{self.values[name][:, column].mean():.2f}" for column in self.columns]
        gain = self.gain(name)
        own = "" if name == self.control else f"{gain.mean():+.2f} {self.interval(gain)}"
        p = f"{self.corrected[name]:.4f}" if name in self.corrected else f"{self.p(name):.4f} (not corrected)"
        alone = self.values[SYSTEMS[0].name][:, self.columns[0]]
        harmed = f"{100 * (self.values[name][:, self.columns[0]] < alone - ROUNDING).mean():.1f}%"
        weights = {REFERENCE: 1 - sum(self.chosen[name].weights.values()), **self.chosen[name].weights}
        told = ", ".join(f"{key} {round(own, 2):g}" for key, own in weights.items())
        shown = "" if name == self.control else p
        cost = self.cost[name]
        cells = [name, system.kind, told, *means, own, shown, harmed, *(cost.cells if cost else ["", ""])]
        return f"| {' | '.join(cells)} |"

    def by_tag(self) -> list[str]:
        """What the best branch set with pseudo-targets gains over the best control, for each type of change."""
        lines = [f"| type of change | queries | {self.best}: mAP@10 - control |", "|---|---|---|"]
        for kind, (count, gain, low, high) in self.gains_by_tag().items():
            lines.append(f"| {kind} | {count} | {gain:+.2f} [{low:+.2f}, {high:+.2f}] |")
        return lines

    def gains_by_tag(self) -> dict[str, tuple[int, float, float, float]]:
        """Type of change -> queries, mean gain of the best over the control, its interval."""
        gain, found = self.gain(self.best), {}
        for kind in sorted({query.tags[0] for query in self.part.queries}):
            rows = [place for place, query in enumerate(self.part.queries) if query.tags[0] == kind]
            found[kind] = (len(rows), float(gain[rows].mean()), *self._bounds(gain[rows], rows))
        return found

    def facts(self) -> dict[str, Any]:
        means = {name: dict(zip(self.part.measures, own.mean(0), strict=True)) for name, own in self.values.items()}
        cost = {name: asdict(own) for name, own in self.cost.items() if own}
        gains = {name: [self.gain(name).mean(), *self._bounds(self.gain(name))] for name in means}
        kinds = {system.name: system.kind for system in self.systems}
        told = {"control": self.control, "best": self.best, "p": self.p(self.best), "kinds": kinds, "means": means}
        return {**told, "gains": gains, "by tag": self.gains_by_tag(), "cost": cost}


if __name__ == "__main__":
    main()
