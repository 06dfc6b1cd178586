"""ImageNet-R's domain conversion: pinned on the real lists; recall by the published formula on a hand-made one."""

import numpy as np
import pytest
from PIL import Image

from cig import evaluate, load_benchmarks
from cig.errors import InputError
from cig.types import Ranking


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


@pytest.mark.parametrize("line", ["a.jpg x", "/etc/passwd 3", "../a.jpg 3", "a.jpg 7000", "a.jpg"])
def test_lines_of_another_form_are_told(tmp_path, line):
    (make(tmp_path) / "imgnet_targets.txt").write_text(f"imgnet/a.jpg 7\n{line}\n")
    with pytest.raises(InputError, match="line 2"):
        load_benchmarks("imagenet-r", tmp_path)
