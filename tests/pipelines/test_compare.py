"""The table of the field: every method with every branch, honest differences, weights frozen and cited."""

import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image

import cig
from cig import load_benchmarks, registry
from cig.cli.branch_flags import parse_named, usual_methods
from cig.cli.main import main
from cig.errors import InputError, NotFoundError, UsageError
from cig.evaluation.paired import compare_scores
from cig.evaluation.score import clusters_of
from cig.evaluation.significance import holm
from cig.evaluation.trec_compare import compare_runs
from cig.generators._controls import names as control_names
from cig.io.feature_cache import FeatureCache
from cig.io.json_files import read_object
from cig.pipelines._comparison import compare_methods
from cig.retrieval.frozen_weights import GRID, FrozenWeight, best, freeze, read_frozen_weight
from cig.retrieval.fusion_weight import PSEUDO_TARGET
from cig.retrieval.requests import Comparing, parse_method
from cig.runtime import Compute
from searchers import source_of

BENCHMARKS = {"cirr/val": ".", "circo/val": ".", "fashioniq/val": ".", "folder/val": "shop"}  # where each lies


def run(capsys, *words):
    with pytest.raises(SystemExit) as done:
        main([str(word) for word in words])
    shown = capsys.readouterr()
    return done.value.code or 0, shown.out, shown.err


def spec(world, name):
    """As --methods takes it."""
    source = source_of(world, name)
    words = {"clip": source.clip, "phi": source.phi, **source.options}
    return " ".join([name, *(f"{key}={own}" for key, own in words.items() if own)])


@pytest.fixture(scope="module")
def imagined(world, tmp_path_factory):
    """benchmark -> a folder with pictures of the gallery in the place of pseudo-targets, two for each query."""
    home = tmp_path_factory.mktemp("imagined")
    for name in BENCHMARKS:
        for part in load_benchmarks(name, world / BENCHMARKS[name]):
            folder = home / name / part.part
            folder.mkdir(parents=True)
            paths = list(part.images.values())
            for i, query in enumerate(part.queries):
                for j in range(2):
                    (folder / f"{query.id}_{j}.png").write_bytes(paths[(7 * i + j) % len(paths)].read_bytes())
    return home


@pytest.mark.slow
@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_method_with_every_branch(world, imagined, tmp_path, monkeypatch, name):
    """A grid over what is in the folders: a new method or control is in it the day it appears."""
    monkeypatch.chdir(tmp_path)
    vae = world / "models/sdxl/vae"
    branches = [PSEUDO_TARGET, *(own for own in control_names() if own != "reference-vae")]
    branches += [f"name=reference-vae pictures=reference-vae vae={vae} side=64", "name=caption method=text"]
    comparing = Comparing(
        tuple(parse_method(spec(world, own)) for own in registry.names("methods")),
        tuple(map(parse_named, branches)),
        imagined / name,
        strict_branches=False,
    )
    parts = load_benchmarks(name, world / BENCHMARKS[name])
    contest = compare_methods(parts, comparing, compute=Compute("cpu"), cache=FeatureCache(tmp_path / "features"))
    (told,) = (tmp_path / "outputs" / "controls").glob("reference-vae-*/settings.json")
    assert read_object(told)["side"] == 64
    seen = {row.method for row in contest.rows}
    assert seen == set(registry.names("methods"))
    every = {"", "caption", PSEUDO_TARGET, *control_names()}
    blind = every - {"", "caption", "reference-image"}  # they look at no picture
    lacking = {"text": blind, "texts": blind, "precomputed": {"caption"}}  # no text tower, no CLIP
    for method in seen:
        rows = {row.branch for row in contest.rows if row.method == method}
        assert rows == every - lacking.get(method, set()), contest.left_out
    for row in contest.rows:
        assert all(0 <= score <= 100 for scores in row.report.scores.values() for score in scores.values())
        assert row.cost.seconds > 0
        average = {"average"} if "subset_recall@1" in parts[0].measures else set()  # CIRR's
        assert set(row.versus) == ({*parts[0].measures, *average} if row.branch else set())
        by_name = row.method in ("caption", "oti", "precomputed")  # they know no picture that was made just now
        assert not row.report.missing or (by_name and set(row.report.missing) <= NAMED)
    assert len(contest.left_out) == sum(map(len, lacking.values()))


NAMED = {"pseudo_targets", "branch reference-augmented", "branch reference-vae", "branch shuffled"}


