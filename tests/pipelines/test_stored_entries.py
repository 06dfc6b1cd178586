"""What is stored by a picture's name: the gallery's pictures have it, and no pseudo-target that is called like one."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from calls import run
from cig.errors import PictureError
from cig.methods._picture_names import Names
from cig.pipelines.open import open_place
from cig.retrieval.finder import ComposedQuery, Wanted
from cig.retrieval.requests import OwnSearching
from cig.runtime import Compute

IDS = ("7", "42", "108")
METHODS = ("precomputed", "caption", "oti")


@pytest.fixture
def catalogue(tmp_path):
    """Pictures whose names are product codes, a query of each product, and pseudo-targets by the queries' ids."""
    shop, made = tmp_path / "shop", tmp_path / "made"
    for folder in (shop / "images", made):
        folder.mkdir(parents=True)
    for i, name in enumerate(IDS):
        Image.new("RGB", (40, 40), (80 * i, 10, 200)).save(shop / f"images/{name}.png")
        Image.new("RGB", (40, 40), (10, 80 * i, 90)).save(made / f"{int(name):05d}.png")
    queries = [
        {"id": a, "reference": a, "caption": "in red", "target": b} for a, b in zip(IDS, IDS[1:] + IDS[:1], strict=True)
    ]
    (shop / "queries.json").write_text(json.dumps(queries))
    return tmp_path


def stored(folder, method, names, clip):
    """The method's file, with these names; its flags."""
    rows = np.eye(16, dtype=np.float32)[: len(names)]
    if method == "precomputed":
        np.savez(folder / "f.npz", names=names, features=rows, queries=IDS, query_features=rows[:3])
        return ["--method-option", f"features={folder / 'f.npz'}"]
    if method == "caption":
        (folder / "captions.json").write_text(json.dumps({name: f"thing {name}" for name in names}))
        return ["--clip", clip, "--method-option", f"captions={folder / 'captions.json'}"]
    torch.save(torch.randn(len(names), 32, generator=torch.manual_seed(0)), folder / "ema_oti_pseudo_tokens.pt")
    (folder / "image_names.json").write_text(json.dumps(list(names)))
    return ["--clip", clip, "--phi", folder]


def evaluated(capsys, folder, method, *flags):
    """(what scores.json has, stderr and stdout)"""
    call = ["evaluate", "folder", "--dataset-path", folder / "shop", "--method", method, *flags, "--device", "cpu"]
    code, out, err = run(capsys, *call, "--json", folder / "scores.json", "--rankings", folder / "rankings.json")
    assert code == 0, err
    return json.loads((folder / "scores.json").read_text()), out + err


@pytest.mark.parametrize("padded", [True, False])
@pytest.mark.parametrize("method", METHODS)
def test_a_bare_name_is_the_gallerys(world, catalogue, capsys, method, padded):
    """Three pseudo-targets, called as gallery pictures are: none has an entry, all are counted."""
    flags = stored(catalogue, method, IDS, world / "models/clip-small")
    alone, _ = evaluated(capsys, catalogue, method, *flags)
    rankings = (catalogue / "rankings.json").read_text()
    for path in () if padded else (catalogue / "made").iterdir():
        path.rename(path.with_name(path.name.lstrip("0")))
    scores, said = evaluated(capsys, catalogue, method, *flags, "--generated-image-dir", catalogue / "made")
    assert scores["missing"]["pseudo_targets"] == {"": list(IDS)}
    assert list(scores["unused"]["pseudo_targets"][""]) == list(IDS)
    assert {"precomputed": "feature", "caption": "caption", "oti": "pseudo-word"}[method] in said
    assert "made/" in scores["unused"]["pseudo_targets"][""]["7"], "what to call its entry"
    assert (catalogue / "rankings.json").read_text() == rankings
    assert scores["scores"] == alone["scores"]


