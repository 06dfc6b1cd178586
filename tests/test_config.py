"""Paths and settings from cig.toml and the environment."""

import pytest

from cig import config
from cig.errors import InputError, UsageError


def test_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert config.path("phi_vit").as_posix() == "models/phi_best.pt"
    (tmp_path / "cig.toml").write_text('phi_vit = "/weights/a.pt"')
    assert config.path("phi_vit").as_posix() == "/weights/a.pt"
    (tmp_path / "cig.toml").write_text('phi_vitt = "a"')
    with pytest.raises(UsageError, match='Did you mean "phi_vit"'):
        config.path("phi_vit")
    (tmp_path / "cig.toml").write_text("phi_vit = 3")
    with pytest.raises(UsageError, match="a path in quotes"):
        config.path("phi_vit")
    (tmp_path / "cig.toml").write_text("phi_vit =")
    with pytest.raises(InputError, match="not TOML"):
        config.path("phi_vit")