def test_the_oracle_alone_finds_the_target(world, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    oracle = parse_named("name=oracle pictures=oracle method=image caption=no weight=1")
    comparing = Comparing((parse_method(spec(world, "image")),), (oracle,))
    contest = compare_methods(
        load_benchmarks("cirr/val", world), comparing, compute=Compute("cpu"), cache=FeatureCache()
    )
    alone, found = contest.rows
    assert found.report.scores[""]["recall@1"] == 100
    own = found.versus["recall@1"]
    assert own.gained == sum(score["recall@1"] == 0 for score in alone.report.per_query[""].values())
    assert (own.lost, own.difference) == (0, 100 - alone.report.scores[""]["recall@1"])


def test_the_usual_methods_have_the_weights_of_the_benchmark():
    icons, others = usual_methods("icons"), usual_methods("cirr")
    assert {"image/icons", "pic2word/icons", "searle"} <= set(icons)
    assert {"image", "pic2word", "searle"} <= set(others)
    assert not any("/" in name for name in others)


def test_a_method_that_is_there_twice(world, tmp_path, monkeypatch, capsys):
    """Each row its own name and p; a sweep, which keeps one weight a method, is refused."""
    monkeypatch.chdir(tmp_path)
    clip = world / "models/clip-small"
    line = "compare", "cirr/val", "--dataset-path", world, "--clip", clip, "--device", "cpu", "--branches", "oracle"
    code, out, err = run(capsys, *line, "--methods", "slerp t=0.05", "slerp t=0.9", "--json", "t.json")
    assert code == 0, err
    rows = json.loads((tmp_path / "t.json").read_text())["rows"]
    assert [row["method"] for row in rows] == ["slerp t=0.05"] * 2 + ["slerp t=0.9"] * 2
    assert [row["holm"] is None for row in rows] == [True, False, True, False]
    p, q = (row["versus"]["recall@1"]["p"] for row in rows[1::2])
    assert sorted(row["holm"] for row in rows[1::2]) == pytest.approx(sorted(holm([p, q])))
    assert "weights: as published for CIRR val" in out
    code, _, err = run(capsys, *line, "--methods", "slerp t=0.05", "slerp t=0.9", "--sweep")
    assert (code, "slerp is there twice" in err) == (2, True), err


@pytest.mark.parametrize("content", ['{"folder": 7}', '{"cirr": {"sum": {"oracle": {"reference": "0.4"}}}}', "[]"])
def test_a_weights_file_of_another_form(world, tmp_path, monkeypatch, capsys, content):
    """It is refused where it is asked for, and in nobody's way where it is not."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "outputs").mkdir()
    (tmp_path / "outputs/weights.json").write_text(content)
    clip = world / "models/clip-small"
    line = "compare", "cirr/val", "--dataset-path", world, "--clip", clip, "--methods", "sum", "--branches", "oracle"
    assert run(capsys, *line)[0] == 0
    code, _, err = run(capsys, *line, "--weights", "outputs/weights.json")
    assert (code in (1, 2), "Traceback" in err) == (True, False), err
    code, _, err = run(capsys, *line, "--sweep")
    assert code == (0 if "sum" in content else 1), err


# Differences


def test_versus_by_hand():
    """Of four queries two gain, one loses: +1/4 of 100; flips of (100, 100, -100): all are at least as far."""
    own = compare_scores([np.array([0.0, 0, 100, 0])], [np.array([100.0, 100, 0, 0])])
    assert (own.gained, own.lost, own.equal, own.difference, own.p) == (2, 1, 1, 25.0, 1.0)
    assert own.shares == (50, 25)
    assert own.interval[0] < 25 < own.interval[1]
    sure = compare_scores([np.zeros(3)], [np.full(3, 100.0)])
    assert (sure.p, sure.interval) == (2 / 8, (100, 100))


def test_clusters_are_the_benchmarks(world):
    from dataclasses import replace

    (part,) = load_benchmarks("cirr/val", world)
    assert clusters_of(part) is None
    named = replace(part, queries=tuple(replace(query, cluster=str(i // 4)) for i, query in enumerate(part.queries)))
    assert clusters_of(named).tolist() == [0] * 4 + [1] * 4
    image = cig.load_method("image", cig.Source(clip=str(world / "models/clip-small")))
    report = cig.evaluate(named, cig.search(named, image))
    assert report.protocol["intervals"] == "over 2 clusters of queries"


# Weights


def test_the_best_weight_is_in_the_middle_of_the_best():
    assert (GRID[0], GRID[-1], len(GRID)) == (0, 1, 21)
    assert best({"0": 1, "0.5": 3, "0.55": 3, "0.6": 3, "1": 2}) == 0.55
    assert best({"0": 1, "0.5": 1}) == 0


def test_frozen_weights_are_read_and_cited(tmp_path):
    path = tmp_path / "w.json"
    one = FrozenWeight(0.4, "recall@1", {"0.4": 9.0}, "cirr/val", "digest", None, "models")
    freeze(path, "cirr", one, method="searle", branch=PSEUDO_TARGET)
    freeze(path, "cirr", one, method="searle", branch="oracle")
    assert read_frozen_weight(path, "cirr", method="searle", branch=PSEUDO_TARGET) == one
    assert "flatters" not in one.cite("cirr/test1", path)
    assert "flatters" in one.cite("cirr/val", path)
    with pytest.raises(NotFoundError, match=r"has no weight of circo: searle.*cig compare circo/val .*--sweep"):
        read_frozen_weight(path, "circo", method="searle", branch=PSEUDO_TARGET)
    path.write_text('{"cirr": 7}')
    with pytest.raises(InputError, match="no frozen weights"):
        read_frozen_weight(path, "cirr", method="searle", branch=PSEUDO_TARGET)


@pytest.mark.slow
def test_a_sweep_freezes_what_a_test_run_cites(world, imagined, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    where = "--dataset-path", world, "--device", "cpu"
    pictures = "--generated-image-dir", imagined / "cirr/val"
    frozen_at = "--sweep", "--weights", "w.json", "--measure", "recall@10", "--json", "t.json"
    line = "compare", "cirr/val", *where, "--methods", spec(world, "searle"), "--branches", PSEUDO_TARGET
    code, _, err = run(capsys, *line, *pictures, *frozen_at)
    assert code == 0, err
    share = read_frozen_weight(tmp_path / "w.json", "cirr", method="searle", branch=PSEUDO_TARGET).reference
    curve = json.loads((tmp_path / "w.json").read_text())["cirr"]["searle"][PSEUDO_TARGET]["scores"]
    row = json.loads((tmp_path / "t.json").read_text())["rows"][1]
    assert curve[f"{share:g}"] == max(curve.values()) == row["scores"][""]["recall@10"]
    alone = json.loads((tmp_path / "t.json").read_text())["rows"][0]
    assert curve["1"] == alone["scores"][""]["recall@10"], "a share of 1 is the reference alone"
    weights = "--clip", world / "models/clip-small", "--phi", world / "models/phi-small.pt"
    (tmp_path / "test").symlink_to(imagined / "cirr/val")
    told = run(capsys, "evaluate", "cirr/val", *where, *weights, *pictures, "--weights", "w.json", "--json", "s.json")
    assert told[0] == 0, told[2]
    told = json.loads((tmp_path / "s.json").read_text())
    (tmp_path / "outputs").mkdir()
    (tmp_path / "w.json").rename(tmp_path / "outputs/weights.json")
    published = run(capsys, "evaluate", "cirr/val", *where, *weights, *pictures)[2]
    beside = (
        f"as published for CIRR val; on cirr/val, {share:g} was frozen by recall@10 (--weights outputs/weights.json)"
    )
    assert beside in published
    other = "--clip", world / "models/clip-small", "--phi", world / "models/phi-other.pt"
    shutil.copy(world / "models/phi-small.pt", other[-1])
    with other[-1].open("ab") as file:
        file.write(b"\0")
    frozen_with = run(capsys, "evaluate", "cirr/val", *where, *other, *pictures, "--weights", "outputs/weights.json")
    assert (frozen_with[0], "frozen with other models or options" in frozen_with[2]) == (2, True), frozen_with[2]
    assert told["scores"][""]["recall@10"] == max(curve.values())
    assert told["branches"][0]["weight"] == share
    assert told["branches"][0]["source"].startswith("frozen on cirr/val by recall@10, w.json")


@pytest.mark.slow
def test_a_sweep_that_distinguishes_nothing_says_so(world, imagined, tmp_path, monkeypatch, capsys):
    """Pseudo-targets that are the references: told at the sweep, and wherever the weight is cited."""
    monkeypatch.chdir(tmp_path)
    part = load_benchmarks("cirr/val", world)[0]
    for query in part.queries:
        Image.open(part.images[query.reference]).save(tmp_path / f"{int(query.id):05d}.png")
    where = "cirr/val", "--dataset-path", world, "--device", "cpu"
    sweep = "compare", *where, "--methods", spec(world, "image"), "--branches", PSEUDO_TARGET, "--sweep"
    for folder, name, tied in ((tmp_path, "tied.json", True), (imagined / "cirr/val", "w.json", False)):
        own = "--generated-image-dir", folder, "--measure", "recall@10", "--weights", name
        code, out, err = run(capsys, *sweep, *own)
        assert code == 0, err
        assert ("nothing was distinguished" in out, "nothing was distinguished" in err) == (tied, tied)
        curve = json.loads((tmp_path / name).read_text())["cirr"]["image"][PSEUDO_TARGET]["scores"]
        assert (len(set(curve.values())) == 1) == tied
    clip = "--method", "image", "--clip", world / "models/clip-small", "--generated-image-dir", tmp_path
    cited = run(capsys, "evaluate", *where, *clip, "--weights", "tied.json")
    assert "nothing was distinguished" in cited[2]
    (tmp_path / "outputs").mkdir()
    (tmp_path / "tied.json").rename(tmp_path / "outputs/weights.json")
    mentioned = run(capsys, "evaluate", *where, *clip)
    assert re.search(r"0\.5 was frozen by recall@10 .*nothing was distinguished", mentioned[2])


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("compare cirr/test1 --methods image", "hidden, so nothing can be compared or swept"),
        ("compare cirr/val --methods image --measure recall@7", "has no measure"),
        ("compare cirr/val --methods imgae", 'Did you mean "image"'),
        ("compare cirr/val --methods 'image clp=x'", 'image has no options; leave "clp" out'),
        ("compare cirr/val --methods 'slerp tt=x'", 'Did you mean "t"'),
        ("compare cirr/val --methods 'image clip'", '"clip" is no KEY=VALUE'),
        ("compare cirr/val --methods 'image preprocessing=x'", "clip or targetpad"),
        ("compare cirr/val --methods image --branches orcale", 'Did you mean "oracle"'),
        ("compare cirr/val --methods image --branches shuffled", "give that folder"),
        ("compare cirr/val a.run", "found both"),
        ("compare a.run b.run", "--qrels"),
        ("compare a.run b.run --qrels q --report t.md", "--json FILE"),
        ("compare cirr/val --methods image --qrels q", "goes with runs"),
        ("compare", "which benchmark?"),
        ("compare cirr/val --report x.pdf", "Markdown"),
        ("evaluate cirr/val --method image --weights none.json", "none.json is not there"),
        ("evaluate cirr/val --method image --weights w.json --fusion-weight .5 --generated-image-dir .", "leave"),
        ("evaluate cirr/val --method image --weights w.json", "give their folder"),
    ],
)
def test_wrong_comparisons_exit_2(world, tmp_path, monkeypatch, capsys, line, words):
    import shlex

    monkeypatch.chdir(tmp_path)
    (tmp_path / "w.json").write_text("{}")
    clip = ("--clip", world / "models/clip-small") if ".run" not in line else ()
    code, _, err = run(capsys, *shlex.split(line), "--dataset-path", world, *clip)
    assert (code, words in err) == (2, True), err
    assert "Traceback" not in err


@pytest.mark.slow
def test_without_a_list_what_cannot_be_is_named(world, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    clip = world / "models/clip-small"
    code, out, err = run(capsys, "compare", "cirr/val", "--dataset-path", world, "--clip", clip, "--report", "t.md")
    assert code == 0, err
    assert re.search(r"left out: searle: the phi models/SEARLE_ViT-B32\.pt is not there: get", out)
    assert re.search(r"^sum +oracle +0\.15", out, re.MULTILINE)
    assert "sum" in (tmp_path / "t.md").read_text()


def test_a_sweep_that_cannot_be_kept_fails(world, imagined, tmp_path, monkeypatch, capsys):
    """Also where methods that cannot be run are left out."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    line = "compare", "cirr/val", "--dataset-path", world, "--clip", world / "models/clip-small", "--device", "cpu"
    own = "--branches", PSEUDO_TARGET, "--generated-image-dir", imagined / "cirr/val"
    code, _, err = run(capsys, *line, *own, "--sweep", "--weights", "file/w.json")
    assert (code, "file" in err, "Traceback" in err) == (1, True, False), err


def test_a_method_that_can_have_no_branch_has_its_row(world, imagined, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    line = "compare", "cirr/val", "--dataset-path", world, "--clip", world / "models/clip-small", "--device", "cpu"
    own = "--methods", "text", "image", "--branches", PSEUDO_TARGET, "--generated-image-dir", imagined / "cirr/val"
    code, out, err = run(capsys, *line, *own)
    assert code == 0, err
    assert re.search(r"^text +–", out, re.MULTILINE)
    assert "left out: text + pseudo-target: text looks at no picture" in out


def test_costs_are_remembered_with_features(world, tmp_path, monkeypatch):
    """A second contest loads no model: encoding is an error there."""
    monkeypatch.chdir(tmp_path)
    comparing = Comparing((parse_method(spec(world, "searle")),), (parse_named("oracle"),))
    parts = load_benchmarks("cirr/val", world)
    first = compare_methods(parts, comparing, compute=Compute("cpu"), cache=FeatureCache(tmp_path / "f"))

    def no(*_):
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(
        "cig.models.dual_encoder.load_clip", no
    )  # first: else it would take the other's stand-in for its own
    monkeypatch.setattr("cig.models.clip.load_clip", no)
    second = compare_methods(parts, comparing, compute=Compute("cpu"), cache=FeatureCache(tmp_path / "f"))
    assert [row.report.scores for row in first.rows] == [row.report.scores for row in second.rows]
    assert [row.cost for row in first.rows] == [row.cost for row in second.rows]


# Runs


RUN_A = "q1 Q0 a 1 0.9 A\nq1 Q0 b 2 0.8 A\nq2 Q0 a 1 0.9 A\nq9 Q0 a 1 0.9 A\n"
RUN_B = "q1 Q0 b 1 0.9 B\nq1 Q0 a 2 0.8 B\nq2 Q0 c 1 0.9 B\nq3 Q0 c 1 0.9 B\n"
QRELS = "q1 0 b 2\nq2 0 c 2\nq3 0 c 2\nq3 0 d 1\n"


def test_runs_by_hand(tmp_path, capsys):
    """A finds q1 second, and lacks q3, which scores 0; B finds all three first. Flips of (1, 1, 1): p = 2/8."""
    for name, text in {"a.run": RUN_A, "b.run": RUN_B, "q": QRELS}.items():
        (tmp_path / name).write_text(text)
    compared = compare_runs([tmp_path / "a.run", tmp_path / "b.run"], tmp_path / "q", ["recall@1", "recall@2", "map@2"])
    assert compared.scores[0] == pytest.approx({"recall@1": 0, "recall@2": 100 / 3, "map@2": 100 / 6})
    assert compared.scores[1] == pytest.approx({"recall@1": 100, "recall@2": 100, "map@2": 250 / 3})
    assert compared.versus[0]["recall@1"].p == 2 / 8
    assert compared.lacking == (("q3",), ())
    assert compared.foreign == (("q9",), ())
    code, out, _ = run(capsys, "compare", tmp_path / "a.run", tmp_path / "b.run", "--qrels", tmp_path / "q")
    assert code == 0
    assert "judged queries without a line, which score 0: 1 (q3)" in out
    assert "queries that nobody judged, left out: 1 (q9)" in out


def test_several_runs_are_corrected(tmp_path):
    (tmp_path / "q").write_text(QRELS)
    for name in "abc":
        (tmp_path / f"{name}.run").write_text(RUN_A if name == "a" else RUN_B)
    compared = compare_runs([tmp_path / f"{name}.run" for name in "abc"], tmp_path / "q", ["recall@1"])
    assert [own["recall@1"] for own in compared.holm] == [0.5, 0.5], "twice 2/8"


def test_wrong_runs_are_told(tmp_path):
    (tmp_path / "q").write_text(QRELS)
    (tmp_path / "a.run").write_text(RUN_A.replace("q", "x"))
    (tmp_path / "b.run").write_text(RUN_B)
    with pytest.raises(UsageError, match="share no query: x1"):
        compare_runs([tmp_path / "a.run", tmp_path / "b.run"], tmp_path / "q")
    with pytest.raises(UsageError, match="does not answer subset_recall"):
        compare_runs([tmp_path / "b.run", tmp_path / "b.run"], tmp_path / "q", ["subset_recall@1"])
    with pytest.raises(UsageError, match="at least two runs"):
        compare_runs([tmp_path / "b.run"], tmp_path / "q")


@pytest.mark.slow
def test_an_exported_run_scores_as_its_evaluation(world, tmp_path, monkeypatch, capsys):
    """Also over FashionIQ's categories, whose means are averaged."""
    monkeypatch.chdir(tmp_path)
    line = "evaluate", "fashioniq/val", "--dataset-path", world, "--clip", world / "models/clip-small"
    for method in ("sum", "image"):
        files = "--run", f"{method}.run", "--qrels", "q", "--json", f"{method}.json"
        assert run(capsys, *line, "--method", method, *files)[0] == 0
    assert (
        run(capsys, "compare", "image.run", "sum.run", "--qrels", "q", "--measure", "recall@10", "--json", "c.json")[0]
        == 0
    )
    told = json.loads((tmp_path / "c.json").read_text())
    for i, method in enumerate(("image", "sum")):
        own = json.loads((tmp_path / f"{method}.json").read_text())["scores"]["average"]["recall@10"]
        assert told["scores"][i]["recall@10"] == pytest.approx(own)
