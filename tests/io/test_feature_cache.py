"""What runs remember: features by content, digests by place, descriptions; two processes at once; damage."""

import contextlib
import os
import sqlite3
import subprocess
import sys
import time

import numpy as np
import pytest

from cig.errors import InputError, NotFoundError
from cig.io.feature_cache import FILE, FeatureCache, summary


def old(path, text="x"):
    """A file that was written a minute ago."""
    path.write_text(text)
    os.utime(path, (time.time() - 60,) * 2)
    return path


def test_features_by_space_and_key(tmp_path):
    cache = FeatureCache(tmp_path)
    one, two = cache.space({"model": 1}, "one"), cache.space({"model": 2}, "two")
    cache.write(one, {"a": np.array([1.0, 2.0], np.float32), "b": np.array([3.0, 4.0], np.float32)})
    again = FeatureCache(tmp_path)
    assert {key: row.tolist() for key, row in again.read(one, ["b", "c", "a", "a"])} == {"a": [1, 2], "b": [3, 4]}
    assert not dict(again.read(two, ["a"]))
    assert again.spaces() == [("one", 2, 16)]


def test_many_keys_are_read_in_pieces(tmp_path):
    cache = FeatureCache()
    space = cache.space({}, "")
    cache.write(space, {str(i): np.full(3, i, np.float32) for i in range(1200)})
    assert {int(key): int(row[0]) for key, row in cache.read(space, map(str, range(2000)))} == {
        i: i for i in range(1200)
    }


def test_digests_are_remembered_until_the_file_changes(tmp_path):
    cache, a, b = FeatureCache(tmp_path), old(tmp_path / "a"), old(tmp_path / "b")
    cache.write_digests({a: "A", b: "B", tmp_path / "gone": "G"}, time.time())
    assert FeatureCache(tmp_path).read_digests([a, b, tmp_path / "gone"]) == {a: "A", b: "B"}
    old(b, "longer")
    assert cache.read_digests([a, b]) == {a: "A"}
    os.utime(a, (time.time() - 30,) * 2)
    assert not cache.read_digests([a])


@pytest.mark.parametrize("replaced", [True, False])
def test_a_file_of_the_same_size_and_time_is_another(tmp_path, replaced):
    """Written in place, or another file moved onto it, with the time set back as `cp -p` and `touch -r` do."""
    cache, path = FeatureCache(tmp_path), old(tmp_path / "a", "one")
    before, content = path.stat(), cache.file_digest(path)
    assert cache.read_digests([path]) == {path: content}
    other = tmp_path / "b" if replaced else path
    other.write_text("two")
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    other.replace(path)
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    assert not cache.read_digests([path])
    assert cache.file_digest(path) != content


def test_a_cache_of_an_older_version_is_read_and_emptied(tmp_path):
    with sqlite3.connect(tmp_path / FILE) as db:
        db.execute("CREATE TABLE file (path TEXT PRIMARY KEY, size INTEGER, mtime INTEGER, digest TEXT)")
        db.execute("INSERT INTO file VALUES ('00', 1, 1, 'A')")
    cache, path = FeatureCache(tmp_path), old(tmp_path / "a")
    content = cache.file_digest(path)
    assert cache.read_digests([path]) == {path: content}
    cache.clear()
    assert not cache.read_digests([path])


@pytest.mark.parametrize(
    ("age", "whole_seconds", "stored"), [(0, False, False), (0.2, False, True), (1, True, False), (4, True, True)]
)
def test_a_file_that_changed_a_moment_ago_is_not_remembered(tmp_path, age, whole_seconds, stored):
    """It could change again within a tick of the clock; one of whole seconds ticks slowly."""
    cache, path = FeatureCache(tmp_path), old(tmp_path / "a")
    when = int((time.time() - age) * 1e9)
    when = when // 10**9 * 10**9 if whole_seconds else when | 1
    os.utime(path, ns=(when, when))
    cache.write_digests({path: "A"}, time.time())
    assert bool(cache.read_digests([path])) == stored


def test_a_file_that_another_was_moved_onto_since_it_was_read_is_not_remembered(tmp_path):
    """The other is as old as one likes: only its place is new."""
    cache, path, other = FeatureCache(tmp_path), old(tmp_path / "a"), old(tmp_path / "b", "other")
    since = time.time()
    time.sleep(0.02)  # more than a tick
    other.rename(path)
    cache.write_digests({path: "A"}, since)
    assert not cache.read_digests([path])


def test_names_that_are_no_text(tmp_path):
    cache, path = FeatureCache(tmp_path), old(tmp_path / os.fsdecode(b"\xff\xfe \n'--"))
    cache.write_digests({path: "A"}, time.time())
    assert cache.read_digests([path]) == {path: "A"}


