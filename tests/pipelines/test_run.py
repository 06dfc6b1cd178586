"""The five calls: parity with a plain oracle on a tiny world, and with the published code where it is at hand."""

import json
import shutil
import weakref
from importlib import metadata

import numpy as np
import pytest
import torch
from PIL import Image

import oracle
from cig.benchmarks import Data
from cig.cli.main import app
from cig.errors import IncompleteError, ShortMemoryError, UsageError
from cig.generators import Generation, sdxl
from cig.io import images
from cig.models import clip
from cig.pipelines.generate import generate as generate_from
from cig.runtime import Compute
from cig.training.objectives._unet import load_unet, widen

SDXL = ["--height", "64", "--width", "64", "--steps", "4", "--dtype", "float32", "--device", "cpu"]


def cig(*words):
    app([str(word) for word in words], result_action="return_value")


def extract(case, out, *data):
    models = case / "models"
    pair = ["--clip", models / "clip-small", "--clip2", models / "clip-large"]
    pair += ["--phi", models / "phi-small.pt", "--phi2", models / "phi-large.pt"]
    cig("extract", *data, "--text-embeddings-dir", out, *pair)


def generate(case, embeddings, out, *more):
    home = case / "models/sdxl"
    repos = ["--model-path", home, "--sdxl-repo", home, "--vae-repo", home / "vae"]
    cig("generate", *more, "--text-embeddings-dir", embeddings, "--save-path", out, *repos, *SDXL)


def searching(case, pictures):
    models = case / "models"
    pair = ["--clip", models / "clip-small", "--phi", models / "phi-small.pt"]
    return ["--method", "searle", *pair, "--generated-image-dir", pictures]


def cirr(case, split="test1"):
    return ["--dataset", "cirr", "--split", split, "--dataset-path", case / "CIRR"]


def circo(case, split="test"):
    return ["--dataset", "circo", "--split", split, "--dataset-path", case / "CIRCO"]


def fashioniq(case):
    return ["--dataset", "fashioniq", "--split", "val", "--dataset-path", case / "FashionIQ"]


def relative(a, b):
    return float((a - b).norm() / b.norm())


# Against the oracle, on a world made here: never skipped


@pytest.fixture(scope="module")
def done(world, tmp_path_factory):
    """Embeddings and pictures of every dataset, made by the command line."""
    out = tmp_path_factory.mktemp("out")
    for name, data in (("cirr", cirr(world)), ("circo", circo(world)), ("fashioniq", fashioniq(world))):
        extract(world, out / "embeddings" / name, *data)
        generate(world, out / "embeddings" / name, out / "images" / name, *data)
    return out


@pytest.fixture(scope="module")
def of_others(done, tmp_path_factory):
    """The pictures of the test splits, for val's queries of the same ids: without a manifest nobody knows."""
    out = tmp_path_factory.mktemp("of_others")
    for name in ("cirr", "circo"):
        shutil.copytree(done / "images" / name, out / name, ignore=shutil.ignore_patterns("*.json*"))
    return out


