"""Paths and settings from cig.toml and the environment."""

from pathlib import Path

import pytest

from cig import config
from cig.cli.branch_flags import requested_branches
from cig.cli.main import main
from cig.errors import InputError, UsageError
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
