"""cig download circo and cirr, against a server of this machine's: zips, folders, kills, and what is told."""

import io
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from PIL import Image

import serving
from calls import run
from cig.benchmarks import load_benchmark
from cig.download import circo
from cig.io.resumable import Expected

pytestmark = pytest.mark.slow  # together they take long

PICTURES = 60  # of the tiny world, each split of CIRR, and CIRCO


@pytest.fixture(scope="session")
def zips(world, tmp_path_factory):
    """COCO's two zips in miniature."""
    folder, coco = tmp_path_factory.mktemp("zips"), world / "CIRCO" / "COCO2017_unlabeled"
    with zipfile.ZipFile(folder / "unlabeled2017.zip", "w") as file:
        file.mkdir("unlabeled2017")
        for path in sorted((coco / "unlabeled2017").iterdir()):
            file.write(path, f"unlabeled2017/{path.name}")
    with zipfile.ZipFile(folder / "image_info_unlabeled2017.zip", "w", zipfile.ZIP_DEFLATED) as file:
        file.write(coco / "annotations" / circo.LIST, f"annotations/{circo.LIST}")
    return folder


@pytest.fixture
def server(world, zips):
    """The authors' repositories and COCO's server at one address."""
    content = {"/zips/unlabeled2017.zip": (zips / "unlabeled2017.zip").read_bytes()}
    content["/annotations/image_info_unlabeled2017.zip"] = (zips / "image_info_unlabeled2017.zip").read_bytes()
    for split in ("val", "test"):
        content[f"/annotations/{split}.json"] = (world / f"CIRCO/annotations/{split}.json").read_bytes()
    for path in (world / "CIRR" / "cirr").rglob("*.json"):
        content[f"/{path.relative_to(world / 'CIRR' / 'cirr')}"] = path.read_bytes()
    with serving.serve(serving.Files(content)) as files:
        yield files


def asked_of(server, name, root, *flags):
    where = ["--annotations-from", server.url, *(["--pictures-from", server.url] if name == "circo" else [])]
    return ["download", name, "--dataset-path", str(root), *where, "--retries", "1", *map(str, flags)]


def tree(root):
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def row(out, title):
    """The cells of a table's line."""
    return next(line.split()[1:] for line in out.splitlines() if line.startswith(title))


# CIRCO


def test_circo_from_the_web(server, world, tmp_path, capsys):
    root = tmp_path / "circo"
    report = tmp_path / "told.json"
    code, out, err = run(capsys, *asked_of(server, "circo", root, "--json", report))
    assert code == 0, err
    assert row(out, "circo/val") == ["60", "60", "0", "not", "looked", "8", "8"]
    assert row(out, "circo/test") == ["60", "60", "0", "not", "looked", "8", "8", "can", "run"]
    assert f"no picture was decoded, so there is no picture set: cig check circo --dataset-path {root}" in out
    here, expected = tree(root), tree(world / "CIRCO")
    zips = {f"COCO2017_unlabeled/{name}" for name in ("unlabeled2017.zip", "image_info_unlabeled2017.zip")}
    assert {name: data for name, data in here.items() if name not in zips} == expected
    assert set(here) - set(expected) == zips
    facts = json.loads(report.read_text())
    assert (facts["parts"]["circo/val"]["unreadable"], facts["picture_sets"]) == (None, {})
    assert run(capsys, "check", "circo/val", "--dataset-path", root)[0] == 0
    server.asked.clear()
    assert run(capsys, *asked_of(server, "circo", root))[0] == 0
    assert server.asked == []  # nothing that is there is asked for again


def test_circo_deletes_its_zips_when_all_is_there(server, tmp_path, capsys):
    root = tmp_path / "circo"
    code, out, _ = run(capsys, *asked_of(server, "circo", root, "--delete-zip"))
    assert (code, "was deleted: all of it is there" in out) == (0, True)
    assert not list(root.rglob("*.zip"))
    assert len(list(root.rglob("*.jpg"))) == PICTURES


def test_circo_keeps_a_zip_that_is_not_all_taken(server, zips, tmp_path, capsys):
    changed = tmp_path / "other.zip"
    shutil.copy(zips / "unlabeled2017.zip", changed)
    with zipfile.ZipFile(changed, "a") as file:
        file.writestr("unlabeled2017/000000000777.jpg", b"of another release")
    server.content["/zips/unlabeled2017.zip"] = changed.read_bytes()
    code, out, _ = run(capsys, *asked_of(server, "circo", tmp_path / "circo", "--delete-zip"))
    assert (code, "is kept: not all that is in it was taken" in out) == (0, True)
    assert "of other names, left alone: 1 ('unlabeled2017/000000000777.jpg')" in out


