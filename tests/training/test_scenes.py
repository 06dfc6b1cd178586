"""Pictures of files as scenes: frames on numbers one can check by eye, tables and folders, what is left out."""

import json
from random import Random

import numpy as np
import pytest
import torch
from PIL import Image

from cig.errors import InputError, NotFoundError, PixelsError, UsageError
from cig.io.images import Preprocess
from cig.training.data import captioned_pictures, load_scenes, picture_checks
from cig.training.data.framing import Frame
from cig.training.data.picture_checks import check_pictures
from cig.training.data.scenes import augmented

SMALL = Frame(32)


def paint(path, colour="red", size=(64, 48)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)
    return path


def rows_of(scenes):
    """Name, captions, whether it has a reference."""
    return [(one.name, one.captions, one.reference is not None) for one in scenes.examples]


# Frames


def test_a_frame_by_hand():
    """200 x 100 at 64: the short side becomes 64, the long one 128; the middle begins at 32."""
    frame = Frame(64)
    assert frame.resized((200, 100)) == (128, 64)
    assert frame.conditioning((200, 100), "a") == (100, 200, 0, 32, 64, 64)
    assert frame.conditioning((100, 200), "a") == (200, 100, 32, 0, 64, 64)
    assert frame.conditioning((30, 30), "a") == (30, 30, 0, 0, 64, 64)


def test_a_random_crop_is_the_pictures_own():
    frame = Frame(64, "random")
    lefts = [frame.corner((200, 100), str(i))[0] for i in range(50)]
    assert lefts == [frame.corner((200, 100), str(i))[0] for i in range(50)]
    assert 0 <= min(lefts) < 10 < 54 < max(lefts) <= 64
    assert frame.corner((64, 64), "any") == (0, 0)


def test_what_is_cut_is_what_is_said():
    image = Image.new("RGB", (128, 64), "black")
    image.paste("white", (64, 0, 128, 64))
    pixels = Frame(64).cut(image, "a")
    assert (pixels.shape, pixels.min().item(), pixels.max().item()) == ((3, 64, 64), -1.0, 1.0)
    assert pixels[:, :, :32].mean().item() == -1
    assert pixels[:, :, 32:].mean().item() == 1


def test_wrong_frames():
    with pytest.raises(UsageError, match="multiple of 8"):
        Frame(100)
    with pytest.raises(PixelsError, match="resized"):
        Frame(1024).resized((1, 10**7))


def test_an_augmented_view_is_of_the_seed_and_shows_half_or_more():
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 80, 3), dtype=np.uint8))
    one, two = augmented(image, Random(1)), augmented(image, Random(2))
    assert one.tobytes() == augmented(image, Random(1)).tobytes()
    assert one.tobytes() != two.tobytes()
    areas = [view.width * view.height / 4800 for view in (augmented(image, Random(i)) for i in range(40))]
    assert 0.48 < min(areas) < 0.6 < 0.9 < max(areas) <= 1


# Pictures with captions


def test_a_table_of_pictures(tmp_path):
    paint(tmp_path / "pictures/a.png", "blue", (48, 96))
    paint(tmp_path / "b.png")
    (tmp_path / "t.csv").write_text("picture,caption\npictures/a.png,a blue thing\nb.png,\n")
    scenes = load_scenes(str(tmp_path / "t.csv"), frame=SMALL)
    assert rows_of(scenes) == [("0: pictures/a.png", ("a blue thing",), False), ("1: b.png", (), False)]
    assert scenes.pictures([0, 1]).shape == (2, 3, 32, 32)
    assert scenes.pictures([0])[0, :, 0, 0].tolist() == [-1, -1, 1]
    assert scenes.framing([0, 1]).tolist() == [[96, 48, 16, 0, 32, 32], [48, 64, 0, 5, 32, 32]]
    assert scenes.said([0, 1], 0, Random(0)) == ["a blue thing", ""]
    assert scenes.seen([0, 1], 0, 16, rng=Random(0)).shape == (2, 3, 16, 16)
    assert torch.equal(scenes.seen([0], 0, 16, rng=Random(0)), scenes.seen([0], 0, 16, rng=Random(0)))
    shown = scenes.references([0, 1], 0, Random(0))
    assert shown.shape == (2, 3, 32, 32)
    tint = Preprocess(32, rgb_first=True)(Image.fromarray(np.uint8((shown[0].permute(1, 2, 0) + 1) * 127.5 + 0.5)))
    assert torch.allclose(tint, scenes.seen([0], 0, 32, rng=Random(0))[0], atol=0.05), "the view that a CLIP sees"
    assert scenes.identity["pictures"] == "2"


