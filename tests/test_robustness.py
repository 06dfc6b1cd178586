"""Hostile input: whatever a file holds, its reader returns a value or raises a CigError that names the file.

Over 10,000 inputs in a plain run, the same every time; CIG_HOSTILE=10 makes ten times as many, and others.
No code of a pickle runs, and nothing is written but where the test says. docs/robustness.md has a row for each.
"""

import json
import os
import pickle
import random
import re
import shutil
import struct
import warnings
import zipfile
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import tiny
from cig import config, registry
from cig.benchmarks import ID, load_benchmark, load_benchmarks, split_name
from cig.cli.main import main
from cig.errors import CigError, InputError, MismatchError, NotFoundError, PictureError
from cig.generators._generate import OutputFolder
from cig.io.dataset_paths import find_home, list_pictures
from cig.io.images import Preprocess, limit_pixels, read_batches, read_picture
from cig.io.json_files import read_json
from cig.io.manifest import Manifest
from cig.io.query_files import find_by_id
from cig.io.tensors import read_embedding, read_tensors
from cig.models.clip import load_clip
from cig.models.phi import Phi, load_phi
from cig.models.tokenizer import openai_tokenizer
from cig.types import Query

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.slow]  # together they take long
TIMES = int(os.environ.get("CIG_HOSTILE", "1"))
CPU = torch.device("cpu")
seen: Counter = Counter()  # inputs by test, and what came of them


