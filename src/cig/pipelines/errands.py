"""What one does beside the walk, a function a verb: compare, search, ask people, plan, check.

compare   methods, each alone and with each branch: the table of the field; or runs against runs
find      a picture and a sentence -> the nearest pictures of anyone's folder (`cig search`)
trial     pictures of one's own -> a blind vote between base and pseudo-targets
plan      what a run would take
check     what a dataset is good for; stats, what it is made of; validate_submission, whether a server would take a file
"""

from __future__ import annotations

import os
import secrets
import shlex
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from cig.benchmarks import Data
from cig.benchmarks._requirements import need_all, need_outside, need_pictures
from cig.errors import IncompleteError, MismatchError, UsageError
from cig.generators import Composing, Generation, need_unet
from cig.io.files import write_bytes
from cig.io.json_files import write_json
from cig.pipelines._models import check_searcher, first_of, load_composer, load_sdxl, make_targets, phi_checks
from cig.pipelines._search_benchmark import check_searching, search_parts
from cig.pipelines.compare import Comparing
from cig.pipelines.search import Finding
from cig.retrieval.requests import Searching
from cig.runtime import Compute, Work, commit, device_name, free_memory, resolve_device, say, versions
from cig.types import Benchmark

if TYPE_CHECKING:
    from cig.evaluation.trec_compare import RunsCompared
    from cig.pipelines.compare import Contest
    from cig.pipelines.trial.result import Verdict
    from cig.pipelines.trial.trial import Trial, Trying


def compare(
    data: Data,
    compute: Compute,
    comparing: Comparing,
    cache: Path | None = None,
    json: Path | None = None,
    reports: Sequence[Path] = (),
) -> Contest:
    """Prints the table of methods, each alone and with each branch; with sweep, freezes weights.

    Raises:
        UsageError: hidden targets; methods or branches that cannot be.
    """
    from cig.io.feature_cache import FeatureCache
    from cig.pipelines import standings
    from cig.pipelines.compare import hold

    if any(path.suffix != ".md" for path in reports):
        raise UsageError("--report of a comparison is Markdown: end it in .md")
    parts = data.load("val")
    contest = hold(parts, data, compute, comparing, FeatureCache(cache))
    if json:
        where = {"device": device_name(resolve_device(compute.device)), "versions": versions(), "commit": commit()}
        write_json(json, standings.to_json(contest, where))
    for path in reports:
        write_bytes(path, standings.to_markdown(contest).encode())
    for row in contest.rows if comparing.sweep else ():
        if row.branch:
            say(f"{row.method} + {row.branch}: the reference weighs {1 - row.weight:.2f}, {row.source}")
    print(standings.to_text(contest))
    return contest


def compare_runs(
    runs: Sequence[Path], qrels: Path, measures: Sequence[str] = (), json: Path | None = None
) -> RunsCompared:
    """Prints each run against the first."""
    from dataclasses import asdict

    from cig.evaluation import trec_compare as rooms

    compared = rooms.compare(runs, qrels, measures or rooms.MEASURES)
    if json:
        write_json(json, asdict(compared))
    print(rooms.to_text(compared))
    return compared


