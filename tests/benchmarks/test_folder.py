"""Pictures of your own: names, the forms of queries files, and what is wrong with them told by row."""

import contextlib
import csv
import json
import shutil
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cig import load_benchmark
from cig.benchmarks import folder as room
from cig.benchmarks._requirements import need_outside
from cig.cli.main import main
from cig.errors import CigError, InputError, NotFoundError, UsageError
from cig.io.tables import read_rows
from cig.pipelines._index_build import list_folder


def run(capsys, *words):
    with pytest.raises(SystemExit) as done:
        main([str(word) for word in words])
    shown = capsys.readouterr()
    return done.value.code or 0, shown.out, shown.err


@pytest.fixture
def shop(world, tmp_path):
    """Twelve pictures, ten of them in two folders, and no queries yet."""
    pictures = sorted((world / "CIRR/dev").glob("*.png"))[:12]
    for i, path in enumerate(pictures):
        target = tmp_path / "shop" / ("dresses" if i < 6 else "shirts" if i < 10 else ".") / f"p {i}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    return tmp_path / "shop"


ROWS = [
    {
        "reference": "dresses/p 0.png",
        "caption": ["is red", "is longer"],
        "target": ["dresses/p 1.png"],
        "tags": ["colour"],
    },
    {
        "id": "mine",
        "reference": "shirts/p 6",
        "caption": "has a collar",
        "target": ["shirts/p 7", "shirts/p 8"],
        "also_correct": ["shirts/p 9"],
        "negatives": ["p 10"],
        "cluster": "collars",
    },
]


def write(shop, form):
    path = shop / f"queries.{form}"
    if form == "json":
        path.write_text(json.dumps(ROWS))
    elif form == "jsonl":
        path.write_text("\n\n".join(map(json.dumps, ROWS)))
    elif form == "parquet":
        arrow = pytest.importorskip("pyarrow", reason="Parquet needs pyarrow")
        from pyarrow import parquet

        rows = [
            {**row, "caption": row["caption"] if isinstance(row["caption"], list) else [row["caption"]]} for row in ROWS
        ]
        keys = dict.fromkeys(key for row in rows for key in row)
        parquet.write_table(arrow.table({key: [row.get(key) for row in rows] for key in keys}), path)
    else:
        mark = {"csv": ",", "tsv": "\t"}[form]
        with path.open("w", newline="", encoding="utf-8-sig") as file:
            writer = csv.writer(file, delimiter=mark)
            writer.writerow(
                ["id", "reference", "caption", "caption2", "targets", "also_correct", "negatives", "tags", "cluster"]
            )
            writer.writerow(["", "dresses/p 0.png", "is red", "is longer", "dresses/p 1.png", "", "", "colour", ""])
            several = '["shirts/p 7", "shirts/p 8"]' if form == "csv" else "shirts/p 7 | shirts/p 8"
            writer.writerow(["mine", "shirts/p 6", "has a collar", "", several, "shirts/p 9", "p 10", "", "collars"])
    return path


@pytest.mark.parametrize("form", ["csv", "tsv", "json", "jsonl", "parquet"])
def test_every_form_says_the_same(shop, form):
    write(shop, form)
    bench = load_benchmark("folder", shop)
    first, second = bench.queries
    assert (first.id, first.reference, first.captions) == ("0", "dresses/p 0.png", ("is red", "is longer"))
    assert (first.relevant, first.tags, first.cluster) == ({"dresses/p 1.png": 2}, ("colour",), "")
    assert (second.id, second.reference, second.captions) == ("mine", "shirts/p 6.png", ("has a collar",))
    assert second.relevant == {"shirts/p 7.png": 2, "shirts/p 8.png": 2, "shirts/p 9.png": 1}
    assert (second.negatives, second.cluster) == (("p 10.png",), "collars")
    dresses, shirts = [f"dresses/p {i}.png" for i in range(6)], [f"shirts/p {i}.png" for i in range(6, 10)]
    assert bench.gallery == ("p 10.png", "p 11.png", *dresses, *shirts)
    assert bench.measures[-1] == "map@10"
    assert not bench.hidden
    assert bench.images["shirts/p 7.png"] == shop / "shirts/p 7.png"
    assert "nothing" not in bench.images


