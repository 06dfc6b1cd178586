"""Paths and settings from cig.toml and the environment."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from calls import run
from cig import config
from cig.cli.branch_flags import requested_branches
from cig.cli.main import main
from cig.errors import InputError, UsageError
from cig.io.feature_cache import FeatureCache
from cig.methods import Source


def test_a_path_is_the_default_or_that_of_cig_toml(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert config.path("phi_vit").as_posix() == "models/phi_best.pt"
    (tmp_path / "cig.toml").write_text('phi_vit = "/weights/a.pt"')
    assert config.path("phi_vit").as_posix() == "/weights/a.pt"


@pytest.fixture
def below(tmp_path, monkeypatch):
    """A working folder two below that of a cig.toml."""
    (tmp_path / "project/a/b").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "project/a/b")
    return tmp_path / "project"


def test_default_places_are_below_the_nearest_cig_toml(below):
    (below.parent / "cig.toml").write_text('phi_giga = "/never.pt"')
    (below / "cig.toml").write_text('phi_vit = "own/a.pt"\ncirco = "/data/CIRCO"')
    shown = [config.path(key).as_posix() for key in ("phi_vit", "phi_giga", "cirr", "mine", "circo")]
    assert shown[:4] == [f"../../{place}" for place in ("own/a.pt", "models/phi_best_giga.pt", *MINE)]
    assert shown[4] == "/data/CIRCO"
    assert Source().models.as_posix() == "../../models"


MINE = "datasets/CIRR", "datasets/mine"


def test_settings_of_a_file_above_that_are_paths_lead_below_its_folder(below):
    """Also a path that is still to be made; a name that may be a hub id is a path where there is such a folder."""
    (below / "models/clip").mkdir(parents=True)
    (below / "text").mkdir()
    (below / "models/captions.csv").touch()
    (below / "cig.toml").write_text(
        '[search]\nmethod = "text"\nclip = "models/clip"\nfeature_cache = "new"\nfusion_weight = 0.5\n'
        'method_option = "captions=models/captions.csv"\n[compose]\nclip = "openai/clip"\nclip2 = "./typo"'
    )
    expected = {
        "search.method": "text",
        "search.clip": "../../models/clip",
        "search.feature_cache": "../../new",
        "search.fusion_weight": "0.5",
        "search.method_option": "captions=../../models/captions.csv",
        "compose.clip": "openai/clip",
        "compose.clip2": "../../typo",
    }
    found = {name: config.value(*name.split(".")) for name in expected}
    assert {name: setting.value for name, setting in found.items()} == expected
    assert {setting.source for setting in found.values()} == {"../../cig.toml"}


def test_branches_of_a_file_above_have_their_pictures_below_its_folder(below):
    for name in ("sketches", "oracle", "clip"):
        (below / name).mkdir()
    (below / "cig.toml").write_text(
        '[[branch]]\nname = "a"\npictures = "sketches"\nweight = 0.1\nmethod = "text clip=clip"\n'
        '[[branch]]\nname = "b"\npictures = "oracle"\nweight = 0.1\n'
    )
    a, b = requested_branches(())
    assert (a.pictures, a.method, b.pictures) == ("../../sketches", "text clip=../../clip", "oracle")


def test_the_environments_paths_are_those_of_the_working_folder(below, monkeypatch):
    (below / "cig.toml").write_text('phi_vit = "a.pt"')
    monkeypatch.setenv("CIG_PHI_VIT", "mine.pt")
    assert config.path("phi_vit").as_posix() == "mine.pt"


def test_what_is_not_a_file_is_not_a_project(below):
    (below / "cig.toml").mkdir()
    assert config.project() == Path()


def test_the_command_line_says_which_file_above_it_reads(below, capsys):
    (below / "cig.toml").touch()
    with pytest.raises(SystemExit) as done:
        main(["evaluate", "cirr/val", "--method", "text", "--clip", "clip"])
    error = capsys.readouterr().err
    assert (done.value.code, "../../cig.toml" in error, "../../datasets/CIRR" in error) == (2, True, True)
    (below / "a/b/cig.toml").touch()
    with pytest.raises(SystemExit):
        main(["evaluate", "cirr/val", "--method", "text", "--clip", "clip"])
    assert "cig.toml" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "error", "id_"),
    [
        ('phi_vitt = "a"', UsageError, "config: unknown key"),
        ("phi_vit = 3", UsageError, "config: path that is a number"),
        ("phi_vit =", InputError, "config: not TOML"),
    ],
)
def test_a_wrong_cig_toml_is_refused(tmp_path, monkeypatch, message, text, error, id_):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cig.toml").write_text(text)
    with pytest.raises(error) as caught:
        config.path("phi_vit")
    message(id_, caught.value)


# A cig.toml of somebody else; folders without one


@pytest.mark.parametrize("part", ["cig.toml", "."])
def test_a_file_above_that_is_another_users_is_not_read(below, monkeypatch, caplog, part):
    """In a shared folder, anybody may put one above the folders of others; a file or its folder is theirs."""
    (below / "cig.toml").write_text('phi_vit = "theirs.pt"')
    status, theirs = config.os.stat, (below / part).resolve()

    def of_another(path, *args, **kwargs):
        found = status(path, *args, **kwargs)
        values = list(found)
        values[4] += Path(path).resolve() == theirs
        return type(found)(values)

    monkeypatch.setattr(config, "os", SimpleNamespace(**{**vars(config.os), "stat": of_another}))
    assert config.path("phi_vit").as_posix() == "models/phi_best.pt"
    assert [str(below / "cig.toml") in text for text in caplog.messages] == [True], "said once"
    (below / "a/b/cig.toml").write_text('phi_vit = "ours.pt"')
    assert config.path("phi_vit").as_posix() == "ours.pt"


def test_a_subfolder_of_a_folder_with_models_is_hinted_at(below, monkeypatch, capsys):
    """Where no cig.toml says which folder is the project's."""
    assert config.project_above() == ""
    (below / "models").mkdir()
    assert f"{below}/models may be meant" in config.project_above()
    code, _, err = run(capsys, "evaluate", "cirr/val", "--method", "searle")
    assert (code, f"{below}/cig.toml" in err) == (2, True)
    (below / "cig.toml").touch()
    assert config.project_above() == ""
    (below / "cig.toml").unlink()
    (below / "a/b/datasets").mkdir()
    assert config.project_above() == ""


