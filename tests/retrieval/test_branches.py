"""Branches: the published recipe is one of them, weights are kept, what is lacking is named, wrong ones are told."""

import json
import shutil

import pytest
import torch

from cig import Source, load_benchmark, load_method, search
from cig.cli.branch_flags import parse, requested_branches
from cig.cli.main import main
from cig.errors import MismatchError, NotFoundError, UsageError
from cig.io.feature_cache import FeatureCache
from cig.io.manifest import Manifest
from cig.retrieval.branches import Branches, find_pictures
from cig.retrieval.embed import embed
from cig.retrieval.features import embed_pictures, same_pictures
from cig.retrieval.fusion import BranchFeatures, fuse
from cig.retrieval.rank import wanted_pictures
from cig.retrieval.requests import Branching, Searching
from cig.runtime import Compute
from cig.types import Branch


def run(capsys, *words):
    """(exit code, stderr)"""
    with pytest.raises(SystemExit) as done:
        main([str(word) for word in words])
    return done.value.code or 0, capsys.readouterr().err


@pytest.fixture
def stand_ins(world, tmp_path):
    """Pictures of the gallery in the place of pseudo-targets, one a query of cirr/val."""
    benchmark = load_benchmark("cirr/val", world)
    others = list(benchmark.images.values())
    folder = tmp_path / "pseudo"
    folder.mkdir()
    for query, path in zip(benchmark.queries, others[20:], strict=False):
        shutil.copy(path, folder / f"{int(query.id):05d}.png")
    return folder


@pytest.fixture
def evaluated(world, tmp_path, capsys, monkeypatch):
    """cig evaluate cirr/val --method searle FLAGS -> (scores.json, rankings)."""
    monkeypatch.chdir(tmp_path)
    weights = "--clip", world / "models/clip-small", "--phi", world / "models/phi-small.pt"

    def go(*flags):
        cache = "--feature-cache", tmp_path / "features"
        files = "--json", tmp_path / "scores.json", "--rankings", tmp_path / "rankings.json"
        code, err = run(capsys, "evaluate", "cirr/val", "--dataset-path", world, *weights, *cache, *files, *flags)
        assert code == 0, err
        return json.loads((tmp_path / "scores.json").read_text()), (tmp_path / "rankings.json").read_text()

    return go


# Fusion by hand


def test_fusion_by_hand():
    """Query 0 has both branches, query 1 one of them, query 2 none, and the reference has no weight."""
    reference = torch.eye(4)[:3]
    first = BranchFeatures(torch.tensor([0, 1]), torch.eye(4)[[3, 3]])
    second = BranchFeatures(torch.tensor([0]), torch.eye(4)[[2]])
    fused = fuse(reference, [(first, 0.25), (second, 0.5)])
    assert torch.allclose(fused[0], torch.tensor([0.25, 0, 0.5, 0.25]) / 0.375**0.5)
    assert torch.allclose(fused[1], torch.tensor([0, 0.5, 0, 0.5]) / 0.5**0.5), "0.25 and 0.25 are left"
    assert torch.equal(fused[2], reference[2])
    alone = fuse(reference, [(first, 0.4), (second, 0.6)])
    assert torch.allclose(alone[1], torch.eye(4)[3])
    assert torch.equal(alone[2], reference[2]), "nothing with a weight is left but the reference"


@pytest.mark.parametrize("weights", [(0.7, 0.4), (-0.1,), (1.5,), (float("nan"),)])
def test_weights_that_cannot_be_are_told(weights):
    with pytest.raises(UsageError, match="each from 0 to 1, all together 1 at most"):
        fuse(torch.eye(2), [(BranchFeatures(torch.tensor([0]), torch.eye(2)[:1]), weight) for weight in weights])