def entries(world, name):
    """(query id, file id, picture of the reference, captions) by the annotation files."""
    if name == "cirr":
        for entry in oracle.read(world / "CIRR/cirr/captions/cap.rc2.test1.json"):
            path = world / "CIRR/test1" / f"{entry['reference']}.png"
            yield "", str(entry["pairid"]), path, [entry["caption"]]
    elif name == "circo":
        for entry in oracle.read(world / "CIRCO/annotations/test.json"):
            path = world / f"CIRCO/COCO2017_unlabeled/unlabeled2017/{entry['reference_img_id']:012d}.jpg"
            yield "", str(entry["id"]), path, [entry["relative_caption"]]
    else:
        for category in ("dress", "shirt", "toptee"):
            for i, entry in enumerate(oracle.read(world / f"FashionIQ/captions/cap.{category}.val.json")):
                yield category, str(i), world / f"FashionIQ/images/{entry['candidate']}.jpg", entry["captions"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cirr", "circo", "fashioniq"])
def test_every_embedding_is_the_oracles(world, done, name):
    for category, query, path, captions in entries(world, name):
        caption = captions[0]
        if len(captions) == 2:
            caption = " and ".join(text.strip(".?, ") for text in captions)
        ours = torch.load(done / "embeddings" / name / category / f"{query}.pt", weights_only=True)
        theirs = oracle.embedding(world / "models", path, caption)
        assert set(ours) == set(theirs)
        assert all(relative(ours[key], theirs[key]) < 1e-5 for key in theirs), (category, query)


def test_a_unet_that_is_shown_the_reference_reads_it_beside_extracted_embeddings(world, done, tmp_path):
    """A picture that is torn since then: its queries are named, all others have a pseudo-target."""
    home = tmp_path / "CIRR"
    shutil.copytree(world / "CIRR", home)
    shutil.copytree(world / "models/sdxl", tmp_path / "sdxl")
    widen(load_unet(str(tmp_path / "sdxl"))).save_pretrained(tmp_path / "sdxl/unet")
    first, *others = entries(world, "cirr")
    torn = {query for _, query, path, _ in (first, *others) if path == first[2]}
    (home / "test1" / first[2].name).write_bytes(b"torn")
    models = {"model_path": tmp_path / "sdxl", "sdxl_repo": tmp_path / "sdxl", "vae_repo": tmp_path / "sdxl/vae"}
    data, compute = Data("cirr/test1", home), Compute("cpu", "float32")
    generation = Generation(**models, height=64, width=64, steps=2)
    with pytest.raises(IncompleteError, match=first[2].name):
        generate_from(data, compute, generation, embeddings=done / "embeddings/cirr", out=tmp_path / "out")
    assert {path.stem.lstrip("0") or "0" for path in (tmp_path / "out").glob("*.png")} == {
        query for _, query, *_ in others if query not in torn
    }
    (settings,) = json.loads((tmp_path / "out/settings.json").read_text()).values()
    assert settings["image_guidance"] == 1.5


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cirr", "circo", "fashioniq"])
def test_every_picture_is_the_oracles(world, done, name):
    pipe = oracle.pipeline(world / "models")
    for category, query, _, _ in entries(world, name):
        files = torch.load(done / "embeddings" / name / category / f"{query}.pt", weights_only=True)
        ours = np.asarray(Image.open(done / "images" / name / category / f"{int(query):05d}.png"), dtype=float)
        assert np.abs(ours - np.asarray(oracle.picture(pipe, files, 1600), dtype=float)).mean() < 0.01


def fused(world, done, name, category, query, path, captions, weight):
    picture = done / "images" / name / category / f"{int(query):05d}.png"
    reference, pseudo = (oracle.query_feature(world / "models", each, captions) for each in (path, picture))
    return torch.nn.functional.normalize(weight * reference + (1 - weight) * pseudo, dim=0)


def test_cirr_submission_is_the_oracles(world, done, tmp_path):
    cig(
        "submit",
        *cirr(world),
        *searching(world, done / "images/cirr"),
        "--submission-name",
        "x",
        "--output-dir",
        tmp_path,
    )
    ours, own = oracle.read(tmp_path / "x.json"), oracle.read(tmp_path / "subset_x.json")
    assert (ours.pop("metric"), own.pop("metric")) == ("recall", "recall_subset")
    assert ours.pop("version") == own.pop("version") == "rc2"
    names = list(oracle.read(world / "CIRR/cirr/image_splits/split.rc2.test1.json"))
    annotated = {str(e["pairid"]): e for e in oracle.read(world / "CIRR/cirr/captions/cap.rc2.test1.json")}
    for _, query, path, captions in entries(world, "cirr"):
        feature = fused(world, done, "cirr", "", query, path, captions, 0.5)
        paths = [world / "CIRR/test1" / f"{name}.png" for name in names]
        truth = oracle.ranking(feature, names, paths, world / "models", drop=path.stem)
        members = annotated[query]["img_set"]["members"]
        assert ours[query] == truth[:50]
        assert own[query] == [name for name in truth if name in members][:3]


@pytest.mark.slow
def test_circo_submission_is_the_oracles(world, done, tmp_path):
    cig(
        "submit",
        *circo(world),
        *searching(world, done / "images/circo"),
        "--submission-name",
        "x",
        "--output-dir",
        tmp_path,
    )
    ours = oracle.read(tmp_path / "x.json")
    paths = sorted((world / "CIRCO/COCO2017_unlabeled/unlabeled2017").glob("*.jpg"))
    names = [str(int(path.stem)) for path in paths]
    for _, query, path, captions in entries(world, "circo"):
        feature = fused(world, done, "circo", "", query, path, captions, 0.7)
        assert ours[query] == oracle.ranking(feature, names, paths, world / "models")[:50]


@pytest.mark.slow
def test_fashioniq_recalls_are_the_oracles(world, done, tmp_path):
    pictures = f"{done}/images/fashioniq/{{category}}"
    files = ["--json", tmp_path / "a.json", "--rankings", tmp_path / "b.json"]
    cig("evaluate", *fashioniq(world), *searching(world, pictures), *files)
    scores, rankings = oracle.read(tmp_path / "a.json")["scores"], oracle.read(tmp_path / "b.json")
    found = {category: [] for category in rankings}
    for category, query, path, captions in entries(world, "fashioniq"):
        feature = fused(world, done, "fashioniq", category, query, path, captions, 0.9)
        names = oracle.read(world / f"FashionIQ/image_splits/split.{category}.val.json")
        paths = [world / f"FashionIQ/images/{name}.jpg" for name in names]
        truth = oracle.ranking(feature, names, paths, world / "models")
        target = oracle.read(world / f"FashionIQ/captions/cap.{category}.val.json")[int(query)]["target"]
        assert rankings[category][query] == truth[:50]
        found[category].append(truth.index(target))
    for category, places in found.items():
        assert scores[category]["recall@10"] == pytest.approx(100 * np.mean([place < 10 for place in places]))
        assert scores[category]["recall@50"] == pytest.approx(100 * np.mean([place < 50 for place in places]))


# Around the calls


def test_results_name_their_protocol_and_provenance(world, done, tmp_path):
    pictures = f"{done}/images/fashioniq/{{category}}"
    cig("evaluate", *fashioniq(world), *searching(world, pictures), "--gallery", "val", "--json", tmp_path / "a.json")
    result = oracle.read(tmp_path / "a.json")
    assert result["protocol"]["gallery"].startswith("val: the union")
    assert [branch["weight"] for branch in result["branches"]] == [0.9, pytest.approx(0.1)]
    assert result["branches"][0]["source"] == "as published for FashionIQ val"
    provenance = result["provenance"]
    assert provenance["versions"]["torch"] == metadata.version("torch")
    assert len(provenance["models"]["phi"]["sha256"]) == len(provenance["picture_set"]) == 64
    assert result["missing"] == {}
    assert set(result["per_query"]["dress"]) == {str(i) for i in range(8)}


@pytest.mark.slow
@pytest.mark.parametrize("method", ["image", "text", "sum", "searle", "lincir"])
@pytest.mark.parametrize("name", ["cirr", "circo"])
def test_validation_runs_for_every_method(world, of_others, capsys, tmp_path, name, method):
    """With pseudo-targets where there are some: those of other queries will do for the shape of things."""
    models, data = world / "models", {"cirr": cirr, "circo": circo}[name](world, "val")
    pair = ["--clip", models / "clip-small"] + (
        ["--phi", models / "phi-small.pt"] if method in ("searle", "lincir") else []
    )
    pictures = ["--generated-image-dir", of_others / name]
    cig("evaluate", *data, "--method", method, *pair, *pictures, "--rankings", tmp_path / "a.json")
    cig("evaluate", *data, "--method", method, *pair, "--rankings", tmp_path / "b.json")
    shown = capsys.readouterr()
    assert ("map@5" if name == "circo" else "subset_recall@1") in shown.out
    same = oracle.read(tmp_path / "a.json") == oracle.read(tmp_path / "b.json")
    assert same == (method == "text"), "pseudo-targets move every method but text"
    assert ("they are not fused" in shown.err) == (method == "text")


def test_a_missing_pseudo_target_drops_the_branch_not_the_query(world, done, tmp_path, capsys):
    pictures = shutil.copytree(done / "images/cirr", tmp_path / "images")
    (pictures / "09996.png").unlink()
    for folder, name in ((pictures, "some"), (done / "images/cirr", "all")):
        cig("submit", *cirr(world), *searching(world, folder), "--submission-name", name, "--output-dir", tmp_path)
    assert "queries without a pseudo-target, searched by the reference alone: 1 (9996)" in capsys.readouterr().err
    some, every = oracle.read(tmp_path / "some.json"), oracle.read(tmp_path / "all.json")
    assert some.keys() == every.keys()
    assert {key for key in some if some[key] != every[key]} == {"9996"}


def test_a_rerun_of_extract_writes_nothing_and_resumes_to_the_same_bytes(world, done, tmp_path, capsys):
    out = shutil.copytree(done / "embeddings/cirr", tmp_path / "embeddings")
    files = {path.name: path.read_bytes() for path in out.glob("*.pt")}
    (out / "9998.pt").unlink()
    extract(world, out, *cirr(world))
    assert "1 embeddings written" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in out.glob("*.pt")} == files


