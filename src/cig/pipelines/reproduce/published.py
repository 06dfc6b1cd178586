"""The cells of `cig reproduce`: numbers that papers and docs/icons.md report, and what each of them needs.

They stand in assets/published.toml. A test holds docs/reproduce.md to them; what belongs there is printed by

    python -m cig.pipelines.reproduce.published
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from cig.errors import NotFoundError, did_you_mean


@dataclass(frozen=True)
class Cell:
    """One method on one benchmark, and what somebody says that it reaches."""

    name: str  # "cirr/searle-xl+cig"
    what: str  # is searched with
    benchmark: str  # "cirr/test1"
    method: str
    expected: Mapping[str, float]  # measure -> percent
    source: str  # who says so
    run: str  # where cig was seen to reach them
    part: str = ""  # of the scores: "average" is over FashionIQ's categories
    weights: tuple[str, ...] = ()  # of the method, beside what the package ships: hub ids, files in ./models
    imagined: bool = False  # with CIG's pseudo-targets
    server: bool = False  # the targets are hidden: the authors' server measures
    tolerance: float | None = None  # percent points; None: none is known
    open: tuple[str, ...] = ()  # what our sources do not tell, and what is taken

    @property
    def family(self) -> str:
        """The benchmark's, "cirr"."""
        return self.benchmark.partition("/")[0]

    @property
    def short(self) -> str:
        """The name below its family, which can name a file."""
        return self.name.partition("/")[2]

    @property
    def claim(self) -> str:
        """ "recall@1 24.24, by the server"."""
        values = ", ".join(f"{measure} {value:.2f}" for measure, value in self.expected.items())
        return f"{values}, by the server" if self.server else values


def cells() -> tuple[Cell, ...]:
    """All of them, in the order of the file."""
    return tuple(_cell(row, _content()) for row in _content()["cell"])


def imagining() -> tuple[str, ...]:
    """The weights that pseudo-targets are made with: hub ids, and what lies in ./models."""
    return tuple(_content()["imagining"]["weights"])


def find(name: str) -> Cell:
    """Raises NotFoundError, which says what there is."""
    by_name = {cell.name: cell for cell in cells()}
    if name not in by_name:
        raise NotFoundError(f'no cell "{name}".{did_you_mean(name, by_name)}')
    return by_name[name]


@cache
def _content() -> dict[str, Any]:
    return tomllib.loads(resources.files("cig").joinpath("assets/published.toml").read_text(encoding="utf-8"))


def _cell(row: Mapping[str, Any], content: Mapping[str, Any]) -> Cell:
    source = content["sources"][row["source"]]
    further = {"source": source["is"], "run": source["run"], "weights": tuple(row.get("weights", ()))}
    return Cell(**{**row, **further, "open": tuple(content["open"][key] for key in row.get("open", ()))})


# docs/reproduce.md


def to_markdown() -> str:
    """A table of what papers report with what our sources leave open, and one of what the package can do alone."""
    papers = [cell for cell in cells() if cell.weights]
    alone = [cell for cell in cells() if not cell.weights]
    heading = "What our sources do not tell, of which cells:"
    return "\n".join([*_table(papers), "", heading, "", *_open(papers), "", *_table(alone)])


def _table(rows: Sequence[Cell]) -> list[str]:
    header = ["command", "searched with", "weights", "on", "expected, percent", "says", "run"]
    lines = [
        [f"`cig reproduce {cell.name}`", cell.what, _weights(cell), cell.benchmark, cell.claim, cell.source, cell.run]
        for cell in rows
    ]
    return [f"| {' | '.join(line)} |" for line in [header, ["---"] * len(header), *lines]]


def _weights(cell: Cell) -> str:
    names = [f"`{name}`" for name in cell.weights] or ["shipped"]
    return ", ".join([*names, *(["to imagine"] if cell.imagined else [])])


def _open(rows: Sequence[Cell]) -> list[str]:
    questions = dict.fromkeys(question for cell in rows for question in cell.open)
    cells_of = {question: [f"`{cell.name}`" for cell in rows if question in cell.open] for question in questions}
    return [f"- {question}: {', '.join(names)}" for question, names in cells_of.items()]


if __name__ == "__main__":
    print(to_markdown())
