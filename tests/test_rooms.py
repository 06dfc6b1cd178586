"""The small rooms of the ground floor: plugins, runtime, settings, layout, report."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from cig import config, registry, runtime
from cig.errors import InputError, NotFoundError, UsageError, did_you_mean, some
from cig.evaluation import report
from cig.io.dataset_paths import find_home, list_pictures, walk_pictures
from cig.pipelines._models import need_embeddings
from cig.runtime import say
from cig.types import Report

# Plugins


def test_a_folder_is_the_registry(tmp_path, monkeypatch):
    baselines = ["caption", "image", "slerp", "sum", "text"]
    inversions = ["lincir", "oti", "pic2word", "searle"]
    assert registry.names("methods") == sorted([*baselines, *inversions, "precomputed"])
    (tmp_path / "third_party").mkdir()
    (tmp_path / "third_party/toy.py").write_text("SPLITS = {'val': 'val'}")
    monkeypatch.syspath_prepend(tmp_path)
    assert registry.load("benchmarks", "third_party.toy").SPLITS
    sys.modules.pop("third_party.toy")
    with pytest.raises(NotFoundError, match='Did you mean "sum"'):
        registry.load("methods", "summ")


# Runtime


def test_seeds():
    """Per query: the first 8 bytes of sha256 of "1600/cirr/val/7/0", mod 2^63."""
    assert runtime.seed_of("published", 1600, "cirr/val", "7", 2) == 1602
    assert runtime.seed_of("per-query", 1600, "cirr/val", "7", 0) == 1151054576656719478
    seeds = {runtime.seed_of("per-query", 1600, name, query, k) for name in "ab" for query in "cd" for k in range(3)}
    assert len(seeds) == 12
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_devices_and_dtypes():
    cpu = runtime.resolve_device("cpu")
    assert runtime.resolve_dtype("auto", cpu, on_gpu="float16") == torch.float32
    assert runtime.resolve_dtype("auto", torch.device("cuda"), on_gpu="float16") == torch.float16
    for wrong in ("cuda:99", "gpu"):
        with pytest.raises(UsageError, match="is not on this machine"):
            runtime.resolve_device(wrong)
    with pytest.raises(UsageError, match='Did you mean "float16"'):
        runtime.resolve_dtype("float1", cpu)


def test_a_run_on_the_cpu_is_measured_there_beside_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    with runtime.measured() as cost:
        pass
    assert cost.device.startswith("cpu (")


def test_an_installed_package_has_no_commit(tmp_path, monkeypatch):
    """Whoever keeps the environment in a checkout of their own."""
    (tmp_path / "mine.py").write_text("")
    (tmp_path / "site").mkdir()
    (tmp_path / "site/runtime.py").write_text("")
    own = ["git", "-C", str(tmp_path), "-c", "user.name=I", "-c", "user.email=i@example.org"]
    for words in (["init", "-q"], ["add", "mine.py"], ["commit", "-q", "-m", "mine"]):
        subprocess.run([*own, *words], check=True)
    monkeypatch.setattr(runtime, "__file__", str(tmp_path / "site/runtime.py"))
    assert runtime.commit() is None
    monkeypatch.setattr(runtime, "__file__", str(tmp_path / "mine.py"))
    assert len(runtime.commit() or "") == 40


def test_batches_are_fixed_by_position():
    assert [list(chunk) for chunk in runtime.batches(range(5), 2)] == [[0, 1], [2, 3], [4]]


def test_progress_is_told_where_there_is_no_terminal(monkeypatch, capsys):
    assert list(runtime.progress("ab", 2, "imagine", "batch")) == ["a", "b"]
    assert not capsys.readouterr().err
    monkeypatch.setattr(runtime, "TELL_EVERY", 0)
    assert list(runtime.progress("ab", 2, "imagine", "batch")) == ["a", "b"]
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("imagine: 1 of 2, ")
    assert second.endswith("s/batch, about 0 min left")


def test_progress_of_bytes(monkeypatch, capsys):
    came = iter([5_000_000, 10_000_000, 20_000_000])
    done = [0]

    def beats():
        for done[0] in came:
            yield

    monkeypatch.setattr(runtime, "TELL_EVERY", 0)
    assert len(list(runtime.progress_bytes(beats(), lambda: done[0], lambda: 20_000_000, "a.zip"))) == 3
    first, *_, last = capsys.readouterr().err.splitlines()
    assert first.startswith("a.zip: 5 of 20 MB, ")
    assert first.endswith("about 0 min left")
    assert last.startswith("a.zip: 20 of 20 MB, ")
    assert runtime._how_far(3_200_000_000, 20_000_000_000, 7e6) == "3,200 of 20,000 MB, 7.0 MB/s, about 40 min left"
    assert runtime._how_far(1_000_000, 0, 0.0) == "1 MB, 0.0 MB/s"


# Settings


def test_places(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert config.place("phi_vit").as_posix() == "models/phi_best.pt"
    (tmp_path / "cig.toml").write_text('phi_vit = "/weights/a.pt"')
    assert config.place("phi_vit").as_posix() == "/weights/a.pt"
    (tmp_path / "cig.toml").write_text('phi_vitt = "a"')
    with pytest.raises(UsageError, match='Did you mean "phi_vit"'):
        config.place("phi_vit")
    (tmp_path / "cig.toml").write_text("phi_vit = 3")
    with pytest.raises(UsageError, match="a path in quotes"):
        config.place("phi_vit")
    (tmp_path / "cig.toml").write_text("phi_vit =")
    with pytest.raises(InputError, match="not TOML"):
        config.place("phi_vit")


# Layout


def test_find_home_and_pictures(tmp_path):
    (tmp_path / "FashionIQ/images").mkdir(parents=True)
    (tmp_path / "FashionIQ/marker").touch()
    assert find_home(tmp_path, "fashioniq", ["marker"]).name == "FashionIQ"
    assert find_home(tmp_path / "FashionIQ", "fashioniq", ["marker"]).name == "FashionIQ"
    with pytest.raises(NotFoundError, match="has none of other"):
        find_home(tmp_path, "fashioniq", ["other"])
    for name in ("a.png", "a.jpg", "b.WEBP", "c.txt", ".hidden"):
        Image.new("RGB", (2, 2)).save(tmp_path / "FashionIQ/images" / name, format="PNG")
    found = list_pictures([tmp_path / "none", tmp_path / "FashionIQ/images"])
    assert {stem: path.name for stem, path in found.items()} == {"a": "a.jpg", "b": "b.WEBP"}


# Errors and report


def test_words_of_errors():
    assert did_you_mean("vla", ["val", "test"]) == ' Did you mean "val"? Choose from: val, test.'
    assert some(map(str, range(5)), 3) == "0, 1, 2 and 2 more"


def test_a_name_moves_no_terminal(capsys):
    say("not readable: \x1b[2J\x07.jpg\nand é\tso on \udcff")
    assert capsys.readouterr().err == "not readable: \\x1b[2J\\x07.jpg\nand é\tso on \\udcff\n"


def test_report_as_text_and_json():
    one = Report(
        "cirr/val", {"gallery": "all"}, {"": {"recall@1": 33.333}}, {"": {"recall@1": (0.0, 66.667)}}, {}, {}, {}
    )
    assert report.to_text(one).splitlines() == ["cirr/val  score", "recall@1   33.33 [0.00, 66.67]"]
    lost = replace(one, missing={"targets": {"": ["7", "9"]}})
    told = "queries whose target, or one of them, is missing (without any they score 0): 2 (7, 9)"
    assert report.to_text(lost).splitlines()[-1] == told
    written = report.to_json(one, "searle", [{"name": "reference"}], {"seconds": 1})
    assert " ".join(written) == (
        "benchmark protocol method branches scores intervals per_query missing counts changes provenance"
    )


def test_report_as_markdown():
    scores, intervals = {"dress": {"recall@10": 33.333}}, {"dress": {"recall@10": (0.0, 66.667)}}
    moved = {"gained": 2, "lost": 1, "unchanged": 0, "worse_by_more_than_10": 25.0}
    one = Report("fashioniq/val", {"gallery": "full"}, scores, intervals, {}, {}, {}, {"dress": moved})
    branches = [{"name": "a | b\n<i>\ud800", "weight": 0.7, "source": "as published"}]
    provenance = {"commit": None, "versions": {"torch": "2"}, "models": {"clip": {"sha256": "ab", "licence": "MIT"}}}
    assert report.to_markdown(one, "searle", branches, provenance).splitlines() == [
        "# fashioniq/val: searle",
        "",
        "| measure | dress |",
        "| --- | --- |",
        "| Recall@10 | 33.33 [0.00, 66.67] |",
        "",
        "In percent, with 95% bootstrap intervals over queries.",
        "",
        "| branch | weight | source |",
        "| --- | --- | --- |",
        "| a \\| b &lt;i>? | 0.70 | as published |",
        "",
        "- dress: ranks of targets with pseudo-targets: 2 rose, 1 fell, 0 stayed; 25.0% fell by more than 10 ranks",
        "- gallery: full",
        "- versions: torch 2",
        "- model clip: sha256 ab, licence MIT",
    ]
    hidden = replace(one, scores={}, intervals={}, changes={})
    assert "measure" not in report.to_markdown(hidden, "searle", branches, {})


def test_pictures_of_a_tree_are_walked_without_hidden_ones_or_links_to_folders(tmp_path):
    for name in ("b.JPG", "a/z.png", "a/deep/y.webp", ".hidden/x.png", "a/.x.png", "notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "loop").symlink_to(tmp_path)
    walked = [Path(entry.path).relative_to(tmp_path).as_posix() for entry in walk_pictures(tmp_path)]
    assert walked == ["b.JPG", "a/z.png", "a/deep/y.webp"]


def test_a_category_may_be_a_part_of_a_folders_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out").mkdir()
    for place in ("out", "out/emb_{category}", "out/{category}", "{category}/emb", f"{tmp_path}/out/{{category}}/emb"):
        need_embeddings(Path(place))
    for place in ("none", "none/emb_{category}", "none/{category}"):
        with pytest.raises(NotFoundError, match="is not a folder of embeddings"):
            need_embeddings(Path(place))