@pytest.fixture(autouse=True)
def watch(tmp_path, monkeypatch):
    """Runs in an empty folder that stays empty, beside which `ran` would be made by any pickle that runs."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    yield
    assert not (tmp_path / "ran").exists(), "a pickle ran"
    assert not os.listdir(tmp_path / "here"), "a file was written where no one asked for it"


def rounds(what, count):
    """Seeded generators, one for each input; the seed of a failure is in its traceback."""
    for i in range(count * TIMES):
        seen[what] += 1
        yield random.Random(f"{what}/{i}")


def attempt(call, *named):
    """The value; or None after a CigError, which names one of these."""
    try:
        return call()
    except CigError as error:
        text = str(error)
        assert not named or any(str(name) in text for name in named), text[:500]
        assert len(text) < 20_000, "an error that floods the terminal"
        seen["refused"] += 1
        return None


# Hostile values and bytes

TEXTS = [
    "",
    "a",
    "../../etc/passwd",
    "/etc/passwd",
    "a\0b",
    "\ud800",
    "\x1b[2J",
    "é" * 300,
    "x" * 10_000,
    "\u202e",
    "..",
    ".",
]
NUMBERS = [0, -1, 7, 2**63, 10**40, 1.5, float("nan"), float("inf"), -0.0, 1e300]
NESTED = [[], {}, [[]], {"a": {"b": [None]}}, [None] * 3, {"members": "x"}, {"images": 5}, {"images": [{"id": []}]}]
WILD = [None, True, False, *TEXTS, *NUMBERS, *NESTED]
SPLICES = [b"", b"\0", b"\xff\xfe", b"[" * 100_000, b'{"a":' * 5000, b"1" * 5000, b"NaN", b"-Infinity", b"\xef\xbb\xbf"]
SPLICES += [b"null", b"[]", b"{}", b"\\ud800", b'"', b"\xed\xa0\x80", b"1e999", b"\n" * 9, b"\x80\x04.", b"PK\x03\x04"]


def wilder(rng, value, depth=0):
    """A copy with one part replaced, lost, doubled or renamed."""
    if isinstance(value, dict) and value and rng.random() < 0.8:
        key = rng.choice(list(value))
        fate = rng.random()
        if fate < 0.1:
            return {k: v for k, v in value.items() if k != key}
        if fate < 0.2:
            return {str(rng.choice(TEXTS)) if k == key else k: v for k, v in value.items()}
        return {k: wilder(rng, v, depth + 1) if k == key else v for k, v in value.items()}
    if isinstance(value, list) and value and rng.random() < 0.8:
        place = rng.randrange(len(value))
        fate = rng.random()
        if fate < 0.2:
            return value[:place] + value[place + 1 :] if fate < 0.1 else [*value, value[place]]
        return [wilder(rng, v, depth + 1) if i == place else v for i, v in enumerate(value)]
    return rng.choice(WILD)


def damaged(rng, data):
    """Bytes cut short, flipped, spliced, doubled or swapped, one to three times."""
    data = bytearray(data)
    for _ in range(rng.randint(1, 3)):
        at, end = sorted(rng.randrange(len(data) + 1) for _ in range(2))
        match rng.randrange(6):
            case 0:
                del data[at:]
            case 1 if data:
                data[at % len(data)] = rng.randrange(256)
            case 2:
                data[at:at] = rng.choice(SPLICES)
            case 3:
                del data[at : min(end, at + 20)]
            case 4:
                data[at:at] = data[at : min(end, at + 50)]
            case _ if len(data) > 4:
                at %= len(data) - 4
                data[at : at + 4] = rng.choice([b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\1\0\0\0"])
    return bytes(data)


# Annotations: each file of each benchmark in turn, among good ones


def small_world(root):
    rng = random.Random(0)
    tiny.make_cirr(root / "CIRR", rng, 3, 7)
    tiny.make_fashioniq(root / "FashionIQ", rng, 3, 7)
    tiny.make_circo(root / "CIRCO", rng, 3, 7)
    return root


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return small_world(tmp_path_factory.mktemp("data"))


ANNOTATIONS = {
    "cirr/val": ["CIRR/cirr/captions/cap.rc2.val.json", "CIRR/cirr/image_splits/split.rc2.val.json"],
    "fashioniq/val": ["FashionIQ/captions/cap.shirt.val.json", "FashionIQ/image_splits/split.shirt.val.json"],
    "circo/val": [
        "CIRCO/annotations/val.json",
        "CIRCO/COCO2017_unlabeled/annotations/image_info_unlabeled2017.json",
    ],
}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "file"), [(name, file) for name, files in ANNOTATIONS.items() for file in files])
def test_annotations(data, name, file):
    path = data / file
    good = path.read_bytes()
    try:
        for rng in rounds(f"annotations {file}", 700):
            entries = wilder(rng, json.loads(good))
            text = json.dumps(entries, ensure_ascii=rng.random() < 0.9, indent=1).encode("utf-8", "surrogatepass")
            path.write_bytes(text if rng.random() < 0.6 else damaged(rng, good))
            for part in attempt(lambda: load_benchmarks(name, data), path) or ():
                _check_names(part, data)
    finally:
        path.write_bytes(good)


def _check_names(part, home):
    assert all(ID.fullmatch(query.id) for query in part.queries)
    assert all(type(name) is str for name in part.gallery)
    assert all(home in path.parents and ".." not in path.parts for path in part.images.values())
    for query in part.queries:
        assert all(type(name) is str for name in (query.reference, *query.relevant, *query.subset, *query.tags))
        assert all(type(caption) is str for caption in query.captions)


LINES = [
    ('[\n {"pairid": 1, "reference": "a", "caption": "c"},\n {"pairid": 2}\n]', "line 3, entry 1.*lacks reference"),
    ('[{"pairid": 1, "reference": "a", "caption": "c"},\n\n\n 7]', "line 4, entry 1.*lacks pairid, reference"),
    ('[\n\n{"pairid": 1, "reference": ["a"], "caption": "c"}]', "line 3, entry 0.*reference should be a name"),
    ('[{"pairid": 1, "reference": "a",\n "caption": {"x": 1}}]', "line 1, entry 0.*lacks a caption"),
    ('[{"pairid": 1, "reference": "a", "caption": "c",\n "img_set": [1]}]', "img_set is not an object"),
    ('[{"pairid": 1, "reference": "a", "caption": "c", "target_hard": ["b"]}]', "target_hard should be a name"),
    ('[{"pairid": 1, "reference": "a\\u001b[2J", "caption": "c"}]', "reference should be a name"),
    ('[{"pairid": 1, "reference": "\\ud800", "caption": "c"}]', "reference should be a name"),
    ('[{"pairid": true, "reference": "a", "caption": "c"}]', "pairid should be a name"),
    ('[{"pairid": 1,\n "reference": "a"', "line 2, column"),
    ('[{"pairid": ' + "1" * 5000 + "}]", "4300"),
    ("[" * 100_000, "recursion"),
    ("[]", "no entries"),
    ('{"pairid": 1}', "expected a list"),
    ("", "line 1, column 1"),
    ("\0", "line 1"),
]


@pytest.mark.parametrize(("text", "words"), LINES, ids=range(len(LINES)))
def test_wrong_entries_are_named_by_line(tmp_path, text, words):
    path = tmp_path / "captions/cap.rc2.val.json"
    path.parent.mkdir()
    path.write_text(text)
    with pytest.raises(InputError, match=words) as error:
        load_benchmark("cirr/val", tmp_path)
    assert str(path) in str(error.value)


def test_places_in_split_files_stay_inside(data, tmp_path):
    """Absolute paths and `..` in a split file are not followed; pictures are found by name in the dataset's folder."""
    home = shutil.copytree(data / "CIRR", tmp_path / "CIRR")
    (tmp_path / "secret").mkdir()
    tiny.draw(random.Random(0), tmp_path / "secret/x.png")
    split = home / "cirr/image_splits/split.rc2.val.json"
    places = ["../secret/x.png", str(tmp_path / "secret/x.png"), "./dev/../../secret/x.png", "a\0/x.png"[:1] + "/x.png"]
    for place in [*places, "é" * 300 + "/x.png"]:
        split.write_text(json.dumps({"x": place}))
        assert "x" not in load_benchmark("cirr/val", home).images


# Pictures

FORMATS = {
    "PNG": ["RGB", "RGBA", "L", "LA", "P", "1", "I;16"],
    "JPEG": ["RGB", "L", "CMYK"],
    "GIF": ["P", "L"],
    "WEBP": ["RGB", "RGBA"],
    "TIFF": ["RGB", "CMYK", "I;16", "F", "1", "LAB", "YCbCr", "P", "L", "I"],
    "BMP": ["RGB", "P", "1"],
    "ICO": ["RGBA"],
    "PPM": ["RGB", "L"],
    "MPO": ["RGB"],
    "JPEG2000": ["RGB", "L"],
}


