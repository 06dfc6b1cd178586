"""Files for the official servers: ours and the official examples are valid; ten spoilt ones are each told by name."""

import json
import shutil

import pytest

from cig.benchmarks import load_benchmark
from cig.cli.main import main
from cig.errors import InputError, UsageError
from cig.evaluation.submissions import forms, validate


def names(count, prefix="p"):
    return [f"{prefix}{i}" for i in range(count)]


def cirr(**changes):
    return {"version": "rc2", "metric": "recall", **{str(i): names(50) for i in range(4148)}, **changes}


def write(path, content):
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_forms_are_told_by_their_keys(tmp_path):
    assert len(forms()) == 4
    subset = {"version": "rc2", "metric": "recall_subset", **{str(i): names(3) for i in range(4148)}}
    numbers = list(range(50))
    told = [
        validate(write(tmp_path / "a.json", content))
        for content in (cirr(), subset, {str(i): numbers for i in range(800)}, {str(i): numbers for i in range(220)})
    ]
    assert [(form.benchmark, form.metric, problems) for form, problems in told] == [
        ("cirr/test1", "recall", []),
        ("cirr/test1", "recall_subset", []),
        ("circo/test", None, []),
        ("circo/val", None, []),
    ]


SPOILT = {
    "wrong metric": (cirr(metric="reall"), '"metric" should be "recall" or "recall_subset", found \'reall\''),
    "no metric": ({key: own for key, own in cirr().items() if key != "metric"}, '"metric" should be "recall"'),
    "wrong version": (cirr(version="rc1"), '"version" should be "rc2", found \'rc1\''),
    "49 names": (cirr(**{"7": names(49)}), "query 7: 49 names, expected 50"),
    "51 names": (cirr(**{"7": names(51)}), "query 7: 51 names, expected 50"),
    "duplicate": (cirr(**{"7": [*names(49), "p0"]}), "query 7: names p0 more than once"),
    "missing query": ({key: own for key, own in cirr().items() if key != "7"}, "4147 queries, expected 4148"),
    "one query more": (cirr(**{"5000": names(50)}), "4149 queries, expected 4148"),
    "no id": (cirr(x=names(50)), '"x" is no query id'),
    "no list": (cirr(**{"7": "p0"}), "query 7: should be a list of picture names"),
    "no name": (cirr(**{"7": [*names(49), None]}), "query 7: should be a list of picture names"),
    "query twice": (json.dumps(cirr())[:-1] + ', "7": []}', "query 7 occurs twice"),
    "header in CIRCO": ({"version": "rc2", **{str(i): names(50) for i in range(800)}}, '"version" has no place'),
}


@pytest.mark.parametrize("what", SPOILT)
def test_spoilt_files_are_told_by_name(tmp_path, what):
    content, words = SPOILT[what]
    _, problems = validate(write(tmp_path / "a.json", content))
    assert any(words in problem for problem in problems), problems


@pytest.mark.parametrize("content", ["{", "[]", "3", "\ud800".encode("utf-8", "surrogatepass").decode("latin-1")])
def test_what_is_no_object(tmp_path, content):
    with pytest.raises(InputError, match=r"a\.json"):
        validate(write(tmp_path / "a.json", content))


@pytest.fixture(scope="module")
def ours(world, tmp_path_factory):
    """What `cig submit` writes for the tiny CIRR and CIRCO."""
    out = tmp_path_factory.mktemp("submissions")
    for name in ("cirr/test1", "circo/test"):
        line = ["submit", name, "--dataset-path", world, "--method", "image", "--clip", world / "models/clip-small"]
        with pytest.raises(SystemExit):
            main([str(word) for word in [*line, "--submission-name", name.split("/")[0], "--output-dir", out]])
    return out


def test_ours_are_valid_on_their_dataset(world, ours):
    """Eight queries of CIRCO are nearer to val's 220 than to test's 800; the tiny two number their queries alike."""
    for name, home in (("cirr.json", "CIRR"), ("subset_cirr.json", "CIRR"), ("circo.json", "CIRCO")):
        assert validate(ours / name, world / home)[1] == []


