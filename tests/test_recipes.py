"""The recipes behind what is shipped, in their smallest size, end to end."""

import json
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import Mock

import numpy as np
import pytest
from PIL import Image

import cig
import experiment
import forks
from cig.io.json_files import write_json
from cig.types import Benchmark, Query

RECIPES = Path(cig.__file__).parents[2] / "recipes" / "icons"
FIRST = """
from pathlib import Path
from cig.benchmarks import icons
from cig.benchmarks._icons.corpus import read_split
from cig.models import tokenizer
icons.assets = lambda: Path({few!r})
read_split("train")
tokenizer._openai_bpe()
"""


@pytest.fixture
def called(tmp_path, few):
    """Runs a recipe, in processes of their own that see the few queries of icons/val."""
    own = tmp_path / "bin"
    with TemporaryDirectory() as short, forks.serving(place := Path(short) / "forks", FIRST.format(few=str(few))):
        for name in ("cig", "python"):
            forks.client(own, name, place)
        environ = {**os.environ, "PATH": os.pathsep.join([str(own), os.environ["PATH"]])}

        def call(recipe, *words):
            """What it prints."""
            runner = "bash" if recipe.endswith(".sh") else str(own / "python")
            given = [runner, str(RECIPES / recipe), *map(str, words)]
            done = subprocess.run(given, env=environ, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr[-2000:]
            return done.stdout

        yield call


@pytest.mark.slow
def test_smoke(tmp_path, called):
    out = tmp_path / "out"
    called("train.sh", out, "--smoke")
    methods = {row["method"] for row in json.loads((out / "compare.json").read_text())["rows"]}
    assert methods == {"image", "text", "sum", "lincir", "pic2word"}
    called("searle.sh", out, "--smoke")
    found = json.loads((out / "searle" / "compare.json").read_text())["rows"]
    assert {row["method"] for row in found} >= {"image", "text", "searle", "oti", "lincir/icons", "pic2word/icons"}
    called("generator.sh", out, "--smoke")
    assert json.loads((out / "generator" / "model_index.json").read_text())["unet"] == [
        "diffusers",
        "UNet2DConditionModel",
    ]
    few = ("--limit", "24", "--steps", "4", "--batch-size", "8")
    told = called("told.py", out, "--count", 3).splitlines()
    assert [row.split(" | ")[0] for row in told[2:]] == ["| badge"] * 3 + ["| enclosure"] * 3
    called("prior.py", out, *few)
    triplets = ("--data", "icons/triplets", "--generator", "triplets", "--name", "triplets-prior")
    called("prior.py", out, *few, *triplets, "--start", out / "prior")
    called("sampling.py", out, "--limit", "4")
    chosen = json.loads((out / "experiment" / "sampling.json").read_text())
    assert [own["steps"] for own in chosen["by steps"]] == [1, 2, 4, 8, 16, 50]
    once, twice = (own["operations"] for own in chosen["by steps"][:2])
    assert once < twice < 2 * once, "a step more, and no other decoding"
    called("experiment.py", out, "choose", "--limit", "8")
    log = tmp_path / "results.md"
    told = called("experiment.py", out, "test", "a trial", "--split", "val", "--limit", "12", "--results", log)
    assert told.startswith("**icons/val: the claim does not hold.**")
    assert "**With matched encoders: the claim does not hold.** larger CLIP + " in told
    assert "**Without pixels:** + " in told
    assert "| + the target (oracle) | bound | reference 0, oracle 1 | 100.00 |" in told
    called("plots.py", out / "experiment", "icons-val", out / "plots.png")
    assert Image.open(out / "plots.png").size == (1650, 660)
    assert not log.exists(), "icons/val is open"


def judged(matched, best=2.0, count=40):
    """The experiment's table, by hand: gains of each query over its control, whose values are 0 and 1 in turn."""
    queries = tuple(Query(f"{i}", "r", ("c",), cluster=f"{i}", tags=(("even", "odd")[i % 2],)) for i in range(count))
    part = Benchmark("icons/test", queries, {}, (), experiment.MEASURES, False, 0.7, "")
    base = np.repeat(np.arange(count)[:, None] % 2, 2, axis=1).astype(float)
    kinds = {"control": 0, "pseudo-target": best, "larger control": 0, "larger": matched, "bound": -0.5}
    systems = [
        experiment.System(experiment.SYSTEMS[0].name, "control"),
        *(experiment.System(own, own) for own in kinds),
    ]
    chosen = {own.name: experiment.Chosen({}, [1.0], float(own.name == own.kind)) for own in systems}
    values = {own.name: base + kinds[own.kind] * (own.name == own.kind) for own in systems}
    values["bound"][1::2] += 1
    return experiment.Table(part, systems, chosen, values, dict.fromkeys(chosen))


def test_the_claim_by_hand():
    """+1.0 at least, and p < 0.01: of 6 queries that all gain, p is 2/64 at best."""
    held = judged(matched=1.0).lines()
    assert held[0].startswith(
        "**icons/test: the claim holds.** pseudo-target minus control: mAP@10 +2.00 [+2.00, +2.00]"
    )
    assert held[2].startswith("**With matched encoders: the claim holds.** larger minus larger control: mAP@10 +1.00")
    small = judged(matched=0.9).lines()
    assert small[2].startswith("**With matched encoders: the claim does not hold.** larger minus larger control")
    few = judged(matched=2.0, count=6).lines()
    assert "p = 0.0312" in few[0]
    assert few[0].startswith("**icons/test: the claim does not hold.**")


def test_the_tables_columns_by_hand():
    """Half of the queries lose 0.5 by what is added, half gain 0.5; the least p of four is taken by four."""
    table = judged(matched=1.0)
    row = next(line for line in table.lines() if line.startswith("| bound |"))
    assert row.split(" | ")[7] == "50.0%"
    assert table.corrected["larger"] == pytest.approx(4 * table.p("larger"))
    assert table.corrected["bound"] == 1
    assert {kind: own[:2] for kind, own in table.gains_by_tag().items()} == {"even": (20, 2.0), "odd": (20, 2.0)}


def test_what_is_not_ready_opens_nothing(tmp_path, few_icons, monkeypatch):
    home, log = tmp_path / "experiment", tmp_path / "results.md"

    def told(*words):
        monkeypatch.setattr(sys, "argv", ["experiment.py", str(tmp_path), *words, "--results", str(log)])
        with pytest.raises(SystemExit) as done:
            experiment.main()
        return str(done.value)

    opening = ("test", "too early")
    assert f"nothing is frozen in {home}: python recipes/icons/experiment.py {tmp_path} choose" in told(*opening)
    write_json(home / "frozen.json", {"queries": 8, "models": "others"})
    for step in (opening, ("choose", "--limit", "8")):
        assert f"how to sample is not chosen yet: python recipes/icons/sampling.py {tmp_path}" in told(*step)
    write_json(home / "sampling.json", {"guidance": 1.5, "image_guidance": 1.0, "steps": 2})
    assert "was chosen for other models or sampling" in told(*opening)
    write_json(home / "frozen.json", {"queries": 8, "models": experiment.models_of(tmp_path)})
    assert "chosen on 8 queries of icons/val: choose on all of them first" in told(*opening)
    assert not log.exists()
    write_json(home / "frozen.json", {"queries": 12, "models": experiment.models_of(tmp_path)})
    val = experiment.read("val")
    monkeypatch.setattr(experiment, "read", lambda *_: val)
    monkeypatch.setattr(experiment, "report", Mock(side_effect=SystemExit("it fails")))
    assert told(*opening) == "it fails"
    assert "too early" in log.read_text()
    assert "has opened icons/test" in told("choose")
