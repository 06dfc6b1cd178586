"""Anyone's run: our own in each form scores as it did, and what is odd about another's is told."""

import json

import pytest

import calls
from cig import evaluate, load_benchmarks, search
from cig.errors import InputError, MismatchError
from cig.evaluation.given_runs import read_given_run
from cig.evaluation.trec import write_run
from searchers import method_of


@pytest.fixture(scope="module")
def searched(world):
    """benchmark -> (parts, rankings by picture features)."""
    method = method_of(world, "image")
    loaded = {name: load_benchmarks(name, world) for name in ("cirr/val", "circo/val", "fashioniq/val")}
    return {name: (parts, [search(part, method) for part in parts]) for name, parts in loaded.items()}


def lists(ranking):
    return {query: list(names) for query, names in zip(ranking.queries, ranking.ids, strict=True)}


def subsets(ranking):
    return {query: list(names) for query, names in zip(ranking.queries, ranking.subset, strict=True)}


@pytest.mark.parametrize("name", ["cirr/val", "circo/val", "fashioniq/val"])
@pytest.mark.parametrize("form", ["trec", "rankings"])
def test_our_own_run_scores_as_it_did(searched, tmp_path, name, form):
    parts, rankings = searched[name]
    path = tmp_path / "run"
    if form == "trec":
        write_run(path, parts, rankings)
    else:
        path.write_text(json.dumps({part.part: lists(one) for part, one in zip(parts, rankings, strict=True)}))
    run = read_given_run([path], parts)
    ours, theirs = evaluate(parts, rankings), evaluate(run.parts, run.rankings)
    for part, scores in theirs.scores.items():
        assert scores == {measure: ours.scores[part][measure] for measure in scores}
        assert {measure for measure in ours.scores[part] if "subset" not in measure and measure != "average"} <= set(
            scores
        )
    assert theirs.per_query[parts[0].part].keys() == ours.per_query[parts[0].part].keys()


def test_both_files_of_a_cirr_submission(searched, tmp_path):
    parts, (ranking,) = searched["cirr/val"]
    head = {"version": "rc2"}
    (tmp_path / "a.json").write_text(json.dumps({**head, "metric": "recall", **lists(ranking)}))
    (tmp_path / "b.json").write_text(json.dumps({**head, "metric": "recall_subset", **subsets(ranking)}))
    run = read_given_run([tmp_path / "a.json", tmp_path / "b.json"], parts)
    assert evaluate(run.parts, run.rankings).scores == evaluate(parts, [ranking]).scores
    alone = read_given_run([tmp_path / "b.json"], parts)
    assert {measure.partition("@")[0] for measure in alone.parts[0].measures} == {"subset_recall"}
    assert any("does not answer recall@1" in note for note in alone.notes)


def test_what_is_odd_is_counted(searched, tmp_path):
    """The reference is left out, a repetition counts once, a foreign name keeps its rank, a lacking query scores 0."""
    (part,), (ranking,) = searched["cirr/val"]
    rows = lists(ranking)
    first, second, *_ = part.queries
    target = next(iter(first.relevant))
    rows[first.id] = [first.reference, "unknown", target, target]
    del rows[second.id]
    rows["no such query"] = ["x"]
    path = tmp_path / "run.json"
    path.write_text(json.dumps(rows))
    run = read_given_run([path], [part])
    report = evaluate(run.parts, run.rankings)
    assert report.per_query[""][first.id]["recall@1"] == 0
    assert report.per_query[""][first.id]["recall@5"] == 100
    assert report.per_query[""][second.id]["recall@50"] == 0
    assert report.missing["lists"] == {"": [second.id]}
    text = " ".join(run.notes)
    assert all(word in text for word in ("own reference", "twice", "not in the gallery", "no such query"))
    assert run.rankings[0].target_ranks[0] == 2


def test_a_run_of_one_category_scores_the_others_zero(searched, tmp_path):
    parts, rankings = searched["fashioniq/val"]
    path = tmp_path / "run.json"
    path.write_text(json.dumps({parts[1].part: lists(rankings[1])}))
    run = read_given_run([path], parts)
    report, whole = evaluate(run.parts, run.rankings), evaluate(parts, rankings)
    assert report.scores[parts[1].part] == whole.scores[parts[1].part]
    assert set(report.scores[parts[0].part].values()) == {0.0}
    assert len(report.missing["lists"][parts[0].part]) == len(parts[0].queries)


@pytest.mark.parametrize(
    "content", ["", "{}", "[]", '{"1": 2}', '{"1": [true]}', "one two", "1 Q0 a x 1 t", '{"": {"1": "a"}}']
)
def test_files_that_are_no_runs(searched, tmp_path, content):
    path = tmp_path / "run"
    path.write_text(content)
    with pytest.raises((InputError, MismatchError)) as error:
        read_given_run([path], searched["circo/val"][0])
    assert str(path) in str(error.value)


def test_the_verb(searched, world, tmp_path, capsys):
    parts, (ranking,) = searched["circo/val"]
    rows = lists(ranking)
    del rows[parts[0].queries[0].id]
    (tmp_path / "run.json").write_text(json.dumps(rows))
    where = ["--dataset-path", str(world / "CIRCO")]
    code, out, _ = calls.run(
        capsys, "score", "circo/val", tmp_path / "run.json", *where, "--json", tmp_path / "scores.json"
    )
    assert (code, "map@5" in out) == (1, True)
    assert json.loads((tmp_path / "scores.json").read_text())["missing"]["lists"]
    for words, wanted in (
        (["circo/test", tmp_path / "run.json"], 2),
        (["circo/val"], 2),
        (["circo/val", tmp_path / "x"], 2),
    ):
        assert calls.run(capsys, "score", *words, *where)[0] == wanted
