"""Where files lie: homes of datasets, and pictures in their folders."""

from pathlib import Path

import pytest
from PIL import Image

from cig.errors import NotFoundError
from cig.io.dataset_paths import find_home, list_pictures, walk_pictures


def test_find_home_and_pictures(tmp_path):
    (tmp_path / "FashionIQ/images").mkdir(parents=True)
    (tmp_path / "FashionIQ/marker").touch()
    assert find_home(tmp_path, "fashioniq", ["marker"]).name == "FashionIQ"
    assert find_home(tmp_path / "FashionIQ", "fashioniq", ["marker"]).name == "FashionIQ"
    with pytest.raises(NotFoundError, match="has none of other"):
        find_home(tmp_path, "fashioniq", ["other"])
    for name in ("a.png", "a.jpg", "b.WEBP", "c.txt", ".hidden"):
        Image.new("RGB", (2, 2)).save(tmp_path / "FashionIQ/images" / name, format="PNG")
    pictures = list_pictures([tmp_path / "none", tmp_path / "FashionIQ/images"])
    assert {stem: path.name for stem, path in pictures.items()} == {"a": "a.jpg", "b": "b.WEBP"}


def test_pictures_of_a_tree_are_walked_without_hidden_ones_or_links_to_folders(tmp_path):
    for name in ("b.JPG", "a/z.png", "a/deep/y.webp", ".hidden/x.png", "a/.x.png", "notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "loop").symlink_to(tmp_path)
    walked = [Path(entry.path).relative_to(tmp_path).as_posix() for entry in walk_pictures(tmp_path)]
    assert walked == ["b.JPG", "a/z.png", "a/deep/y.webp"]
