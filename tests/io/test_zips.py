"""Zips that nobody should trust: each member is unpacked whole, below its folder, or refused with the reason."""

import contextlib
import io
import random
import struct
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cig.errors import InputError, NotFoundError
from cig.io.zips import Archive, Bounds, safe_path, unsafe_name_reason

LINK, FIFO, PLAIN = 0o120777, 0o010644, 0o100644


def zipped(path, *members, packed=zipfile.ZIP_DEFLATED):
    """Members are (name, content) or (name, content, mode)."""
    with zipfile.ZipFile(path, "w", packed) as file:
        for name, content, *mode in members:
            info = zipfile.ZipInfo(name)
            info.compress_type = packed
            info.external_attr = (mode or [PLAIN])[0] << 16
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("warnings.warn", lambda *_, **__: None)  # of names that occur twice
                file.writestr(info, content)
    return path


def patched(path, old, new):
    assert len(old) == len(new)
    data = path.read_bytes()
    assert old in data
    path.write_bytes(data.replace(old, new))
    return path


def test_members_are_unpacked_whole_once(tmp_path):
    path = zipped(tmp_path / "a.zip", ("deep/", b""), ("deep/a.jpg", b"one"), ("b.PNG", b"two"), ("notes.txt", b"no"))
    with Archive(path) as archive:
        assert (list(archive.members), archive.refused, archive.others) == (["deep/a.jpg", "b.PNG"], {}, ["notes.txt"])
        target = tmp_path / "out" / "a.jpg"
        assert archive.unpack("deep/a.jpg", target)
        assert not archive.unpack("deep/a.jpg", target)
        target.write_bytes(b"onf")  # the size is right
        assert archive.unpack("deep/a.jpg", target)
        assert target.read_bytes() == b"one"
    assert [path.name for path in target.parent.iterdir()] == ["a.jpg"]


HOSTILE = {
    "../up.jpg": "leads out",
    "a/../../up.jpg": "leads out",
    "a//b.jpg": "leads out",
    "./a.jpg": "leads out",
    "... /a.jpg": "leads out",
    "/etc/a.jpg": "absolute",
    "C:/a.jpg": "absolute",
    "C:a.jpg": "absolute",
    "..\\up.jpg": "absolute",
    "\\\\host\\a.jpg": "absolute",
    "a.txt:hidden.jpg": "absolute",
    "a\nb.jpg": "control",
    "\x1b[2Ja.jpg": "control",
    "x" * 300 + ".jpg": "too long",
    "x/" * 600 + ".jpg": "too long",
}


@pytest.mark.parametrize("name", HOSTILE, ids=ascii)
def test_hostile_names_are_refused_and_others_taken(tmp_path, name):
    with Archive(zipped(tmp_path / "a.zip", (name, b"evil"), ("good.jpg", b"good"))) as archive:
        assert list(archive.members) == ["good.jpg"]
        ((refused, why),) = archive.refused.items()
        assert (refused, HOSTILE[name] in why) == (name, True)


def test_a_name_that_ends_before_it_ends(tmp_path):
    """zipfile cuts a name at NUL, so what is checked must be the name that is in the file."""
    path = patched(zipped(tmp_path / "a.zip", ("good.jpgX.jpg", b"x")), b"good.jpgX.jpg", b"good.jpg\0.jpg")
    with Archive(path) as archive:
        assert archive.members == {}
        assert "control" in archive.refused["good.jpg"]


@pytest.mark.parametrize(("mode", "taken"), [(LINK, False), (FIFO, False), (PLAIN, True), (0, True)])
def test_only_files_are_taken(tmp_path, mode, taken):
    with Archive(zipped(tmp_path / "a.zip", ("a.jpg", b"/etc/passwd", mode))) as archive:
        assert ("a.jpg" in archive.members) == taken
        assert taken or "a link" in archive.refused["a.jpg"]


def test_encrypted_members(tmp_path):
    path = zipped(tmp_path / "a.zip", ("a.jpg", b"secret"))
    data = bytearray(path.read_bytes())
    data[6] |= 1
    data[data.index(b"PK\1\2") + 8] |= 1
    path.write_bytes(data)
    with Archive(path) as archive:
        assert archive.refused == {"a.jpg": "it is encrypted"}


