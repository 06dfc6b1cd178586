"""Released benchmarks: annotations by git's digest from a server of this machine, pictures from folders; our list."""

import json
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

import serving
from calls import run
from cig.download import _release, genecis, imagenet_r, lasco
from cig.download._release import need_content
from cig.errors import InputError

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
import test_coco_composition
import test_genecis
import test_lasco


def git_digest(path):
    return subprocess.run(["git", "hash-object", path], capture_output=True, text=True, check=True).stdout.strip()


def released(monkeypatch, module, home):
    """Let a hand-made dataset be the released one, and return its annotations as a server has them."""
    files = {name: (address, git_digest(home / name)) for name, (address, _) in module.RELEASE.files.items()}
    monkeypatch.setattr(module, "download", replace(module.RELEASE, files=files).download)
    return {f"/{address}": (home / name).read_bytes() for name, (address, _) in files.items()}


@pytest.mark.parametrize(
    ("module", "folder", "names"),
    [
        (genecis, "genecis", ["genecis/change_object.json", "genecis/focus_object.json"]),
        (imagenet_r, "imagenet_r", ["imgnet_real_query.txt", "imgnet_targets.txt"]),
    ],
)
def test_the_real_files_have_their_digests(annotations, module, folder, names):
    for name in names:
        data = (annotations / folder / Path(name).name).read_bytes()
        need_content(data, module.RELEASE.files[name][1])
        with pytest.raises(InputError, match="released"):
            need_content(data[:-1], module.RELEASE.files[name][1])


def test_annotations_from_a_server_and_pictures_from_a_folder(tmp_path, monkeypatch, capsys):
    source, root = test_lasco.make(tmp_path / "source"), tmp_path / "lasco"
    content = released(monkeypatch, lasco, source)
    with serving.serve(serving.Files(content)) as server:
        call = ["download", "lasco", "--dataset-path", root, "--annotations-from", server.url, "--retries", "0"]
        code, out, err = run(capsys, *call)
        assert code == 1
        assert "MIT" in err
        assert "lacks 12 of 12 pictures" in err
        assert "val2014.zip" in out
        asked = list(server.asked)
        code, _, err = run(capsys, *call, "--from-dir", source)
        assert code == 0, err
        assert server.asked == asked, "what is there is not asked for again"
    assert run(capsys, "check", "lasco", "--dataset-path", root)[0] == 0


def test_other_content_than_the_released_is_refused(tmp_path, monkeypatch, capsys):
    source, root = test_lasco.make(tmp_path / "source"), tmp_path / "lasco"
    content = released(monkeypatch, lasco, source)
    content["/lasco_val.json"] += b" "
    with serving.serve(serving.Files(content)) as server:
        call = ["download", "lasco", "--dataset-path", root, "--annotations-from", server.url, "--retries", "0"]
        code, _, err = run(capsys, *call)
    assert code == 1
    assert "digest" in err
    assert not (root / "lasco_val.json").exists()


def test_genecis_takes_pictures_of_two_datasets_by_name(tmp_path, monkeypatch, capsys):
    source, root = test_genecis.make(tmp_path / "source"), tmp_path / "genecis"
    content = released(monkeypatch, genecis, source)
    with serving.serve(serving.Files(content)) as server:
        call = ["download", "genecis", "--dataset-path", root, "--annotations-from", server.url, "--retries", "0"]
        code, out, err = run(capsys, *call, "--from-dir", source)
    assert code == 0, out + err
    assert (root / "VG_100K_all/7.jpg").exists()
    assert (root / "val2017/000000000007.jpg").exists()


def test_the_list_of_coco_composition_is_made_once(tmp_path, capsys):
    coco, root = tmp_path / "coco", tmp_path / "coco-composition"
    objects = [test_coco_composition.an_object(10 + i, i, 17, [2, 1, 4, 3]) for i in range(3)]
    test_coco_composition.instances(coco / "annotations/instances_val2017.json", objects)
    (coco / "val2017").mkdir()
    for i in range(3):
        Image.linear_gradient("L").resize((20, 10)).convert("RGB").save(coco / f"val2017/{i:012d}.jpg")
    call = ["download", "coco-composition", "--dataset-path", root, "--from-dir", coco]
    code, out, err = run(capsys, *call)
    assert code == 0, err
    entries = json.loads((root / "coco_composition.json").read_text())
    assert [(entry["image"], entry["classes"]) for entry in entries] == [(0, ["cat"]), (1, ["cat"]), (2, ["cat"])]
    assert Image.open(root / "val2017_masked/1.png").size == (4, 3)
    before = (root / "val2017_masked/1.png").stat().st_mtime_ns
    assert run(capsys, *call)[1] == out
    assert (root / "val2017_masked/1.png").stat().st_mtime_ns == before
    assert run(capsys, "check", "coco-composition", "--dataset-path", root)[0] == 0
    assert run(capsys, "download", "coco-composition/vla", *call[2:])[0] == 2
    code, _, err = run(capsys, "download", "coco-composition/val", "--dataset-path", tmp_path / "empty")
    assert code == 1
    assert "instances_val2017.json" in err


def test_a_place_for_each_name(tmp_path):
    """Names of ImageNet-R repeat in every class, so only ImageNet's own are imported by name."""
    names = ["imgnet/real/n1/ILSVRC2012_val_00000001.JPEG", "imgnet/imagenet-r/n1/toy_3.jpg"]

    class Part:
        gallery, queries, missing_list = names, (), None

    assert imagenet_r.RELEASE.places(tmp_path, [Part]) == {
        "ILSVRC2012_val_00000001": tmp_path / "imgnet/real/n1/ILSVRC2012_val_00000001"
    }
    assert _release.need_content(b"", "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391") is None


def zipped(path, members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, text in members.items():
            file.writestr(f"CIRCUS-main/{name}", text)
    return path


def test_labels_of_circus_out_of_the_repositorys_zip(tmp_path, capsys):
    members = {
        "croissant/exports/cirr.csv": "a,b\n",
        "croissant/exports/x.png": "no",
        "README.md": "",
        "other/a.csv": "",
    }
    archive = zipped(tmp_path / "c.zip", members)
    content = {"/main.zip": archive.read_bytes()}
    with serving.serve(serving.Files(content)) as server:
        call = ["download", "circus", "--dataset-path", tmp_path / "circus", "--retries", "0"]
        code, out, err = run(capsys, *call, "--annotations-from", f"{server.url}/main.zip")
    assert code == 0, err
    assert "licence" in err
    assert [path.name for path in (tmp_path / "circus").iterdir()] == ["cirr.csv"]
    assert "--circus" in out
    empty = zipped(tmp_path / "e.zip", {"README.md": ""})
    assert run(capsys, *call, "--from-zip", empty)[0] == 1
    assert run(capsys, *call, "--from-zip", tmp_path / "none.zip")[0] == 2
