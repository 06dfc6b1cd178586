"""Hold a blind trial: imagine and search once, serve the page, count the votes."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from cig import config
from cig.benchmarks._requirements import need_all, need_outside, need_pictures
from cig.errors import MismatchError
from cig.io.feature_cache import FeatureCache
from cig.io.json_files import write_json
from cig.io.locks import hold
from cig.io.manifest import read_cost
from cig.machine import free_memory
from cig.pipelines._models import generator_checks, load_picture_searcher, make_targets, phi_checks
from cig.pipelines._search_benchmark import check_searching, search_parts
from cig.pipelines.trial.result import Verdict
from cig.pipelines.trial.trial import FILE, VOTES, Trial, TrialRequest, Votes, make
from cig.runtime import Compute, Work, say, warn
from cig.types import Benchmark


def trial(
    trying: TrialRequest,
    compute: Compute,
    out: Path | None = None,
    *,
    search_batch: int = 32,
    work: Work | None = None,
    hold_vote: Callable[[Trial, Votes, Mapping[str, Path]], None],
) -> Verdict:
    """A blind vote between base and pseudo-targets on a folder of pictures.

    A rerun goes on with what is not voted on, and loads no model.

    Args:
        hold_vote: takes the votes and returns when they end; `service.trial.hold_vote` serves a page until Ctrl-C.

    Raises:
        NotFoundError: pictures, queries or weights that are not there, all named at once.
        UsageError: `out` is among the pictures, or another process holds a trial there.
        MismatchError: `out` holds a trial of something else.
    """
    out = out or trial_folder(trying.pictures)
    fresh = not os.path.exists(out / FILE)
    if fresh and os.path.exists(out / VOTES):
        raise MismatchError(f"{out / VOTES} is of a trial that is gone: its sides are not known; move it away")
    (part,) = need_all(
        lambda: need_outside(trying.data.load("val"), out), _trial_checks(trying, compute, out) if fresh else []
    )
    with hold(out, "cig trial"):
        if not os.path.exists(out / FILE):
            fresh_trial = _make_trial(trying, part, compute, out=out, search_batch=search_batch, work=work or Work())
            if not os.path.exists(out / FILE):  # on a drive without locks another process may have been quicker
                fresh_trial.write(out)
        made = Trial.read(out)
        made.need_same(trying.settings(part.queries), out)
        say(f"{len(made.cases)} of {len(part.queries)} queries have two lists that differ, to be voted on")
        if made.cases:
            hold_vote(made, Votes(out, made), part.images)
        return trial_result(out)


def trial_folder(pictures: Path) -> Path:
    """Where the trial of a folder is kept by default."""
    return Path(config.below_project("outputs/trials")) / (pictures.resolve().name or "root")


def trial_result(out: Path) -> Verdict:
    """What was voted so far; written to result.json, too.

    Raises:
        NotFoundError: there is no trial.
    """
    made = Trial.read(out)
    votes = Votes(out, made)
    if votes.strange:
        warn(
            f"lines of {votes.path} that were torn by a kill, or are no votes of this trial, left out: {votes.strange}"
        )
    verdict = Verdict.of(made, votes)
    write_json(out / "result.json", verdict.to_json(), indent=1)
    return verdict


def _trial_checks(trying: TrialRequest, compute: Compute, out: Path) -> list:
    searching = [lambda: check_searching(trying.searching_in(out))]
    if not trying.making:
        return searching
    return [*searching, *phi_checks(trying.composing), *generator_checks(trying.generation, compute)]


def _make_trial(
    trying: TrialRequest, part: Benchmark, compute: Compute, *, out: Path, search_batch: int, work: Work
) -> Trial:
    """Imagines, unless the pseudo-targets are there; searches with them and without; shuffles."""
    need_pictures([part])
    need_pictures([part], references=True)
    searching = trying.searching_in(out)
    images, cache = searching.pseudo_targets or out, FeatureCache(searching.feature_cache)
    method = load_picture_searcher(searching, compute, cache)
    if trying.making:
        make_targets([part], trying.composing, trying.generation, out=images, compute=compute, work=work, cache=cache)
        free_memory()
    compute = replace(compute, batch_size=search_batch)
    result = search_parts((part,), method, searching, compute=compute, cache=cache)
    cache.close()
    return make(trying, result, seed=secrets.randbits(32), cost=read_cost(images))