def test_several_pictures_a_query_are_averaged_as_unit_features(world):
    benchmark = load_benchmark("cirr/val", world)
    image = load_method("image", Source(clip=str(world / "models/clip-small")))
    paths = list(benchmark.images.values())[:2]
    branch = Branch("two", {benchmark.queries[3].id: tuple(paths)}, 0.5)
    pictures = embed_pictures(image, wanted_pictures(benchmark, image, [branch]))
    rows = embed(benchmark, image, [branch], pictures=pictures).branches["two"]
    unit = torch.nn.functional.normalize(pictures.of(paths), dim=-1)
    assert rows.queries.tolist() == [3]
    assert torch.allclose(rows.features[0], torch.nn.functional.normalize(unit.sum(0), dim=-1), atol=1e-6)


def test_a_branch_of_other_picture_features_is_refused(world):
    benchmark = load_benchmark("cirr/val", world)
    small, large = (
        load_method("image", Source(clip=str(world / f"models/clip-{size}"))) for size in ("small", "large")
    )
    with pytest.raises(MismatchError, match="does not share the picture features"):
        search(benchmark, small, branches=[Branch("large", {}, 0.5, method=large)])


def test_a_branchs_clip_is_in_the_searchers_dtype(world):
    """LinCIR is in float16 on a GPU, others are not, and one gallery serves both."""
    small = str(world / "models/clip-small")
    searcher = load_method("image", Source(clip=small, dtype="bfloat16"))
    searching = Searching(method="image", clip=small, branches=(Branching("own", 0.5, method="text"),))
    made = Branches(searching, searcher, Compute(device="cpu"), cache=FeatureCache(), single=False)
    (branch,) = made.build(load_benchmark("cirr/val", world))
    assert branch.method.picture_model["dtype"] == "torch.bfloat16"
    assert same_pictures(branch.method, searcher)


def test_a_folder_whose_every_picture_was_refused_has_none(world, tmp_path):
    part, folder = load_benchmark("cirr/val", world), tmp_path / "refused"
    with pytest.raises(NotFoundError, match="has no pseudo-target"):
        find_pictures(tmp_path, part)
    Manifest(folder, {}).add({"id": part.queries[0].id, "accepted": False})
    assert find_pictures(folder, part) == {}
    other = dict.fromkeys(["accepted"], True), {"accepted": False, "query": "of another caption"}
    for number, line in enumerate(other):
        gone = tmp_path / f"gone-{number}"
        Manifest(gone, {}).add({"id": part.queries[0].id, **line})
        with pytest.raises(NotFoundError, match="has no pseudo-target"):
            find_pictures(gone, part)


# Asking


def test_a_branch_is_words_of_key_and_value():
    asked = parse("name=sketch 'pictures=my pictures/x' method=image caption=no weight=0.3")
    assert asked == Branching("sketch", 0.3, "my pictures/x", "image", caption=False)
    control = parse("name=control pictures=reference-image weight=0.3")
    assert (control.method, control.caption) == ("image", False), "the picture alone, whoever searches"
    asked = parse("name=control pictures=reference-image caption=yes weight=0.3")
    assert (asked.method, asked.caption) == (None, True), "unless something else is asked for"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name=a", "needs a name and a weight"),
        ("name=a weight=x", "could not convert"),
        ("name=a weight=.1 captoin=no", 'Did you mean "caption"'),
        ("name=a weight=.1 caption=perhaps", "yes or no"),
        ("name=a weight=.1 pictures=reference-augmented copies=0", "at least 1"),
        ("name=a weight=.1 pictures=reference-vae side=0", "side=0 should be 8 to 2048 pixels"),
        ("name=a weight=.1 pictures=reference-vae side=9000", "side=9000 should be 8 to 2048 pixels"),
        ("name=a weight", '"weight" is no KEY=VALUE'),
        ("name='a weight=.1", "No closing quotation"),
    ],
)
def test_wrong_branches_are_told(text, words):
    with pytest.raises(UsageError) as told:
        parse(text)
    assert words in str(told.value)
    assert "--branch" in str(told.value)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--branch", "name=a pictures=. weight=.6", "--branch", "name=b pictures=. weight=.6"], "1 at most"),
        (["--branch", "name=a pictures=. weight=.1", "--branch", "name=a pictures=. weight=.1"], 'called "a"'),
        (["--branch", "name=reference pictures=. weight=.1"], 'called "reference"'),
        (["--branch", "name=a pictures=. weight=.1", "--fusion-weight", ".5"], "each branch has its own weight"),
        (["--branch", "name=a pictures=nowhere weight=.1"], "nowhere is not a folder"),
        (["--branch", "name=a pictures=oracel weight=.1"], 'Did you mean "oracle"'),
        (["--branch", "name=a pictures=shuffled weight=.1"], "give that folder"),
        (["--branch", "name=a pictures=. weight=.1", "--generated-image-dir", "."], "no branch looks at"),
        (["--branch", "name=a pictures=oracle method=text weight=.1"], "looks at no picture; leave pictures out"),
        (["--branch", "name=a weight=.1"], "give them with pictures="),
        (["--branch", "name=a pictures=. weight=.1"], "no pseudo-target of cirr/val"),
    ],
)
def test_branches_that_do_not_go_together_exit_2(world, tmp_path, monkeypatch, capsys, flags, words):
    monkeypatch.chdir(tmp_path)
    weights = "--clip", world / "models/clip-small", "--phi", world / "models/phi-small.pt"
    code, err = run(capsys, "evaluate", "cirr/val", "--dataset-path", world, *weights, *flags)
    assert (code, words in err) == (2, True), err
    assert "Traceback" not in err


