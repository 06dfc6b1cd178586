"""Run: compose, imagine, search and evaluate in one process. Read this file first.

extract   reference + caption -> composed embeddings        (CIG, stage 1)
generate  composed embeddings -> pseudo-targets             (CIG, stage 2)
evaluate  reference and pseudo-target -> rankings, scores   (CIG, stage 3, where targets are public)
submit    reference and pseudo-target -> the official files (where they are hidden)
run       all of it, without the files between
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from cig.benchmarks import Data
from cig.benchmarks._requirements import need_all, need_outside, need_pictures
from cig.generators import Composing, Generation
from cig.io.feature_cache import FeatureCache
from cig.io.locks import hold
from cig.machine import free_memory
from cig.pipelines._models import generator_checks, load_picture_searcher, make_targets, phi_checks
from cig.pipelines._search_benchmark import (
    Evaluation,
    Outputs,
    check_searching,
    search_parts,
    without_scores,
    write_outputs,
)
from cig.pipelines.evaluate import score
from cig.pipelines.submit import need_server, write_submission
from cig.retrieval.requests import Searching
from cig.runtime import Compute, Work


def run(
    data: Data,
    compute: Compute,
    composing: Composing | None = None,
    *,
    generation: Generation | None = None,
    searching: Searching | None = None,
    out: Path | None = None,
    name: str | None = None,
    search_batch: int = 32,
    work: Work | None = None,
    allow_missing: bool = False,
) -> Evaluation:
    """Compose, imagine, search and evaluate (or, where targets are hidden, write the official files) into `out`.

    Embeddings stay in memory, a batch at a time. Pseudo-targets and features are kept in `out`, so that a rerun
    continues where a kill stopped it, and a rerun with nothing to make loads no model.

    Raises:
        NotFoundError: weights or data that are missing, all named at once, before anything is loaded.
        UsageError: another process works in `out`.
        IncompleteError: references are missing, the targets are hidden, and allow_missing is off.
    """
    composing, generation = composing or Composing(), generation or Generation()
    out = out or data.default_folder("runs", "val")
    searching, images = searching or Searching(), out / "pseudo_targets"
    searching = replace(searching, pseudo_targets=images, feature_cache=searching.feature_cache or out / "features")
    checks = [*phi_checks(composing), *generator_checks(generation, compute), lambda: check_searching(searching)]
    parts = need_all(lambda: need_outside(data.load("val"), out), checks)
    hidden, name = parts[0].hidden, name or "_".join(parts[0].name.split("/"))
    if hidden and data.has_server:
        need_server(data, name)
    need_pictures(parts)
    need_pictures(parts, references=True)
    with hold(out, "cig run"):
        cache = FeatureCache(searching.feature_cache)
        method = load_picture_searcher(searching, compute, cache)  # what does not fit is said now, not after hours
        make_targets(parts, composing, generation, out=images, compute=compute, work=work or Work(), cache=cache)
        free_memory()
        result = search_parts(
            parts,
            method,
            searching,
            compute=replace(compute, batch_size=search_batch),
            cache=cache,
            single=len(data.categories) == 1,
            allow_missing=allow_missing and hidden and data.has_server,
        )
        rankings, page = out / "rankings.json", out / "report.html"
        if not hidden:
            return score(result, Outputs(out / "scores.json", rankings, (page, out / "report.md")), cache)
        if data.has_server:
            outputs, stem = Outputs(out / "record.json", rankings, (page,)), out / "submission" / name
            return write_submission(data, result, stem, allow_missing=allow_missing, outputs=outputs, cache=cache)
        report = without_scores(result)
        write_outputs(result, report, Outputs(rankings=rankings, reports=(page,)), cache=cache)
        return Evaluation(result, report)