def test_names_that_may_be_two_pictures_are_told(shop):
    shutil.copy(shop / "p 10.png", shop / "p 10.webp")
    write(shop, "json")
    with pytest.raises(InputError, match=r"query 1 .*p 10 may be p 10\.png, p 10\.webp; write the suffix"):
        load_benchmark("folder", shop)


def test_names_are_the_same_from_within_the_folder(shop, monkeypatch):
    write(shop, "json")
    from_outside = load_benchmark("folder/val", shop)
    monkeypatch.chdir(shop)
    bench = load_benchmark("folder/val", Path())
    assert bench.gallery == from_outside.gallery == tuple(listed.name for listed in list_folder(Path()))
    assert bench.queries == from_outside.queries


def test_an_images_folder_and_a_gallery_file_narrow_the_gallery(shop):
    write(shop, "json")
    (shop / "images").mkdir()
    for name in ("dresses", "shirts", "p 10.png", "p 11.png"):
        (shop / name).rename(shop / "images" / name)
    (shop / "gallery.txt").write_text("shirts/p 7\ndresses/p 1.png\nnot there\n")
    bench = load_benchmark("folder/val", shop)
    assert bench.gallery == ("shirts/p 7.png", "dresses/p 1.png", "not there")
    assert bench.missing_images == ("not there",)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("reference,captoin\na,b\n", 'no column caption. Did you mean "captoin"'),
        ("caption\nb\n", "no column reference"),
        ("reference,caption\na\n", "another number of cells"),
        ("reference,caption\na,b,c\n", "another number of cells"),
        ("reference,caption\na,\n", "query 0 (counting from 0): the caption should be"),
        ("reference,caption\n,b\n", "no reference"),
        ("id,reference,caption\nx/y,a,b\n", "cannot name a file"),
        ("id,reference,caption\nx,a,b\nx,a,b\n", "occurs twice"),
        ("reference,caption,target\na,b,t\na,b,\n", "1 of 2 queries have no target (1)"),
        ("reference,caption\n", "has no rows"),
        ("reference,caption,also_correct\na,b,c\n", "goes with a target"),
        ('reference,caption\n"a,b\n', "not CSV"),
        ("reference,caption,target,target\na,b,c,d\n", "several columns are called target"),
        ("reference,caption,target,targets\na,b,c,d\n", "two columns for one thing"),
    ],
)
def test_bad_queries_are_told(shop, text, words):
    (shop / "queries.csv").write_text(text)
    with pytest.raises(CigError) as raised:
        load_benchmark("folder", shop)
    assert words in str(raised.value)


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("q.json", b"{}", "expected a list of objects"),
        ("q.jsonl", b'{"reference": "a", "caption": "b"}\n\n[1]\n', "line 3: expected an object"),
        ("q.jsonl", b"{", "line 1: not JSON"),
        ("q.csv", b"reference,caption\n\xff,b\n", "not UTF-8"),
        ("q.parquet", b"PAR1", "not Parquet"),
        ("q.xlsx", b"", "a table comes as csv"),
        ("none.csv", None, "is not there"),
    ],
)
def test_files_of_another_form_are_told(shop, name, data, words):
    if data is not None:
        (shop / name).write_bytes(data)
    with pytest.raises(CigError) as raised:
        load_benchmark("folder", shop, queries=shop / name)
    assert words in str(raised.value)


def test_where_queries_are_looked_for(shop, tmp_path):
    with pytest.raises(NotFoundError, match=r"has no val\.csv or queries\.csv \(or tsv.*--queries FILE"):
        load_benchmark("folder", shop)
    write(shop, "json")
    assert load_benchmark("folder", shop).name == "folder/val"
    assert load_benchmark("folder/test", shop).name == "folder/test", "queries.json serves every split"
    (shop / "test.jsonl").write_text('{"reference": "p 10", "caption": "c"}')
    assert len(load_benchmark("folder/test", shop).queries) == 1, "unless it has its own"
    write(shop, "csv")
    with pytest.raises(UsageError, match="say which with --queries"):
        load_benchmark("folder", shop)
    with pytest.raises(NotFoundError, match="is not a folder"):
        load_benchmark("folder", tmp_path / "none")