@pytest.mark.parametrize("method", METHODS)
def test_a_pseudo_target_has_the_entry_with_its_folder(world, catalogue, capsys, method):
    names = [*IDS, *(f"made/{int(name):05d}.png" for name in IDS[:2])]
    flags = stored(catalogue, method, names, world / "models/clip-small")
    pictures = ["--generated-image-dir", catalogue / "made", "--fusion-weight", "0"]
    scores, _ = evaluated(capsys, catalogue, method, *flags, *pictures)
    assert scores["missing"]["pseudo_targets"] == {"": ["108"]}
    if method == "precomputed":  # by hand: query 7 is asked with row 3, at right angles to all of the gallery
        assert json.loads((catalogue / "rankings.json").read_text())[""]["7"] == ["108.png", "42.png"]


def test_the_entry_of_a_query_is_of_its_reference_alone(catalogue, capsys):
    """A pseudo-target called as its query's reference is not that reference: its own feature asks."""
    rows = np.eye(4, dtype=np.float32)
    np.savez(
        catalogue / "f.npz",
        names=[*IDS, "made/7"],
        features=[*rows[:3], rows[2]],
        queries=IDS,
        query_features=[rows[1]] * 3,
    )
    (catalogue / "made/00007.png").rename(catalogue / "made/7.png")
    flags = ["--method-option", f"features={catalogue / 'f.npz'}", "--generated-image-dir", catalogue / "made"]
    evaluated(capsys, catalogue, "precomputed", *flags, "--fusion-weight", "0")
    rankings = json.loads((catalogue / "rankings.json").read_text())[""]
    assert rankings["7"][0] == "108.png", "made/7 points there; the query's own feature points to 42.png"


def test_compare_says_that_a_row_has_no_words(world, catalogue, capsys):
    stored(catalogue, "oti", IDS, None)
    weights = f"oti clip={world / 'models/clip-small'} phi={catalogue}"
    call = ["compare", "folder", "--dataset-path", catalogue / "shop", "--methods", weights, "--device", "cpu"]
    code, out, err = run(capsys, *call, "--branches", "pseudo-target", "--generated-image-dir", catalogue / "made")
    assert code == 0, err
    (line,) = [line for line in out.splitlines() if "not used" in line]
    assert line.startswith("oti + pseudo-target: ")
    assert ": 3 (7, 42, 108): no pseudo-word" in line


def test_a_search_takes_no_gallery_pictures_entry(catalogue, tmp_path):
    """An image from elsewhere, and an imagined one, that are called like a gallery picture."""
    stored(catalogue, "precomputed", [*IDS, "new"], None)
    options = (f"features={catalogue / 'f.npz'}",)
    searching = OwnSearching("precomputed", method_option=options, feature_cache=tmp_path / "cache")
    index = open_place(catalogue / "shop/images", searching, Compute(device="cpu"))
    index.method.query_rows = {}
    inside = catalogue / "shop/images/42.png"
    assert index.search(inside, keep_reference=True)[0].name == "42.png"
    assert index.search(tmp_path / "new.png", k=1)
    for query in (
        ComposedQuery((tmp_path / "other/42.png",)),
        ComposedQuery((inside,), pseudo_target=tmp_path / "imagined/42.png"),
        ComposedQuery((inside,), pseudo_target=tmp_path / "imagined/new.png"),
    ):
        with pytest.raises(PictureError):
            index.find([(query, Wanted())])


def test_rows_of_pictures_from_outside():
    names = Names.of(["7", "images/42", "made/108", "000000000009"], Path("f"))
    gallery = [Path("/shop/images/7.png"), Path("/shop/images/42.png"), Path("/shop/images/000000000009.jpg")]
    outside = [Path(path) for path in ("/x/7.png", "/x/images/42.png", "/x/made/108.png", "/x/9.png", "/x/none.png")]
    lacking = names.lacking_own(outside, gallery, "caption", source=Path("f"), bare=True)
    assert list(lacking) == [outside[0], outside[1], outside[3], outside[4]]
    free = names.lacking_own(outside, [], "caption", source=Path("f"), bare=True)
    assert list(free) == [outside[4]]
    assert list(names.lacking_own(outside, [], "caption", source=Path("f"), bare=False)) == [outside[0], *outside[3:]]
