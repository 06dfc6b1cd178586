"""i-CIR: a database an instance, AP over all of it, the mean over instances; on files of the release's form."""

import pytest
import torch
from PIL import Image

from cig import evaluate, load_benchmark
from cig.errors import InputError
from cig.retrieval.rank import rank
from cig.types import Gallery


def make(home):
    """Instance a: three queries, eight pictures; instance b: one query, four pictures."""
    rows = [f"query/a/{i}.jpg,at night,a" for i in range(3)] + ["query/b/0.jpg,on a mug,b"]
    database = [f"database/a/{i}.jpg,{'at night' if i in (1, 5) else ''},a" for i in range(8)]
    database = [row.replace(",,", ",as a toy,") for row in database]
    database += [f"database/b/{i}.jpg,{'on a mug' if i == 2 else 'at night'},b" for i in range(4)]
    for row in (*rows, *database):
        path = home / row.split(",")[0]
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(path)
    (home / "query_files.csv").write_text("\n".join(rows) + "\n")
    (home / "database_files.csv").write_text("\n".join(database) + "\n")
    return home


def test_a_database_an_instance(tmp_path):
    part = load_benchmark("icir", make(tmp_path))
    assert [len(part.galleries[query.id]) for query in part.queries] == [8, 8, 8, 4]
    assert [*part.queries[0].relevant] == ["database/a/1.jpg", "database/a/5.jpg"]
    assert [*part.queries[3].relevant] == ["database/b/2.jpg"], (
        "pictures of a with the text of b are of another database"
    )
    assert part.queries[3].reference == "query/b/0.jpg"
    assert not part.missing_images


def test_the_score_is_the_mean_over_instances(tmp_path):
    """In the order of the lists: a's two at ranks 2 and 6, b's at 3. Precision: 0 and 1/2, 1/5 and 2/6; 0 and 1/3."""
    part = load_benchmark("icir", make(tmp_path))
    features = torch.eye(12)
    falling = torch.linspace(1, 0.1, 12).repeat(4, 1)
    ranking = rank(part, part.queries, falling, gallery=Gallery(part.gallery, features))
    assert ranking.relevant_ranks == ((2, 6), (2, 6), (2, 6), (3,))
    of_a, of_b = ((0 + 1 / 2) / 2 + (1 / 5 + 2 / 6) / 2) / 2, (0 + 1 / 3) / 2
    assert evaluate(part, ranking).scores[""]["trapezoid_map"] == pytest.approx(100 * (of_a + of_b) / 2)


def test_paths_of_the_lists_may_begin_elsewhere_and_stay_inside(tmp_path):
    home = make(tmp_path)
    path = home / "query_files.csv"
    path.write_text("image_path,text_query,instance_id\n" + path.read_text().replace("query/", "./data/icir/query/"))
    assert not load_benchmark("icir", home).missing_images
    for line in ("query/a.jpg,text", "pictures/a.jpg,text,a", "query/../../a.jpg,text,a", "query/a.jpg,,a"):
        path.write_text(line + "\n")
        with pytest.raises(InputError, match=r"query_files\.csv"):
            load_benchmark("icir", home)


def test_missing_pictures_are_named(tmp_path):
    home = make(tmp_path)
    (home / "database/a/5.jpg").unlink()
    (home / "query/b/0.jpg").unlink()
    assert load_benchmark("icir", home).missing_images == ("database/a/5.jpg", "query/b/0.jpg")