CAFE = "Café"


@pytest.fixture
def oddly_named(shop):
    """A picture whose name is decomposed, as macOS writes it, and one with capitals."""
    (shop / "p 10.png").rename(shop / unicodedata.normalize("NFD", f"{CAFE}.png"))
    (shop / "p 11.png").rename(shop / "Look.PNG")
    return shop


@pytest.mark.parametrize(
    ("spelling", "picture"),
    [
        ("./dresses/p 0.png", "dresses/p 0.png"),
        ("dresses//p 0", "dresses/p 0.png"),
        ("dresses\\p 0.png", "dresses/p 0.png"),
        (".\\dresses\\p 0", "dresses/p 0.png"),
        (" dresses/p 0.png ", "dresses/p 0.png"),
        ("Dresses/P 0.PNG", "dresses/p 0.png"),
        ("{shop}/dresses/p 0.png", "dresses/p 0.png"),
        ("{shop}/shirts/../dresses/p 0", "dresses/p 0.png"),
        ("shop/dresses/p 0.png", "dresses/p 0.png"),
        (unicodedata.normalize("NFC", CAFE), unicodedata.normalize("NFD", f"{CAFE}.png")),
        ("look", "Look.PNG"),
        ("{shop}/../elsewhere/p 0.png", None),
        ("dresses/q 0.png", None),
    ],
)
@pytest.mark.parametrize("form", ["csv", "json"])
def test_other_spellings_of_a_name_are_found(oddly_named, spelling, picture, form):
    name = spelling.format(shop=oddly_named)
    row = {"reference": name, "caption": "c", "target": name, "negatives": name}
    path = oddly_named / f"queries.{form}"
    if form == "json":
        path.write_text(json.dumps([row]))
    else:
        path.write_text(",".join(row) + "\n" + ",".join(f'"{cell}"' for cell in row.values()) + "\n")
    benchmark = load_benchmark("folder", oddly_named)
    (query,) = benchmark.queries
    if picture:
        assert (query.reference, list(query.relevant), query.negatives) == (picture, [picture], (picture,))
        assert "names without a picture" not in benchmark.protocol
    else:
        assert query.reference not in benchmark.images
        assert benchmark.protocol["names without a picture"].startswith("1: ")


def test_a_name_without_a_picture_has_a_guess(shop):
    (shop / "queries.json").write_text('[{"reference": "dresses/p0.png", "caption": "c"}]')
    assert "did you mean dresses/p 0.png?" in load_benchmark("folder", shop).protocol["names without a picture"]


def test_spellings_of_two_pictures_are_told(shop):
    """Exact names go first; any other spelling of both is refused."""
    shutil.copy(shop / "p 10.png", shop / "P 10.png")
    for name, kind in (("P 10.png", None), ("p 10", None), ("p 10.PNG", InputError)):
        (shop / "queries.json").write_text(json.dumps([{"reference": name, "caption": "c"}]))
        with pytest.raises(kind) if kind else contextlib.nullcontext():
            assert load_benchmark("folder", shop).queries[0].reference.startswith(name)


def test_columns_in_other_letters_are_ours(shop):
    text = "ID , Reference,CAPTION,Caption 2,Targets,Also-Correct,Weather\n a ,p 10,c,d,p 11,dresses/p 1,wet\n"
    (shop / "queries.csv").write_text(text)
    benchmark = load_benchmark("folder", shop)
    (query,) = benchmark.queries
    assert (query.id, query.captions) == ("a", ("c", "d"))
    assert query.relevant == {"p 11.png": 2, "dresses/p 1.png": 1}
    assert benchmark.protocol["columns not used"] == "Weather"


@pytest.mark.parametrize("column", ["traget", "targts", "Target_id"])
def test_a_column_that_is_nearly_ours_is_told(shop, column):
    (shop / "queries.csv").write_text(f"reference,caption,{column}\np 10,c,p 11\n")
    with pytest.raises(InputError, match=f'"{column}".*Did you mean "target"'):
        load_benchmark("folder", shop)