def sound_pictures(folder):
    """One file of each format and mode, animated where the format can be."""
    folder.mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (16, 24, 3), dtype=np.uint8)
    for kind, modes in FORMATS.items():
        for mode in modes:
            image = _in_mode(Image.fromarray(noise), mode)
            frames = {"save_all": True, "append_images": [image.copy()]} if kind in ("GIF", "MPO", "WEBP") else {}
            image.save(folder / f"{kind}-{mode.replace(';', '')}.png", kind, **frames)
    return sorted(folder.iterdir())


def _in_mode(image, mode):
    if mode == "I;16":
        return Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    return Image.new("LAB", image.size) if mode == "LAB" else image.convert(mode)


@pytest.fixture
def small_limit():
    limit_pixels(2**20)
    yield
    limit_pixels(2**28)


WAYS = [Preprocess(32), Preprocess(32, pad=True), Preprocess(32, rgb_first=True)]


@pytest.mark.slow
def test_damaged_pictures(tmp_path, small_limit):
    sound = [path.read_bytes() for path in sound_pictures(tmp_path / "sound")]
    path = tmp_path / "a.png"
    for rng in rounds("pictures", 2600):
        path.write_bytes(damaged(rng, rng.choice(sound)))
        (batch,) = read_batches([path], WAYS, 1, workers=1)
        assert all(str(path) in reason for reason in batch.failed.values())
        assert all(torch.isfinite(pixels).all() for pixels in batch.pixels)
        assert len(batch.paths) + len(batch.failed) == 1


def test_every_mode_is_converted_as_pil_does(tmp_path):
    """The first frame, by `convert("RGB")`; an EXIF rotation is not applied (test_images.py)."""
    for path in sound_pictures(tmp_path / "sound"):
        (batch,) = read_batches([path], [Preprocess(16, rgb_first=True)], 1)
        plain = Preprocess(16, rgb_first=True)(Image.open(path).convert("RGB"))
        assert torch.equal(batch.pixels[0][0], plain), path.name


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height, *chunks, data=b""):
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n(ran) (w) file closefile\nshowpage\n"
HOSTILE_PICTURES = {
    "empty": b"",
    "html": b"<html>not found</html>",
    "truncated": png(64, 64, data=b"\0" * 99),
    "huge": png(40_000, 40_000),
    "no pixels": png(0, 7),
    "text bomb": png(8, 8, chunk(b"zTXt", b"a\0\0" + zlib.compress(b"x" * 2**26)), data=b"\0" * 8 * 25),
    "a program": EPS,
    "a line": png(1, 2_000_000, data=b"\0" * 4 * 2_000_000),
}


@pytest.mark.parametrize("kind", HOSTILE_PICTURES)
def test_hostile_pictures_are_named(tmp_path, kind):
    path = tmp_path / "bad.png"
    path.write_bytes(HOSTILE_PICTURES[kind])
    (batch,) = read_batches([path], WAYS, 1)
    assert str(path) in batch.failed[path]


def test_pipes_devices_folders_and_loops_are_no_pictures(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "folder.png").mkdir()
    os.symlink("loop.png", tmp_path / "loop.png")
    os.symlink("/dev/zero", tmp_path / "zero.png")
    os.symlink("nothing", tmp_path / "gone.png")
    for path in list_pictures([tmp_path]).values():
        with pytest.raises(PictureError, match=re.escape(str(path))):
            read_picture(path)
        for read in (read_json, read_embedding, read_tensors):
            with pytest.raises(CigError, match=re.escape(str(path))):
                read(path)


def test_mislabelled_pictures_are_read_as_what_they_are(tmp_path):
    Image.new("RGB", (9, 9)).save(tmp_path / "a.jpg", "GIF")
    assert read_picture(tmp_path / "a.jpg").image.format == "GIF"


# Tensors


@pytest.fixture(scope="module")
def clip(world):
    return load_clip(str(world / "models/clip-small"), CPU, torch.float32)


ROW = {"conditioning": torch.ones(7, 3), "conditioning2": torch.ones(7, 4), "pooled2": torch.ones(5)}


def test_damaged_tensors(tmp_path, clip):
    good, path = [], tmp_path / "7.pt"
    for content in (ROW, {"Phi": Phi(40, 8, 32).state_dict()}):
        for zipped in (True, False):
            torch.save(content, path, _use_new_zipfile_serialization=zipped)
            good.append(path.read_bytes())
    for rng in rounds("tensors", 1000):
        path.write_bytes(damaged(rng, rng.choice(good)))
        row = attempt(lambda: read_embedding(path), path)
        assert row is None or all(torch.isfinite(value).all() for value in row.values())
        attempt(lambda: load_phi(path, clip), path)


