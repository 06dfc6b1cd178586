"""Locks of folders and files: who holds them, who may work beside whom, what a kill leaves."""

import errno
import json
import os
import signal

import pytest

from cig.errors import OutputError, UsageError
from cig.io import locks
from cig.io.locks import FOLDER_LOCK, agree, hold, hold_file
from cig.runtime import Shard


def test_a_held_folder_names_its_holder(tmp_path, held_elsewhere):
    process = held_elsewhere("folder", tmp_path)
    with pytest.raises(UsageError, match=rf"process {process.pid} on .*-c folder"), hold(tmp_path, "test"):
        pass


@pytest.mark.parametrize("signal_", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_holder_is_no_hindrance(tmp_path, held_elsewhere, signal_):
    process = held_elsewhere("folder", tmp_path)
    process.send_signal(signal_)
    process.wait()
    assert (tmp_path / FOLDER_LOCK).exists()
    with hold(tmp_path, "test"):
        pass
    assert not list(tmp_path.iterdir())


def test_a_folder_is_held_until_the_outer_call_ends(tmp_path):
    with hold(tmp_path, "outer"):
        with hold(tmp_path, "inner"):
            pass
        assert json.loads((tmp_path / FOLDER_LOCK).read_text())["pid"] == os.getpid()
    assert not list(tmp_path.iterdir())


def test_shares_work_side_by_side(tmp_path, held_elsewhere):
    held_elsewhere("folder", tmp_path, "1/2")
    with hold(tmp_path, "test", Shard(2, 2)):
        pass
    for shard in (Shard(1, 2), None):
        with pytest.raises(UsageError), hold(tmp_path, "test", shard):
            pass


def test_a_share_does_not_enter_a_folder_that_is_held_whole(tmp_path, held_elsewhere, monkeypatch):
    monkeypatch.setattr(locks, "WAIT", 0.1)
    held_elsewhere("folder", tmp_path)
    with pytest.raises(UsageError), hold(tmp_path, "test", Shard(1, 2)):
        pass


def test_shares_agree_on_settings(tmp_path, held_elsewhere):
    process = held_elsewhere("folder", tmp_path, "1/2", "abc")
    with hold(tmp_path, "test", Shard(2, 2)):
        agree(tmp_path, "abc")
        with pytest.raises(UsageError, match=str(process.pid)):
            agree(tmp_path, "def")
        process.kill()
        process.wait()
        agree(tmp_path, "def")


def test_files_are_held_one_by_one(tmp_path, held_elsewhere):
    held_elsewhere("file", tmp_path / "a.json")
    with hold_file(tmp_path / "b.json", "test"):
        pass
    (tmp_path / "link.json").symlink_to("a.json")
    for name in ("a.json", "link.json"):
        with pytest.raises(UsageError), hold_file(tmp_path / name, "test"):
            pass


@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES, errno.ENOLCK, errno.ENOSYS])
def test_what_cannot_be_locked_is_no_hindrance(tmp_path, monkeypatch, code):
    def fail(self):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(locks.FileLock, "acquire", fail)
    with hold(tmp_path, "test"):
        pass


def test_a_full_disk_is_an_error_of_the_folder(tmp_path, monkeypatch):
    def fail(self):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(locks.FileLock, "acquire", fail)
    with pytest.raises(OutputError, match=str(tmp_path)), hold(tmp_path, "test"):
        pass