def test_circo_mends_what_a_zip_knows_better(server, tmp_path, capsys):
    root = tmp_path / "circo"
    run(capsys, *asked_of(server, "circo", root))
    whole = tree(root)
    first, second = sorted(root.rglob("*.jpg"))[:2]
    first.write_bytes(first.read_bytes()[:100])
    second.unlink()
    code, out, _ = run(capsys, *asked_of(server, "circo", root))
    assert (code, tree(root) == whole) == (0, True)
    assert "2 pictures, 58 were there" in out
    assert f"in the place of files with another content: 1 ({int(first.stem)})" in out


def test_circo_breaks_off_and_goes_on(server, tmp_path, capsys):
    root = tmp_path / "circo"
    server.moods = ["", "", "", "short 5000", "500"]
    code, out, err = run(capsys, *asked_of(server, "circo", root))
    assert (code, "a rerun goes on from there" in out) == (1, True)
    assert row(out, "circo/val")[:3] == ["60", "0", "60"]
    assert "circo/val lacks 60 of 60 pictures, circo/test lacks 60 of 60" in err
    server.asked.clear()
    assert run(capsys, *asked_of(server, "circo", root))[0] == 0
    assert server.asked == [("/zips/unlabeled2017.zip", "bytes=5000-")]


def test_circo_fetches_a_zip_of_two_halves_anew(server, tmp_path, capsys):
    """The file changed between two ranges, and its size and ETag did not."""
    root, url = tmp_path / "circo", "/zips/unlabeled2017.zip"
    whole = server.content[url]
    half = len(whole) // 2
    server.content[url] = whole[:4] + bytes(255 - byte for byte in whole[4:half]) + whole[half:]
    server.moods = ["", "", "", f"short {half}", "500"]
    assert run(capsys, *asked_of(server, "circo", root))[0] == 1
    server.content[url] = whole
    code, out, _ = run(capsys, *asked_of(server, "circo", root, "--json", tmp_path / "told.json"))
    damaged = len(json.loads((tmp_path / "told.json").read_text())["not_taken"])
    aside = root / "COCO2017_unlabeled/unlabeled2017.zip.refused"
    assert (code, server.bytes_asked()[-1], 20 < damaged < 40, aside.exists()) == (1, f"bytes={half}-", True, True)
    assert f"came damaged ({damaged} members: unlabeled2017/" in out
    assert f"{aside}: remove it" in out
    assert run(capsys, *asked_of(server, "circo", root))[0] == 0
    assert server.asked[-1] == (url, "")


@pytest.mark.parametrize("content", [b"PK\3\4 nothing", None])
def test_circo_fetches_a_list_that_came_damaged_anew(server, tmp_path, capsys, content):
    url = "/annotations/image_info_unlabeled2017.zip"
    whole = server.content[url]
    server.content[url] = content or server.content["/zips/unlabeled2017.zip"]
    code, _, err = run(capsys, *asked_of(server, "circo", tmp_path))
    assert (code, "image_info_unlabeled2017.zip.refused: remove it" in err) == (1, True)
    server.content[url] = whole
    assert run(capsys, *asked_of(server, "circo", tmp_path))[0] == 0


def test_circo_from_zips_of_ones_own(server, zips, tmp_path, capsys):
    """Both of them: only the authors' repository is asked, and neither is changed."""
    before = tree(zips)
    sources = ["--from-zip", zips / "unlabeled2017.zip", "--from-zip", zips / "image_info_unlabeled2017.zip"]
    code, out, err = run(capsys, *asked_of(server, "circo", tmp_path / "circo", *sources))
    assert code == 0, err
    assert row(out, "circo/val")[:3] == ["60", "60", "0"]
    assert sorted(path for path, _ in server.asked) == ["/annotations/test.json", "/annotations/val.json"], "at once"
    assert tree(zips) == before
    assert not list((tmp_path / "circo").rglob("*.zip"))