def find(
    finding: Finding,
    compute: Compute,
    searching: Searching | None = None,
    composing: Composing | None = None,
    generation: Generation | None = None,
    json: Path | None = None,
    html: Path | None = None,
    lines: Iterable[str] = (),
) -> None:
    """Prints the nearest pictures of a folder; without an image and a text, those of each line that comes in.

    Raises:
        NotFoundError: a folder without pictures, a picture or weights that are not there.
        IncompleteError: no picture passes the filters.
    """
    from cig.pipelines import hits, search

    search.check(finding)
    if finding.from_lines and (json or html):
        raise UsageError("--json and --html are of one search: give --image or --text with them, not lines")
    composing, generation = composing or Composing(), generation or Generation()
    if finding.imagine:
        need_all(lambda: (), [*phi_checks(composing), lambda: need_unet(generation.unet)])
    opened = search.Lookup(finding, compute, searching or Searching())
    for note in opened.notes():
        say(note)
    if finding.from_lines:
        for _, found, seconds in search.answers(opened, lines):
            print(hits.to_text(found), flush=True)
            say(f"{seconds:.3f} s")
        return
    asked = opened.asked
    if finding.imagine:
        picture = search.imagine(
            asked,
            lambda: (load_composer(composing, compute, opened.cache), load_sdxl(generation, compute, opened.cache)),
            generation,
            opened.place,
        )
        asked = replace(asked, pseudo_target=picture)
    found = opened.find(asked)
    if json:
        write_json(json, hits.to_json(asked, found, opened.about()))
    if html:
        write_bytes(html, hits.to_html(asked, found, opened.about(), opened.cache).encode())
    print(hits.to_text(found))


def trial(
    trying: Trying,
    compute: Compute,
    out: Path | None = None,
    search_batch: int = 32,
    work: Work | None = None,
    port: int = 0,
    browse: bool = False,
) -> Verdict:
    """A blind vote between base and pseudo-targets on a folder of pictures; serves its page until Ctrl-C.

    A rerun goes on with what is not voted on, and loads no model.

    Raises:
        NotFoundError: pictures, queries or weights that are not there, all named at once.
        UsageError: `out` is among the pictures.
        MismatchError: `out` holds a trial of something else.
    """
    from cig.pipelines.trial.page import Booth, serve
    from cig.pipelines.trial.trial import FILE, VOTES, Trial, Votes

    out = out or trial_folder(trying.pictures)
    fresh = not os.path.exists(out / FILE)
    if fresh and os.path.exists(out / VOTES):
        raise MismatchError(f"{out / VOTES} is of a trial that is gone: its sides are not known; move it away")
    (part,) = need_all(lambda: need_outside(trying.data.load("val"), out), _trial_checks(trying, out) if fresh else [])
    made = _make_trial(trying, part, compute, out, search_batch, work or Work()) if fresh else None
    if made and not os.path.exists(out / FILE):  # else another process was quicker, and has its own coin
        made.write(out)
    made = Trial.read(out)
    made.need_same(trying.settings(part.queries), out)
    say(f"{len(made.cases)} of {len(part.queries)} queries have two lists that differ, to be voted on")
    if made.cases:
        serve(Booth(made, Votes(out, made), part.images), port, browse)
    return trial_result(out)


def trial_folder(pictures: Path) -> Path:
    """Where the trial of a folder is kept by default."""
    return Path("outputs/trials") / (pictures.resolve().name or "root")


def trial_result(out: Path) -> Verdict:
    """Prints what was voted so far and writes it to result.json; returns it.

    Raises:
        NotFoundError: there is no trial.
    """
    from cig.pipelines.trial.result import Verdict
    from cig.pipelines.trial.trial import Trial, Votes

    made = Trial.read(out)
    votes = Votes(out, made)
    if votes.strange:
        say(f"lines of {votes.path} that were torn by a kill, or are no votes of this trial, left out: {votes.strange}")
    verdict = Verdict.of(made, votes)
    write_json(out / "result.json", verdict.to_json(), indent=1)
    print("\n".join(verdict.words))
    return verdict


def plan(
    data: Data,
    compute: Compute,
    composing: Composing | None = None,
    generation: Generation | None = None,
    searching: Searching | None = None,
    out: Path | None = None,
) -> bool:
    """Prints what `run` with the same arguments would take; returns whether disk and memory suffice."""
    from cig.pipelines.plan import plan as planned

    out = out or data.default_folder("runs", "val")
    asked = composing or Composing(), generation or Generation(), searching or Searching()
    text, fits = planned(data, compute, *asked, out)
    print(text)
    return fits