# One run


def run(case, out, *data):
    models = case / "models"
    compose = ["--clip", models / "clip-small", "--clip2", models / "clip-large"]
    compose += ["--phi", models / "phi-small.pt", "--phi2", models / "phi-large.pt"]
    repos = ["--model-path", models / "sdxl", "--sdxl-repo", models / "sdxl", "--vae-repo", models / "sdxl/vae"]
    search = ["--search-clip", models / "clip-small", "--search-phi", models / "phi-small.pt"]
    cig("run", *data, *compose, *repos, *SDXL, *search, "--out", out)


def tree(folder, *patterns):
    return {
        path.relative_to(folder): path.read_bytes() for pattern in patterns for path in sorted(folder.rglob(pattern))
    }


@pytest.mark.slow
def test_one_run_is_the_single_verbs(world, done, tmp_path):
    run(world, tmp_path, *cirr(world))
    assert tree(tmp_path / "pseudo_targets", "*.png") == tree(done / "images/cirr", "*.png")
    one = ["--submission-name", "cirr_test1", "--output-dir", tmp_path / "verbs"]
    cig("submit", *cirr(world), *searching(world, done / "images/cirr"), *one)
    assert tree(tmp_path / "submission", "*.json") == tree(tmp_path / "verbs", "*.json") != {}
    page = (tmp_path / "report.html").read_text()
    assert "The targets are not public" in page
    assert page.count("<article") == 8