# What is in force, and caches, without a place


@pytest.mark.parametrize("verb", ["search", "serve", "trial", "submit", "run"])
def test_config_shows_a_verbs_settings_without_its_arguments(tmp_path, monkeypatch, capsys, verb):
    monkeypatch.chdir(tmp_path)
    code, out, err = run(capsys, "config", verb)
    assert (code, err) == (0, "")
    assert any(line.split()[:2] == ["compute.device", "auto"] for line in out.splitlines())
    methods = {line.split()[1] for line in out.splitlines() if line.startswith("search.method ")}
    assert methods == {"bge-vl/base" if verb in ("search", "serve") else "searle"}


@pytest.mark.parametrize("words", [["nosuch"], ["run", "--nosuch"]])
def test_config_of_a_wrong_call(capsys, words):
    code, _, err = run(capsys, "config", *words)
    assert (code, "nosuch" in err) == (2, True)


def test_cache_without_a_folder_is_that_of_search(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    code, out, err = run(capsys, "cache")
    assert code == 0
    assert str(tmp_path / "home/cig") in out
    FeatureCache(tmp_path / "home/cig").close()
    code, out, err = run(capsys, "cache")
    assert (code, "0 features in" in out, str(tmp_path / "home/cig") in err) == (0, True, True)
    (tmp_path / "cig.toml").write_text('[search]\nfeature_cache = "kept"')
    code, out, err = run(capsys, "cache")
    assert (code, "kept has no features yet" in out) == (0, True)
    code, _, err = run(capsys, "cache", "elsewhere")
    assert (code, "elsewhere" in err) == (2, True)
