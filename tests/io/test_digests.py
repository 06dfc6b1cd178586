"""Digests of very large files are remembered for a user, for as long as their stamps stay the same."""

import os

import pytest

from cig.io import digests
from cig.io.digests import digest, file_digest, read_digest


@pytest.fixture
def file(tmp_path, monkeypatch):
    """A file of more than 1 MB, and a user's cache of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(digests, "REMEMBERED", 0)
    monkeypatch.setattr(digests, "TICK", -60.0)  # as if the file were older
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"a" * (2**20 + 1))
    return path


def again(path):
    """As another process would."""
    digests._digest_once.cache_clear()
    return file_digest(path)


def test_a_digest_is_remembered(file, monkeypatch):
    whole = digest(file.read_bytes())
    assert file_digest(file) == whole
    with monkeypatch.context() as patch:
        patch.setattr(digests, "read_digest", None)
        assert again(file) == whole


def test_a_changed_file_of_the_same_size_and_modification_time_is_read_again(file):
    file_digest(file)
    status = file.stat()
    file.write_bytes(b"b" * (2**20 + 1))
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert again(file) == digest(b"b" * (2**20 + 1))


def test_a_new_file_is_not_remembered(file, tmp_path, monkeypatch):
    """Within a tick of its clock it could change again, unnoticed."""
    monkeypatch.setattr(digests, "TICK", 2.0)
    file_digest(file)
    assert not (tmp_path / "cache/cig/digests").exists()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b'{"path": 1}', b"\xff"])
def test_a_damaged_note_is_written_again(file, tmp_path, content):
    file_digest(file)
    (note,) = (tmp_path / "cache/cig/digests").iterdir()
    whole = note.read_bytes()
    note.write_bytes(content)
    assert again(file) == digest(file.read_bytes())
    assert note.read_bytes() == whole


def test_a_cache_that_cannot_be_made_is_done_without(file, tmp_path):
    (tmp_path / "cache").write_text("a file")
    assert again(file) == digest(file.read_bytes())


def test_what_is_verified_is_read(file):
    """A disk may damage a file without any stamp changing; `cig models check` would not see that by a note."""
    file_digest(file)
    (note,) = (file.parent / "cache/cig/digests").iterdir()
    note.write_text(note.read_text().replace(digest(file.read_bytes()), "0" * 64))
    assert again(file) == "0" * 64
    assert read_digest(file) == digest(file.read_bytes())