def test_branches_of_cig_toml(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cig.toml").write_text('[[branch]]\nname = "a"\npictures = "p"\ncaption = false\nweight = 0.2\n')
    assert requested_branches([]) == (Branching("a", 0.2, "p", caption=False),)
    assert requested_branches(["name=b weight=.1"])[0].name == "b", "flags win"
    (tmp_path / "cig.toml").write_text('branch = "a"')
    with pytest.raises(UsageError, match=r"\[\[branch\]\]"):
        requested_branches([])


# Searching


def test_the_published_recipe_is_a_branch(evaluated, stand_ins):
    published, ranked = evaluated("--generated-image-dir", stand_ins)
    branch, same = evaluated("--branch", f"name=mine pictures={stand_ins} weight=0.15")
    assert ranked == same
    assert published["scores"] == branch["scores"]
    assert [own["name"] for own in branch["branches"]] == ["reference", "mine"]
    assert [own["weight"] for own in branch["branches"]] == [0.85, 0.15]
    assert branch["branches"][0]["source"] == "--branch"
    assert branch["changes"] == published["changes"]


def test_copies_of_one_picture_are_as_good_as_one(evaluated, stand_ins):
    _, one = evaluated("--generated-image-dir", stand_ins)
    for path in list(stand_ins.glob("*.png")):
        shutil.copy(path, path.with_stem(f"{path.stem}_0"))
        path.rename(path.with_stem(f"{int(path.stem)}_1"))
    assert evaluated("--generated-image-dir", stand_ins)[1] == one


def test_a_weight_of_1_leaves_the_branch_alone(evaluated, stand_ins, world):
    """The pseudo-target by image features alone: the gallery's own picture comes first, unless it is the reference."""
    _, ranked = evaluated("--branch", f"name=p pictures={stand_ins} method=image caption=no weight=1")
    benchmark = load_benchmark("cirr/val", world)
    names = list(benchmark.images)[20:]
    rows = json.loads(ranked)[""]
    firsts = [rows[query.id][0] for query in benchmark.queries]
    assert all(
        first == own
        for first, own, query in zip(firsts, names, benchmark.queries, strict=False)
        if own != query.reference
    )


def test_a_caption_branch_needs_no_pictures(evaluated):
    _, text = evaluated("--branch", "name=caption method=text weight=1")
    _, mixed = evaluated("--branch", "name=caption method=text weight=0.5")
    _, alone = evaluated()
    assert text != mixed != alone


def test_queries_that_lack_a_branch_are_named(evaluated, stand_ins):
    gone = sorted(stand_ins.glob("*.png"))[2]
    gone.unlink()
    _, alone = evaluated()
    scores, ranked = evaluated("--branch", f"name=mine pictures={stand_ins} weight=0.9")
    query = str(int(gone.stem))
    assert scores["missing"] == {"branch mine": {"": [query]}}
    assert json.loads(ranked)[""][query] == json.loads(alone)[""][query]
