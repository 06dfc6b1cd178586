"""Readers: pinned by count and first/last item on the real annotations, and on hand-made entries for the rest."""

import importlib
import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from cig import registry
from cig.benchmarks import circo as circo_room
from cig.benchmarks import cirr as cirr_room
from cig.benchmarks import load_benchmark, load_benchmarks, split_name
from cig.errors import InputError, NotFoundError, UsageError
from cig.types import Benchmark, Query, Ranking


def write(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(value if isinstance(value, str) else json.dumps(value))


def image(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4)).save(path)


# Contract: holds for every file in the folder, from the day it appears


@pytest.mark.slow
@pytest.mark.parametrize("name", registry.names("benchmarks"))
def test_contract(name, world, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parent)
    module = registry.load("benchmarks", name)
    root = {"cirr": "CIRR", "circo": "CIRCO", "fashioniq": "FashionIQ", "folder": "shop", "icons": "."}.get(name)
    if root:
        home = world / root
    else:  # tests/benchmarks/test_NAME.py makes a small one: 4 queries over 12 pictures
        maker = importlib.import_module(f"test_{name.replace('-', '_')}")
        home = maker.make(tmp_path)
    sizes = (4_982, 14_806) if name == "icons" else (8, 60)  # icons brings its own pictures
    sizes = sizes if root else getattr(maker, "SIZES", (4, 12))
    assert module.SPLITS
    for part in load_benchmarks(f"{name}/val", home):
        assert isinstance(part, Benchmark)
        assert part.name == f"{name}/val"
        assert not part.missing_images
        assert len({query.id for query in part.queries}) == len(part.queries)
        assert (len(part.queries), len(part.gallery)) == sizes
        assert 0 <= part.weight <= 1
        assert part.weight_source
        assert not part.hidden
        gallery = set(part.gallery)  # once: icons asks five thousand times
        assert all(set(query.relevant) <= gallery for query in part.queries)


# The real files


@pytest.mark.parametrize(
    ("category", "queries", "gallery", "first", "last", "ends"),
    [
        ("dress", 2017, 3817, ("B005X4PL1G", "B0084Y8XIU"), ("B00BY3GO0C", "B0030EHJ66"), ("B009PMCJLW", "B00A9VAS2K")),
        ("shirt", 2038, 6346, ("B00CZ7QJUG", "B005AD7WZI"), ("B0042P6BVG", "B00D78EKUS"), ("B000KENMD8", "B00D78EKUS")),
        (
            "toptee",
            1961,
            5373,
            ("B008CFZW76", "B008CG1JJ0"),
            ("B0059LBD1A", "B004070YLE"),
            ("B008CG1JJ0", "B003BHB50I"),
        ),
    ],
)
def test_fashioniq_val(annotations, category, queries, gallery, first, last, ends):
    part = load_benchmark("fashioniq/val", annotations / "fashioniq", categories=[category])
    assert (len(part.queries), len(part.gallery)) == (queries, gallery)
    for query, position, names in ((part.queries[0], "0", first), (part.queries[-1], str(queries - 1), last)):
        assert (query.id, query.reference, *query.relevant) == (position, *names)
    assert (part.gallery[0], part.gallery[-1]) == ends
    assert all(len(query.captions) == 2 and set(query.relevant) <= set(part.gallery) for query in part.queries)


def test_fashioniq_val_gallery_and_test(annotations):
    small = load_benchmarks("fashioniq/val", annotations, gallery="val")
    assert [len(part.gallery) for part in small] == [2628, 3089, 2902]
    assert "union" in small[0].protocol["gallery"]
    hidden = load_benchmarks("fashioniq/test", annotations)
    assert [part.hidden for part in hidden] == [True] * 3
    assert not hidden[0].queries[0].relevant


