"""M-BEIR (Wei et al., ECCV 2024): CIRR and FashionIQ as other benchmarks under their names.

CIRR has the dev queries with a picture, over all 21,551 pictures; FashionIQ all categories' val queries, over 74,381.
"""

from __future__ import annotations

from pathlib import Path

from cig.benchmarks import NO_WEIGHT, name_of, names_of, need_names, unique
from cig.errors import InputError
from cig.io.dataset_paths import find_home, stays_below
from cig.io.tables import Row, each_row
from cig.types import TARGET, Benchmark, Query

PICTURES = "mbeir_images"


def load_task(root: Path, benchmark: str, dataset: str) -> tuple[Benchmark]:
    """Load the test queries of a dataset, `cirr` say, over its local pool of candidates.

    Pictures are named by their path, as in the release.
    """
    pool, queries = (f"mbeir_{dataset}_task7_{what}.jsonl" for what in ("cand_pool", "test"))
    home = find_home(root, "m-beir", [f"cand_pool/local/{pool}", pool])
    pool_path, query_path = _file(home, f"cand_pool/local/{pool}"), _file(home, f"query/test/{queries}")
    path_of = {name_of(row.get("did"), "did"): _picture(row.get("img_path"), pool_path) for row in each_row(pool_path)}
    made = unique((_query(row, path_of, query_path) for row in each_row(query_path)), query_path)
    names = {*path_of.values(), *(query.reference for query in made)}
    part = Benchmark(
        name=f"{benchmark}/val",
        queries=made,
        images={name: path for name in names if (path := home / name).is_file()},
        gallery=need_names(list(path_of.values()), pool_path),
        measures=("ndcg@10", *(f"recall@{k}" for k in (1, 5, 10, 50))),
        drop_reference=False,
        weight=0.7,
        weight_source=NO_WEIGHT,
        protocol={
            "benchmark": f"M-BEIR's, not {dataset}'s own: scores do not compare",
            "gallery": f"the local pool, each query's reference, too: {pool}",
            "captions": "query_txt alone, without M-BEIR's instruction",
        },
    )
    return (part,)


def bring(dataset: str) -> str:
    """Return what brings missing pictures."""
    return (
        f"get the pictures ({dataset}_images) of M-BEIR's archive from huggingface.co/datasets/TIGER-Lab/M-BEIR, and "
        f"unpack them into {PICTURES}/"
    )


def _file(home: Path, name: str) -> Path:
    return home / name if (home / name).exists() else home / Path(name).name


def _query(row: Row, path_of: dict[str, str], path: Path) -> Query:
    text = row.get("query_txt")
    if not isinstance(text, str):
        raise InputError(f"{path}: query {row.get('qid')} has no query_txt")
    targets = names_of(row.get("pos_cand_list"), "pos_cand_list")
    unknown = [target for target in targets if target not in path_of]
    if unknown:
        raise InputError(f"{path}: query {row.get('qid')} has the candidate {unknown[0]}, which the pool does not list")
    return Query(
        id=name_of(row.get("qid"), "qid").replace(":", "-"),
        reference=_picture(row.get("query_img_path"), path),
        captions=(text,),
        relevant={path_of[target]: TARGET for target in targets},
    )


def _picture(value: object, path: Path) -> str:
    name = name_of(value, "a path of a picture")
    if not stays_below(name):
        raise InputError(f"{path}: {name[:80]!r} leads out of the folder")
    return name