def test_a_table_as_image_folders_have_it_and_elsewhere(tmp_path):
    paint(tmp_path / "home/a.png")
    (tmp_path / "metadata.jsonl").write_text(json.dumps({"file_name": "a.png", "text": ["one", "two"]}))
    scenes = load_scenes(str(tmp_path / "metadata.jsonl"), frame=SMALL, root=tmp_path / "home")
    assert {scenes.said([0], 0, Random(i))[0] for i in range(20)} == {"one", "two"}


def test_a_folder_of_pictures_with_texts_beside_them(tmp_path):
    paint(tmp_path / "deep/a.jpg")
    paint(tmp_path / "b.png")
    (tmp_path / "deep/a.txt").write_text(" a red thing\n")
    scenes = load_scenes(str(tmp_path), frame=SMALL)
    assert sorted(rows_of(scenes)) == [("b.png", (), False), ("deep/a.jpg", ("a red thing",), False)]
    (tmp_path / "b.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match=r"b\.txt: no caption"):
        load_scenes(str(tmp_path), frame=SMALL)
    (tmp_path / "b.txt").write_text("long " * 20_000)
    with pytest.raises(InputError, match="a caption is shorter"):
        load_scenes(str(tmp_path), frame=SMALL)


# Triplets


def test_a_table_of_triplets(tmp_path):
    for name in ("a", "b"):
        paint(tmp_path / f"{name}.png", {"a": "red", "b": "lime"}[name])
    (tmp_path / "t.csv").write_text("reference,caption,target\na.png,is green,b.png\n")
    scenes = load_scenes(str(tmp_path / "t.csv"), frame=SMALL)
    assert rows_of(scenes) == [("0: a.png -> b.png", ("is green",), True)]
    assert scenes.pictures([0])[0, :, 0, 0].tolist() == [-1, 1, -1]
    as_composed = Preprocess(16, rgb_first=True)(Image.open(tmp_path / "a.png"))
    assert torch.equal(scenes.seen([0], 0, 16, rng=Random(0))[0], as_composed)
    assert scenes.references([0], 0, Random(0))[0, :, 0, 0].tolist() == [1, -1, -1], "red, for a UNet that is shown it"


def test_lascos_triplets(tmp_path):
    for name in ("a", "b"):
        paint(tmp_path / f"val2014/{name}.jpg")
    row = {"qid": 1, "query-image": [1, "val2014/a.jpg"], "query-text": "rides", "target-image": [2, "val2014/b.jpg"]}
    (tmp_path / "lasco_train.json").write_text(json.dumps([row]))
    scenes = load_scenes(str(tmp_path / "lasco_train.json"), frame=SMALL)
    assert rows_of(scenes) == [("0: val2014/a.jpg -> val2014/b.jpg", ("rides",), True)]


def edits(home):
    for folder, seeds in (("0000001", ["11", "12"]), ("0000002", ["7"])):
        for seed in seeds:
            for side, colour in enumerate(("red", "lime")):
                paint(home / folder / f"{seed}_{side}.jpg", colour)
        (home / folder / "prompt.json").write_text(json.dumps({"input": "x", "edit": "make it green", "output": "y"}))
    listed = [["0000001", ["11", "12"]], ["0000002", ["7"]], ["0000003", ["1"]]]
    (home / "seeds.json").write_text(json.dumps(listed))


def test_instruct_pix2pix_folders(tmp_path, capsys):
    edits(tmp_path)
    scenes = load_scenes(str(tmp_path), frame=SMALL)
    assert [name for name, _, _ in rows_of(scenes)] == ["0000001/11", "0000001/12", "0000002/7"]
    assert rows_of(scenes)[0][1:] == (("make it green",), True)
    assert scenes.pictures([0])[0, 1].mean().item() == pytest.approx(1, abs=0.02), "the picture after the edit"
    assert scenes.identity["left out"] == "1: 0000003"
    assert "1 of 4 examples" in capsys.readouterr().err


@pytest.mark.parametrize("entry", [["../up", ["1"]], ["a/b", ["1"]], ["a", ["../1"]], ["a", "1"], {}, ["a", [1]]])
def test_names_in_seeds_json_are_plain(tmp_path, entry):
    (tmp_path / "seeds.json").write_text(json.dumps([entry]))
    with pytest.raises(InputError, match=r"seeds\.json: expected"):
        load_scenes(str(tmp_path), frame=SMALL)


def test_fashioniq_says_both_orders(tmp_path):
    home = tmp_path / "fashioniq"
    for folder, name, content in (
        ("captions", "cap.dress.train.json", [{"candidate": "a", "target": "b", "captions": ["is red.", "is long"]}]),
        ("captions", "cap.shirt.train.json", [{"candidate": "a", "target": "gone", "captions": ["is blue", "is up"]}]),
        ("captions", "cap.toptee.train.json", [{"candidate": "b", "target": "a", "captions": ["is x", "is y"]}]),
        *(("image_splits", f"split.{part}.train.json", ["a", "b", "gone"]) for part in ("dress", "shirt", "toptee")),
    ):
        (home / folder).mkdir(parents=True, exist_ok=True)
        (home / folder / name).write_text(json.dumps(content))
    for name in ("a", "b"):
        paint(home / f"images/{name}.png")
    scenes = load_scenes("fashioniq/train", frame=SMALL, root=tmp_path)
    assert scenes.names([0, 1]) == ["dress/0/b", "toptee/0/a"]
    assert {scenes.said([0], 0, Random(i))[0] for i in range(20)} == {"is red and is long", "is long and is red"}
    assert scenes.identity["left out"] == "1: shirt/0/gone"


def test_cirr_trains_from_the_reference(tmp_path):
    home = tmp_path / "cirr"
    query = {"pairid": 12, "reference": "a", "target_hard": "b", "caption": "more dogs", "img_set": {"members": []}}
    for folder, name, content in (
        ("captions", "cap.rc2.train.json", [query]),
        ("image_splits", "split.rc2.train.json", {name: f"./train/3/{name}.png" for name in "ab"}),
    ):
        (home / folder).mkdir(parents=True, exist_ok=True)
        (home / folder / name).write_text(json.dumps(content))
    with pytest.raises(NotFoundError, match=r"no triplet of cirr/train has both its pictures \(1 are listed\)"):
        load_scenes("cirr/train", frame=SMALL, root=tmp_path)
    for name in "ab":
        paint(home / f"train/3/{name}.png")
    scenes = load_scenes("cirr/train", frame=SMALL, root=tmp_path)
    assert rows_of(scenes) == [("12/b", ("more dogs",), True)]


# What is wrong


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({"picture": "../secret.png", "caption": "x"}, "leads out of the folder"),
        ({"picture": "/etc/passwd", "caption": "x"}, "leads out of the folder"),
        ({"picture": "a\u0000b", "caption": "x"}, "should be a name"),
        ({"picture": None, "caption": "x"}, "should be a name"),
        ({"picture": "", "caption": "x"}, "leads out of the folder"),
        ({"picture": "a.png", "caption": 3}, "should be a text"),
        ({"picture": "a.png", "caption": "x" * 10_001}, "more than 10000 characters"),
    ],
)
def test_a_wrong_row_is_named(tmp_path, row, why):
    (tmp_path / "t.json").write_text(json.dumps([{"picture": "a.png", "caption": "x"}, row]))
    with pytest.raises(InputError, match=rf"row 1 \(counting from 0\): .*{why}"):
        load_scenes(str(tmp_path / "t.json"), frame=SMALL)