@pytest.mark.parametrize("packed", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_ways_of_packing(tmp_path, packed):
    with Archive(zipped(tmp_path / "a.zip", ("a.jpg", b"x"), packed=packed)) as archive:
        assert "another method" in archive.refused["a.jpg"]


def test_a_name_that_occurs_twice_is_not_chosen_from(tmp_path):
    with Archive(
        zipped(tmp_path / "a.zip", ("a.jpg", b"1"), ("A.JPG", b"2"), ("b.jpg", b"3"), ("b.jpg", b"4"))
    ) as archive:
        assert archive.members == {}
        assert set(archive.refused.values()) == {"its name occurs several times"}


def test_bombs(tmp_path):
    zeros = bytes(3 * 2**20)
    noise = random.Random(0).randbytes(3 * 2**20)
    path = zipped(tmp_path / "a.zip", ("ratio.jpg", zeros), ("size.jpg", noise), ("little.jpg", bytes(2**20)))
    with Archive(path, Bounds(member=2**22)) as archive:
        assert list(archive.members) == ["size.jpg", "little.jpg"]
        assert "from 3,0" in archive.refused["ratio.jpg"]
    with Archive(path, Bounds(member=2**21, ratio=2000)) as archive:
        assert list(archive.members) == ["little.jpg"]
    with pytest.raises(InputError, match="unpacks to 7,340,032 bytes, over 1,000"), Archive(path, Bounds(total=1000)):
        pass


def test_members_that_share_their_bytes(tmp_path):
    """Fifield's bomb: many entries of the list, one content."""
    path = zipped(tmp_path / "a.zip", ("a.jpg", b"x" * 50), ("b.jpg", b"y" * 50))
    data = path.read_bytes()
    first, second = data.index(b"PK\1\2"), data.rindex(b"PK\1\2")
    offset = data[first + 42 : first + 46]
    path.write_bytes(data[: second + 42] + offset + data[second + 46 :])
    with pytest.raises(InputError, match="members overlap"), Archive(path):
        pass


def test_a_list_of_members_that_would_fill_the_memory(tmp_path):
    """A sparse file of 64 GB, whose last bytes say that the list is most of it."""
    path = tmp_path / "a.zip"
    with path.open("wb") as file:
        file.seek(2**36)
        file.write(struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 1, 1, 2**32 - 2, 0, 0))
    with pytest.raises(InputError, match=r"not a whole zip: it wants 4,294,967,294 bytes at once"), Archive(path):
        pass


def test_a_member_that_unpacks_to_more_than_it_says(tmp_path):
    content = b"x" * 5000
    path = zipped(tmp_path / "a.zip", ("a.jpg", content))
    patched(path, struct.pack("<L", len(content)), struct.pack("<L", 100))
    with Archive(path) as archive:
        with pytest.raises(InputError, match=r"a\.jpg"):
            archive.read("a.jpg")
        with pytest.raises(InputError, match=r"a\.jpg"):
            archive.unpack("a.jpg", tmp_path / "out/a.jpg")
    assert not (tmp_path / "out").exists()


def test_a_damaged_member_is_named_and_not_written(tmp_path):
    noise = random.Random(0).randbytes(1000)
    path = zipped(tmp_path / "a.zip", ("a.jpg", noise), ("b.jpg", b"good"), packed=zipfile.ZIP_STORED)
    patched(path, noise[:4], b"evil")
    with Archive(path) as archive:
        with pytest.raises(InputError, match=r"a\.zip: a\.jpg .*CRC"):
            archive.unpack("a.jpg", tmp_path / "out" / "a.jpg")
        archive.unpack("b.jpg", tmp_path / "out" / "b.jpg")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["b.jpg"]


@pytest.mark.parametrize("content", [b"", b"<html>log in</html>", b"PK\3\4 and then nothing"], ids=ascii)
def test_what_is_no_zip(tmp_path, content):
    path = tmp_path / "a.zip"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"a\.zip is not a whole zip"), Archive(path):
        pass
    with pytest.raises(NotFoundError, match="is not there"), Archive(tmp_path / "none.zip"):
        pass


def whole_zip():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a/one.jpg", b"first content, " * 9)
        file.writestr("two.png", b"second")
    return buffer.getvalue()


WHOLE = whole_zip()


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, len(WHOLE) - 1), st.integers(0, 255)), min_size=1, max_size=6),
    st.integers(0, len(WHOLE)) | st.just(len(WHOLE)),
)
def test_damage_anywhere_gives_what_the_list_says_or_an_input_error(tmp_path_factory, damage, end):
    data = bytearray(WHOLE)
    for at, value in damage:
        data[at] = value
    path = tmp_path_factory.mktemp("zip") / "a.zip"
    path.write_bytes(data[:end])
    with contextlib.suppress(InputError), Archive(path) as archive:
        for name, info in archive.members.items():
            with contextlib.suppress(InputError):
                assert len(archive.read(name)) == info.file_size


@settings(max_examples=500, deadline=None)
@given(st.text(max_size=40) | st.text("./\\:aC", max_size=12), st.text(max_size=20) | st.text("./\\a", max_size=8))
def test_no_name_leads_out_of_a_folder(folder, name):
    root = Path("/data/root")
    try:
        path = safe_path(root, folder, name)
    except InputError:
        assert unsafe_name_reason(name) or "/" in name
    else:
        assert path.is_relative_to(root)
        assert ".." not in path.parts
        assert path.name == name


def test_places_of_annotation_files():
    root = Path("/data")
    assert safe_path(root, "./train/34", "a.png") == Path("/data/train/34/a.png")
    assert safe_path(root, "", "a.png") == safe_path(root, ".", "a.png") == Path("/data/a.png")
    assert safe_path(root, "../../etc", "a.png") == safe_path(root, "/etc", "a.png") == Path("/data/a.png")
    with pytest.raises(InputError, match="cannot name a file"):
        safe_path(root, "", "../a.png")