@pytest.mark.parametrize(
    ("split", "queries", "gallery", "ids", "ends"),
    [
        ("val", 4181, 2297, ("12060", "38762"), ("dev-244-0-img0", "dev-1012-3-img0")),
        ("test1", 4148, 2315, ("12063", "39059"), ("test1-147-1-img1", "test1-255-0-img1")),
    ],
)
def test_cirr(annotations, split, queries, gallery, ids, ends):
    part = load_benchmark(f"cirr/{split}", annotations / "cirr")
    assert (len(part.queries), len(part.gallery)) == (queries, gallery)
    assert (part.queries[0].id, part.queries[-1].id) == ids
    assert (part.gallery[0], part.gallery[-1]) == ends
    assert all(len(query.subset) == 6 and query.reference in query.subset for query in part.queries)
    assert part.hidden == (split == "test1")


@pytest.mark.parametrize(
    ("split", "queries", "first", "last"), [("val", 220, "271520", "445907"), ("test", 800, "281438", "222734")]
)
def test_circo(annotations, split, queries, first, last):
    part = load_benchmark(f"circo/{split}", annotations)
    assert len(part.queries) == queries
    assert (part.queries[0].id, part.queries[0].reference) == ("0", first)
    assert (part.queries[-1].id, part.queries[-1].reference) == (str(queries - 1), last)
    if split == "val":
        assert part.queries[0].relevant == {"355099": 2, "528417": 1, "534704": 1}
        assert "cardinality" in part.queries[0].tags


# Hand-made entries: train, layouts, faults


@pytest.mark.parametrize("inner", ["", "cirr/"])
@pytest.mark.parametrize("home", ["CIRR", "cirr", ""])
def test_cirr_train_in_every_layout(tmp_path, inner, home):
    root = tmp_path / home
    entries = [
        {"pairid": i, "reference": "a", "target_hard": "b", "caption": "c", "img_set": {"members": ["a", "b"]}}
        for i in (0, 7)
    ]
    write(root / f"{inner}captions/cap.rc2.train.json", entries)
    write(
        root / f"{inner}image_splits/split.rc2.train.json",
        {"a": "./train/34/a.png", "b": "./train/7/b.png", "c": "./train/7/c.png"},
    )
    image(root / "train/34/a.png")
    image(root / "images/train/7/b.jpg")
    image(root / "c.webp")
    part = load_benchmark("cirr/train", tmp_path)
    assert [query.id for query in part.queries] == ["0", "7"]
    assert part.queries[0].relevant == {"b": 2}
    assert not part.missing_images
    assert part.images["b"].suffix == ".jpg"


def test_a_path_in_the_annotations_never_leads_out(tmp_path):
    image(tmp_path / "outside/a.png")
    write(
        tmp_path / "CIRR/captions/cap.rc2.val.json",
        [{"pairid": 1, "reference": "a", "caption": "c", "target_hard": "a"}],
    )
    write(tmp_path / "CIRR/image_splits/split.rc2.val.json", {"a": "../outside/a.png"})
    assert load_benchmark("cirr/val", tmp_path / "CIRR").missing_images == ("a",)


@pytest.mark.parametrize("folder", ["images", "images/dress", "images/downloaded/dress", "images/downloaded"])
@pytest.mark.parametrize("suffix", [".jpg", ".jpeg", ".png", ".webp", ".JPG"])
def test_fashioniq_pictures_in_every_folder(tmp_path, folder, suffix):
    write(tmp_path / "captions/cap.dress.train.json", [{"candidate": "A", "target": "B", "captions": ["x", "y"]}])
    write(tmp_path / "image_splits/split.dress.train.json", ["A", "B"])
    for name in "AB":
        image(tmp_path / folder / f"{name}{suffix}")
    part = load_benchmark("fashioniq/train", tmp_path, categories=["dress"])
    assert part.images["A"] == tmp_path / folder / f"A{suffix}"
    assert not part.missing_images


def test_circo_without_the_list_of_images(tmp_path):
    write(
        tmp_path / "annotations/val.json",
        [{"id": 0, "reference_img_id": 5, "target_img_id": 9, "gt_img_ids": [9], "relative_caption": "c"}],
    )
    for i in (9, 5, 100):
        image(tmp_path / f"COCO2017_unlabeled/unlabeled2017/{i:012d}.jpg")
    part = load_benchmark("circo/val", tmp_path)
    assert part.gallery == ("5", "9", "100")
    assert "the 3 pictures found, not the official ones" in part.protocol["gallery"]
    assert part.missing_list == tmp_path / "COCO2017_unlabeled/annotations/image_info_unlabeled2017.json"
    write(part.missing_list, {"images": [{"id": i} for i in (100, 7, 9, 5)]})
    part = load_benchmark("circo/val", tmp_path)
    assert (part.gallery, part.missing_images, part.missing_list) == (("100", "7", "9", "5"), ("7",), None)