@pytest.mark.slow
def test_one_run_of_fashioniq(world, done, tmp_path):
    run(world, tmp_path, *fashioniq(world))
    assert tree(tmp_path / "pseudo_targets", "*.png") == tree(done / "images/fashioniq", "*.png")
    verbs = ["--json", tmp_path / "verbs.json", "--rankings", tmp_path / "verbs.rankings.json"]
    cig("evaluate", *fashioniq(world), *searching(world, done / "images/fashioniq"), *verbs)
    ours, theirs = oracle.read(tmp_path / "scores.json"), oracle.read(tmp_path / "verbs.json")
    assert all(ours[key] == theirs[key] for key in ("scores", "intervals", "per_query", "changes"))
    imagined = ours["provenance"]["imagined"].values()
    assert [(own["benchmark"], own["steps"]) for own in imagined] == [
        (f"fashioniq/val/{part}", 4) for part in ("dress", "shirt", "toptee")
    ]
    assert (tmp_path / "rankings.json").read_bytes() == (tmp_path / "verbs.rankings.json").read_bytes()
    assert (tmp_path / "report.html").read_text().count("<article") == 24
    assert f"{ours['scores']['shirt']['recall@10']:.2f}" in (tmp_path / "report.md").read_text()


@pytest.mark.slow
def test_a_second_run_loads_no_model_and_decodes_no_picture(world, tmp_path, monkeypatch):
    run(world, tmp_path, *cirr(world, "val"))
    before = tree(tmp_path, "*.png", "rankings.json", "manifest.jsonl")

    def never(*args, **options):
        raise AssertionError("was asked again")

    names = (
        "cig.models.clip.load_clip",
        "cig.generators.sdxl.load",
        "cig.io.images.read_picture",
        "cig.evaluation.html.read_picture",
    )
    for name in names:
        monkeypatch.setattr(name, never)
    run(world, tmp_path, *cirr(world, "val"))
    assert tree(tmp_path, "*.png", "rankings.json", "manifest.jsonl") == before


