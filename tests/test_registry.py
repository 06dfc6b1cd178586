"""A folder is the registry."""

import sys

import pytest

from cig import registry
from cig.errors import NotFoundError


def test_a_folder_is_the_registry(tmp_path, monkeypatch):
    baselines = ["basic", "bge-vl", "caption", "image", "product", "slerp", "sum", "text", "texts"]
    inversions = ["lincir", "oti", "pic2word", "searle"]
    assert registry.names("methods") == sorted([*baselines, *inversions, "precomputed"])
    (tmp_path / "third_party").mkdir()
    (tmp_path / "third_party/toy.py").write_text("SPLITS = {'val': 'val'}")
    monkeypatch.syspath_prepend(tmp_path)
    assert registry.load("benchmarks", "third_party.toy").SPLITS
    sys.modules.pop("third_party.toy")


def test_an_unknown_name_is_refused_with_those_there_are(message):
    with pytest.raises(NotFoundError) as caught:
        registry.load("methods", "summ")
    message("registry: unknown method", caught.value)