def test_a_described_thing_is_loaded_when_it_must(tmp_path):
    class Model:
        name, width = "m", 7

        def __call__(self, x):
            return x + 1

    loads = []

    def load():
        loads.append(1)
        return Model()

    def recall(**made_of):
        return FeatureCache(tmp_path).load_lazily(made_of, load, lambda model: {"name": model.name})

    assert recall(digest="1").width == 7
    deferred = recall(digest="1")
    assert (deferred.name, len(loads)) == ("m", 1)
    assert (deferred.width, deferred(1), len(loads)) == (7, 2, 2)
    assert recall(digest="2").name == "m"
    assert len(loads) == 3
    for _ in range(2):
        recall(source="hub/id", revision="unknown")
    assert len(loads) == 5, "what is not known for sure is loaded"


def test_showing_and_clearing(tmp_path):
    cache = FeatureCache(tmp_path)
    cache.write(cache.space({}, "pictures of x"), {"a": np.zeros(2**18, np.float32)})
    assert summary(tmp_path).splitlines() == [
        "     1.0 MB         1 features  pictures of x",
        f"     1.0 MB         1 features in {tmp_path}",
    ]
    cache.clear()
    assert summary(tmp_path) == f"     0.0 MB         0 features in {tmp_path}"
    with pytest.raises(NotFoundError, match="has no feature cache"):
        summary(tmp_path / "elsewhere")


@pytest.mark.parametrize(
    "content", [b"not a database, but long enough to look at" * 9, b"SQLite format 3\0" + b"x" * 99]
)
def test_a_damaged_cache_says_what_to_remove(tmp_path, content):
    (tmp_path / "features.sqlite").write_bytes(content)
    with pytest.raises(InputError, match=r"features.sqlite cannot be used: .*remove that file"):
        FeatureCache(tmp_path)


def change(folder, statement, *values):
    with contextlib.closing(sqlite3.connect(folder / "features.sqlite")) as db, db:
        db.execute(statement, values)


@pytest.mark.parametrize(
    "value",
    [b"", b"\0", b"\0" * 7, b"\0" * 4, b"\0" * 8, b"\0" * 12, "text", 7, None, np.float32([np.nan, 1]).tobytes()],
)
def test_damaged_values_are_absent(tmp_path, value):
    """Those of the right size, too: a checksum tells. What is absent is computed again and written over."""
    cache = FeatureCache(tmp_path)
    space = cache.space({}, "one")
    cache.write(space, {"a": np.array([1.0, 2.0], np.float32), "b": np.array([3.0, 4.0], np.float32)})
    change(tmp_path, "UPDATE feature SET value = ? WHERE key = 'a'", value)
    again = FeatureCache(tmp_path)
    assert {key: row.tolist() for key, row in again.read(space, "ab")} == {"b": [3, 4]}
    again.write(space, {"a": np.array([5.0, 6.0], np.float32)})
    assert {key: row.tolist() for key, row in again.read(space, "ab")} == {"a": [5, 6], "b": [3, 4]}
    summary(tmp_path)


def test_rows_that_another_program_put_there_are_absent(tmp_path):
    cache = FeatureCache(tmp_path)
    space = cache.space({}, "one")
    change(tmp_path, "INSERT INTO feature VALUES (?, 'a', ?)", space, b"\0" * 4)
    change(tmp_path, "UPDATE space SET title = NULL")
    assert not dict(FeatureCache(tmp_path).read(space, "a"))
    summary(tmp_path)


def test_values_of_a_cache_without_checksums_are_kept(tmp_path):
    cache = FeatureCache(tmp_path)
    space = cache.space({}, "one")
    cache.write(space, {"a": np.array([1.0], np.float32), "b": np.array([np.inf], np.float32)})
    cache.close()
    change(tmp_path, "DROP TABLE checksum")
    change(tmp_path, "PRAGMA user_version = 0")
    assert {key: row.tolist() for key, row in FeatureCache(tmp_path).read(space, "ab")} == {"a": [1]}


@pytest.mark.parametrize("value", ["{", "[]", "null", '{"name": 3}', "", b"\xff", None])
def test_a_damaged_description_is_made_again(tmp_path, value):
    def described():
        return FeatureCache(tmp_path).load_lazily({"a": 1}, lambda: "model", lambda model: {"name": "model"})

    assert described() == "model"
    change(tmp_path, "UPDATE description SET value = ?", value)
    assert described() == "model", "loaded again"
    assert described().name == "model", "and described again"


def test_features_of_several_widths_say_what_to_remove(tmp_path):
    with pytest.raises(InputError, match=r"widths 1, 2; .*features.sqlite|features.sqlite .*widths 1, 2.*remove"):
        FeatureCache(tmp_path).stack([np.zeros(1, np.float32), np.zeros(2, np.float32)])


def test_two_processes_write_at_once(tmp_path):
    code = """if True:
        import sys, numpy as np, pathlib
        from cig.io.feature_cache import FeatureCache
        cache = FeatureCache(pathlib.Path(sys.argv[1]))
        for i in range(60):
            cache.write(cache.space({}, "s"), {f"{sys.argv[2]}-{i}": np.full(8, i, np.float32)})
            cache.write(cache.space({}, "s"), {f"both-{i}": np.full(8, i, np.float32)})
    """
    jobs = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path), name]) for name in "ab"]
    assert [job.wait() for job in jobs] == [0, 0]
    assert FeatureCache(tmp_path).spaces() == [("s", 180, 180 * 32)]