def test_a_second_cached_evaluation_touches_no_model(world, of_others, tmp_path, monkeypatch):
    line = ["evaluate", *cirr(world, "val"), *searching(world, of_others / "cirr"), "--feature-cache", tmp_path / "f"]
    cig(*line, "--rankings", tmp_path / "a.json")
    monkeypatch.setattr("cig.models.clip.load_clip", None)
    monkeypatch.setattr("cig.io.images.read_picture", None)
    cig(*line, "--rankings", tmp_path / "b.json")
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


def test_a_changed_picture_is_looked_at_again(world, of_others, tmp_path, monkeypatch):
    pictures = shutil.copytree(of_others / "cirr", tmp_path / "images")
    line = ["evaluate", *cirr(world, "val"), *searching(world, pictures), "--feature-cache", tmp_path / "f"]
    cig(*line)
    Image.new("RGB", (64, 64), "red").save(pictures / "09996.png")
    read, seen = images.read_picture, []
    monkeypatch.setattr("cig.io.images.read_picture", lambda path: seen.append(path.name) or read(path))
    cig(*line)
    assert seen == ["09996.png"]


@pytest.mark.slow
def test_nothing_of_the_composer_is_in_memory_when_the_generator_loads(world, tmp_path, monkeypatch):
    """Both towers of both CLIPs were loaded once, the picture towers first, for all queries together."""
    load_tower, load_generator = clip._load_tower, sdxl.load
    towers, alive = [], []

    def noted(kind, *where, **options):
        tower = load_tower(kind, *where, **options)
        if not options.get("device_map"):
            alive.append([name for name, reference in towers if reference()])
            towers.append((kind.__name__, weakref.ref(tower)))
        return tower

    def generator(*where, **options):
        alive.append([name for name, reference in towers if reference()])
        return load_generator(*where, **options)

    monkeypatch.setattr(clip, "_load_tower", noted)
    monkeypatch.setattr(sdxl, "load", generator)
    run(world, tmp_path, *cirr(world, "val"))
    vision, text = "CLIPVisionModelWithProjection", "CLIPTextModelWithProjection"
    assert alive[:5] == [[], [vision], [], [text], []], "what was in memory before each load, the generator's fifth"
    assert [name for name, _ in towers[:4]] == [vision, vision, text, text]


def test_extract_and_generate_with_nothing_to_do_load_nothing(world, done, tmp_path, monkeypatch, capsys):
    files = shutil.copytree(done / "embeddings/cirr", tmp_path / "embeddings")
    pictures = shutil.copytree(done / "images/cirr", tmp_path / "pictures")
    monkeypatch.setattr("cig.models.clip.load_clip", None)
    monkeypatch.setattr("cig.generators.sdxl.load", None)
    extract(world, files, *cirr(world))
    generate(world, files, pictures, *cirr(world))
    told = capsys.readouterr().err
    assert "0 embeddings written" in told
    assert "(0 queries done, 8 kept)" in told


@pytest.mark.parametrize("verb", ["generate", "run", "plan"])
def test_offload_on_a_cpu_is_refused_before_anything_loads(world, done, tmp_path, monkeypatch, verb):
    monkeypatch.setattr("cig.models.clip.load_clip", None)
    monkeypatch.setattr("cig.generators.sdxl.load", None)
    models = world / "models"
    line = [verb, *cirr(world), "--model-path", models / "sdxl", "--device", "cpu", "--offload", "sequential"]
    if verb == "generate":
        line += ["--text-embeddings-dir", done / "embeddings/cirr", "--save-path", tmp_path]
    else:
        line += ["--phi", models / "phi-small.pt", "--phi2", models / "phi-large.pt", "--out", tmp_path]
        line += ["--search-clip", models / "clip-small", "--search-phi", models / "phi-small.pt"]
    with pytest.raises(UsageError, match="--offload sequential"):
        cig(*line)