@pytest.mark.parametrize("link", [False, True])
def test_circo_from_a_folder_of_any_names(server, world, tmp_path, capsys, link):
    """Padded or not; the user's files stay as they are."""
    user_folder = tmp_path / "mine"
    for i, path in enumerate(sorted((world / "CIRCO").rglob("*.jpg"))[:-2]):
        target = user_folder / f"{i % 3}" / (f"{int(path.stem)}.JPG" if i % 2 else path.name)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    before, root = tree(user_folder), tmp_path / "circo"
    code, out, _ = run(
        capsys, *asked_of(server, "circo", root, "--from-dir", user_folder, *(["--link"] if link else []))
    )
    assert code == 1
    assert row(out, "circo/val")[:3] == ["60", "58", "2"]
    assert tree(user_folder) == before
    placed = list((root / "COCO2017_unlabeled/unlabeled2017").iterdir())
    assert {path.stem.isdecimal() and len(path.stem) for path in placed} == {12}
    assert {os.stat(path).st_nlink for path in placed} == {2 if link else 1}
    assert "/zips/unlabeled2017.zip" not in dict(server.asked)  # 20 GB are not asked for beside what was given


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--delete-zip", "--from-zip", "ZIP"], "what you give is never deleted"),
        (["--link"], "--link is for --from-dir"),
        (["--from-dir", "nowhere"], "--from-dir nowhere is not a folder"),
        (["--from-zip", "nowhere.zip"], "--from-zip nowhere.zip is not a file"),
        (["--splits", "vall"], 'Did you mean "val"'),
        (["--mirror", "http://a"], "takes no --mirror; it takes"),
    ],
)
def test_wrong_calls(server, zips, tmp_path, capsys, flags, words):
    flags = [zips / "unlabeled2017.zip" if flag == "ZIP" else flag for flag in flags]
    code, _, err = run(capsys, *asked_of(server, "circo", tmp_path / "circo", *flags))
    assert (code, words in err) == (2, True), err
    assert server.asked == []


def test_what_comes_in_the_place_of_a_zip(server, tmp_path, capsys):
    server.content["/zips/unlabeled2017.zip"] = b"<html>log in</html>"
    code, out, _ = run(capsys, *asked_of(server, "circo", tmp_path / "circo"))
    assert (code, "a login or error page?" in out) == (1, True)
    server.content["/annotations/image_info_unlabeled2017.zip"] = b"PK\3\4 nothing"
    code, _, err = run(capsys, *asked_of(server, "circo", tmp_path / "other"))
    assert (code, "is not a whole zip" in err, "COCO's list of pictures cannot be had" in err) == (1, True, True)


def test_the_published_zip_is_known_where_it_is_asked_of_coco(tmp_path):
    """A mirror's may be another of the same pictures."""
    assert circo.KNOWN[circo.PICTURES_ZIP].size == 20126613414
    assert all(len(expected.md5) == 32 and expected.starts == b"PK" for expected in circo.KNOWN.values())


