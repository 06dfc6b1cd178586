"""cig reproduce: the table of cells against the docs and the code, and cells run on icons and on the tiny world."""

import json
import os
import re
import shlex
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from cig import benchmarks, config, registry
from cig.cli.main import main
from cig.errors import CigError, IncompleteError, NotFoundError
from cig.generators import Composing, Generation
from cig.io.hub import need_model
from cig.methods import weights_of
from cig.pipelines.reproduce import reproduce as room
from cig.pipelines.reproduce.published import cells, find, imagining, to_markdown
from cig.pipelines.reproduce.run import CellRun, Places, commands
from cig.runtime import Compute

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module", autouse=True)
def _few(few_icons):
    """Twelve queries are enough for all of them."""


def run(capsys, *words):
    """(exit code, stdout, stderr)"""
    with pytest.raises(SystemExit) as done:
        main([str(word) for word in words])
    shown = capsys.readouterr()
    return done.value.code or 0, shown.out, shown.err


# The table


def test_the_docs_have_the_table():
    page = (DOCS / "reproduce.md").read_text()
    between = page.partition("<!-- cells -->\n")[2].partition("\n<!-- /cells -->")[0]
    assert between == to_markdown(), (
        "put what `python -m cig.pipelines.reproduce.published` prints between the marks of docs/reproduce.md"
    )


def test_icons_are_what_their_datasheet_measured():
    page = (DOCS / "icons.md").read_text()
    rows = dict(re.findall(r"^\| (\w+) \| (\d+\.\d\d \[.*\]) \|$", page, re.M))
    measured = {name: re.findall(r"([\d.]+) \[", cells) for name, cells in rows.items()}
    expected = {c.short: [f"{own:.2f}" for own in c.expected.values()] for c in cells() if c.family == "icons"}
    assert set(expected) == {"image", "text", "sum", "lincir", "pic2word"}
    assert {name: measured[name] for name in expected} == expected, "docs/icons.md and assets/published.toml differ"
    assert {tuple(cell.expected) for cell in cells() if cell.family == "icons"} == {("map@10", "recall@1", "recall@10")}


def test_published_numbers():
    """The gains of the paper, by eye."""
    gains = {"cirr/searle-xl": 2.48, "circo/searle-xl": 1.16, "cirr/lincir-g14": 0.8, "circo/lincir-g14": 0.93}
    for name, gain in {**gains, "fashioniq/lincir-l14": 0.32}.items():
        (base,), (more,) = find(name).expected.values(), find(f"{name}+cig").expected.values()
        assert more - base == pytest.approx(gain)
    assert find("cirr/text-l14").expected == {"recall@1": 22.05, "subset_recall@1": 61.69}


@pytest.mark.parametrize("cell", cells(), ids=lambda cell: cell.name)
def test_a_cell_is_of_something_that_exists(cell, world):
    weights = weights_of(cell.method)
    shipped = os.path.exists(weights.clip)
    assert cell.weights == (() if shipped else tuple(filter(None, (weights.clip, weights.phi))))
    assert (cell.run == "not run here") != shipped
    parts = benchmarks.load_benchmarks(cell.benchmark, None if shipped else world)
    judged = hasattr(registry.load("benchmarks", cell.family), "submission")
    assert cell.server == parts[0].hidden == judged
    assert set(cell.expected) <= set(parts[0].measures)
    assert cell.part == ("average" if len(parts) > 1 else "")
    assert cell.name.startswith(f"{cell.family}/")
    assert cell.name.endswith("+cig") == cell.imagined


def test_what_imagines_is_what_the_walk_takes_by_default():
    composing, generation = Composing(), Generation()
    places = [Path(config.PATHS[key]).name for key in ("phi_vit", "phi_giga", "sdxl_checkpoint")]
    repositories = [generation.sdxl_repo, generation.vae_repo]
    assert [*imagining()] == [composing.clip, composing.clip2, *places[:2], f"{places[2]}/unet", *repositories]


def test_an_unknown_cell_is_a_wrong_call(capsys):
    code, _, err = run(capsys, "reproduce", "cirr/searle-xl+gic")
    assert (code, 'Did you mean "cirr/searle-xl+cig"?' in err) == (2, True)


# What is not there


