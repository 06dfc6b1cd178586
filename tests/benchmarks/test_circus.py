"""CIRCUS's labels: hand-made CSV files in the form of its exports, joined to queries of three benchmarks."""

import csv

import pytest

from cig.benchmarks._circus import read_labels
from cig.errors import InputError, NotFoundError
from cig.types import Benchmark, Query

COLUMNS = ["query_idx", "aggregate_label", "query_text", "query_image_ref", "primary_pos_cand_id"]


def bench(name, queries, part=""):
    gallery = tuple(dict.fromkeys(target for query in queries for target in (*query.relevant, query.reference)))
    return Benchmark(name, tuple(queries), {}, gallery, ("recall@1",), False, 0.5, "made up", part)


def write(path, rows, columns=COLUMNS):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([columns, *rows])


CIRR = bench(
    "cirr/val",
    [
        Query("12", "dev-1-0-img0", ("Show two dogs.",), {"dev-1-1-img1": 2}),
        Query("13", "dev-1-0-img0", ("Show two dogs.",), {"dev-2-1-img0": 2}),
        Query("14", "dev-3-0-img1", ("a red one",), {"dev-1-1-img1": 2}),
    ],
)


def test_rows_join_by_reference_text_and_target(tmp_path):
    """Two queries differ in their target alone; a row without one of ours joins where reference and text suffice."""
    rows = [
        [0, "composition_required", "show two  dogs", "dev/1/dev-1-0-img0.png", "dev-2-1-img0"],
        [1, "unresolved", "A red one!", "dev-3-0-img1", "9:77"],
        [2, "shortcut_solvable", "show two dogs", "dev-1-0-img0", "dev-1-1-img1"],
        [3, "composition_required", "show two dogs", "dev-1-0-img0", "9:78"],
        [4, "composition_required", "of nobody", "dev-1-0-img0", "dev-2-1-img0"],
    ]
    write(tmp_path / "cirr_val.csv", rows)
    write(tmp_path / "fashioniq_dress.csv", [[0, "unresolved", "is blue", "B1", "B2"]])
    labels = read_labels(tmp_path, [CIRR])
    assert labels.subsets == {"shortcut-free": {"cirr/val": {"13", "14"}}, "validated": {}}
    assert (labels.rows, labels.unmatched, labels.without_target) == (5, 2, 1)
    assert "unmatched: 2" in "\n".join(labels.lines())


def test_validated_by_a_column_or_by_the_files_name(tmp_path):
    row = [0, "composition_required", "a red one", "dev-3-0-img1", "dev-1-1-img1"]
    write(tmp_path / "a/cirr.csv", [[*row, "VALIDATED"]], [*COLUMNS, "human_label"])
    write(tmp_path / "b/cirr_validated.csv", [row])
    write(tmp_path / "c/cirr.csv", [[*row, "QUERY_TOO_BROAD"]], [*COLUMNS, "human_label"])
    seen = [read_labels(tmp_path / name, [CIRR]).subsets["validated"] for name in "abc"]
    assert seen == [{"cirr/val": {"14"}}, {"cirr/val": {"14"}}, {}]


def test_fashioniqs_texts_come_joined_and_circos_ids_unpadded(tmp_path):
    dress = bench("fashioniq/val", [Query("0", "B1", ("Is blue.", "has sleeves"), {"B2": 2})], "dress")
    circo = bench("circo/val", [Query("5", "173", ("has a dog",), {"42": 1, "139": 2})])
    write(tmp_path / "fashion-iq.csv", [[0, "unresolved", "has sleeves and is blue", "B1.jpg", "B2"]])
    write(tmp_path / "circo.csv", [[0, "composition_required", "has a dog", "000000000173.jpg", "000000000139"]])
    assert read_labels(tmp_path, [dress]).subsets["shortcut-free"] == {"fashioniq/val/dress": {"0"}}
    assert read_labels(tmp_path, [circo]).subsets["shortcut-free"] == {"circo/val": {"5"}}


def test_labels_of_another_benchmark_or_form(tmp_path):
    with pytest.raises(NotFoundError, match="cig download circus"):
        read_labels(tmp_path, [CIRR])
    write(tmp_path / "fashioniq.csv", [[0, "unresolved", "is blue", "B1", "B2"]])
    with pytest.raises(NotFoundError, match="cirr/val"):
        read_labels(tmp_path, [CIRR])
    write(tmp_path / "cirr.csv", [[0]], ["query_idx"])
    with pytest.raises(InputError, match="aggregate_label"):
        read_labels(tmp_path, [CIRR])