def test_a_column_that_is_not_there(tmp_path):
    (tmp_path / "t.csv").write_text("target,captoin\na.png,x\n")
    with pytest.raises(InputError, match="no column reference"):
        load_scenes(str(tmp_path / "t.csv"), frame=SMALL)


def test_what_cannot_be_read_is_named_and_left_out(tmp_path, capsys):
    paint(tmp_path / "good.png")
    paint(tmp_path / "long.png", size=(4000, 1))
    (tmp_path / "page.png").write_text("<html>not found</html>")
    whole = paint(tmp_path / "cut.png", size=(200, 200)).read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    rows = "".join(f"{name}.png,x\n" for name in ("good", "gone", "page", "cut", "long"))
    (tmp_path / "t.csv").write_text("picture,caption\n" + rows)
    scenes = load_scenes(str(tmp_path / "t.csv"), frame=Frame(8192))
    assert scenes.names([0]) == ["0: good.png"]
    assert scenes.identity["left out"] == "4: 1: gone.png, 2: page.png, 3: cut.png, 4: long.png"
    assert "4 of 5 examples" in capsys.readouterr().err
    (tmp_path / "t.csv").write_text("picture,caption\ngone.png,x\n")
    with pytest.raises(InputError, match=r"none of its 1 examples can be trained on: .*gone\.png is not there"):
        load_scenes(str(tmp_path / "t.csv"), frame=SMALL)


