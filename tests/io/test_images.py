"""Preprocessing against the plain oracle, on every size and mode; what cannot be decoded is named."""

import io

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import oracle
from cig.errors import PictureError
from cig.io.images import Preprocess, limit_pixels, read_batches, read_picture, target_pad

MODES = ["RGB", "RGBA", "LA", "L", "P", "1", "CMYK", "I;16"]


def picture(path, size, mode="RGB", seed=0):
    noise = np.random.default_rng(seed).integers(0, 256, (size[1] // 8 + 1, size[0] // 8 + 1, 3), dtype=np.uint8)
    image = Image.fromarray(noise).resize(size)
    image = (
        Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
        if mode == "I;16"
        else image.convert(mode)
    )
    image.save(path)
    return path


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("size", [(224, 224), (300, 200), (97, 241), (225, 400), (31, 30)])
def test_stage_3_is_the_published_order(tmp_path, mode, size):
    path = picture(tmp_path / f"a{'.tif' if mode in ('CMYK', 'I;16') else '.png'}", size, mode)
    for pad in (True, False):
        assert torch.equal(Preprocess(pad=pad)(read_picture(path).image), oracle.stage3_pixels(path, pad)[0])


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "L"])
@settings(max_examples=12, deadline=None)
@given(size=st.tuples(st.integers(20, 600), st.integers(20, 600)))
def test_stage_1_is_transformers_own(tmp_path_factory, mode, size):
    path = picture(tmp_path_factory.mktemp("p") / "a.png", size, mode)
    ours, theirs = Preprocess(rgb_first=True)(read_picture(path).image), oracle.stage1_pixels(path)[0]
    assert torch.allclose(ours, theirs, atol=1e-5)


def test_crops_round_differently_for_odd_margins():
    """227 -> margin 1.5: stage 1 rounds down to 1, stage 3 to even, 2."""
    image = Image.fromarray(np.arange(227, dtype=np.uint8)[None].repeat(224, 0))
    left = [round(float(Preprocess(rgb_first=first)(image)[0, 0, 0]), 3) for first in (True, False)]
    column = [round((value / 255 - 0.48145466) / 0.26862954, 3) for value in (1, 2)]
    assert left == column


def test_target_pad_by_hand():
    """400 x 100: the short side grows to 400 / 1.25 = 320, by 110 on each end; 124 x 100 is under the ratio."""
    padded = target_pad(Image.new("L", (400, 100), 255))
    assert padded.size == (400, 320)
    assert np.asarray(padded)[:110].max() == 0 == np.asarray(padded)[-110:].max()
    assert target_pad(Image.new("L", (124, 100))).size == (124, 100)


def test_exif_rotation_is_not_applied(tmp_path):
    exif = Image.Exif()
    exif[274] = 6
    Image.new("RGB", (40, 20)).save(tmp_path / "a.jpg", exif=exif)
    assert read_picture(tmp_path / "a.jpg").image.size == (40, 20)


def jpeg():
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64), (200, 30, 30)).save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.mark.parametrize("data", [b"", b"<html>not found</html>", jpeg()[:300], jpeg()[:10]])
def test_broken_pictures_are_named(tmp_path, data):
    (tmp_path / "bad.jpg").write_bytes(data)
    with pytest.raises(PictureError, match=r"bad\.jpg"):
        read_picture(tmp_path / "bad.jpg")


@settings(max_examples=50, deadline=None)
@given(cut=st.integers(0, 600), at=st.integers(0, 600), byte=st.integers(0, 255))
def test_damaged_pictures_decode_or_raise_ours(tmp_path_factory, cut, at, byte):
    data = bytearray(jpeg())
    data[at % len(data)] = byte
    path = tmp_path_factory.mktemp("p") / "a.jpg"
    path.write_bytes(bytes(data[: len(data) - cut % len(data)]))
    try:
        read_picture(path)
    except PictureError as error:
        assert str(path) in str(error)  # noqa: PT017


def test_too_many_pixels_are_refused_before_decoding(tmp_path):
    picture(tmp_path / "a.png", (100, 100))
    limit_pixels(9999)
    try:
        with pytest.raises(PictureError, match="100 x 100 is over 9999 pixels"), pytest.warns(match="bomb"):
            read_picture(tmp_path / "a.png")
    finally:
        limit_pixels(2**28)


def test_batches_report_what_they_could_not_read(tmp_path):
    good = [picture(tmp_path / f"{i}.png", (50, 60), seed=i) for i in range(5)]
    (tmp_path / "bad.png").write_bytes(b"no")
    paths = [*good[:2], tmp_path / "bad.png", *good[2:]]
    batches = list(read_batches(paths, [Preprocess(), Preprocess(32)], 4))
    assert [len(batch.paths) for batch in batches] == [3, 2]
    assert [pixels.shape for pixels in batches[0].pixels] == [(3, 3, 224, 224), (3, 3, 32, 32)]
    assert [list(batch.failed) for batch in batches] == [[tmp_path / "bad.png"], []]
    only_bad = list(read_batches([tmp_path / "bad.png"], [Preprocess()], 4))
    assert only_bad[0].paths == ()
    assert only_bad[0].pixels == ()