def check(data: Data, compute: Compute, json: Path | None = None) -> None:
    """Prints what is missing, broken or odd, what mends it, and on how many queries an evaluation would stand.

    Raises:
        IncompleteError: not all of them; the JSON is written before.
    """
    from cig.benchmarks._check import check as examine
    from cig.benchmarks._check import picture_set, to_json, to_text

    checkups = [examine(part, compute.workers, _mend(data, part)) for part in data.load("val")]
    if json:
        write_json(json, to_json(checkups), indent=1)
    for checkup in checkups:
        print(to_text(checkup))
    print(f"picture set {picture_set(checkups)}")
    lacking = [checkup.title for checkup in checkups if not checkup.whole]
    if lacking:
        raise IncompleteError(f"incomplete: {', '.join(lacking)}; results on it say so, and are not comparable")


def _mend(data: Data, part: Benchmark) -> str:
    """What the benchmark says that brings its pictures, into the folder that was asked about."""
    from cig.benchmarks._check import BY_HAND

    mend: Callable[[Benchmark], str] = getattr(data.module, "mend", lambda part: BY_HAND)
    there = f" --dataset-path {shlex.quote(str(data.path))}" if data.path else ""
    return mend(part) + (there if mend(part).startswith("cig ") else "")


def stats(data: Data, compute: Compute, json: Path | None = None, pictures: bool = True) -> None:
    """Prints sizes, lengths, repetitions and oddities of every part, and, with pictures, near-duplicates.

    Raises:
        IncompleteError: the list of a gallery is not there; what is known was printed and written before.
    """
    from cig.benchmarks._describe import stats as count
    from cig.benchmarks._describe import to_json, to_text

    known = getattr(data.module, "ODDITIES", ())
    parts = data.load("val")
    counted = [count(part, known, pictures, compute.workers) for part in parts]
    if json:
        write_json(json, {own.part: to_json(own) for own in counted}, indent=1)
    print("\n\n".join(map(to_text, counted)))
    lacking = {_mend(data, part): str(part.missing_list) for part in parts if part.missing_list}
    if lacking:
        raise IncompleteError(f"incomplete, for lack of {', '.join(lacking.values())}. To get it: {'; '.join(lacking)}")


def validate_submission(path: Path, dataset: Path | None = None) -> None:
    """Prints which submission a file is, and that the official server would take it.

    Raises:
        IncompleteError: it would not; every problem is named.
    """
    from cig.evaluation.submissions import validate

    form, problems = validate(path, dataset)
    what = " ".join(filter(None, (form.benchmark, form.metric)))
    if problems:
        raise IncompleteError("\n  ".join([f"{path} is no valid submission for {what}:", *first_of(problems)]))
    names = "checked against the dataset" if dataset else "not checked: give the dataset with --dataset-path"
    print(f"{path} is a valid submission for {what}; names, references and subsets: {names}")


def _trial_checks(trying: Trying, out: Path) -> list:
    searching = [lambda: check_searching(trying.searching_in(out))]
    if not trying.making:
        return searching
    return [*searching, *phi_checks(trying.composing), lambda: need_unet(trying.generation.unet)]


def _make_trial(trying: Trying, part: Benchmark, compute: Compute, out: Path, search_batch: int, work: Work) -> Trial:
    """Imagines, unless the pseudo-targets are there; searches with them and without; shuffles."""
    from cig.io.feature_cache import FeatureCache
    from cig.io.manifest import cost_of
    from cig.pipelines.trial.trial import make

    need_pictures([part])
    need_pictures([part], references=True)
    searching = trying.searching_in(out)
    images, cache = searching.pseudo_targets or out, FeatureCache(searching.cache)
    check_searcher(searching, compute, cache)
    if trying.making:
        make_targets([part], trying.composing, trying.generation, images, compute, work, cache)
        free_memory()
    found = search_parts((part,), trying.data, replace(compute, batch_size=search_batch), searching, cache)
    cache.close()
    return make(trying, found, secrets.randbits(32), cost_of(images))
