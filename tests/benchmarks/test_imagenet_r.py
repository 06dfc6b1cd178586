"""ImageNet-R's domain conversion: pinned on the real lists; recall by the published formula on a hand-made one."""

import numpy as np
import pytest
import torch
from PIL import Image

from cig import evaluate, load_benchmarks
from cig.errors import InputError
from cig.retrieval.rank import rank
from cig.types import Gallery, Ranking


def make(home):
    """Two classes of two real pictures each; three pictures a domain, all of class 7 but for two toys of class 8."""
    home.mkdir(exist_ok=True)
    asked = [f"imgnet/real/n{label}/{i}.JPEG {label} " for label in (7, 8) for i in range(2)]
    targets = []
    for number, domain in enumerate(("cartoon", "origami", "toy", "sculpture")):
        for i in range(3):
            label = 8 if domain == "toy" and i else 7
            targets.append(f"imgnet/imagenet-r/n{label}/{domain}_{i}.jpg {label + 1000 * number} ")
    (home / "imgnet_real_query.txt").write_text("\n".join(asked) + "\n")
    (home / "imgnet_targets.txt").write_text("\n".join(targets) + "\n")
    for line in (*asked, *targets):
        path = home / line.split()[0]
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(path)
    return home


def test_the_real_lists(annotations):
    parts = load_benchmarks("imagenet-r", annotations / "imagenet_r")
    assert [part.part for part in parts] == ["cartoon", "origami", "toy", "sculpture"]
    assert {len(part.queries) for part in parts} == {10_000}
    assert {len(part.gallery) for part in parts} == {16_983}
    first, last = parts[2].queries[0], parts[2].queries[-1]
    assert (first.reference, first.captions) == ("imgnet/real/n04086273/ILSVRC2012_val_00015728.JPEG", ("toy",))
    assert "imgnet/imagenet-r/n04086273/toy_3.jpg" in first.relevant
    assert last.reference == "imgnet/real/n02398521/ILSVRC2012_val_00033265.JPEG"
    empty = [sum(not query.relevant for query in part.queries) for part in parts]
    assert empty == [50 * classes for classes in (47, 94, 56, 58)]


def test_recall_is_the_share_of_the_class_in_the_domain(tmp_path):
    """The published formula in numpy: matches among the first k over all of the class, 0 where there are none."""
    parts, rng = load_benchmarks("imagenet-r", make(tmp_path)), np.random.default_rng(0)
    for part in parts:
        names = [tuple(rng.permutation(part.gallery)) for _ in part.queries]
        scores = tuple(tuple(float(-i) for i in range(len(row))) for row in names)
        ids = tuple(query.id for query in part.queries)
        ranking = Ranking(ids, tuple(names), scores, ((),) * len(ids), (None,) * len(ids))
        report = evaluate(part, ranking)
        shares = [
            sum(name in query.relevant for name in row[:10]) / max(len(query.relevant), 1)
            for query, row in zip(part.queries, names, strict=True)
        ]
        assert report.scores[part.part]["recall@10"] == pytest.approx(100 * np.mean(shares))
        untargeted = report.missing.get("untargeted", {}).get(part.part, [])
        assert untargeted == ([] if part.part == "toy" else ["2", "3"])


def test_freedoms_pairs_on_the_real_lists(annotations):
    """Every picture of the list asks in the four other domains: 4 x 16,983 queries in 20 parts."""
    parts = {part.part: part for part in load_benchmarks("imagenet-r/all", annotations / "imagenet_r")}
    assert len(parts) == 20
    assert sum(len(part.queries) for part in parts.values()) == 4 * 16_983
    assert len(parts["photo-to-toy"].queries) == 10_000
    last = parts["toy-to-photo"].queries[0]
    assert last.captions == ("photo",)
    assert set(last.relevant) <= {name for name in parts["toy-to-photo"].gallery if "/real/" in name}
    assert len(last.relevant) == 50, "ImageNet has 50 pictures a class in val"


def test_ap_of_freedom_is_the_published_one(tmp_path):
    """By hand in the order of the list: toys of class 8 are at 8 and 9 of 12, a cartoon of class 7 asks at 0."""
    parts = load_benchmarks("imagenet-r/freedom", make(tmp_path))
    assert [part.part for part in parts][:3] == ["cartoon-to-photo", "cartoon-to-origami", "cartoon-to-toy"]
    part = next(part for part in parts if part.part == "cartoon-to-toy")
    features = torch.eye(12)
    queries = torch.linspace(1, 0.1, 12).repeat(3, 1)
    ranking = rank(part, part.queries, queries, gallery=Gallery(part.gallery, features))
    # the one toy of class 7 is the seventh: precision is 0 before it and 1/7 at it
    assert ranking.relevant_ranks == ((7,), (7,), (7,))
    scores = evaluate([part], [ranking]).scores["cartoon-to-toy"]
    assert scores["trapezoid_map"] == pytest.approx(100 * (0 + 1 / 7) / 2)
    assert scores["recall@10"] == 100


@pytest.mark.parametrize("line", ["a.jpg x", "/etc/passwd 3", "../a.jpg 3", "a.jpg 7000", "a.jpg"])
def test_lines_of_another_form_are_told(tmp_path, line):
    (make(tmp_path) / "imgnet_targets.txt").write_text(f"imgnet/a.jpg 7\n{line}\n")
    with pytest.raises(InputError, match="line 2"):
        load_benchmarks("imagenet-r", tmp_path)