def test_of_two_columns_for_captions_ours_goes_first(tmp_path):
    paint(tmp_path / "a.png")
    (tmp_path / "t.csv").write_text("picture,text,caption\na.png,OCR junk,a boat\n")
    assert captioned_pictures.of_table(tmp_path / "t.csv")[0].captions == ("a boat",)
    (tmp_path / "t.csv").write_text("picture,text,captions\na.png,OCR junk,a boat\n")
    with pytest.raises(InputError, match="both mean caption"):
        captioned_pictures.of_table(tmp_path / "t.csv")


def test_examples_without_a_caption_are_counted(tmp_path, capsys):
    for name in ("a", "b"):
        paint(tmp_path / f"{name}.png")
    (tmp_path / "a.txt").write_text("a boat")
    scenes = load_scenes(str(tmp_path), frame=Frame(8))
    assert scenes.identity["without a caption"] == "1: b.png"
    assert "1 of 2 examples" in capsys.readouterr().err
    with pytest.raises(UsageError, match="no --dataset-path"):
        load_scenes(str(tmp_path), frame=Frame(8), root=tmp_path)


def test_what_was_looked_at_is_remembered_as_it_goes(tmp_path, monkeypatch):
    for name in "abc":
        paint(tmp_path / f"{name}.png")
    monkeypatch.setattr(picture_checks, "AT_ONCE", 2)
    looks = iter([picture_checks.check_images])

    def stop_at_the_second(paths, workers, what):
        return next(looks)(paths, workers, what)

    monkeypatch.setattr(picture_checks, "check_images", stop_at_the_second)
    with pytest.raises(StopIteration):
        check_pictures([tmp_path / f"{name}.png" for name in "abc"], Frame(8), tmp_path / "seen.json")
    assert len(json.loads((tmp_path / "seen.json").read_text())) == 2


def test_remembered_pictures_are_bounded_too(tmp_path, monkeypatch):
    paint(tmp_path / "a.png")
    check_pictures([tmp_path / "a.png"], Frame(8), tmp_path / "seen.json")
    monkeypatch.setattr("cig.io.images._max_pixels", 4)
    _, failed = check_pictures([tmp_path / "a.png"], Frame(8), tmp_path / "seen.json")
    assert "--max-pixels" in failed[tmp_path / "a.png"]


def test_a_rerun_looks_at_changed_pictures_alone(tmp_path, monkeypatch):
    for name in ("a", "b"):
        paint(tmp_path / f"data/{name}.png")
    ledger, looked = tmp_path / "out/pictures.json", []
    real = picture_checks.check_images
    monkeypatch.setattr(
        picture_checks, "check_images", lambda paths, *rest: looked.append(len(paths)) or real(paths, *rest)
    )
    first, again = (load_scenes(str(tmp_path / "data"), frame=SMALL, ledger=ledger) for _ in range(2))
    assert first.identity == again.identity
    paint(tmp_path / "data/b.png", "lime", (50, 50))
    changed = load_scenes(str(tmp_path / "data"), frame=SMALL, ledger=ledger)
    assert looked == [2, 0, 1]
    assert changed.identity["digest"] != first.identity["digest"]
    ledger.write_text('{"x": 1}')
    assert load_scenes(str(tmp_path / "data"), frame=SMALL, ledger=ledger).identity == changed.identity
