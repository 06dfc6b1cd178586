"""Rankings and scores of every method without training equal those of an independent route, tests/route.py."""

import json
import random
from dataclasses import replace

import numpy as np
import pytest
import torch

import route
import tiny
from cig import Source, evaluate, load_benchmarks, load_method, search
from cig.io.feature_cache import FeatureCache
from cig.retrieval.features import embed_pictures

METHODS = ("image", "text", "sum", "slerp", "bge-vl", "searle", "lincir", "pic2word", "phi", "oti", "caption")
METHODS += ("precomputed",)
FAMILIES = ("CIRR", "CIRCO", "FashionIQ")
CACHE = FeatureCache()  # each picture is embedded once for all methods of one preprocessing
CLOSE = 1e-5  # of a cosine: what float32 may change


@pytest.fixture(scope="module")
def drawn(world, tmp_path_factory):
    """The tiny world, with up to nine correct pictures in CIRCO, and with a drawn pseudo-target for each query."""
    rng, root = random.Random(1), tmp_path_factory.mktemp("drawn")
    for path in (*world.iterdir(), *(world / "CIRCO").iterdir()):
        (root / path.relative_to(world)).parent.mkdir(exist_ok=True)
        if path.name not in ("CIRCO", "annotations"):
            (root / path.relative_to(world)).symlink_to(path)
    with_more_targets(world / "CIRCO/annotations/val.json", root / "CIRCO/annotations/val.json", rng)
    world, out = root, root / "pseudo-targets"
    for family in FAMILIES:
        for category, _, queries in route.parts(world, family):
            for query in queries:
                tiny.draw(rng, out / family / category / f"{int(query.id):05d}.png")
    return world, lambda family: out / family


@pytest.fixture(scope="module")
def reference(published, world, tmp_path_factory):
    """The published implementation's case: real annotation entries. Its models have no phi of Pic2Word's."""
    root = tmp_path_factory.mktemp("reference")
    for name in FAMILIES:
        (root / name).symlink_to(published / name)
    (root / "models").mkdir()
    for path in (published / "models").iterdir():
        (root / "models" / path.name).symlink_to(path)
    config = json.loads((root / "models/clip-small/config.json").read_text())
    torch.manual_seed(0)
    width = config["text_config"]["hidden_size"]
    tiny.make_pic2word(root / "models/pic2word-small.pt", config["projection_dim"], width)
    return root, lambda family: published / "pseudo_targets" / f"{family.lower()}_val"


def with_more_targets(path, changed, rng):
    """CIRCO's average precision divides by min(k, targets): so some queries have more than k."""
    rows = json.loads(path.read_text())
    for count, row in enumerate(rows):
        others = {other["reference_img_id"] for other in rows} - {row["reference_img_id"], *row["gt_img_ids"]}
        row["gt_img_ids"] += rng.sample(sorted(others), min(count, len(others)))
    changed.parent.mkdir()
    changed.write_text(json.dumps(rows))


def pseudo_targets_of(folder, category, queries):
    return {query.id: folder / category / f"{int(query.id):05d}.png" for query in queries}


def files_of(root, folder, family):
    """Words, captions and features for every picture of a family, drawn; names with their folder, all distinct."""
    rng = np.random.default_rng(0)
    models = json.loads((root / "models/clip-small/config.json").read_text())
    paths, ids = {}, []
    for category, pictures, queries in route.parts(root, family):
        paths |= dict.fromkeys([*pictures.values(), *pseudo_targets_of(folder, category, queries).values()])
        ids += [query.id for query in queries]
    width, features = models["text_config"]["hidden_size"], models["projection_dim"]

    def rows(keys, size):
        return {key: rng.normal(size=size).astype(np.float32).astype(np.float64) for key in keys}

    captions = {path: f"{tiny.CAPTIONS[i % 4]} no {i}." for i, path in enumerate(paths)}
    return route.Files(rows(paths, width), captions, rows(paths, features), rows(dict.fromkeys(ids), features))


def source_of(root, method, files, *, home):
    """The method's weights and files, written under home."""
    models = root / "models"
    source = Source(clip=models / "clip-small")
    names = [f"{path.parent.name}/{path.name}" for path in files.words]
    if method in route.WORDS:
        return replace(source, phi=models / route.WORDS[method][0])
    if method == "oti":
        words = torch.from_numpy(np.stack(list(files.words.values()))).float()
        torch.save(words, home / "ema_oti_pseudo_tokens.pt")
        (home / "image_names.json").write_text(json.dumps(names))
        return replace(source, phi=home)
    if method == "caption":
        (home / "captions.json").write_text(json.dumps(dict(zip(names, files.captions.values(), strict=True))))
        return replace(source, options={"captions": str(home / "captions.json")})
    if method == "precomputed":
        features, asked = (np.stack(list(own.values())).astype(np.float32) for own in (files.features, files.asked))
        both = {"names": names, "features": features, "queries": list(files.asked), "query_features": asked}
        np.savez(home / "features.npz", **both)
        return Source(options={"features": str(home / "features.npz")})
    return source


def check(root, folder, family, *, method, home):
    """Rankings by name and cosine, subset rankings and every measure, without and with pseudo-targets."""
    files = files_of(root, folder, family)
    loaded = load_method(method, source_of(root, method, files, home=home))
    benchmarks = load_benchmarks(f"{family.lower()}/val", root)
    for part, (category, pictures, queries) in zip(benchmarks, route.parts(root, family), strict=True):
        assert (part.part, part.gallery, len(part.queries)) == (category, tuple(pictures), len(queries))
        targets = pseudo_targets_of(folder, category, queries)
        seen = embed_pictures(loaded, [*part.images.values(), *targets.values()], cache=CACHE)
        for imagined in (None, targets) if method != "text" else (None,):
            ranking = search(part, loaded, imagined, pictures=seen, cache=CACHE)
            scores = []
            for row, query in enumerate(queries):
                feature = route.fused(
                    root / "models",
                    method,
                    files,
                    query=query,
                    path=pictures[query.reference],
                    pseudo_target=imagined and imagined[query.id],
                    weight=route.WEIGHTS[family],
                )
                drop = query.reference if family == "CIRR" else None
                full = route.ranked(root / "models", method, files, gallery=pictures, feature=feature, drop=drop)
                same_order(ranking.ids[row], ranking.scores[row], full)
                among = [(name, score) for name, score in full if name in query.members]
                same_order(ranking.subset[row] if ranking.subset else (), None, among)
                scores.append(route.measured(family, query, [name for name, _ in full]))
            ours = evaluate(part, ranking).scores[category]
            mean = {name: float(np.mean([own[name] for own in scores])) for name in scores[0]}
            assert {name: ours[name] for name in mean} == pytest.approx(mean, abs=1e-9)


def same_order(names, cosines, truth):
    """The names are the truth's, best first; two that float32 cannot tell apart may change places."""
    values = dict(truth)
    assert len(set(names)) == len(names) == min(50, len(truth))
    for name, (_, score) in zip(names, truth, strict=False):
        assert abs(values[name] - score) < CLOSE
    if cosines is not None:
        assert np.allclose([values[name] for name in names], cosines, atol=CLOSE)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("method", METHODS)
def test_a_drawn_benchmark(drawn, tmp_path, method, family):
    root, folder = drawn
    check(root, folder(family), family, method=method, home=tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("method", ["sum", "searle"])
def test_the_published_case(reference, tmp_path, method, family):
    root, folder = reference
    check(root, folder(family), family, method=method, home=tmp_path)