def test_a_zip_of_coco_that_is_another_is_kept_aside(server, zips, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(circo, "COCO", server.url)
    monkeypatch.setattr("cig.io.addresses.is_public", lambda address: True)
    root = tmp_path / "circo"
    code, _, err = run(capsys, *asked_of(server, "circo", root))
    assert (code, "is not the file that is known: its md5 is" in err) == (1, True)
    run(capsys, *asked_of(server, "circo", root, "--from-zip", zips / "image_info_unlabeled2017.zip"))
    code, out, _ = run(capsys, *asked_of(server, "circo", root))
    size = (zips / "unlabeled2017.zip").stat().st_size
    assert (code, f"has {size:,} bytes, that of the release 20,126,613,414" in out) == (1, True)
    monkeypatch.setitem(circo.KNOWN, circo.PICTURES_ZIP, Expected(size, md5="0" * 32))
    code, out, _ = run(capsys, *asked_of(server, "circo", root))
    refused = root / "COCO2017_unlabeled/unlabeled2017.zip.refused"
    assert (code, f"to take it all the same: --from-zip {refused}" in out) == (1, True)
    assert run(capsys, *asked_of(server, "circo", root, "--from-zip", refused))[0] == 0
    assert refused.exists()


def test_space_for_all_is_asked_for_before_the_first_byte(server, tmp_path, capsys, monkeypatch):
    run(capsys, *asked_of(server, "circo", tmp_path / "circo", "--no-pictures"))
    monkeypatch.setattr("cig.io.resumable.disk_of", lambda folder: 40 * 10**9)
    monkeypatch.setattr(circo, "COCO", server.url)
    server.asked.clear()
    code, _, err = run(capsys, *asked_of(server, "circo", tmp_path / "circo"))
    assert (code, server.asked) == (1, [])
    assert "with its pictures beside it, takes 40.3 GB" in err
    assert "40.0 free" in err


@pytest.mark.parametrize("name", ["cirr", "circo"])
def test_a_second_download_into_one_folder_asks_nothing(server, tmp_path, capsys, held_elsewhere, name):
    process = held_elsewhere("folder", tmp_path)
    code, _, err = run(capsys, *asked_of(server, name, tmp_path))
    assert (code, f"process {process.pid}" in err, server.asked) == (2, True, [])


# Kills: each process dies at one point of its writing


LINE = """
import os, sys, kills
count = [0]
kills.die_at(int(sys.argv[1]), count)
try:
    kills.cig(sys.argv[2:])
except SystemExit as end:
    print("points", count[0], flush=True)
    os._exit(int(end.code or 0))
"""


def line(point, words):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])}
    command = [sys.executable, "-c", LINE, str(point), *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


@pytest.mark.slow
def test_killed_anywhere_and_rerun_it_ends_the_same(server, tmp_path, capsys):
    whole = line(0, asked_of(server, "circo", tmp_path / "whole"))
    assert whole.returncode == 0, whole.stderr
    truth, points = tree(tmp_path / "whole"), int(whole.stdout.split()[-1])
    assert points > 3 * PICTURES
    for number, point in enumerate([3, 9, 15, 18, 21, points // 2, points - 1]):
        root = tmp_path / f"{number}"
        while line(point, asked_of(server, "circo", root)).returncode != -9:  # writes follow reads: they vary by one
            shutil.rmtree(root)
            point -= 1
        assert tree(root) != truth
        before = len(server.asked)
        assert run(capsys, *asked_of(server, "circo", root))[0] == 0
        assert tree(root) == truth, point
        again = [path for path, _ in server.asked[before:]]
        assert len(again) == len(set(again))


# CIRR

LAYOUTS = {
    "flat": lambda name, folder: f"{name}.png",
    "as the release": lambda name, folder: f"{folder}/{name}.png",
    "in images": lambda name, folder: f"images/{folder}/{name}.png",
    "in img_raw": lambda name, folder: f"data/cirr/img_raw/{folder}/{name}.png",
    "numbered folders": lambda name, folder: f"train/{len(name)}/{name}.png",
    "far down": lambda name, folder: f"a/b/c/d/e/{folder}/f/{name}.PNG",
}


def cirr_pictures(world, layout):
    for folder in ("dev", "test1"):
        for path in sorted((world / "CIRR" / folder).iterdir()):
            yield path, LAYOUTS[layout](path.stem, folder)


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("form", ["folder", "zip"])
def test_cirr_from_any_layout(server, world, tmp_path, capsys, layout, form):
    user_folder, root = tmp_path / "mine", tmp_path / "CIRR"
    user_folder.mkdir()
    with zipfile.ZipFile(user_folder / "pictures.zip", "w") as file:
        for path, name in cirr_pictures(world, layout):
            if form == "zip":
                file.write(path, name)
            else:
                (user_folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, user_folder / name)
    before = tree(user_folder)
    source = ["--from-zip", user_folder / "pictures.zip"] if form == "zip" else ["--from-dir", user_folder]
    code, out, err = run(capsys, *asked_of(server, "cirr", root, *source))
    assert code == 0, err
    assert row(out, "cirr/val") == ["60", "60", "0", "0", "8", "8"]
    assert row(out, "cirr/test1") == ["60", "60", "0", "0", "8", "8", "can", "run"]
    assert tree(user_folder) == before
    for split in ("val", "test1"):
        imported, original = load_benchmark(f"cirr/{split}", root), load_benchmark(f"cirr/{split}", world)
        assert {name: path.read_bytes() for name, path in imported.images.items()} == {
            name: path.read_bytes() for name, path in original.images.items()
        }
        digest = next(line for line in out.splitlines() if f"picture set of cirr/{split}:" in line).split()[-1]
        assert digest in run(capsys, "check", f"cirr/{split}", "--dataset-path", root)[1]


def test_cirr_says_where_its_pictures_are_asked_for(server, tmp_path, capsys):
    code, out, err = run(capsys, *asked_of(server, "cirr", tmp_path / "CIRR"))
    assert (code, "cirr/val lacks 60 of 60 pictures" in err) == (1, True)
    for words in (
        "https://goo.gl/forms/",
        "nlvr2#direct-image-download",
        "--from-dir FOLDER",
        "60 pictures missing (",
    ):
        assert words in out
    assert sorted(path for path, _ in server.asked) == [
        "/captions/cap.rc2.test1.json",
        "/captions/cap.rc2.val.json",
        "/image_splits/split.rc2.test1.json",
        "/image_splits/split.rc2.val.json",
    ]
    assert run(capsys, *asked_of(server, "cirr", tmp_path / "CIRR", "--no-pictures"))[0] == 0


def test_cirr_bit_by_bit(server, world, tmp_path, capsys):
    """dev from a folder, then what is whole of test1 from a zip; what is left is named by split."""
    root = tmp_path / "CIRR"
    code, out, _ = run(capsys, *asked_of(server, "cirr", root, "--from-dir", world / "CIRR/dev"))
    assert (code, row(out, "cirr/val")[1], row(out, "cirr/test1")[1]) == (1, "60", "0")
    paths = sorted((world / "CIRR/test1").iterdir())
    with zipfile.ZipFile(tmp_path / "test1.zip", "w") as file:
        file.write(paths[0], f"../{paths[0].name}")
        file.writestr(paths[1].name, b"<html>gone</html>")
        file.writestr(f"x/{paths[2].name}", paths[3].read_bytes())
        file.write(paths[2], f"y/{paths[2].name}")
        file.write(paths[3], f"x/{paths[3].name}")
        file.write(paths[3], f"y/{paths[3].name}")  # twice the same
        file.writestr("elsewhere.png", paths[4].read_bytes())
        for path in paths[4:]:
            file.write(path, path.name)
    code, out, _ = run(capsys, *asked_of(server, "cirr", root, "--from-zip", tmp_path / "test1.zip"))
    assert (code, row(out, "cirr/test1")[:4]) == (1, ["60", "57", "3", "0"])
    assert f"cirr/test1: 3 pictures missing ({', '.join(path.stem for path in load_order(root, paths[:3]))})" in out
    assert "not taken: 3 " in out
    for words in ("leads out of its folder", "a web page in the place of a picture", "files of this name differ"):
        assert words in out
    assert "of other names, left alone: 1 ('elsewhere.png')" in out


BLANK = {"tiny": Image.new("RGB", (1, 1)), "grey": Image.new("RGB", (50, 50), "grey")}


def encoded(image, form="PNG"):
    buffer = io.BytesIO()
    image.save(buffer, form)
    return buffer.getvalue()


@pytest.mark.parametrize("form", ["folder", "zip"])
def test_cirr_takes_nothing_that_is_no_picture_and_says_what_it_is(server, world, tmp_path, capsys, form):
    user_folder = tmp_path / "mine"
    shutil.copytree(world / "CIRR/dev", user_folder)
    bad = [encoded(BLANK["tiny"]), encoded(BLANK["grey"]), b"<html>sign in</html>", b"", b"what"]
    paths = sorted(user_folder.iterdir())[: len(bad)]
    for path, content in zip(paths, bad, strict=True):
        path.write_bytes(content)
    with zipfile.ZipFile(tmp_path / "mine.zip", "w") as file:
        for path in sorted(user_folder.iterdir()):
            file.write(path, path.name)
    source = ["--from-zip", tmp_path / "mine.zip"] if form == "zip" else ["--from-dir", user_folder]
    report = tmp_path / "told.json"
    _, out, _ = run(capsys, *asked_of(server, "cirr", tmp_path / "CIRR", "--splits", "val", *source, "--json", report))
    assert row(out, "cirr/val")[:4] == ["60", "55", "5", "0"]
    whys = (
        "a picture of 1 x 1 pixels",
        "one colour all over",
        "a web page in the place of a picture",
        "nothing in it",
        "other content in the place of a picture",
    )
    names = [path.name if form == "zip" else str(path) for path in paths]
    expected = dict(zip(names, whys, strict=True))
    first = "; ".join(f"{name!r}: {why}" for name, why in list(expected.items())[:3])
    assert f"not taken: 5 ({first})" in out
    assert json.loads(report.read_text())["not_taken"] == expected


@pytest.mark.parametrize("name", ["cirr", "circo"])
@pytest.mark.parametrize("form", ["folder", "zip"])
def test_a_rerun_says_what_was_there(server, world, zips, tmp_path, capsys, name, form):
    """Once, twice, and with one that is another meanwhile."""
    root, user_folder = (
        tmp_path / name,
        world / "CIRR" if name == "cirr" else world / "CIRCO/COCO2017_unlabeled/unlabeled2017",
    )
    with zipfile.ZipFile(tmp_path / "mine.zip", "w") as file:
        for path in sorted(user_folder.rglob("*")):
            if path.suffix in (".png", ".jpg"):
                file.write(path, path.relative_to(user_folder))
    source = ["--from-zip", tmp_path / "mine.zip"] if form == "zip" else ["--from-dir", user_folder]
    words = asked_of(server, name, root, *source)
    count = 120 if name == "cirr" else 60
    for taken in (f"{count} pictures\n", f"0 pictures, {count} were there\n"):
        code, out, _ = run(capsys, *words)
        assert (code, f": {taken}" in out, "left alone" in out, "not taken" in out) == (0, True, False, False), out
    path = next(path for path in sorted(root.rglob("*")) if path.suffix in (".png", ".jpg"))
    path.write_bytes(path.read_bytes() + b"more")
    _, out, _ = run(capsys, *words)
    stem = path.stem if name == "cirr" else str(int(path.stem))
    if (name, form) == ("circo", "zip"):
        assert f"in the place of files with another content: 1 ({stem})" in out
    else:
        assert f"0 pictures, {count - 1} were there\n    there with another content, which is kept: 1 ({stem})" in out


def test_a_zip_of_coco_is_compared_with_pictures_that_lie_elsewhere(server, world, tmp_path, capsys):
    root = tmp_path / "circo"
    run(capsys, *asked_of(server, "circo", root, "--no-pictures"))
    shutil.copytree(world / "CIRCO/COCO2017_unlabeled/unlabeled2017", root / "images")
    first, second = sorted((root / "images").iterdir())[:2]
    first.write_bytes(second.read_bytes())
    second.unlink()
    code, out, _ = run(capsys, *asked_of(server, "circo", root, "--delete-zip"))
    assert (code, "1 pictures, 58 were there" in out, "is kept: not all that is in it" in out) == (0, True, True)
    assert f"there with another content, which is kept: 1 ({int(first.stem)})" in out


def test_circo_takes_no_placeholder_from_a_folder(server, world, tmp_path, capsys):
    user_folder = tmp_path / "mine"
    shutil.copytree(world / "CIRCO/COCO2017_unlabeled/unlabeled2017", user_folder)
    first, second = sorted(user_folder.iterdir())[:2]
    first.write_bytes(encoded(BLANK["grey"], "JPEG"))
    second.write_bytes(second.read_bytes()[:-100])
    _, out, _ = run(capsys, *asked_of(server, "circo", tmp_path / "circo", "--from-dir", user_folder))
    assert row(out, "circo/val")[:3] == ["60", "58", "2"]
    assert f"not taken: 2 ({str(first)!r}: one colour all over; {str(second)!r}: not a whole picture" in out


def test_of_another_zip_than_cocos_each_picture_is_looked_at(server, zips, tmp_path, capsys, monkeypatch):
    archive = tmp_path / "mine.zip"
    with zipfile.ZipFile(zips / "unlabeled2017.zip") as source, zipfile.ZipFile(archive, "w") as file:
        first = next(name for name in source.namelist() if name.endswith(".jpg"))
        file.writestr(first, encoded(BLANK["grey"], "JPEG"))
    words = asked_of(server, "circo", tmp_path / "circo", "--from-zip", archive)
    _, out, _ = run(capsys, *words)
    assert f"0 pictures\n    not taken: 1 ({first!r}: one colour all over)" in out
    monkeypatch.setitem(circo.KNOWN, circo.PICTURES_ZIP, Expected(archive.stat().st_size))
    assert "1 pictures\n" in run(capsys, *words)[1], "what COCO has"


@pytest.mark.parametrize("form", ["folder", "zip"])
def test_of_a_good_and_a_cut_file_of_one_name_the_good_one_is_taken(server, world, tmp_path, capsys, form):
    user_folder, root = tmp_path / "mine", tmp_path / "CIRR"
    shutil.copytree(world / "CIRR/dev", user_folder / "b")
    first, second, third = sorted((user_folder / "b").iterdir())[:3]
    for folder, path in (("a", first), ("c", second)):
        (user_folder / folder).mkdir()
        (user_folder / folder / path.name).write_bytes(path.read_bytes()[:-100])
    if form == "folder":  # of no suffix, beside a cut one
        third.with_suffix("").write_bytes(third.read_bytes())
        third.write_bytes(b"cut")
    with zipfile.ZipFile(tmp_path / "mine.zip", "w") as file:
        for path in sorted(user_folder.rglob("*.png")):
            file.write(path, path.relative_to(user_folder))
    source = ["--from-zip", tmp_path / "mine.zip"] if form == "zip" else ["--from-dir", user_folder]
    told = tmp_path / "told.json"
    code, out, _ = run(capsys, *asked_of(server, "cirr", root, "--splits", "val", *source, "--json", told))
    assert (code, row(out, "cirr/val")[:4]) == (0, ["60", "60", "0", "0"])
    cut = {f"a/{first.name}", f"c/{second.name}"} | ({f"b/{third.name}"} if form == "folder" else set())
    assert {name.removeprefix(f"{user_folder}/") for name in json.loads(told.read_text())["not_taken"]} == cut


@pytest.mark.parametrize("name", ["cirr", "circo"])
def test_a_folder_that_cannot_be_listed_stops_no_other(server, world, tmp_path, capsys, close_folder, name):
    user_folder = shutil.copytree(world / "CIRR" if name == "cirr" else world / "CIRCO", tmp_path / "mine")
    closed = close_folder(user_folder / "lost+found")
    words = asked_of(server, name, tmp_path / name, "--from-dir", user_folder, "--json", tmp_path / "told.json")
    code, out, _ = run(capsys, *words)
    assert (code, f"folders that cannot be listed, left out: 1 ('{closed}')" in out) == (0, True)
    assert json.loads((tmp_path / "told.json").read_text())["not_listed"] == [str(closed)]
    code, _, err = run(capsys, *asked_of(server, name, tmp_path / "other", "--from-dir", closed))
    assert (code, f"{closed} cannot be listed" in err) == (1, True)


def test_cirr_of_other_suffixes_and_behind_links(server, world, tmp_path, capsys):
    """What decodes is taken; what is called by a name that has a picture, too, is no matter; links are named."""
    user_folder, root = tmp_path / "mine", tmp_path / "CIRR"
    shutil.copytree(world / "CIRR/dev", user_folder / "dev")
    paths = sorted((user_folder / "dev").iterdir())
    paths[0].rename(paths[0].with_suffix(""))
    paths[1].rename(paths[1].with_suffix(".bin"))
    paths[2].with_suffix(".txt").write_text("a caption")
    paths[3].unlink()
    paths[3].with_suffix(".txt").write_text("a caption")
    (user_folder / "loop").symlink_to(user_folder)
    _, out, _ = run(capsys, *asked_of(server, "cirr", root, "--splits", "val", "--from-dir", user_folder))
    assert row(out, "cirr/val")[:3] == ["60", "59", "1"]
    assert f"not taken: 1 ({str(paths[3].with_suffix('.txt'))!r}: other content in the place of a picture)" in out
    assert f"links to folders, not followed: 1 ('{user_folder / 'loop'}'): give what they lead to by --from-dir" in out
    with zipfile.ZipFile(tmp_path / "odd.zip", "w") as file:
        file.writestr(f"x/{paths[3].stem}.svg", b"<svg/>")
    _, out, _ = run(capsys, *asked_of(server, "cirr", root, "--splits", "val", "--from-zip", tmp_path / "odd.zip"))
    assert f"not taken: 1 ('x/{paths[3].stem}.svg': it has not the suffix of a picture)" in out


def load_order(root, paths):
    order = load_benchmark("cirr/test1", root).gallery
    return sorted(paths, key=lambda path: order.index(path.stem))


def test_cirr_takes_no_broken_picture_and_a_rerun_mends(server, world, tmp_path, capsys):
    user_folder, root = tmp_path / "mine", tmp_path / "CIRR"
    shutil.copytree(world / "CIRR/dev", user_folder)
    first = sorted(user_folder.iterdir())[0]
    content = first.read_bytes()
    first.write_bytes(content[: len(content) // 2])
    flags = ["--splits", "val", "--from-dir", user_folder, "--link"]
    code, out, _ = run(capsys, *asked_of(server, "cirr", root, *flags))
    assert (code, row(out, "cirr/val")[:4]) == (1, ["60", "59", "1", "0"])
    first.write_bytes(content)
    assert run(capsys, *asked_of(server, "cirr", root, *flags))[0] == 0
    path = load_benchmark("cirr/val", root).images[first.stem]
    path.unlink()
    path.write_bytes(b"broken meanwhile")
    code, out, _ = run(capsys, *asked_of(server, "cirr", root, *flags))
    assert (code, row(out, "cirr/val")[:4]) == (1, ["60", "59", "0", "1"])
    assert "1 cannot be read: remove them and run this again" in out
    assert first.read_bytes() == content


def test_cirr_counts_what_lies_there_as_check_does(server, world, tmp_path, capsys):
    """A placeholder is present, as it is embedded, and named."""
    root = tmp_path / "CIRR"
    shutil.copytree(world / "CIRR", root)
    Image.new("RGB", (50, 50), "white").save(root / "dev/dev-0-0-img0.png")
    Image.frombytes("RGB", (100, 101), os.urandom(30300)).save(root / "dev/dev-0-0-img1.png")
    line = asked_of(server, "cirr", root, "--splits", "val", "--max-pixels", "10000", "--json", tmp_path / "told.json")
    code, out, _ = run(capsys, *line)
    path = f"{root}/dev/dev-0-0-img0.png: 50 x 50"
    assert (code, row(out, "cirr/val")) == (0, ["60", "60", "0", "0", "8", "8"])
    assert "1 pictures count as present, and show nothing (under 8 pixels a side, or one colour): if they are" in out
    assert f"remove them and run this again ({path})" in out
    (facts,) = json.loads((tmp_path / "told.json").read_text())["parts"].values()
    assert facts["suspicious"] == {"dev-0-0-img0": path}
    digest = next(text for text in out.splitlines() if "picture set of cirr/val:" in text).split()[-1]
    code, out, _ = run(capsys, "check", "cirr/val", "--dataset-path", root)
    assert (code, f"picture set {digest}" in out) == (0, True)


def test_cirr_beside_an_older_layout(server, world, tmp_path, capsys):
    """cirr/captions and dev/, as others have it: what is there is read, what lacks goes where it is read, too."""
    root = tmp_path / "CIRR"
    shutil.copytree(world / "CIRR", root)
    lost = sorted((root / "dev").iterdir())[:3]
    for path in lost:
        path.unlink()
    before = tree(root)
    code, _, err = run(capsys, *asked_of(server, "cirr", root, "--from-dir", world / "CIRR"))
    assert code == 0, err
    added = {name for name in tree(root) if name not in before}
    assert added == {f"cirr/img_raw/dev/{path.name}" for path in lost}
    assert server.asked == []
    assert run(capsys, *asked_of(server, "cirr", root))[0] == 0


def test_hostile_places_and_names_stay_inside(server, tmp_path, world, capsys):
    """A split file that places pictures elsewhere, and names one that is a path."""
    split = json.loads(server.content["/image_splits/split.rc2.val.json"])
    names = list(split)
    split[names[0]], split[names[1]] = f"../../../{names[0]}.png", f"/tmp/{names[1]}.png"
    split["../../evil"] = "./dev/evil.png"
    server.content["/image_splits/split.rc2.val.json"] = json.dumps(split).encode()
    root = tmp_path / "a" / "b" / "CIRR"
    flags = ["--splits", "val", "--from-dir", world / "CIRR/dev"]
    code, out, _ = run(capsys, *asked_of(server, "cirr", root, *flags))
    assert (code, row(out, "cirr/val")[:3]) == (1, ["61", "60", "1"])
    assert {path.parent.name for path in root.rglob("*.png")} == {"dev", "img_raw"}
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b"]
    assert not Path(f"/tmp/{names[1]}.png").exists()


# The real annotation files


@pytest.mark.parametrize(
    ("split", "queries", "pictures"), [("val", 4181, 2297), ("test1", 4148, 2315)], ids=["val", "test1"]
)
def test_cirr_counts_of_the_release(annotations, tmp_path, capsys, split, queries, pictures):
    for name in (f"captions/cap.rc2.{split}.json", f"image_splits/split.rc2.{split}.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(annotations / "cirr" / name, tmp_path / name)
    code, out, _ = run(capsys, "download", f"cirr/{split}", "--dataset-path", tmp_path)
    assert code == 1
    assert row(out, f"cirr/{split}")[:5] == [f"{pictures:,}", "0", f"{pictures:,}", "0", f"{queries:,}"]