def test_all_that_is_lacking_is_named_with_what_to_type(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    code, out, err = run(capsys, "reproduce", "cirr/searle-xl+cig")
    assert (code, out) == (1, "")
    named = ["datasets/CIRR is not a folder", "SEARLE_ViT-L14.pt", "phi_best.pt", "phi_best_giga.pt", "unet"]
    for words in [*named, *imagining()[:2], *imagining()[-2:], "cig download cirr", "models download searle/l14\n"]:
        assert words in err
    assert err.rstrip().endswith("cig models download run\n    cig models download run --from-dir FOLDER")
    assert err.count(f"{imagining()[0]} is neither") == 1  # it composes and searches
    assert not list(tmp_path.iterdir())


def test_pseudo_targets_that_are_there_need_no_generator(world, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    line = ["cirr/searle-xl+cig", "--dataset-path", world, "--generated-image-dir", "pictures"]
    code, _, err = run(capsys, "reproduce", *line)
    assert code == 1
    assert "SEARLE_ViT-L14.pt" in err
    assert not any(words in err for words in ("datasets/CIRR", "phi_best", "unet", "sdxl"))


def test_a_model_in_the_hubs_cache_is_there_and_its_configuration_alone_is_not(tmp_path):
    home = tmp_path / "models--some--clip" / "snapshots" / ("0" * 40)
    home.mkdir(parents=True)
    (home / "config.json").write_text("{}")
    with pytest.raises(NotFoundError, match=r"some/clip is neither a folder nor in the hub's cache.*--clip2"):
        need_model("some/clip", ("model.safetensors",), tmp_path, flag="--clip2")
    (home / "model.safetensors").write_bytes(b"")
    need_model("some/clip", ("model.safetensors", "pytorch_model.bin"), tmp_path, flag="--clip2")
    with pytest.raises(NotFoundError, match="no/such/hub/id"):
        need_model("no/such/hub/id", ("model.safetensors",), tmp_path, flag="--clip")


def test_the_list_says_what_can_be_run_here(world, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    os.symlink(world, tmp_path / "datasets")
    code, out, _ = run(capsys, "reproduce")
    blocks = {block[0].split()[0]: block for block in zip(*[iter(out.splitlines())] * 3, strict=False)}
    assert (code, [*blocks]) == (0, [cell.name for cell in cells()])
    assert blocks["icons/sum"][2].strip() == "can be run here"
    assert blocks["cirr/text-l14"][2].strip() == "lacks openai/clip-vit-large-patch14"  # the dataset is there
    for cell in cells():
        assert cell.what in blocks[cell.name][0]
        assert cell.claim in blocks[cell.name][1]
        assert cell.run in blocks[cell.name][1]


# What moves a number is the cell's


def test_a_configuration_says_where_things_lie_and_moves_no_number(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    moved = "steps = 3\nseed = 7\nguidance_scale = 9.0\nvae_tiling = true\nmodel_path = 'mine'\n"
    search = "[search]\nmethod = 'lincir'\nfusion_weight = 0.1\nclip = 'x'\nphi = 'y'\npreprocess_type = 'clip'\n"
    branch = "[[branch]]\nname = 'b'\nweight = 0.5\nmethod = 'text'\n"
    (tmp_path / "cig.toml").write_text(f"[generate]\n{moved}[compose]\nclip = 'c'\n{search}{branch}")
    asked = []
    result = SimpleNamespace(text="", need_sound=lambda: None)
    monkeypatch.setattr(room, "reproduce", lambda name, places: asked.append((name, places)) or result)
    run(capsys, "reproduce", "cirr/searle-xl+cig", "--search-batch-size", "8")
    ((name, places),) = asked
    assert places.generation == Generation(model_path=Path("mine"))
    assert places.composing == Composing(clip="c")
    searching = CellRun(find(name), places).searching
    own = searching.method, searching.clip, searching.phi, searching.preprocess_type
    own += searching.reference_weight, searching.branches
    assert own == ("searle-xl", None, None, None, None, ())
    assert (places.compute.batch_size, places.search_batch) == (4, 8)


def test_a_command_tells_what_is_not_the_default():
    own = Places(Path("d"), compute=Compute("cpu", batch_size=2), generation=Generation(offload="model"))
    (line,) = commands(CellRun(find("fashioniq/lincir-l14+cig"), own))
    told = "--dataset-path d --method lincir/l14 --offload model --out outputs/reproduce/fashioniq_val"
    assert line == f"cig run fashioniq/val {told} --device cpu --batch-size 2"


# Icons, with what the package ships


def expecting(monkeypatch, name, **changes):
    cell = replace(find(name), **changes)
    monkeypatch.setattr(room, "find", lambda _: cell)
    return cell


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """What evaluate says of the twelve queries."""
    path = tmp_path_factory.mktemp("measured") / "scores.json"
    with pytest.raises(SystemExit):
        main(["evaluate", "icons/val", "--method", "pic2word/icons", "--device", "cpu", "--json", str(path)])
    return json.loads(path.read_text())


def test_icons_from_end_to_end(measured, tmp_path, monkeypatch, capsys):
    scores = measured["scores"][""]
    near = {measure: round(scores[measure], 2) for measure in ("map@10", "recall@1", "recall@10")}
    expecting(monkeypatch, "icons/pic2word", expected=near)
    code, out, err = run(capsys, "reproduce", "icons/pic2word", "--device", "cpu", "--out", tmp_path)
    result = json.loads((tmp_path / "icons/pic2word.json").read_text())
    assert code == 0
    assert "$ cig evaluate icons/val --method pic2word/icons" in err
    assert result["expected"] == near
    assert result["measured"] == {measure: scores[measure] for measure in near}
    assert all(abs(own) <= 0.005 for own in result["difference"].values())
    assert (result["complete"], result["within"], result["tolerance"]) == (True, True, 0.1)
    assert result["intervals"]["map@10"] == measured["intervals"][""]["map@10"]
    assert result["provenance"]["models"] == measured["provenance"]["models"]
    assert re.search(rf"^map@10 +{near['map@10']:.2f} +{near['map@10']:.2f} \[.*\] +[+-]0.00$", out, re.M)


def test_another_number_than_expected_is_told_and_fails(measured, tmp_path, monkeypatch):
    scores = measured["scores"][""]
    expecting(monkeypatch, "icons/pic2word", expected={"recall@1": scores["recall@1"] + 0.11})
    places = Places(out=tmp_path, compute=Compute("cpu"))
    with pytest.raises(CigError, match=r"icons/pic2word is further than 0\.1"):
        room.reproduce("icons/pic2word", places).need_sound()
    result = json.loads((tmp_path / "icons/pic2word.json").read_text())
    assert (result["within"], result["difference"]) == (False, {"recall@1": pytest.approx(-0.11)})


# The tiny world, whose models are noise: the way is the real one


def small(world, out, **more):
    models = world / "models"
    composing = [f"{models}/clip-small", f"{models}/clip-large", models / "phi-small.pt", models / "phi-large.pt"]
    sdxl = f"{models}/sdxl"
    return Places(
        dataset=world,
        clip=f"{models}/clip-small",
        phi=models / "phi-small.pt",
        composing=Composing(*composing),
        generation=Generation(
            model_path=Path(sdxl),
            sdxl_repo=sdxl,
            vae_repo=f"{sdxl}/vae",
            height=32,
            width=32,
            steps=1,
            brightness_thresh=0.0,
        ),
        compute=Compute("cpu", batch_size=4),
        out=out,
        **more,
    )


@pytest.mark.slow
def test_cirr_with_pseudo_targets_from_end_to_end(world, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    reproduction = room.reproduce("cirr/searle-xl+cig", small(world, Path("out")))
    result, shown = reproduction.record, reproduction.text
    written = json.loads((tmp_path / "out/cirr/searle-xl+cig.json").read_text())
    assert written == json.loads(json.dumps(result))
    files = [f"out/cirr_test1/submission/{prefix}searle-xl+cig.json" for prefix in ("", "subset_")]
    assert (written["submissions"], written["problems"]) == (files, {})
    assert (written["measured"], written["difference"], written["complete"]) == (None, None, True)
    assert all(name in shown for name in files)
    assert "the server, which should then say: recall@1 26.72" in shown
    assert "not run here" in shown
    assert [branch["weight"] for branch in written["branches"]] == [0.5, 0.5]
    assert written["provenance"]["models"]["phi"]["sha256"]
    before = [Path(name).read_bytes() for name in files]
    for name in files:
        Path(name).unlink()
    told = [run(capsys, *shlex.split(line)[1:]) for line in written["commands"]]
    assert [code for code, _, _ in told] == [0, 0], told  # what was printed is what was done
    assert [Path(name).read_bytes() for name in files] == before


def test_a_base_and_its_pseudo_targets_share_what_was_computed(world, tmp_path):
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for i in range(9996, 9996 + 8):
        Image.new("RGB", (32, 32), (i % 256, 99, 20)).save(pictures / f"{i:05d}.png")
    base = room.reproduce("cirr/searle-xl", small(world, tmp_path / "out")).record
    more = room.reproduce("cirr/searle-xl+cig", small(world, tmp_path / "out", pseudo_targets=pictures)).record
    assert [len(own["branches"]) for own in (base, more)] == [1, 2]
    assert [own["commands"][0].split()[1] for own in (base, more)] == ["submit", "submit"]
    assert (tmp_path / "out/cirr_test1/features/features.sqlite").is_file()
    assert Path(base["submissions"][0]).read_bytes() != Path(more["submissions"][0]).read_bytes()


def test_fashioniq_with_a_picture_missing_is_not_comparable(world, tmp_path, capsys):
    home = shutil.copytree(world / "FashionIQ", tmp_path / "FashionIQ")
    names = json.loads((home / "image_splits/split.dress.val.json").read_text())
    references = {own["candidate"] for own in json.loads((home / "captions/cap.dress.val.json").read_text())}
    targets = {own["target"] for own in json.loads((home / "captions/cap.dress.val.json").read_text())}
    absent = next(name for name in names if name not in references | targets)
    (home / f"images/{absent}.jpg").unlink()
    places = replace(small(world, tmp_path / "out"), dataset=home)
    with pytest.raises(IncompleteError, match=f"not comparable: dress: gallery pictures missing.*{absent}"):
        room.reproduce("fashioniq/lincir-l14", places).need_sound()
    err = capsys.readouterr().err
    assert "fashioniq/val: 1 pictures that its annotations name are not there" in err
    assert "cig download fashioniq" in err
    result = json.loads((tmp_path / "out/fashioniq/lincir-l14.json").read_text())
    scores = json.loads((tmp_path / "out/fashioniq_val/lincir-l14.json").read_text())["scores"]
    mean = sum(scores[part]["recall@10"] for part in ("dress", "shirt", "toptee")) / 3
    assert result["measured"]["recall@10"] == pytest.approx(mean)
    assert result["difference"]["recall@10"] == pytest.approx(mean - 26.28)
    assert (result["complete"], result["within"]) == (False, None)
    assert result["missing"] == {"gallery": {"dress": [absent]}}


def test_circo_without_the_list_of_its_gallery_is_not_run(world, tmp_path, capsys):
    home = shutil.copytree(world / "CIRCO", tmp_path / "CIRCO")
    path = home / "COCO2017_unlabeled/annotations/image_info_unlabeled2017.json"
    path.unlink()
    places = replace(small(world, tmp_path / "out"), dataset=home)
    with pytest.raises(IncompleteError, match="the gallery of circo/test is not known") as told:
        room.reproduce("circo/searle-xl", places)
    assert f"its list {path} is not there" in str(told.value)
    assert str(told.value).endswith(f"To get it:\n    cig download circo --dataset-path {home}")
    assert not (tmp_path / "out").exists()
    assert "lacks circo/test" in room.listing(places)


def test_queries_that_could_not_run_are_named_and_what_was_measured_is_kept(world, tmp_path):
    home = shutil.copytree(world / "FashionIQ", tmp_path / "FashionIQ")
    reference = json.loads((home / "captions/cap.shirt.val.json").read_text())[0]["candidate"]
    (home / f"images/{reference}.jpg").unlink()
    places = replace(small(world, tmp_path / "out"), dataset=home)
    with pytest.raises(IncompleteError, match=f"no picture for the reference {reference}"):
        room.reproduce("fashioniq/lincir-l14", places).need_sound()
    assert not json.loads((tmp_path / "out/fashioniq/lincir-l14.json").read_text())["complete"]


def test_where_nothing_could_be_submitted_there_is_no_result(world, tmp_path):
    home = shutil.copytree(world / "CIRR", tmp_path / "CIRR")
    entries = json.loads((home / "cirr/captions/cap.rc2.test1.json").read_text())
    (home / f"test1/{entries[0]['reference']}.png").unlink()
    places = replace(small(world, tmp_path / "out"), dataset=home)
    stale = tmp_path / "out/cirr_test1/searle-xl.json"
    stale.parent.mkdir(parents=True)
    stale.write_text("{}")
    with pytest.raises(IncompleteError, match="nothing was written"):
        room.reproduce("cirr/searle-xl", places)
    assert not stale.exists()
    assert not (tmp_path / "out/cirr/searle-xl.json").exists()