@given(st.binary(max_size=200), st.sampled_from(["csv", "json", "jsonl"]))
def test_any_bytes_are_rows_or_an_error(tmp_path_factory, data, form):
    path = tmp_path_factory.mktemp("rows") / f"q.{form}"
    path.write_bytes(data)
    try:
        assert all(isinstance(row, dict) for row in read_rows(path))
    except CigError as error:
        message = str(error)
    else:
        message = str(path)
    assert str(path) in message


@pytest.mark.slow
@given(st.text(max_size=120))
def test_any_csv_is_queries_or_an_error(shop_of, text):
    (shop_of / "queries.csv").write_bytes(("reference,caption,target,tags\n" + text).encode("utf-8", "replace"))
    try:
        load_benchmark("folder", shop_of)
    except CigError as error:
        message = str(error)
    else:
        message = "queries.csv"
    assert "queries.csv" in message


@pytest.fixture(scope="module")
def shop_of(tmp_path_factory):
    return tmp_path_factory.mktemp("shop")


def test_references_by_address(shop, monkeypatch):
    """One is had, one is not: its query is counted and named, and the run goes on."""
    rows = [{"reference": f"https://a.org/{name}", "caption": "c", "target": "p 10"} for name in ("one", "two")]
    (shop / "queries.json").write_text(json.dumps(rows))

    def stand_in(urls, folder):
        assert folder == shop / ".fetched"
        return {urls[0]: shop / "p 11.png"}, {urls[1]: "https://a.org/two: the server answers 404"}

    monkeypatch.setattr(room, "fetch_pictures", stand_in)
    bench = load_benchmark("folder", shop)
    assert bench.images["https://a.org/one"] == shop / "p 11.png"
    assert bench.missing_images == ("https://a.org/two",)
    assert bench.protocol["references not fetched"] == "1 (the server answers 404: 1)"
    assert bench.why_missing("https://a.org/two") == "https://a.org/two: the server answers 404"
    assert len(bench.gallery) == 12, "what is fetched is not searched"


def test_a_folder_without_a_picture_is_no_success(tmp_path, capsys):
    (tmp_path / "queries.json").write_text('[{"reference": "a", "caption": "b", "target": "c"}]')
    code, _, err = run(capsys, "stats", "folder", "--dataset-path", tmp_path)
    assert (code, "no picture is in the gallery of folder/val" in err) == (1, True)


def test_each_reason_for_an_address_without_a_picture_is_shown(shop, monkeypatch, tmp_path, capsys):
    urls = [f"https://a.org/{i}" for i in range(26)]
    (shop / "queries.json").write_text(
        json.dumps([{"reference": url, "caption": "c", "target": "p 10"} for url in urls])
    )
    whys = ["the server answers 404"] * 20 + [f"reason {i}" for i in range(5)]
    failed = {url: f"{url}: {why}" for url, why in zip(urls, whys, strict=False)}
    monkeypatch.setattr(room, "fetch_pictures", lambda names, folder: ({urls[25]: shop / "p 11.png"}, failed))
    code, out, _ = run(capsys, "check", "folder", "--dataset-path", shop, "--json", tmp_path / "a.json")
    assert (code, "gave no picture: 25 (the server answers 404: 20; reason 0: 1; " in out, "reason 4: 1)" in out) == (
        *(1, True, True),
    )
    findings = {each["kind"]: each for each in json.loads((tmp_path / "a.json").read_text())["parts"][""]["findings"]}
    assert findings["not fetched"]["found"] == failed
    assert findings["no reference"]["count"] == 25
    assert "missing" not in findings