def odd_tensors():
    plain = torch.ones(7, 3)
    kinds = [torch.bool, torch.int64, torch.uint8, torch.complex64, torch.float16, torch.bfloat16, torch.float64]
    made = [plain.to(kind) for kind in [*kinds, torch.float8_e4m3fn]]
    made += [plain.to_sparse(), plain.to_sparse_csr(), torch.quantize_per_tensor(plain, 1.0, 0, torch.qint8)]
    made += [torch.empty(7, 3, device="meta"), torch.ones(1).expand(2**40), torch.ones(1, 1).expand(2**20, 2**20)]
    made += [
        torch.empty(0),
        torch.empty(0, 3),
        torch.tensor(1.0),
        torch.full((7, 3), torch.nan),
        torch.ones(1, 1, 7, 3),
    ]
    return [*made, torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]), torch.nn.Parameter(plain)]


with warnings.catch_warnings(action="ignore"):
    ODD = [*odd_tensors(), None, 7, "x", [], {}, {7: torch.ones(1)}]


def test_odd_tensors(tmp_path, clip):
    path = tmp_path / "7.pt"
    phi = Phi(40, 8, 32).state_dict()
    for rng in rounds("odd tensors", 250):
        value = rng.choice(ODD)
        torch.save({**ROW, rng.choice([*ROW, "pooled", 7]): value}, path)
        attempt(lambda: read_embedding(path), path)
        torch.save({"Phi": {**phi, rng.choice(list(phi)): value}}, path)
        attempt(lambda: load_phi(path, clip), path)


class Bomb:
    """Pickles as a call of any function."""

    def __init__(self, call, *arguments):
        self.call, self.arguments = call, arguments

    def __reduce__(self):
        return self.call, self.arguments


def bomb(rng, ran):
    call = rng.choice(
        [(os.system, f"touch {ran}"), (exec, f"open({str(ran)!r}, 'w')"), (eval, f"open({str(ran)!r}, 'w')")]
    )
    content = rng.choice([lambda b: b, lambda b: {"conditioning": b}, lambda b: {"Phi": {"layers.0.weight": b}}])
    return content(Bomb(*rng.choice([call, (open, str(ran), "w"), (os.mkdir, str(ran))])))


def test_pickles_do_not_run(tmp_path, clip):
    path = tmp_path / "7.pt"
    for rng in rounds("bombs", 400):
        content = bomb(rng, tmp_path / "ran")
        if rng.random() < 0.3:
            path.write_bytes(pickle.dumps(content, protocol=rng.randrange(6)))
        else:
            torch.save(content, path, _use_new_zipfile_serialization=rng.random() < 0.5)
        for read in (read_embedding, lambda path: load_phi(path, clip)):
            with pytest.raises(InputError, match=r"7\.pt cannot be read as tensors \(pickled programs are refused\)"):
                read(path)


def test_archives_that_unpack_to_more_are_refused(tmp_path):
    torch.save({**ROW, "pooled": torch.zeros(2**22)}, tmp_path / "a.pt")
    with (
        zipfile.ZipFile(tmp_path / "a.pt") as plain,
        zipfile.ZipFile(tmp_path / "b.pt", "w", zipfile.ZIP_DEFLATED) as to,
    ):
        for member in plain.infolist():
            to.writestr(member.filename, plain.read(member))
    with pytest.raises(InputError, match=r"b\.pt cannot be read.*unpacks to"):
        read_embedding(tmp_path / "b.pt")


@pytest.mark.parametrize("zipped", [True, False])
def test_names_that_keep_torch_busy_are_refused(tmp_path, zipped):
    """A pickle whose class has a name of 200,000 characters: torch's error message about it would take minutes."""
    torch.save({"conditioning": torch.ones(1)}, tmp_path / "a.pt", _use_new_zipfile_serialization=zipped)
    data = (tmp_path / "a.pt").read_bytes()
    name, long = b"torch._utils\n_rebuild_tensor_v2", b"torch." + b"[" * 200_000 + b"\nx"
    if zipped:
        with zipfile.ZipFile(tmp_path / "a.pt") as plain, zipfile.ZipFile(tmp_path / "b.pt", "w") as changed:
            for member in plain.infolist():
                changed.writestr(member.filename, plain.read(member).replace(name, long))
    else:
        (tmp_path / "b.pt").write_bytes(data.replace(name, long))
    with pytest.raises(InputError, match=r"b\.pt cannot be read.*a name of 200\d\d\d characters"):
        read_embedding(tmp_path / "b.pt")


@pytest.mark.parametrize(
    ("change", "kind", "words"),
    [
        ({"layers.0.weight": torch.ones(8)}, InputError, "do not follow from each other"),
        ({"layers.3.weight": torch.ones(8, 9)}, InputError, "do not follow from each other"),
        ({"layers.0.weight": torch.ones(8, 56)}, MismatchError, "features of width 56 .* features of width 40"),
        ({"layers.0.bias": torch.ones(8).long()}, InputError, "not a phi checkpoint"),
        ({"layers.0.weight": torch.empty(0, 40), "layers.0.bias": torch.empty(0)}, InputError, "not a phi checkpoint"),
    ],
)
def test_phi_of_odd_shapes(tmp_path, clip, change, kind, words):
    torch.save({"Phi": {**Phi(40, 8, 32).state_dict(), **change}}, tmp_path / "phi.pt")
    with pytest.raises(kind, match=words) as error:
        load_phi(tmp_path / "phi.pt", clip)
    assert "phi.pt" in str(error.value)