def test_names_are_checked_with_the_dataset(world, ours, tmp_path):
    whole, subset = (json.loads((ours / name).read_text()) for name in ("cirr.json", "subset_cirr.json"))
    entry = json.loads((world / "CIRR/cirr/captions/cap.rc2.test1.json").read_text())[0]
    query, members = str(entry["pairid"]), entry["img_set"]["members"]

    def problems(content, **changes):
        return validate(write(tmp_path / "a.json", {**content, **changes}), world / "CIRR")[1]

    assert problems(whole, **{query: [*whole[query][:49], "nowhere"]}) == [
        f"query {query}: nowhere not in the gallery of cirr/test1"
    ]
    own = problems(whole, **{query: [entry["reference"], *whole[query][:49]]})
    assert own == [f"query {query}: names its own reference {entry['reference']}"]
    other = next(name for name in whole[query] if name not in members)
    assert problems(subset, **{query: [*subset[query][:2], other]}) == [f"query {query}: {other} not in its own set"]
    less = {key: value for key, value in whole.items() if key != query}
    assert problems(less) == ["7 queries, expected 8", f"without queries {query}"]
    assert "query 5 is not in cirr/test1" in problems(whole, **{"5": whole[query]})


def test_the_verb(ours, world, tmp_path, capsys):
    def run(*words):
        with pytest.raises(SystemExit) as done:
            main(["validate-submission", *map(str, words)])
        return done.value.code or 0, capsys.readouterr()

    code, shown = run(ours / "cirr.json", "--dataset-path", world)
    assert (code, "names, references and subsets: checked against the dataset" in shown.out) == (0, True)
    code, shown = run(write(tmp_path / "a.json", cirr()))
    assert (code, "not checked: give the dataset" in shown.out) == (0, True)
    code, shown = run(ours / "cirr.json")
    assert (code, "is no valid submission for cirr/test1 recall:\n  8 queries, expected 4148" in shown.err) == (1, True)
    assert run(tmp_path / "none.json")[0] == 2


@pytest.fixture
def two_splits(world, tmp_path):
    """A CIRCO whose val has five queries, and whose test has eight others."""
    home = tmp_path / "CIRCO"
    shutil.copytree(world / "CIRCO", home)
    annotations = home / "annotations"
    entries = json.loads((annotations / "test.json").read_text())
    (annotations / "test.json").write_text(json.dumps([{**entry, "id": i + 100} for i, entry in enumerate(entries)]))
    val = json.loads((annotations / "val.json").read_text())
    (annotations / "val.json").write_text(json.dumps(val[:5]))
    return home, load_benchmark("circo/val", home).gallery


def circo(ids, gallery):
    return {str(i): list(gallery[:50]) for i in ids}


def test_a_small_file_is_that_of_the_split_whose_queries_it_has(two_splits, tmp_path):
    home, gallery = two_splits
    for split, ids in (("val", range(5)), ("test", range(100, 108)), ("test", range(100, 106))):
        form, problems = validate(write(tmp_path / "a.json", circo(ids, gallery)), home)
        assert form.benchmark == f"circo/{split}"
        assert bool(problems) == (len(ids) == 6)


def test_a_split_that_is_named_is_the_one(two_splits, tmp_path, capsys):
    home, gallery = two_splits
    path = write(tmp_path / "a.json", circo(range(5), gallery))
    for split in ("test", "circo/test"):
        assert validate(path, home, split)[0].benchmark == validate(path, split=split)[0].benchmark == "circo/test"
    assert validate(write(tmp_path / "b.json", cirr()), split="test")[0].benchmark == "cirr/test1"
    for split in ("vall", "cirr/val", "fashioniq/val"):
        with pytest.raises(UsageError):
            validate(path, split=split)
    _, problems = validate(path)
    assert any("--split" in problem and "800 of circo/test" in problem for problem in problems)
    assert not any("--split" in problem for problem in validate(path, split="circo/val")[1])
    with pytest.raises(SystemExit) as done:
        main(["validate-submission", str(path), "--split", "val", "--dataset-path", str(home)])
    assert not done.value.code
    assert "valid submission for circo/val" in capsys.readouterr().out


@pytest.mark.slow
def test_the_official_examples(annotations):
    """CIRR's names are checked against the real split; CIRCO's pictures are not at hand."""
    for name, metric in (("recall", "recall"), ("recall_subset", "recall_subset")):
        path = annotations / f"cirr/submission_example/test1_pred_ranks_{name}.json"
        form, problems = validate(path, annotations / "cirr")
        assert (form.metric, problems) == (metric, [])
    for split in ("test", "val"):
        form, problems = validate(annotations / f"circo/submission_{split}.json")
        assert (form.benchmark, problems) == (f"circo/{split}", [])
