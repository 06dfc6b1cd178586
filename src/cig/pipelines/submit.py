"""Submit: reference and pseudo-target -> rankings -> the official server's files, where targets are hidden."""

from __future__ import annotations

from pathlib import Path

from cig import config
from cig.benchmarks import Data
from cig.benchmarks._requirements import need_all
from cig.errors import UsageError
from cig.io.feature_cache import FeatureCache
from cig.io.files import remove
from cig.io.json_files import write_json
from cig.pipelines._models import complain
from cig.pipelines._search_benchmark import (
    Evaluation,
    Outputs,
    SearchResult,
    check_searching,
    load_searcher,
    search_parts,
    without_scores,
    write_outputs,
)
from cig.retrieval.requests import Searching
from cig.runtime import Compute


def submit(
    data: Data,
    compute: Compute,
    searching: Searching,
    *,
    name: str,
    out: Path | None = None,
    allow_missing: bool = False,
    outputs: Outputs | None = None,
) -> Evaluation:
    """Search a hidden split and write the official files; the JSON, where asked for, is evaluate's without scores.

    Raises:
        UsageError: the benchmark has no evaluation server.
        IncompleteError: references are missing and allow_missing is off; nothing is written.
    """
    need_server(data, name)
    parts = need_all(lambda: data.load("test"), [lambda: check_searching(searching)])
    cache = FeatureCache(searching.feature_cache)
    method = load_searcher(searching, compute, cache)
    single = len(data.categories) == 1
    result = search_parts(
        parts, method, searching, compute=compute, cache=cache, single=single, allow_missing=allow_missing
    )
    out = out or config.path("submissions") / data.family
    return write_submission(
        data, result, out / name, allow_missing=allow_missing, outputs=outputs or Outputs(), cache=cache
    )


def write_submission(
    data: Data, result: SearchResult, stem: Path, *, allow_missing: bool, outputs: Outputs, cache: FeatureCache
) -> Evaluation:
    """The official files of a search, `stem.json` and its siblings.

    Raises:
        IncompleteError: references are missing and allow_missing is off; nothing is written.
    """
    missing, list_of_missing = result.missing_references, stem.with_name(f"{stem.name}.missing.json")
    if not allow_missing:
        complain(missing, "could not run, so nothing was written; --allow-missing ranks them by text")
    paths = []
    for prefix, content in data.module.submission(result.rankings[0]).items():
        paths.append(stem.with_name(f"{prefix}{stem.name}.json"))
        write_json(paths[-1], content)
    if missing:
        write_json(list_of_missing, missing, indent=1)
    else:
        remove(list_of_missing)  # an earlier call may have left one
    report = without_scores(result)
    write_outputs(result, report, outputs, cache=cache, further={"submissions": list(map(str, paths))})
    return Evaluation(result, report, tuple(paths))


def need_server(data: Data, name: str) -> None:
    """Raise UsageError unless a server judges the benchmark and the submission's name can name a file."""
    if not data.has_server:
        raise UsageError(f"{data.family} has no evaluation server; use `cig evaluate`")
    if not name or Path(name).name != name or name.startswith("."):
        raise UsageError(f'--submission-name "{name}" names a file: no folders and no leading dot')