# Names and folders


def hostile_name(rng):
    kinds = [
        lambda: bytes(rng.choice([b for b in range(1, 256) if b != 47]) for _ in range(rng.randint(1, 20))),
        lambda: rng.choice(
            [b"7", b"00007", b"0" * 200, "٣".encode(), b"...", b"-rf", b"$(touch ran)", b"\x1b[2J", b"a\nb"]
        ),
        lambda: str(rng.randrange(10**9)).encode(),
    ]
    return rng.choice(kinds)() + rng.choice([b".png", b".PT", b".pt", b".jpg", b"", b"."])


def put(rng, folder, name):
    """A file, a folder, a pipe, or a link to itself, to its own folder or to a device."""
    path = os.path.join(os.fsencode(folder), name)
    if os.path.lexists(path) or name in (b".", b".."):
        return
    links = [name, b".", b"..", b"/dev/zero", b"nowhere"]
    kinds = [lambda: open(path, "wb").close(), lambda: os.mkdir(path), lambda: os.mkfifo(path)]
    rng.choice([*kinds, lambda: os.symlink(rng.choice(links), path)])()


IDS = ["7", "../7", "/etc/passwd", "a\0b", "", ".", "٣", "\ud800", "9" * 200, "$(touch ran)", "a/b", "-", "%s", "{id}"]


def test_hostile_names_in_folders(tmp_path):
    for rng in rounds("names", 500):
        folder = tmp_path / "folder"
        folder.mkdir()
        for _ in range(rng.randint(1, 8)):
            put(rng, folder, hostile_name(rng))
        found = attempt(lambda: find_by_id(folder, IDS, [".pt", ".png"]), folder) or {}  # noqa: B023
        pictures = list_pictures([folder, *folder.iterdir()])
        assert all(path.parent == folder for path in found.values())
        assert all(folder in path.parents for path in pictures.values())
        attempt(lambda: find_home(folder, "cirr", IDS[:3]), folder)  # noqa: B023
        for path in [*found.values(), *pictures.values()]:
            attempt(lambda: read_picture(path), path)  # noqa: B023
        shutil.rmtree(folder)


@pytest.mark.parametrize("path", ["loop", "loop/CIRR", "file", "x" * 5000, "a\0b", "\ud800", "gone", "pipe"])
def test_dataset_paths_that_are_no_folders(tmp_path, path):
    os.symlink("loop", tmp_path / "loop")
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(NotFoundError, match="is not a folder"):
        load_benchmark("cirr/val", tmp_path / path)
    with pytest.raises(NotFoundError, match="is not a folder"):
        find_by_id(tmp_path / path, ["7"], [".pt"])


BITS = [".", "..", "/", "cirr", "val", "\0", "\ud800", " ", "searle", "b32", "-", "é", "os.path", "x" * 3000, "%", "\n"]


@pytest.mark.slow
def test_names_of_benchmarks_and_methods():
    from cig.methods import split_method

    for rng in rounds("plugin names", 300):
        name = "".join(rng.choices(BITS, k=rng.randint(1, 4)))
        attempt(lambda: split_name(name, "val"))  # noqa: B023
        attempt(lambda: split_method(name))  # noqa: B023
    with pytest.raises(NotFoundError, match="has no SPLITS"):
        registry.load("benchmarks", "os.path")


# Settings and manifests

TOML = (
    b'cirr = "./data"\nphi_vit = "a.pt"\n[search]\nmethod = "lincir"\nfusion_weight = 0.5\n[compute]\nnum_workers = 4\n'
)


def test_settings(tmp_path, monkeypatch):
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    for rng in rounds("settings", 900):
        Path("cig.toml").write_bytes(damaged(rng, TOML))
        attempt(lambda: config.path("cirr"), "cig.toml")
        attempt(lambda: config.value("search", "method"), "cig.toml")
    os.remove("cig.toml")
    os.mkfifo("cig.toml")
    with pytest.raises(InputError, match=r"cig\.toml is not a file"):
        config.path("cirr")


def test_manifests(tmp_path):
    folder = tmp_path / "out"
    for name in ("1", "2"):
        Manifest(folder, {"steps": 4}).add({"id": name, "file": f"{name}.png", "attempts": 2, "accepted": name == "1"})
    good = {name: (folder / name).read_bytes() for name in ("manifest.jsonl", "settings.json")}
    for rng in rounds("manifests", 700):
        lines = [json.dumps(wilder(rng, json.loads(line))).encode() for line in good["manifest.jsonl"].splitlines()]
        known = json.dumps(wilder(rng, json.loads(good["settings.json"]))).encode()
        for name, wild in (("manifest.jsonl", b"\n".join(lines)), ("settings.json", known)):
            (folder / name).write_bytes(wild if rng.random() < 0.6 else damaged(rng, good[name]))
        attempt(lambda: _use_manifest(folder), folder)
    assert set(os.listdir(folder)) == set(good)


