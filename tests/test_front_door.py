"""What a Python user meets: types that survive lazy loading, paths as text, errors at once, representations."""

import ast
import inspect
import json
import logging
import pydoc
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from mypy import api
from PIL import Image

import cig
from cig.errors import NotFoundError, UsageError, WrongTypeError

SOURCE = Path(cig.__file__)
HOME = Path(__file__).parents[1]


# Types


CALLS = {  # expression -> its type
    'cig.load_benchmark("cirr/val", root="data")': "cig.types.Benchmark",
    'cig.load_benchmark("cirr/val").queries[0]': "cig.types.Query",
    'cig.load_benchmarks("fashioniq/val", categories=["dress"])': "tuple[cig.types.Benchmark, ...]",
    'cig.load_clip("clip")': "cig.models.clip.Clip",
    'cig.load_clip("clip", device="cpu", dtype="float32")': "cig.models.clip.Clip",
    'cig.load_composer("a", "b", phi="c", phi2="d", device="cpu", dtype="float32")': "cig.models.composer.Composer",
    'cig.load_generator("sdxl", device="cpu")': "cig.types.Generator",
    'cig.load_method("searle/b32")': "cig.types.Method",
    'cig.load_method("searle", cig.Source(clip="clip", phi="phi.pt"))': "cig.types.Method",
    "cig.imagine(bench, composer, generator, out='runs')": "cig.generators._generate.Imagined",
    "cig.imagine(bench, cig.EmbeddingFolder(bench, 'folder'), generator, out='runs', how=cig.Imagining(seed=1))": (
        "cig.generators._generate.Imagined"
    ),
    "cig.search(bench, method)": "cig.types.Ranking",
    "cig.search(bench, method, targets)": "cig.types.Ranking",
    "cig.search(bench, method, targets.pictures)": "cig.types.Ranking",
    "cig.search(bench, method, 'folder', weight=0.8)": "cig.types.Ranking",
    "cig.search(bench, method, {'1': 'a.png'})": "cig.types.Ranking",
    "cig.search(bench, method, branches=[cig.Branch('a', {'1': 'a.png'}, 0.5)])": "cig.types.Ranking",
    "cig.evaluate(bench, ranking)": "cig.types.Report",
    "cig.evaluate([bench], [ranking], [ranking]).scores": ("Mapping[str, Mapping[str, float]]"),
    "cig.CIRRDataset('CIRR')": "cig.pipelines.published_datasets.CIRRDataset",
    "cig.FashionIQDataset('FashionIQ')": "cig.pipelines.published_datasets.FashionIQDataset",
    "cig.ComposedEmbedsDataset('CIRR', 'embeddings')": "cig.pipelines.published_datasets.ComposedEmbedsDataset",
    "cig.Phi(40, 80, 32)": "cig.models.phi.Phi",
    "cig.CigError('words')": "cig.errors.CigError",
    "cig.__version__": "str",
}
USER = """import cig

def user(
    bench: cig.Benchmark, query: cig.Query, ranking: cig.Ranking, report: cig.Report, targets: cig.Imagined,
    condition: cig.ComposedEmbedding, source: cig.Source, method: cig.Method, generator: cig.Generator,
) -> None:
    composer = cig.load_composer("a", "b", phi="c", phi2="d")
"""
CONFIG = """[mypy]
strict = true
[mypy-torch.*,transformers.*,diffusers.*]
follow_imports = skip
"""


@pytest.fixture(scope="module")
def revealed(tmp_path_factory):
    """Revealed types of CALLS, and the other lines that mypy writes about a user's strictly typed program."""
    folder = tmp_path_factory.mktemp("typed")
    lines = [f"    reveal_type({call})" for call in CALLS]
    (folder / "user.py").write_text(USER + "\n".join([*lines, "    cig.no_such_name", ""]))
    (folder / "mypy.ini").write_text(CONFIG)
    cache = ["--cache-dir", str(folder / "cache")]
    out, err, _ = api.run([*cache, "--config-file", str(folder / "mypy.ini"), str(folder / "user.py")])
    assert not err
    short = re.sub(r"\b(builtins|typing|collections\.abc)\.", "", out)  # older and newer mypy differ
    types = dict(re.findall(r'user\.py:(\d+): note: Revealed type is "(.*)"', short))
    first = USER.count("\n") + 1
    others = [line for line in out.splitlines() if "user.py:" in line and "Revealed type" not in line]
    return {call: types.get(str(first + i)) for i, call in enumerate(CALLS)}, others


