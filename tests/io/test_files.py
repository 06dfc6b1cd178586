"""Files: written whole, read with checks, found by id; manifests that survive a kill."""

import errno
import json
import os
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cig.errors import InputError, MismatchError, NotFoundError, OutputError
from cig.io import files
from cig.io.digests import digest_of, fingerprints, identity
from cig.io.files import sweep, write_bytes, writing
from cig.io.json_files import read_json
from cig.io.manifest import Manifest
from cig.io.query_files import find_by_id, picture_name
from cig.io.tensors import read_embedding, stack_embeddings, write_embedding
from cig.types import ComposedEmbedding


def composed(rows=2):
    make = lambda *shape: torch.randn(rows, *shape)  # noqa: E731
    return ComposedEmbedding(tuple("ab"), make(7, 3), make(7, 4), make(5), make(7, 3))


def test_writes_are_whole_or_not_there(tmp_path, monkeypatch):
    write_bytes(tmp_path / "deep/a", b"old")

    def full(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OutputError, match=r"a cannot be written to .*deep: No space left on device; free space"):
        write_bytes(tmp_path / "deep/a", b"new")
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["a"]
    assert (tmp_path / "deep/a").read_bytes() == b"old"


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "free space"),
        (errno.EDQUOT, "free space"),
        (errno.EROFS, "may write to"),
        (errno.EACCES, "may write to"),
    ],
)
def test_what_to_do_is_said_by_why_nothing_is_written(tmp_path, number, words):
    with pytest.raises(OutputError, match=words) as error, writing(tmp_path / "a"):
        raise OSError(number, os.strerror(number))
    assert ("free space" in str(error.value)) == (words == "free space")


def test_what_a_killed_process_left_is_swept(tmp_path):
    """Pid 1 is alive, one above the highest is not; another machine's is not ours to judge."""
    gone, host = int(Path("/proc/sys/kernel/pid_max").read_text()) + 1, files._HOST
    names = [f".a.png.{host}-{gone}.part", f".a.png.{host}-1.part", f".a.png.elsewhere-{gone}.part", "a.png", ".part"]
    for name in names:
        (tmp_path / name).touch()
    sweep(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == set(names[1:])


def test_what_made_a_folders_files(tmp_path):
    """By the settings that lines name; where there is no manifest, settings.json may be anything."""
    (tmp_path / "settings.json").write_text('{"brightness": 10}')
    assert Manifest.settings_used(tmp_path) == {}
    Manifest(tmp_path / "ours", {"steps": 4}).add({"id": "7"})
    Manifest(tmp_path / "ours", {"steps": 5}, overwrite=True)
    assert list(Manifest.settings_used(tmp_path / "ours").values()) == [{"steps": 4}]


def test_a_full_disk_is_told_by_the_manifest_too(tmp_path):
    os.symlink("/dev/full", tmp_path / "manifest.jsonl")
    with pytest.raises(OutputError, match=r"manifest.jsonl cannot be written to .*: No space left on device"):
        Manifest(tmp_path, {}, overwrite=True).add({"id": "7"})


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be made"):
        write_bytes(tmp_path / "file/inside/a", b"")


def test_json_errors_name_file_and_line(tmp_path):
    (tmp_path / "a.json").write_text('{"a": 1,\n "b" 2}')
    with pytest.raises(InputError, match=r"a\.json, line 2, column 6"):
        read_json(tmp_path / "a.json")
    (tmp_path / "b.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"b\.json cannot be read"):
        read_json(tmp_path / "b.json")
    with pytest.raises(NotFoundError):
        read_json(tmp_path / "c.json")


# Embeddings


def test_embedding_files_have_the_published_keys(tmp_path):
    batch = composed()
    write_embedding(tmp_path / "b.pt", batch, 1)
    raw = torch.load(tmp_path / "b.pt", weights_only=True)
    assert {key: tuple(value.shape) for key, value in raw.items()} == {
        "conditioning": (7, 3),
        "conditioning2": (7, 4),
        "pooled": (7, 3),
        "pooled2": (5,),
    }
    assert torch.equal(raw["pooled"], batch.last[1])
    assert (tmp_path / "b.pt").stat().st_size < 4000, "a row, not the batch behind it"


def test_bytes_do_not_depend_on_the_name(tmp_path):
    batch = composed()
    for name in ("a.pt", "some/other.pt"):
        write_embedding(tmp_path / name, batch, 0)
    assert (tmp_path / "a.pt").read_bytes() == (tmp_path / "some/other.pt").read_bytes()


def test_published_files_may_lead_with_a_one(tmp_path):
    row = {"conditioning": torch.ones(1, 7, 3), "conditioning2": torch.ones(1, 7, 4), "pooled2": torch.ones(1, 5)}
    torch.save(row, tmp_path / "a.pt")
    read = read_embedding(tmp_path / "a.pt")
    assert stack_embeddings(["a"], [read]).prompt.shape == (1, 7, 7)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"conditioning": None}, 'no tensor "conditioning"'),
        ({"pooled2": torch.ones(2, 5)}, r'"pooled2" is \(2, 5\)'),
        ({"pooled2": torch.ones(5, dtype=torch.long)}, "floats"),
        ({"conditioning2": torch.full((7, 4), torch.nan)}, "not finite"),
    ],
)
def test_bad_embeddings(tmp_path, change, words):
    row = {"conditioning": torch.ones(7, 3), "conditioning2": torch.ones(7, 4), "pooled2": torch.ones(5)}
    torch.save(row | change, tmp_path / "a.pt")
    with pytest.raises(InputError, match=words):
        read_embedding(tmp_path / "a.pt")