def _use_manifest(folder):
    manifest = Manifest(folder, {"steps": 4})
    outputs = OutputFolder(folder, manifest, [], retry_rejected=True)
    for name in ("1", "2", *manifest.lines):
        assert type(outputs.attempts(Query(name, "r", ("c",)))) in (int, bool)
        assert type(outputs.refused(name)) is bool


# Captions

SCRIPTS = "aéßŁжΩש中ひ한ไทยकि𝔘👩‍👩‍👧‍👦\u202e\u0301\ufeff\u2028\0\x1b\ud800\udfff$<|endoftext|>&amp;&#0;{caption}\n\t"
CAPTIONS = ["", " ", "$" * 100, "word " * 10_000, "\0", "\ud800\udc00\ud800", "&" * 999, "x" * 10_000, "<|endoftext|>"]


def caption(rng):
    pools = [SCRIPTS, [chr(c) for c in range(0x3000)], [chr(c) for c in range(0xD7F0, 0xE010)]]
    text = "".join(rng.choices(rng.choice(pools), k=rng.randint(0, 40)))
    return rng.choice(CAPTIONS) if rng.random() < 0.02 else text


@pytest.mark.slow
def test_captions(clip):
    texts = [caption(rng) for rng in rounds("captions", 1500)]
    tokenizer = openai_tokenizer()
    rows = tokenizer(texts)
    assert all(2 <= len(row) <= 77 and tokenizer.end in row for row in rows)
    assert tokenizer.padded(rows).shape == (len(texts), 77)
    prompts = [f"a photo of $ that {text}" for text in [*CAPTIONS, *texts[: 300 * TIMES]]]
    assert torch.isfinite(clip.embed_texts(prompts, torch.ones(len(prompts), 32), "first")).all()


# Model folders


def test_broken_configurations(world, tmp_path):
    folder = shutil.copytree(world / "models/clip-small", tmp_path / "clip")
    good = json.loads((folder / "config.json").read_text())
    for rng in rounds("configurations", 60):
        part = rng.choice(["text_config", "vision_config"])
        key = rng.choice(
            ["hidden_size", "projection_dim", "hidden_act", "num_attention_heads", "vocab_size", "image_size"]
        )
        config = {**good, part: {**good[part], key: rng.choice([None, "x", -1, 0, 1.5, [], {}, 7])}}
        config = rng.choice(
            [config, config, {**good, part: rng.choice([7, [], "x"])}, {**good, "model_type": []}, [], 7]
        )
        text = json.dumps(config).encode()
        (folder / "config.json").write_bytes(damaged(rng, text) if rng.random() < 0.3 else text)
        attempt(lambda: load_clip(str(folder), CPU, torch.float32), folder)


@pytest.mark.parametrize("text", ["", "7", "[]", "{}", '{"model": 7}', '{"version": "1.0", "model": {"type": "BPE"}}'])
def test_broken_tokenizers(world, tmp_path, text):
    folder = shutil.copytree(world / "models/clip-small", tmp_path / "clip")
    (folder / "tokenizer.json").write_text(text)
    with pytest.raises(CigError, match=re.escape(str(folder))):
        load_clip(str(folder), CPU, torch.float32)


def test_tokenizers_that_do_not_fit(world, tmp_path):
    """More tokens than the text tower knows; no end token at the end."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel

    folder = shutil.copytree(world / "models/clip-small", tmp_path / "clip")
    options = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<end>", "unk_token": "a"}
    (folder / "tokenizer_config.json").write_text(json.dumps(options))
    for highest, words in ((10**6, "tokens up to 1000000, its text tower 49408"), (2, "does not end a text")):
        Tokenizer(WordLevel({"a": 0, "$": 1, "<end>": highest}, "a")).save(str(folder / "tokenizer.json"))
        with pytest.raises(MismatchError, match=words):
            load_clip(str(folder), CPU, torch.float32)


def test_programs_in_model_folders_do_not_run(world, tmp_path):
    """A pickle in the place of the weights, and a configuration that asks for code of its own."""
    folder = shutil.copytree(world / "models/clip-small", tmp_path / "clip")
    (folder / "model.safetensors").unlink()
    torch.save({"a": Bomb(os.system, f"touch {tmp_path / 'ran'}")}, folder / "pytorch_model.bin")
    with pytest.raises(InputError, match=re.escape(str(folder))):
        load_clip(str(folder), CPU, torch.float32)
    folder = shutil.copytree(world / "models/clip-small", tmp_path / "clip2")
    (folder / "tokenizer.json").write_text("{}")
    (folder / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    (folder / "tokenizer_config.json").write_text(json.dumps({"auto_map": {"AutoTokenizer": ["own.T", "own.T"]}}))
    with pytest.raises(InputError, match=re.escape(str(folder))):
        load_clip(str(folder), CPU, torch.float32)


# Through the command line: exit codes and words; never a traceback


@pytest.fixture
def home(data, tmp_path):
    """A CIRR of one's own to break: three queries, seven pictures."""
    return shutil.copytree(data / "CIRR", tmp_path / "CIRR")