@pytest.mark.parametrize("inner", ["", "cirr/"])
@pytest.mark.parametrize(("split", "folder"), [("val", "dev"), ("test1", "test1"), ("train", "train/34")])
def test_cirr_without_the_split_file(tmp_path, inner, split, folder):
    """The tree that the paper's code prints: captions and pictures alone."""
    entry = {"pairid": 0, "reference": "b", "caption": "c", "target_hard": "a", "img_set": {"members": ["a", "b"]}}
    write(tmp_path / f"{inner}captions/cap.rc2.{split}.json", [entry])
    for name in "ba":
        image(tmp_path / f"{folder}/{name}.png")
    part = load_benchmark(f"cirr/{split}", tmp_path)
    assert (part.gallery, part.missing_images) == (("a", "b"), ())
    assert part.missing_list == tmp_path / f"{inner}image_splits/split.rc2.{split}.json"
    assert "the 2 pictures found, not the official ones" in part.protocol["gallery"]


def test_fashioniq_without_the_split_file(tmp_path):
    write(tmp_path / "captions/cap.dress.val.json", [{"candidate": "A", "target": "B", "captions": ["x", "y"]}])
    for name in "ABC":
        image(tmp_path / f"images/{name}.png")
    (part,) = load_benchmarks("fashioniq/val", tmp_path, categories=["dress"])
    assert (part.gallery, part.missing_list) == (("A", "B", "C"), tmp_path / "image_splits/split.dress.val.json")
    (part,) = load_benchmarks("fashioniq/val", tmp_path, categories=["dress"], gallery="val")
    assert (part.gallery, part.missing_list) == (("A", "B"), None), "which the captions list"


def test_a_category_without_captions_is_left_out_by_a_flag(tmp_path):
    for category in ("shirt", "toptee"):
        entry = {"candidate": "A", "target": "B", "captions": ["x", "y"]}
        write(tmp_path / f"captions/cap.{category}.val.json", [entry])
    with pytest.raises(NotFoundError, match="leave out dress by --categories shirt toptee"):
        load_benchmarks("fashioniq/val", tmp_path)


EMPTY = {
    "cirr": ("captions/cap.rc2.val.json", "image_splits/split.rc2.val.json", {}),
    "fashioniq": ("captions/cap.dress.val.json", "image_splits/split.dress.val.json", []),
    "circo": ("annotations/val.json", "COCO2017_unlabeled/annotations/image_info_unlabeled2017.json", {"images": []}),
    "folder": ("queries.json", "gallery.txt", ""),
}


@pytest.mark.parametrize("name", EMPTY)
def test_a_list_of_no_pictures_is_no_gallery(tmp_path, name):
    queries, listing, content = EMPTY[name]
    entry = {"reference": "A", "caption": "c", "target": "A"} if name == "folder" else {"captions": ["x"], "id": 1}
    entry |= {"candidate": "A", "pairid": 1, "reference": "A", "caption": "c", "reference_img_id": 5}
    write(tmp_path / queries, [{**entry, "relative_caption": "c"}])
    image(tmp_path / "A.png")
    write(tmp_path / listing, content)
    options = {"categories": ["dress"]} if name == "fashioniq" else {}
    with pytest.raises(InputError, match=f"{Path(listing).name} lists no picture"):
        load_benchmarks(f"{name}/val", tmp_path, **options)


