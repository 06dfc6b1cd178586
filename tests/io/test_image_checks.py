"""Files told apart by their content, and a hash that knows a picture again, on pictures one can check by eye."""

import io
import random

import numpy as np
import pytest
from PIL import Image

import tiny
from cig.io.image_checks import (
    ReadableImage,
    UnreadableImage,
    check_image,
    check_images,
    difference_hash,
    near_duplicates,
)


def packed(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    rng, folder = random.Random(0), tmp_path_factory.mktemp("drawn")
    for i in range(100):
        tiny.draw(rng, folder / f"{i}.jpg")
    return [folder / f"{i}.jpg" for i in range(100)]


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"", "empty"),
        (b"<!DOCTYPE html><title>404</title>", "web page"),
        (b"\xef\xbb\xbf\r\n <!-- shop -->\n<HTML><body>Sorry", "web page"),
        (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "web page"),
        (b'{"error": "not found"}', "no picture"),
        (b"%PDF-1.4 <html>", "no picture"),
        (b"\xff\xd8\xff\xe0\x00", "damaged"),
        (packed(Image.linear_gradient("L"))[:-100], "damaged"),
    ],
)
def test_what_is_no_picture_is_told_apart(tmp_path, data, kind):
    (tmp_path / "a.jpg").write_bytes(data)
    check = check_image(tmp_path / "a.jpg")
    assert isinstance(check, UnreadableImage)
    assert check.kind == kind
    assert check.why.partition(": ")[0] == f"{tmp_path}/a.jpg"


def test_a_folder_named_as_a_picture_and_a_truncated_jpeg_are_damaged(tmp_path, drawn):
    (tmp_path / "a.jpg").mkdir()
    (tmp_path / "b.jpg").write_bytes(drawn[0].read_bytes()[:-100])
    seen = check_images([tmp_path / "a.jpg", tmp_path / "b.jpg"], 2, "look")
    assert [check.kind for check in seen.values()] == ["damaged", "damaged"]


def test_too_many_pixels_are_told_from_damage(tmp_path, monkeypatch):
    monkeypatch.setattr("cig.io.images._max_pixels", 99)
    (tmp_path / "a.png").write_bytes(packed(Image.new("L", (10, 10))))
    assert check_image(tmp_path / "a.png").kind == "too large"


@pytest.mark.parametrize(
    ("image", "blank"),
    [
        (Image.new("RGB", (1, 1), "white"), True),
        (Image.new("P", (30, 20), 7), True),
        (Image.new("RGBA", (30, 20), (0, 0, 0, 9)), True),
        (Image.linear_gradient("L"), False),
    ],
)
def test_pictures_of_one_colour_are_blank(tmp_path, image, blank):
    (tmp_path / "a.png").write_bytes(packed(image))
    check = check_image(tmp_path / "a.png")
    assert isinstance(check, ReadableImage)
    assert (check.blank, check.size) == (blank, image.size)


def test_one_pixel_that_differs_is_not_blank(tmp_path):
    image = Image.new("RGB", (500, 500), "white")
    image.putpixel((250, 250), (254, 255, 255))
    (tmp_path / "a.png").write_bytes(packed(image))
    assert not check_image(tmp_path / "a.png").blank


def test_a_hash_has_a_bit_for_each_pixel_darker_than_its_right_neighbour():
    rising = Image.fromarray(np.tile(np.arange(9, dtype=np.uint8) * 20, (8, 1))).convert("RGB")
    assert difference_hash(rising) == 2**64 - 1
    assert difference_hash(rising.transpose(Image.Transpose.FLIP_LEFT_RIGHT)) == 0
    one = Image.new("L", (9, 8), 0)
    one.putpixel((8, 7), 50)  # the last pair of the last row
    assert difference_hash(one.convert("RGB")) == 1


def test_a_picture_saved_again_is_near_and_another_is_not(drawn):
    """JPEG at quality 75: 4 bits of 64 know most of them again; no two of the hundred drawings are that near."""
    images = [Image.open(path).convert("RGB") for path in drawn]
    hashes = np.array([difference_hash(image) for image in images], dtype=np.uint64)
    again = [Image.open(io.BytesIO(packed(image, "JPEG", quality=75))) for image in images]
    apart = np.bitwise_count(hashes ^ np.array([difference_hash(image) for image in again], dtype=np.uint64))
    assert (apart <= 4).mean() > 0.9
    assert (near_duplicates(hashes, 4) == -1).all()


def test_near_compares_all_pairs():
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 2**64, 101, dtype=np.uint64)
    hashes[7] = hashes[93] ^ np.uint64(0b1111)  # 4 bits
    hashes[50] = hashes[2] ^ np.uint64(0b11111)  # 5 bits
    hashes[60] = hashes[61]  # neighbours, in one block or in two
    neighbours = near_duplicates(hashes, 4)
    assert {i: int(neighbours[i]) for i in np.flatnonzero(neighbours >= 0).tolist()} == {7: 93, 93: 7, 60: 61, 61: 60}
    alike = near_duplicates(np.zeros(6, dtype=np.uint64), 0).tolist()
    assert all(other >= 0 and other != i for i, other in enumerate(alike))
    assert near_duplicates(hashes[:1], 64).tolist() == [-1], "a hash is not its own neighbour"