@pytest.fixture
def cig(world, home, tmp_path, capsys):
    """cig(verb, flags...) on that CIRR -> (exit code, all that was said)."""
    models = world / "models"
    small = {"--clip": models / "clip-small", "--phi": models / "phi-small.pt"}
    large = {"--clip2": models / "clip-large", "--phi2": models / "phi-large.pt"}
    sdxl = {"--model-path": models / "sdxl", "--sdxl-repo": models / "sdxl", "--vae-repo": models / "sdxl/vae"}
    sdxl |= {"--height": 64, "--width": 64, "--steps": 1, "--save-path": tmp_path / "pictures"}
    own = {"--text-embeddings-dir": tmp_path / "embeddings"}
    flags = {"extract": small | large | own, "generate": sdxl | own, "evaluate": small}

    def call(verb, *words, **others):
        common = {"--dataset-path": home, "--device": "cpu"} | flags[verb]
        given = common | {f"--{name.replace('_', '-')}": value for name, value in others.items()}
        words = [verb, "cirr/val", *words, *(word for flag in given.items() for word in flag)]
        with pytest.raises(SystemExit) as done:
            main([str(word) for word in words])
        shown = capsys.readouterr()
        assert "Traceback" not in shown.out + shown.err
        return done.value.code or 0, shown.out + shown.err

    return call


def annotation(home):
    return home / "cirr/captions/cap.rc2.val.json"


def entries_of(home):
    return json.loads(annotation(home).read_text())


def others(home):
    """Pictures that are no query's reference."""
    references = {entry["reference"] for entry in entries_of(home)}
    return [path for path in sorted((home / "dev").iterdir()) if path.stem not in references]


@pytest.mark.parametrize(
    "kinds", [("empty", "html", "truncated", "huge"), ("text bomb", "a program", "pipe", "folder")]
)
def test_broken_pictures_in_a_gallery(cig, home, kinds):
    """Those of the gallery are not ranked, and named; one that is a reference fails its query."""
    gallery = others(home)[:4]
    for path, kind in zip(gallery, kinds, strict=True):
        spoil(path, kind)
    code, said = cig("evaluate")
    assert (code, [path.stem in said for path in gallery]) == (0, [True] * 4)
    reference = home / "dev" / f"{entries_of(home)[0]['reference']}.png"
    spoil(reference, kinds[0])
    code, said = cig("evaluate")
    assert (code, str(reference) in said, "recall@1" in said) == (1, True, True)


def spoil(path, kind):
    path.unlink()
    if kind in HOSTILE_PICTURES:
        path.write_bytes(HOSTILE_PICTURES[kind])
    else:
        os.mkfifo(path) if kind == "pipe" else path.mkdir()


def test_bombs_among_embeddings(cig, home, tmp_path):
    assert cig("extract")[0] == 0
    name = f"{entries_of(home)[1]['pairid']}.pt"
    path = tmp_path / "embeddings" / name
    odd = {**ROW, "pooled2": torch.full((5,), torch.nan)}
    for content in (Bomb(os.mkdir, str(tmp_path / "ran")), {**ROW, "conditioning": None}, odd, [1]):
        torch.save(content, path)
        code, said = cig("generate")
        assert (code, str(path) in said) == (1, True)


def test_embeddings_that_do_not_fit_the_generator(cig, home, tmp_path):
    assert cig("extract")[0] == 0
    for entry in entries_of(home):
        torch.save(ROW, tmp_path / f"embeddings/{entry['pairid']}.pt")
    code, said = cig("generate", "--overwrite")
    assert (code, "have width 7 and pooled width 5, but the UNet reads 80 and 56" in said) == (2, True)


def test_a_phi_that_is_a_program(cig, tmp_path):
    torch.save({"Phi": Bomb(os.mkdir, str(tmp_path / "ran"))}, tmp_path / "phi.pt")
    code, said = cig("evaluate", phi=tmp_path / "phi.pt")
    assert (code, "phi.pt cannot be read as tensors (pickled programs are refused)" in said) == (1, True)


def test_a_phi_that_does_not_fit(cig, world):
    code, said = cig("evaluate", phi=world / "models/phi-large.pt")
    assert (code, "features of width 56 into words of width 48" in said) == (2, True)
    assert "features of width 40 and words of width 32" in said