FAULTS = {
    "not JSON": '[{"pairid": 1,\n oops',
    "expected a list": "{}",
    "lacks reference": [{"pairid": 1}],
    "occurs twice": [
        {"pairid": 1, "reference": "a", "caption": "c"},
        {"pairid": "1", "reference": "a", "caption": "c"},
    ],
    "cannot name a file": [{"pairid": "../../x", "reference": "a", "caption": "c"}],
    "lacks a caption": [{"pairid": 1, "reference": "a", "caption": None}],
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_name_the_file(tmp_path, fault):
    write(tmp_path / "captions/cap.rc2.val.json", FAULTS[fault])
    write(tmp_path / "image_splits/split.rc2.val.json", {"a": "./dev/a.png"})
    with pytest.raises(InputError, match=fault) as error:
        load_benchmark("cirr/val", tmp_path)
    assert "cap.rc2.val.json" in str(error.value)


def test_malformed_json_names_the_line(tmp_path):
    write(tmp_path / "captions/cap.rc2.val.json", '[{"pairid": 1,\n oops')
    with pytest.raises(InputError, match="line 2"):
        load_benchmark("cirr/val", tmp_path)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: split_name("cirr/tset", "val"), 'no split "tset".*Did you mean "test"'),
        (lambda: split_name("cirrr", "val"), 'no "cirrr" among the benchmarks.*Did you mean "cirr"'),
        (lambda: load_benchmark("cirr/val", "/nowhere"), "/nowhere is not a folder.*--dataset-path"),
        (lambda: load_benchmark("no_such_package.benchmark/val"), "cannot be imported"),
    ],
)
def test_what_is_not_there(call, words):
    with pytest.raises(NotFoundError, match=words):
        call()


def test_wrong_options(world):
    with pytest.raises(UsageError, match="cirr takes no --gallery"):
        load_benchmark("cirr/val", world, gallery="val")
    with pytest.raises(UsageError, match='Did you mean "dress"'):
        load_benchmarks("fashioniq/val", world, categories=["dresses"])
    with pytest.raises(UsageError, match='no FashionIQ gallery "all"'):
        load_benchmarks("fashioniq/val", world, gallery="all")
    with pytest.raises(UsageError, match="has 3 parts"):
        load_benchmark("fashioniq/val", world)


def test_test_is_test1_for_cirr():
    assert split_name("cirr/test", "val") == ("cirr", "test1")


# Submissions


def test_submission_files():
    names = tuple(f"n{i}" for i in range(60))
    ranking = Ranking(("12", "9"), (names, names), ((), ()), (names[:5], names[:5]))
    files = cirr_room.submission(ranking)
    assert files[""] == {"version": "rc2", "metric": "recall", "12": list(names[:50]), "9": list(names[:50])}
    assert files["subset_"]["metric"] == "recall_subset"
    assert files["subset_"]["9"] == ["n0", "n1", "n2"]
    assert circo_room.submission(ranking) == {"": {"12": list(names[:50]), "9": list(names[:50])}}


def test_queries_are_frozen():
    with pytest.raises(AttributeError):
        Query("1", "a", ("c",)).id = "2"


def test_a_parent_folder_will_do(world):
    assert load_benchmark("circo/val", world).queries == load_benchmark("circo/val", Path(world) / "CIRCO").queries


def test_circo_with_the_shared_concept(world, tmp_path):
    home = shutil.copytree(world / "CIRCO", tmp_path / "CIRCO")
    path = home / "annotations/val.json"
    entries = json.loads(path.read_text())
    for i, entry in enumerate(entries):
        entry["shared_concept"] = f"a thing {i}"
    path.write_text(json.dumps(entries))
    alone, shared = (load_benchmark("circo/val", home, **more) for more in ({}, {"shared_concept": True}))
    assert shared.queries[3].captions == (f"find a thing 3 but {alone.queries[3].captions[0]}",)
    assert alone.protocol["captions"] != shared.protocol["captions"]
    del entries[2]["shared_concept"]
    path.write_text(json.dumps(entries))
    with pytest.raises(InputError, match="shared_concept"):
        load_benchmark("circo/val", home, shared_concept=True)


def test_the_real_shared_concepts(annotations):
    part = load_benchmark("circo/val", annotations / "circo", shared_concept=True)
    assert all(query.captions[0].startswith("find ") for query in part.queries)