def test_from_the_shell(shop, world, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write(shop, "csv")
    line = "--dataset-path", shop, "--method", "sum", "--clip", world / "models/clip-small", "--device", "cpu"
    code, out, err = run(capsys, "evaluate", "folder", *line, "--json", "s.json")
    assert (code, "recall@10" in out) == (0, True), err
    report = json.loads((tmp_path / "s.json").read_text())
    assert report["protocol"]["gallery"] == f"12 pictures of {shop}, without the query's reference"
    assert report["protocol"]["intervals"] == "over 2 clusters of queries"
    assert run(capsys, "check", "folder", "--dataset-path", shop)[0] == 0
    (shop / "mine.jsonl").write_text('{"reference": "p 10", "caption": "c"}')
    code, _, err = run(capsys, "evaluate", "folder", *line, "--queries", shop / "mine.jsonl")
    assert (code, "`cig run` searches without scores" in err) == (2, True), err
    code, _, err = run(capsys, "evaluate", "cirr", "--dataset-path", world, "--method", "image", "--queries", "x")
    assert (code, "cirr takes no --queries" in err) == (2, True), err


def models_of(world):
    models = world / "models"
    flags = {
        "--clip": models / "clip-small",
        "--clip2": models / "clip-large",
        "--phi": models / "phi-small.pt",
        "--phi2": models / "phi-large.pt",
    }
    sdxl = {"--model-path": models / "sdxl", "--sdxl-repo": models / "sdxl", "--vae-repo": models / "sdxl/vae"}
    size = {"--height": 64, "--width": 64, "--steps": 1}
    search = {"--search-clip": models / "clip-small", "--search-phi": models / "phi-small.pt"}
    return [[word for pair in group.items() for word in pair] for group in (flags, {**sdxl, **size}, search)]


@pytest.mark.slow
def test_a_run_without_targets_writes_rankings_and_a_page(shop, world, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (shop / "queries.jsonl").write_text('{"reference": "p 10", "caption": "is red"}')
    words = [word for group in models_of(world) for word in group]
    code, _, err = run(capsys, "run", "folder", "--dataset-path", shop, "--device", "cpu", "--out", "out", *words)
    assert code == 0, err
    assert "nothing is scored" in err
    assert len(json.loads((tmp_path / "out/rankings.json").read_text())[""]["0"]) == 11
    assert (tmp_path / "out/report.html").exists()
    assert not (tmp_path / "out/scores.json").exists()


def test_what_is_made_is_not_searched(shop, world, monkeypatch, capsys):
    """Each would write pictures among those that it searches; with pictures in images/ it does not."""
    monkeypatch.chdir(shop)
    (shop / "queries.jsonl").write_text('{"reference": "p 10", "caption": "is red", "target": "p 11"}')
    compose, imagine, search = models_of(world)
    where = "folder", "--dataset-path", ".", "--device", "cpu"
    (shop / "e").mkdir()
    method = "--method", "image", "--clip", world / "models/clip-small"
    for line, home in (
        (("run", *where, *compose, *imagine, *search), "outputs/runs/folder_val"),
        (("generate", *where, *imagine, "--text-embeddings-dir", "e"), "outputs/generated_images/folder_test"),
        (
            ("evaluate", *where, *method, "--branch", "name=a pictures=reference-augmented weight=0.1"),
            "outputs/controls/",
        ),
    ):
        code, _, err = run(capsys, *line)
        assert (code, home in err, "is among the pictures, which are searched" in err) == (2, True, True), err
        assert not list(shop.rglob("outputs/**/*.png"))
    (shop / "shirts").rename(shop / "images")
    part = load_benchmark("folder", shop)
    need_outside((part,), shop / "outputs")
    with pytest.raises(UsageError, match=f"outside of {shop / 'images'}"):
        need_outside((part,), shop / "images/outputs")


def test_references_that_cannot_be_had_score_0_and_are_named(shop, world, tmp_path, monkeypatch, capsys):
    """All of them: there is no feature at all to fuse a pseudo-target's with."""
    monkeypatch.chdir(tmp_path)
    rows = [{"id": "7", "reference": "gone", "caption": "is red", "target": "p 10"}]
    (shop / "queries.json").write_text(json.dumps(rows))
    (tmp_path / "g").mkdir()
    shutil.copy(shop / "p 11.png", tmp_path / "g/00007.png")
    flags = "--method", "image", "--clip", world / "models/clip-small", "--generated-image-dir", "g", "--json", "s.json"
    code, _, err = run(capsys, "evaluate", "folder", "--dataset-path", shop, "--device", "cpu", *flags)
    assert (code, "no picture for the reference gone" in err, "Traceback" in err) == (1, True, False), err
    assert set(json.loads((tmp_path / "s.json").read_text())["scores"][""].values()) == {0}


def test_a_gallery_that_cannot_be_read_finds_nothing(shop, world, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (shop / "queries.json").write_text(json.dumps([{"reference": "p 10", "caption": "is red", "target": "p 11"}]))
    for path in shop.rglob("*.png"):
        path.write_bytes(b"version https://git-lfs.github.com/spec/v1")
    flags = "--method", "text", "--clip", world / "models/clip-small", "--device", "cpu", "--json", "s.json"
    code, _, err = run(capsys, "evaluate", "folder", "--dataset-path", shop, *flags)
    assert (code, "Traceback" in err) == (0, False), err
    report = json.loads((tmp_path / "s.json").read_text())
    assert set(report["scores"][""].values()) == {0}
    assert report["provenance"]["counts"]["unreadable"] == 12


@pytest.mark.slow
def test_an_edited_query_is_made_again_and_no_other(shop, world, tmp_path, monkeypatch, capsys):
    """Its old embedding and picture are not used meanwhile."""
    monkeypatch.chdir(tmp_path)
    compose, imagine, _ = models_of(world)
    where = "folder", "--dataset-path", shop, "--device", "cpu"
    extract = "extract", *where, *compose, "--text-embeddings-dir", "e"
    generate = "generate", *where, *imagine, "--text-embeddings-dir", "e", "--save-path", "g", "--seeds", "per-query"
    flags = "--method", "image", "--clip", world / "models/clip-small", "--generated-image-dir", "g"
    rows = [{"reference": f"p {i}", "caption": "is red", "target": f"p {21 - i}"} for i in (10, 11)]
    (shop / "queries.json").write_text(json.dumps(rows))
    assert [run(capsys, *line)[0] for line in (extract, generate)] == [0, 0]
    before = {path.name: path.read_bytes() for path in (tmp_path / "g").glob("*.png")}
    (shop / "queries.json").write_text(json.dumps([rows[0], {**rows[1], "caption": "is as blue as the sea"}]))
    code, _, err = run(capsys, *generate)
    assert (code, "is of another caption; run `cig extract` again" in err) == (1, True), err
    code, _, err = run(capsys, "evaluate", *where, *flags)
    assert "queries that ask something else now, not used: 1 (1)" in err
    assert "1 embeddings written" in run(capsys, *extract)[2]
    assert run(capsys, *generate)[0] == 0
    after = {path.name: path.read_bytes() for path in (tmp_path / "g").glob("*.png")}
    assert after["00000.png"] == before["00000.png"]
    assert after["00001.png"] != before["00001.png"]
    assert "something else" not in run(capsys, "evaluate", *where, *flags)[2]


def test_ids_that_would_share_a_file_are_told(shop):
    rows = [{"id": name, "reference": "p 10", "caption": "c"} for name in ("7", "007")]
    (shop / "queries.json").write_text(json.dumps(rows))
    with pytest.raises(InputError, match=r"the ids 7 and 007 would share the file 00007\.png"):
        load_benchmark("folder", shop)


def test_a_stale_picture_is_no_copy_for_another_query(shop, tmp_path):
    """red_1 is a query, so red_1.png is never red's second picture: not even where it is not used."""
    from cig.io.manifest import Manifest, query_digest
    from cig.retrieval.branches import find_pictures

    rows = [{"id": name, "reference": "p 10", "caption": "c"} for name in ("red", "red_1")]
    (shop / "queries.json").write_text(json.dumps(rows))
    part = load_benchmark("folder", shop)
    manifest = Manifest(tmp_path / "out", {})
    for name, digest in (("red", query_digest(part.queries[0])), ("red_1", "of another caption")):
        manifest.add({"id": name, "file": f"{name}.png", "query": digest})
        shutil.copy(shop / "p 10.png", tmp_path / "out" / f"{name}.png")
    assert find_pictures(tmp_path / "out", part) == {"red": (tmp_path / "out/red.png",)}