@pytest.mark.slow
@pytest.mark.parametrize("call", CALLS)
def test_types_survive_the_lazy_loading(revealed, call):
    assert revealed[0][call] == CALLS[call]


def test_a_strictly_typed_program_has_no_error_but_a_wrong_name(revealed):
    (error,) = revealed[1]
    assert 'Module has no attribute "no_such_name"' in error


def test_the_table_and_the_typed_imports_agree():
    tree = ast.parse(SOURCE.read_text())
    guard = next(node for node in tree.body if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test))
    imports = [node for node in guard.body if isinstance(node, ast.ImportFrom)]
    assert all(alias.asname == alias.name for node in imports for alias in node.names), "mypy --strict wants `as`"
    typed = {alias.name: node.module.removeprefix("cig.") for node in imports for alias in node.names}
    assert typed == cig._MODULES
    assert sorted(typed) == cig.__all__ == dir(cig)


def test_the_version_is_the_installed_package_s(monkeypatch):
    from importlib import metadata

    assert cig.__version__ == metadata.version("cig")

    def missing(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", missing)
    assert cig.__version__ == "0+unknown"


# Help


def test_help_lists_each_public_name_once():
    entries = [re.match(r"    ([A-Za-z_, ]+?)   ", line) for line in cig.__doc__.splitlines()]
    listed = [name for entry in entries if entry for name in entry[1].split(", ")]
    assert sorted(listed) == cig.__all__
    assert all(len(line) <= 120 for line in cig.__doc__.splitlines())


def test_help_shows_public_names_with_their_first_lines_and_no_internals():
    text = pydoc.render_doc(cig, renderer=pydoc.plaintext)
    for name in cig.__all__:
        first = inspect.getdoc(getattr(cig, name)).splitlines()[0]
        assert first in text, name
    assert "_MODULES" not in text
    assert "importlib" not in text
    assert "\nDATA\n" not in text
    assert f"VERSION\n    {cig.__version__}" in text


def test_the_example_of_help_is_that_of_a_program(world, tmp_path, monkeypatch):
    """Every line of the module's example runs, in the tiny world and with the weights of its files."""
    example = [
        line.strip() for line in cig.__doc__.splitlines() if re.match(r"    (import|\w+ = cig|print|index\.)", line)
    ]
    assert len(example) == 8
    models = world / "models"
    monkeypatch.chdir(tmp_path)
    (tmp_path / "datasets").symlink_to(world)
    names = {"clip": models / "clip-small", "clip2": models / "clip-large"}
    names |= {"phi": models / "phi-small.pt", "phi2": models / "phi-large.pt"}
    tiny = "model_path=sdxl, sdxl_repo=sdxl, vae_repo=sdxl + '/vae', height=64, width=64, steps=1"
    program = "\n".join(example).replace('load_generator("sdxl")', f'load_generator("sdxl", {tiny})')
    program = program.replace('"searle/b32"', '"searle", cig.Source(clip=clip, phi=phi)')
    program = program.replace('open("photos")', 'open("photos", "sum/icons", "cache")').replace(
        "sofa.jpg", "photos/no 1.jpg"
    )
    (tmp_path / "photos").symlink_to(world / "shop/shirts")
    names = {name: str(path) for name, path in (names | {"sdxl": models / "sdxl"}).items()}
    exec(program, names)
    assert isinstance(names["ranking"], cig.Ranking)


# Paths as text, names as devices and dtypes


@pytest.fixture(scope="module")
def parts(world):
    """The pipeline's parts, each loaded by text alone."""
    models = str(world / "models")
    source = cig.Source(clip=f"{models}/clip-small", phi=f"{models}/phi-small.pt", models=models, cache_dir="hub")
    sdxl = {"model_path": f"{models}/sdxl", "sdxl_repo": f"{models}/sdxl", "vae_repo": world / "models/sdxl/vae"}
    clips = f"{models}/clip-small", f"{models}/clip-large"
    phis = {"phi": f"{models}/phi-small.pt", "phi2": f"{models}/phi-large.pt"}
    return {
        "bench": cig.load_benchmark("cirr/val", root=str(world)),
        "source": source,
        "method": cig.load_method("searle", source),
        "composer": cig.load_composer(*clips, **phis, device="cpu", dtype="float32"),
        "generator": cig.load_generator(
            "sdxl", **sdxl, device="cpu", dtype="float32", cache_dir="hub", height=64, width=64, steps=1
        ),
    }


@pytest.fixture(scope="module")
def targets(parts, tmp_path_factory):
    out = str(tmp_path_factory.mktemp("targets"))
    how = cig.Imagining(brightness_thresh=-1)
    return cig.imagine(parts["bench"], parts["composer"], parts["generator"], out=out, how=how), out


def test_devices_and_dtypes_are_names_or_torch_s(world):
    folder = world / "models/clip-small"
    assert cig.load_clip(folder).dtype == torch.float32
    assert cig.load_clip(str(folder), device="cpu", dtype="bfloat16").dtype == torch.bfloat16
    assert cig.load_clip(folder, torch.device("cpu"), torch.float16).dtype == torch.float16
    assert cig.load_clip(folder, device="auto", dtype="auto").dtype == torch.float32
    with pytest.raises(UsageError, match="is not on this machine"):
        cig.load_clip(folder, device="gpu")
    with pytest.raises(UsageError, match='Did you mean "float32"'):
        cig.load_clip(folder, dtype="float23")


def test_a_source_takes_text_and_keeps_paths():
    source = cig.Source(clip=Path("clip"), phi="phi.pt", dtype=torch.float16, cache_dir="hub", models="folder")
    assert source == cig.Source("clip", Path("phi.pt"), dtype="float16", cache_dir=Path("hub"), models=Path("folder"))
    assert cig.Source().models == Path("models")


@pytest.mark.slow
def test_search_takes_what_imagine_returned_a_mapping_or_a_folder(parts, targets):
    done, out = targets
    rankings = [
        cig.search(parts["bench"], parts["method"], pseudo_targets)
        for pseudo_targets in (
            done,
            done.pictures,
            {query: str(path) for query, path in done.pictures.items()},
            out,
            Path(out),
        )
    ]
    assert all(ranking == rankings[0] for ranking in rankings)
    assert rankings[0] != cig.search(parts["bench"], parts["method"])


def test_a_branch_takes_text_one_path_or_several():
    branch = cig.Branch("sketch", {"1": "a.png", "2": Path("b.png"), "3": ["c.png", Path("d.png")]}, 0.5)
    assert branch.pictures == {"1": (Path("a.png"),), "2": (Path("b.png"),), "3": (Path("c.png"), Path("d.png"))}
    assert replace(branch, weight=0.3) == cig.Branch("sketch", branch.pictures, 0.3)


def test_an_embedding_folder_takes_text(parts, tmp_path):
    assert len(cig.EmbeddingFolder(parts["bench"], str(tmp_path)).missing) == 8


# Wrong types


WRONG = {
    "cig.load_benchmark(3)": r'name should be a name, such as "cirr/val", not 3 \(int\)',
    'cig.load_benchmark("cirr/val", 3)': r"root should be the path of a folder, not 3 \(int\)",
    "cig.load_method(3)": 'name should be a name, such as "searle/b32"',
    'cig.load_method("searle", "clip")': r"source should be a Source, such as cig.Source\(clip=",
    "cig.load_generator(3)": 'name should be a name, such as "sdxl"',
    'cig.search("cirr/val", method)': r'benchmark should be a Benchmark, such as cig.load_benchmark\("cirr/val"\)',
    "cig.search((bench, bench), method)": r"benchmark should be a Benchmark, .* \(tuple\)",
    'cig.search(bench, "searle")': r'method should be a Method, such as cig.load_method\("searle/b32"\)',
    "cig.search(bench, composer)": "method should be a Method",
    "cig.search(bench, method, 3)": "pseudo_targets should be what cig.imagine returned, a mapping from query ids",
    "cig.search(bench, method, {'1': 3})": "each of pseudo_targets should be a path, not 3",
    "cig.search(bench, method, {}, weight='0.5')": "weight should be a number from 0 to 1, not '0.5'",
    "cig.search(bench, method, branches=['a'])": "each of branches should be a cig.Branch",
    "cig.imagine('cirr/val', composer, generator, out='runs')": "benchmark should be a Benchmark",
    "cig.imagine(bench, method, generator, out='runs')": r"composer should be a Composer \(cig.load_composer\) or a",
    "cig.imagine(bench, composer, method, out='runs')": r"generator should be a Generator, such as cig.load_generator",
    "cig.imagine(bench, composer, generator, out=3)": "out should be the path of a folder",
    "cig.imagine(bench, composer, generator, out='runs', how='fast')": "how should be a cig.Imagining",
    "cig.EmbeddingFolder('cirr/val', 'folder')": "benchmark should be a Benchmark",
    "cig.EmbeddingFolder(bench, 3)": "folder should be the path of a folder of embeddings",
    "cig.Branch('a', 'folder', 0.5)": "pictures should be a mapping from query ids to paths, not 'folder'",
    "cig.Branch('a', {}, '0.5')": "weight should be a number from 0 to 1, not '0.5'",
    "cig.evaluate(bench, 'x')": r"ranking should be a Ranking, such as cig.search\(.*\), not 'x' \(str\)",
    "cig.evaluate('cirr/val', [])": "benchmark should be a Benchmark",
    "cig.evaluate([bench], [bench])": "ranking should be a Ranking",
    "cig.evaluate(bench, ranking, 'x')": "alone should be a Ranking",
}


@pytest.mark.parametrize("call", WRONG)
def test_a_wrong_type_fails_before_anything_is_embedded(parts, monkeypatch, call):
    def fail(*_):
        raise AssertionError("embedded")

    monkeypatch.setattr("cig.io.images.read_picture", fail)
    monkeypatch.setattr(type(parts["method"]), "embed_images", fail)
    ranking = cig.Ranking((), (), (), ())
    with pytest.raises(WrongTypeError, match=WRONG[call]) as caught:
        eval(call, {"cig": cig, "ranking": ranking, **parts})
    assert isinstance(caught.value, UsageError)
    assert isinstance(caught.value, TypeError)
    assert len(str(caught.value)) < 300


def test_other_wrong_arguments_fail_before_anything_is_embedded(parts, monkeypatch, tmp_path):
    def fail(*_):
        raise AssertionError("embedded")

    monkeypatch.setattr(type(parts["method"]), "embed_images", fail)
    bench, method = parts["bench"], parts["method"]
    with pytest.raises(NotFoundError, match="no-folder is not a folder"):
        cig.search(bench, method, "no-folder")
    with pytest.raises(NotFoundError, match="has no pseudo-target of cirr/val"):
        cig.search(bench, method, tmp_path)
    with pytest.raises(UsageError, match="each from 0 to 1"):
        cig.search(bench, method, {}, weight=1.5)
    with pytest.raises(UsageError, match="1 benchmarks and 2 rankings"):
        cig.evaluate(bench, [cig.Ranking((), (), (), ())] * 2)


# Representations


def test_each_thing_says_what_it_is_in_one_line(parts, targets, world):
    bench, method, composer = parts["bench"], parts["method"], parts["composer"]
    models, done = str(world / "models"), targets[0]
    ranking = cig.search(bench, method, done)
    report = cig.evaluate(bench, ranking)
    branch = cig.Branch("sketch", {query: (path,) for query, path in done.pictures.items()}, 0.3, caption=False)
    image = cig.load_method("image/b32", cig.Source(clip=f"{models}/clip-small"))
    clip = f"clip {models}/clip-small"
    phis = f"phi {models}/phi-small.pt, phi2 {models}/phi-large.pt"
    paths = f"phi='{models}/phi-small.pt', cache_dir='hub', models='{models}'"
    expected = [
        (bench, "<Benchmark cirr/val: 8 queries, gallery of 60 pictures, 60 found>"),
        (method, f"<searle: {clip}, phi {models}/phi-small.pt>"),
        (image, f"<image: {clip}>"),
        (composer, f"<Composer: {clip}, clip2 {models}/clip-large, {phis}>"),
        (composer.first.clip, f"<Clip {models}/clip-small: 40 wide, torch.float32 on cpu>"),
        (
            parts["generator"],
            f"<SDXL: unet {models}/sdxl/unet, vae {models}/sdxl/vae, scheduler {models}/sdxl/scheduler>",
        ),
        (parts["source"], f"Source(clip='{models}/clip-small', {paths})"),
        (done, "<Imagined: 8 pseudo-targets, 8 queries done in this run, 0 refused, 0 missing>"),
        (ranking, "<Ranking of 8 queries: 50 pictures each, 0 could not run>"),
        (branch, "<Branch sketch: 8 queries with pictures, weight 0.3, without the caption>"),
    ]
    for thing, text in expected:
        assert repr(thing) == text
    assert re.fullmatch(r"<Report cirr/val: recall@1 \d+\.\d\d, .*average \d+\.\d\d>", repr(report))


def test_tensors_are_described_by_their_shapes(parts, tmp_path):
    from cig.types import Gallery

    assert repr(Gallery(("a", "b"), torch.zeros(2, 3))) == "<Gallery 2 x 3>"
    assert repr(cig.EmbeddingFolder(parts["bench"], tmp_path)).endswith(": 0 embeddings, 8 missing>")
    condition = cig.ComposedEmbedding(
        ("1", "2"), torch.zeros(2, 77, 32), torch.zeros(2, 77, 48), torch.zeros(2, 56), torch.zeros(2, 77, 32)
    )
    assert repr(condition) == "<ComposedEmbedding of 2 queries: prompt 77 x 80, pooled 56>"


# Messages


@pytest.mark.slow
def test_the_library_logs_and_prints_nothing(world, tmp_path):
    """A program without any configuration of logging: nothing on stdout, no message on stderr."""
    code = f"import cig; print(cig.evaluate(b := cig.load_benchmark('cirr/val', {str(world)!r}), cig.search(b, m)))"
    load = f"import cig; m = cig.load_method('image', cig.Source(clip={str(world / 'models/clip-small')!r}))"
    done = subprocess.run([sys.executable, "-c", f"{load}; {code}"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("<Report cirr/val: recall@1 ")
    assert done.stderr == ""


def test_progress_is_logged_where_no_terminal_shows_a_bar(parts, monkeypatch, caplog):
    monkeypatch.setattr("cig.runtime.MESSAGE_INTERVAL", 0)
    with caplog.at_level(logging.INFO, "cig"):
        cig.search(parts["bench"], parts["method"])
    assert {(record.name, record.levelname) for record in caplog.records} == {("cig", "INFO")}


def test_what_was_missing_is_a_warning(parts, tmp_path, caplog):
    """The manifest states another caption for a picture, which is left out, and a program without a handler sees it."""
    query, other = parts["bench"].queries[:2]
    line = {"id": query.id, "file": f"{query.id}.png", "query": "another's digest", "accepted": True}
    (tmp_path / "manifest.jsonl").write_text(json.dumps(line) + "\n")
    for name in (query.id, other.id):
        Image.new("RGB", (8, 8), "red").save(tmp_path / f"{name}.png")
    cig.search(parts["bench"], parts["method"], tmp_path)
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert warnings == [f"{tmp_path}: pictures of queries that ask something else now, not used: 1 ({query.id})"]
