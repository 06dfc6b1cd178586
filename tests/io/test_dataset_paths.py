"""Where files lie: homes of datasets, and pictures in their folders."""

from pathlib import Path

import pytest
from PIL import Image

from cig.errors import InputError, NotFoundError
from cig.io.dataset_paths import PassedOver, existing_part, find_home, is_walked, list_pictures, walk_pictures
from cig.io.images import read_picture
from cig.types import Benchmark


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


def names(root, passed=None):
    return [Path(entry.path).relative_to(root).as_posix() for entry in walk_pictures(root, passed)]


def test_pictures_of_a_tree_are_walked_without_hidden_ones(tmp_path):
    for name in ("b.JPG", "a/z.png", "a/deep/y.webp", ".hidden/x.png", "a/.x.png", "notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert names(tmp_path) == ["b.JPG", "a/z.png", "a/deep/y.webp"]


def test_links_to_folders_are_followed_once(tmp_path):
    home, outside = tmp_path / "home", tmp_path / "outside"
    for path in (home / "real/a.png", home / "z.png", outside / "deep/b.png"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    for name, target in {
        "again": home / "real",  # has the name that it has without the link
        "linked": outside,
        "loop": home,
        "self": home / "self",
        "twice": outside / "deep",
        "up": tmp_path,
    }.items():
        (home / name).symlink_to(target)
    (outside / "deep/back").symlink_to(outside)
    (home / "dead.png").symlink_to("nowhere")
    passed = PassedOver()
    assert names(home, passed) == ["z.png", "real/a.png", "linked/deep/b.png"]
    assert passed.lines == [
        "3 without suffix: a link to a folder that it lies in",
        "1 .png: neither a file nor a link to one",
        "1 without suffix: neither a file nor a link to one",
    ]
    assert is_walked(outside / "deep/new", home)
    assert not is_walked(tmp_path / "other", home)


def test_forms_that_are_opened_are_walked_and_others_counted(tmp_path):
    formats = {"a.BMP": "BMP", "b.gif": "GIF", "c.tif": "TIFF", "d.avif": "AVIF", "e.jfif": "JPEG", "f.JPE": "JPEG"}
    formats |= {"g.jp2": "JPEG2000", "h.ico": "ICO", "i.ppm": "PPM", "j.mpo": "JPEG", "k.apng": "PNG"}
    for name, form in formats.items():
        Image.new("RGB", (8, 8)).save(tmp_path / name, format=form)
        assert read_picture(tmp_path / name).image.size == (8, 8)
    for name in ("x.heic", "y.HEIC", "z.svg", "notes.txt"):
        (tmp_path / name).touch()
    passed = PassedOver()
    assert names(tmp_path, passed) == sorted(formats)
    listed = list_pictures([tmp_path])
    assert sorted(listed) == sorted(Path(name).stem for name in formats)
    for counted in (passed, listed.passed):
        assert [line.partition(":")[0] for line in counted.lines] == ["2 .heic", "1 .svg"]
        assert "HEIC" in counted.lines[0]


def test_a_folder_that_cannot_be_listed_is_passed_over_and_counted(tmp_path, close_folder):
    closed = close_folder(tmp_path / "lost+found")
    (tmp_path / "a.png").touch()
    passed = PassedOver()
    assert (names(tmp_path, passed), passed.lines) == (["a.png"], ["1 without suffix: a folder that cannot be listed"])
    with pytest.raises(InputError, match="cannot be listed"):
        names(closed, PassedOver())


def test_a_category_without_its_folder_names_the_flag(tmp_path):
    part = Benchmark("fashioniq/val", (), {}, (), (), drop_reference=False, weight=0.9, weight_source="", part="shirt")
    (tmp_path / "dress").mkdir()
    with pytest.raises(NotFoundError, match=r"shirt is not a folder.*--categories"):
        existing_part(tmp_path, part, single=False)
    assert existing_part(tmp_path, part, single=True) == tmp_path