@pytest.mark.parametrize(("text", "words"), LINES, ids=range(len(LINES)))
def test_hostile_annotations_in_evaluate(cig, home, text, words):
    annotation(home).write_text(text)
    code, said = cig("evaluate")
    assert (code, re.search(words, said) is not None, str(annotation(home)) in said) == (1, True, True)


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a\0b", "a\nb", "\x1b[2J", "", ".", "..", "x" * 200, "\ud800"])
def test_ids_that_cannot_name_a_file(cig, home, tmp_path, name):
    entries = entries_of(home)
    entries[1]["pairid"] = name
    annotation(home).write_text(json.dumps(entries))
    code, said = cig("extract")
    assert (code, str(annotation(home)) in said) == (1, True)
    assert not (tmp_path / "embeddings").exists()


def test_ids_that_occur_twice(cig, home):
    entries = entries_of(home)
    entries[1]["pairid"] = entries[0]["pairid"]
    annotation(home).write_text(json.dumps(entries))
    code, said = cig("evaluate")
    assert (code, f"{annotation(home)}: query id {entries[0]['pairid']} occurs twice" in said) == (1, True)


def test_names_with_dots_are_only_missing(cig, home, tmp_path):
    """A picture outside the dataset is not found by a name that leads there."""
    shutil.copy(next((home / "dev").iterdir()), tmp_path / "secret.png")
    entries = entries_of(home)
    entries[0]["target_hard"] = "../../secret"
    entries[0]["img_set"]["members"] += ["../secret", str(tmp_path / "secret")]
    annotation(home).write_text(json.dumps(entries))
    code, said = cig("evaluate")
    assert (code, f"is missing (without any they score 0): 1 ({entries[0]['pairid']})" in said) == (0, True)


@pytest.mark.parametrize("texts", [("", "word " * 10_000, "costs $5 $ $$"), ("a\0b", "\ud800", SCRIPTS)], ids=range(2))
def test_any_caption_runs(cig, home, texts):
    entries = [{**entry, "caption": text} for entry, text in zip(entries_of(home), texts, strict=True)]
    annotation(home).write_text(json.dumps(entries))
    assert cig("extract")[0] == 0
    assert cig("evaluate")[0] == 0


def test_loops_of_links(cig, home, tmp_path):
    os.symlink(home, home / "dev/again")
    os.symlink("loop.png", home / "dev/loop.png")
    assert cig("evaluate")[0] == 0
    os.symlink("loop", tmp_path / "loop")
    code, said = cig("evaluate", dataset_path=tmp_path / "loop")
    assert (code, f"{tmp_path / 'loop'} is not a folder" in said) == (2, True)
    code, said = cig("extract", text_embeddings_dir=tmp_path / "loop")
    assert (code, f"{tmp_path / 'loop'} cannot be made" in said) == (1, True)


def test_broken_manifests(cig, home, tmp_path):
    assert cig("extract")[0] == 0
    (tmp_path / "embeddings/manifest.jsonl").write_bytes(b'\xff\n{"id": []}\n[]\n' + b"[" * 9999)
    code, said = cig("extract")
    assert (code, "files that were there without a line in the manifest, and are kept: 3" in said) == (0, True)
    (tmp_path / "embeddings/settings.json").write_text("[]")
    code, said = cig("extract")
    assert (code, "settings.json: expected an object" in said) == (1, True)


def test_a_broken_clip(cig, world, tmp_path):
    folder = shutil.copytree(world / "models/clip-small", tmp_path / "clip")
    (folder / "config.json").write_text('{"model_type": "clip",\n"text_config": }')
    code, said = cig("evaluate", clip=folder)
    assert (code, f"{folder}/config.json, line 2, column" in said) == (1, True)


@pytest.mark.parametrize(
    ("flags", "hint"),
    [
        ({"methd": "image"}, "Did you mean --method"),
        ({"method": "serle"}, 'Did you mean "searle"'),
        ({"dtype": "float8"}, "float16"),
        ({"device": "gpu"}, "--device cpu"),
        ({"batch_size": "many"}, "batch-size"),
        ({"max_pixels": -1}, "at least 1"),
        ({"fusion_weight": "nan", "generated_image_dir": "x"}, "--fusion-weight nan"),
        ({"dataset_path": "x" * 5000}, "is not a folder"),
        ({"phi": "x" * 5000}, "is not there"),
        ({"clip": "x" * 5000}, "no CLIP"),
        ({"clip": "./no/such/folder"}, "no CLIP"),
        ({"generated_image_dir": "x" * 5000}, "is not a folder"),
        ({"json": "x" * 5000}, "cannot be"),
    ],
    ids=range(13),
)
def test_wrong_flags_and_values(cig, flags, hint):
    code, said = cig("evaluate", **flags)
    assert (code, hint in said) == (1 if "json" in flags else 2, True)


# The claims themselves


def test_the_page_names_real_tests():
    """Each row of docs/robustness.md ends in a test that exists, here or in a neighbour."""
    home = Path(__file__).parents[1]
    lines = (home / "docs/robustness.md").read_text().splitlines()
    rows = [line for line in lines if line.startswith("|") and not line.startswith(("| input", "|---"))]
    named = [re.findall(r"`(test_\w+)`", row.split("|")[-2]) for row in rows]
    code = "".join(path.read_text() for path in (home / "tests").rglob("test_*.py"))
    assert len(named) > 30
    assert all(named)
    assert not [test for tests in named for test in tests if f"def {test}(" not in code]


def test_over_ten_thousand_inputs(request):
    """Last of the file: how many hostile inputs a plain run makes, where the whole of it ran."""
    whole = {name for name in globals() if name.startswith("test_")}
    if whole - {item.originalname for item in request.session.items}:
        pytest.skip("counts only where the whole file runs")
    inputs = sum(count for what, count in seen.items() if what != "refused")
    print(f"{inputs} hostile inputs, {seen['refused']} refusals: {dict(seen)}")
    assert inputs >= 10_000
    assert seen["refused"] > inputs / 4, "the inputs are not hostile enough"
