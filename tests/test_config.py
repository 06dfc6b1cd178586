"""Paths and settings from cig.toml and the environment."""

import pytest

from cig import config
from cig.errors import InputError, UsageError


def test_a_path_is_the_default_or_that_of_cig_toml(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert config.path("phi_vit").as_posix() == "models/phi_best.pt"
    (tmp_path / "cig.toml").write_text('phi_vit = "/weights/a.pt"')
    assert config.path("phi_vit").as_posix() == "/weights/a.pt"


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
