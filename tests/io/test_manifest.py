"""The settings that a manifest's folder states, as other programs may leave them."""

import json

import pytest

from cig.errors import InputError
from cig.io.manifest import Manifest


def test_settings_are_those_of_the_lines_there(tmp_path):
    (tmp_path / "manifest.jsonl").write_text('{"id": "1", "settings": "d"}')
    (tmp_path / "settings.json").write_text(json.dumps({"d": {"seed": 3, "models": {"vae": "x"}}, "e": {}}))
    assert Manifest.settings_used(tmp_path) == {"d": {"seed": 3, "models": {"vae": "x"}}}


@pytest.mark.parametrize(
    "settings", [[], {"d": 3}, {"d": {"models": 3}}, {"d": {"models": None}}, {"d": {"compose": "x"}}, {"d": []}]
)
def test_settings_of_other_types_are_named(tmp_path, settings):
    (tmp_path / "manifest.jsonl").write_text('{"id": "1", "settings": "d"}')
    (tmp_path / "settings.json").write_text(json.dumps(settings))
    with pytest.raises(InputError, match=r"settings\.json"):
        Manifest.settings_used(tmp_path)