def test_embeddings_of_two_runs_do_not_mix():
    rows = [
        {"conditioning": torch.ones(7, n), "conditioning2": torch.ones(7, 4), "pooled2": torch.ones(5)} for n in (3, 6)
    ]
    with pytest.raises(MismatchError, match="differ in shape"):
        stack_embeddings(["a", "b"], rows)


# Names


def test_picture_names():
    assert [picture_name(name) for name in ("7", "12063", "123456", "a-1")] == [
        "00007.png",
        "12063.png",
        "123456.png",
        "a-1.png",
    ]


@given(st.integers(0, 10**7))
def test_padded_names_are_found(number):
    assert int(picture_name(str(number)).removesuffix(".png")) == number


def test_padded_and_unpadded_files_are_found(tmp_path):
    for name in ("00007.png", "8.png", "12063.png", "9.txt"):
        (tmp_path / name).write_text("x")
    paths = find_by_id(tmp_path, ["7", "8", "9", "12063"], [".png"])
    assert {key: path.name for key, path in paths.items()} == {"7": "00007.png", "8": "8.png", "12063": "12063.png"}


def test_two_files_of_one_query_must_agree(tmp_path):
    for name in ("00007.png", "7.png"):
        (tmp_path / name).write_text("x")
    assert find_by_id(tmp_path, ["7"], [".png"])["7"].name == "00007.png"
    (tmp_path / "7.png").write_text("y")
    with pytest.raises(MismatchError, match="query 7 has files that differ"):
        find_by_id(tmp_path, ["7"], [".png"])
    with pytest.raises(NotFoundError):
        find_by_id(tmp_path / "none", ["7"], [".png"])


# Manifests


def test_the_last_line_of_an_id_wins(tmp_path):
    manifest = Manifest(tmp_path, {"steps": 4})
    for seed in (1, 2):
        manifest.add({"id": "7", "seed": seed})
    again = Manifest(tmp_path, {"steps": 4})
    assert again.lines["7"] == {"id": "7", "seed": 2, "settings": digest_of({"steps": 4})}


def test_other_settings_are_refused_by_name(tmp_path):
    Manifest(tmp_path, {"steps": 4, "seed": 1}).add({"id": "7"})
    with pytest.raises(MismatchError, match=r"steps: 4 there, 8 now.*--overwrite"):
        Manifest(tmp_path, {"steps": 8, "seed": 1})
    assert Manifest(tmp_path, {"steps": 8, "seed": 1}, overwrite=True).lines == {}


def test_a_torn_line_is_not_done_and_hurts_no_other(tmp_path):
    manifest = Manifest(tmp_path, {})
    manifest.add({"id": "1"})
    with manifest.path.open("a") as file:
        file.write('{"id": "2", "se')
    Manifest(tmp_path, {}).add({"id": "3"})
    assert set(Manifest.read(tmp_path)) == {"1", "3"}
    assert len(manifest.path.read_text().splitlines()) == 3


def test_digests_ignore_the_order_of_keys():
    assert digest_of({"a": 1, "b": 2}) == digest_of({"b": 2, "a": 1}) != digest_of({"a": 1, "b": 3})


def test_identity_is_by_content(tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps({}))
    first, second = identity(tmp_path / "a")["sha256"], identity(tmp_path / "b")["sha256"]
    assert first == second
    (tmp_path / "b/model.safetensors").write_bytes(b"w")
    assert identity(tmp_path / "b")["sha256"] != second
    (tmp_path / "a/runs").mkdir()
    (tmp_path / "a/runs/training.json").write_text("{}")
    assert fingerprints({"clip": identity(tmp_path / "a")}) == {"clip": first}, "what is made of it is kept in it"
    assert identity("someone/model") == {"source": "someone/model", "revision": "unknown"}