def test_memory_that_is_short_is_said_before_anything_loads(world, done, tmp_path, monkeypatch):
    monkeypatch.setattr("cig.machine.available_memory", lambda device: -(10**15))
    monkeypatch.setattr("cig.generators.sdxl.load", None)
    with pytest.raises(ShortMemoryError, match="--dtype float16"):
        extract(world, tmp_path / "embeddings", *cirr(world))
    with pytest.raises(ShortMemoryError, match="--dtype float16"):
        generate(world, done / "embeddings/cirr", tmp_path / "pictures", *cirr(world))
    with pytest.raises(ShortMemoryError, match="--dtype float16"):
        run(world, tmp_path / "run", *cirr(world))


# Against the published implementation


@pytest.fixture(scope="module")
def published_run(published, tmp_path_factory):
    out = tmp_path_factory.mktemp("published")
    extract(published, out / "embeddings", *cirr(published))
    generate(published, out / "embeddings", out / "images", *cirr(published))
    settings = oracle.read(published / "golden/cirr_test1_images_retry/settings.json")
    retry = ["--brightness-thresh", settings["brightness_thresh"], "--max-retries", settings["max_retries"]]
    generate(published, out / "embeddings", out / "images_retry", *cirr(published), *retry)
    return out


@pytest.mark.slow
def test_published_embeddings(published, published_run):
    files = sorted((published / "golden/cirr_test1_embeddings").glob("*.pt"))
    assert len(files) == 24
    for file in files:
        theirs = torch.load(file, weights_only=True)
        ours = torch.load(published_run / "embeddings" / file.name, weights_only=True)
        assert set(ours) == set(theirs)
        assert all(relative(ours[key], theirs[key]) < 1e-5 for key in theirs)


@pytest.mark.slow
@pytest.mark.parametrize("folder", ["images", "images_retry"])
def test_published_pictures(published, published_run, folder):
    theirs = {path.name: path for path in (published / f"golden/cirr_test1_{folder}").glob("*.png")}
    ours = {path.name: path for path in (published_run / folder).glob("*.png")}
    assert ours.keys() == theirs.keys()
    for name, path in ours.items():
        a, b = (np.asarray(Image.open(each), dtype=float) for each in (path, theirs[name]))
        assert np.abs(a - b).mean() < 0.01


@pytest.mark.slow
@pytest.mark.parametrize(("name", "data"), [("cirr_test1", cirr), ("circo_test", circo)])
def test_published_submissions(published, tmp_path, name, data):
    pictures = published / "pseudo_targets" / name
    cig(
        "submit",
        *data(published),
        *searching(published, pictures),
        "--submission-name",
        "golden",
        "--output-dir",
        tmp_path,
    )
    golden = published / f"golden/submission_{name.split('_')[0]}"
    assert sorted(path.name for path in golden.iterdir()) == sorted(path.name for path in tmp_path.iterdir())
    for path in golden.iterdir():
        assert oracle.read(tmp_path / path.name) == oracle.read(path)


@pytest.mark.slow
def test_published_fashioniq(published, tmp_path):
    pictures = f"{published}/pseudo_targets/fashioniq_val/{{category}}"
    files = ["--json", tmp_path / "a.json", "--rankings", tmp_path / "b.json"]
    cig("evaluate", *fashioniq(published), *searching(published, pictures), *files)
    scores, rankings = oracle.read(tmp_path / "a.json")["scores"], oracle.read(tmp_path / "b.json")
    for key, value in oracle.read(published / "golden/fashioniq_val.json").items():
        part, measure = key.split("_fiq_recall_at")
        assert round(scores[part][f"recall@{measure}"], 2) == value
    for category, ranked in rankings.items():
        assert list(ranked.values()) == oracle.read(published / f"golden/rank_{category}.json")


@pytest.mark.slow
def test_published_embeddings_can_be_generated_from(published, tmp_path):
    """A folder that the published extraction wrote, padded names or not, without a manifest."""
    golden = published / "golden"
    generate(published, golden / "cirr_test1_embeddings", tmp_path, *cirr(published))
    assert len(list(tmp_path.glob("*.png"))) == 24
    settings = json.loads((tmp_path / "settings.json").read_text())
    assert next(iter(settings.values()))["embeddings"] == ["foreign"]
