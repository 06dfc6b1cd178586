"""The walk, as sentences of verbs: what the command line's verbs do, and Python can call. Read this file first.

extract   reference + caption -> composed embeddings       (CIG, stage 1)
generate  composed embeddings -> pseudo-targets            (CIG, stage 2)
evaluate  reference and pseudo-target -> rankings, scores  (CIG, stage 3, where targets are public)
compare   methods, each alone and with each branch: the table of the field
submit    reference and pseudo-target -> the official files (where they are not)
run       all of it in one process, without the files between
trial     pictures of one's own -> a blind vote between base and pseudo-targets
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cig import plugins, settings
from cig.errors import IncompleteError, NotFoundError, UsageError, some
from cig.formats import write_bytes, write_json
from cig.layout import existing_part, part_folder
from cig.options import Comparing, Composing, Compute, Data, Finding, Generation, Searching, Work
from cig.preflight import need_all, need_embeddings, need_phi, need_pictures, need_unet
from cig.runtime import commit, device_name, free_memory, resolve_device, resolve_dtype, say, versions
from cig.searching import (
    branches_text,
    check_searching,
    need_known_forms,
    search_parts,
    source_of,
    write_reports,
)
from cig.trec import write_qrels, write_run
from cig.types import Benchmark, Generator, Report

if TYPE_CHECKING:
    from cig.cache import FeatureCache
    from cig.composition import Conditions
    from cig.contest import Contest
    from cig.inversion import Composer
    from cig.runs import RunsCompared
    from cig.trial import Trial, Trying
    from cig.verdict import Verdict


def extract(
    data: Data,
    compute: Compute,
    composing: Composing | None = None,
    out: Path | None = None,
    work: Work | None = None,
) -> Path:
    """One `{id}.pt` a query into `out`; returns that folder.

    Raises:
        NotFoundError: weights or data that are not there, all named at once.
        IncompleteError: references that are missing or unreadable; the other queries were done.
    """
    composing, work = composing or Composing(), work or Work()
    parts = need_all(lambda: data.load("test"), _phi_checks(composing))
    from cig.composition import extract as extract_part

    need_pictures(parts, references=True)
    out = out or data.default_folder("embeddings", "test")
    composer = _load_composer(composing, compute)
    missing: dict[str, str] = {}
    for part in parts:
        folder = part_folder(out, part)
        done = extract_part(part, composer, folder, compute.batch_size, work.overwrite, compute.workers, work.shard)
        say(f"{part.title}: {done.made} embeddings written to {folder}, {done.kept} kept")
        _say_foreign(done.foreign)
        missing |= {f"{part.title}/{query}": reason for query, reason in done.missing.items()}
    _complain(missing, "had no readable reference and have no embedding")
    return out


def generate(
    data: Data,
    compute: Compute,
    generation: Generation | None = None,
    embeddings: Path | None = None,
    out: Path | None = None,
    work: Work | None = None,
) -> Path:
    """One pseudo-target a query into `out`, from a folder of embeddings; returns `out`.

    Raises:
        NotFoundError: weights, data or embeddings that are not there, all named at once.
        IncompleteError: queries without an embedding; the others were done.
    """
    generation = generation or Generation()
    embeddings = embeddings or data.default_folder("embeddings", "test")
    out = out or data.default_folder("generated_images", "test")
    checks = [lambda: need_unet(generation.unet), lambda: need_embeddings(embeddings)]
    parts = need_all(lambda: data.load("test"), checks)
    from cig.composition import EmbeddingFolder

    sources = [EmbeddingFolder(part, existing_part(embeddings, part, len(data.categories) == 1)) for part in parts]
    if not any(source.files for source in sources):
        raise NotFoundError(f"{embeddings} has no embedding of {parts[0].name}; run `cig extract` for it first")
    generator = _load_sdxl(generation, compute)
    missing = _imagine(parts, sources, generator, generation, out, compute, work or Work())
    _complain(missing, "have no embedding and no pseudo-target")
    return out


def evaluate(
    data: Data,
    compute: Compute,
    searching: Searching,
    json: Path | None = None,
    rankings: Path | None = None,
    reports: Sequence[Path] = (),
    run: Path | None = None,
    qrels: Path | None = None,
) -> Report:
    """Prints the table of scores and returns it; JSON, rankings, HTML and Markdown are written where asked for.

    Raises:
        UsageError: the split's targets are hidden, which is said before any model is loaded.
        IncompleteError: after everything is written, if queries could not run for lack of their reference.
    """
    from cig import report
    from cig.cache import FeatureCache
    from cig.evaluation import evaluate as score

    need_known_forms(reports)
    parts = need_all(lambda: data.load("val"), [lambda: check_searching(searching)])
    if any(part.hidden for part in parts):
        instead = "use `cig submit`, or evaluate val" if _has_server(data) else "`cig run` searches without scores"
        raise UsageError(f"the targets of {parts[0].name} are hidden; {instead}")
    cache = FeatureCache(searching.cache)
    found = search_parts(parts, data, compute, searching, cache)
    result = score(parts, found.rankings, found.alone)
    if json:
        write_json(json, report.to_json(result, found.method.name, found.branches, found.provenance))
    if rankings:
        write_json(rankings, found.names)
    if run:
        write_run(run, parts, found.rankings, found.method.name)
    if qrels:
        write_qrels(qrels, parts)
    write_reports(found, result, reports, cache)
    say(f"{found.method.name}: {branches_text(found.branches)}")
    say(f"protocol: {', '.join(f'{key}: {value}' for key, value in result.protocol.items())}")
    print(report.to_text(result))
    _complain(found.missing_references, "could not run and score 0")
    return result


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
    from cig import standings
    from cig.cache import FeatureCache
    from cig.contest import hold

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

    from cig import runs as rooms

    compared = rooms.compare(runs, qrels, measures or rooms.MEASURES)
    if json:
        write_json(json, asdict(compared))
    print(rooms.to_text(compared))
    return compared


def submit(
    data: Data,
    compute: Compute,
    searching: Searching,
    name: str,
    out: Path | None = None,
    rankings: Path | None = None,
    allow_missing: bool = False,
    reports: Sequence[Path] = (),
    run: Path | None = None,
) -> list[Path]:
    """The official files of a hidden split; returns their paths.

    Raises:
        UsageError: the benchmark has no evaluation server.
        IncompleteError: references are missing and allow_missing is off; nothing is written.
    """
    from cig.cache import FeatureCache
    from cig.evaluation import missing_of
    from cig.report import notes

    family = _need_server(data, name)
    need_known_forms(reports)
    parts = need_all(lambda: data.load("test"), [lambda: check_searching(searching)])
    cache = FeatureCache(searching.cache)
    found = search_parts(parts, data, compute, searching, cache, allow_missing)
    if not allow_missing:
        hint = "could not run, so nothing was written; --allow-missing ranks them by text"
        _complain(found.missing_references, hint)
    out = out or settings.place("submissions") / family
    paths = []
    for prefix, content in plugins.load("benchmarks", family).submission(found.rankings[0]).items():
        paths.append(out / f"{prefix}{name}.json")
        write_json(paths[-1], content)
    if found.missing_references:
        write_json(out / f"{name}.missing.json", found.missing_references, indent=1)
    if rankings:
        write_json(rankings, found.names)
    if run:
        write_run(run, parts, found.rankings, found.method.name)
    missing = missing_of(parts, found.rankings)
    write_reports(found, _without_scores(parts, missing), reports, cache)
    for line in (f"{found.method.name}: {branches_text(found.branches)}", *notes(missing)):
        say(line)
    return paths


def run(
    data: Data,
    compute: Compute,
    composing: Composing | None = None,
    generation: Generation | None = None,
    searching: Searching | None = None,
    out: Path | None = None,
    name: str | None = None,
    search_batch: int = 32,
    work: Work | None = None,
    allow_missing: bool = False,
) -> Path:
    """Compose, imagine, search and evaluate (or, where targets are hidden, write the official files) into `out`.

    Embeddings stay in memory, a batch at a time. Pseudo-targets and features are kept in `out`, so that a rerun goes
    on where a kill stopped it, and one that has nothing to make loads no model.

    Raises:
        NotFoundError: weights or data that are not there, all named at once, before anything is loaded.
        IncompleteError: queries that could not run; the others were done.
    """
    from cig.cache import FeatureCache

    composing, generation = composing or Composing(), generation or Generation()
    out = out or data.default_folder("runs", "val")
    searching, images = searching or Searching(), out / "pseudo_targets"
    searching = replace(searching, pseudo_targets=images, cache=searching.cache or out / "features")
    checks = [*_phi_checks(composing), lambda: need_unet(generation.unet), lambda: check_searching(searching)]
    parts = need_all(lambda: data.load("val"), checks)
    name = name or "_".join(parts[0].name.split("/"))
    if parts[0].hidden and _has_server(data):
        _need_server(data, name)
    need_pictures(parts)
    need_pictures(parts, references=True)
    cache = FeatureCache(searching.cache)
    _check_searcher(searching, compute, cache)  # what does not fit is said now, not after hours
    _make_targets(parts, composing, generation, images, compute, work or Work(), cache)
    free_memory()
    cache.close()
    data, compute = replace(data, name=parts[0].name), replace(compute, batch_size=search_batch)
    rankings, reports = out / "rankings.json", (out / "report.html", out / "report.md")
    if parts[0].hidden and _has_server(data):
        submit(data, compute, searching, name, out / "submission", rankings, allow_missing, reports[:1])
    elif parts[0].hidden:
        _search_only(parts, data, compute, searching, rankings, reports[:1])
    else:
        evaluate(data, compute, searching, out / "scores.json", rankings, reports)
    say(f"{out / 'report.html'} shows the queries; scores, rankings and pseudo-targets are beside it")
    return out


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
    from cig.booth import Booth, serve
    from cig.trial import FILE, Trial, Votes

    out = out or trial_folder(trying.pictures)
    trying.need_outside(out)
    fresh = not (out / FILE).exists()
    (part,) = need_all(lambda: trying.data.load("val"), _trial_checks(trying, out) if fresh else [])
    if fresh:
        _make_trial(trying, part, compute, out, search_batch, work or Work()).write(out)
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
    from cig.trial import Trial, Votes
    from cig.verdict import Verdict

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
    from cig.plan import plan as planned

    out = out or data.default_folder("runs", "val")
    asked = composing or Composing(), generation or Generation(), searching or Searching()
    text, fits = planned(data, compute, *asked, out)
    print(text)
    return fits


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
    from cig import hits, lookup

    lookup.check(finding)
    composing, generation = composing or Composing(), generation or Generation()
    if finding.imagine:
        need_all(lambda: (), [*_phi_checks(composing), lambda: need_unet(generation.unet)])
    opened = lookup.Lookup(finding, compute, searching or Searching())
    for note in opened.notes():
        say(note)
    if finding.from_lines:
        for _, found, seconds in lookup.answers(opened, lines):
            print(hits.to_text(found), flush=True)
            say(f"{seconds:.3f} s")
        return
    asked = opened.asked
    if finding.imagine:
        picture = lookup.imagine(
            asked,
            lambda: (_load_composer(composing, compute, opened.cache), _load_sdxl(generation, compute, opened.cache)),
            (composing, generation),
            opened.place,
        )
        asked = replace(asked, pseudo_target=picture)
    found = opened.find(asked)
    if json:
        write_json(json, hits.to_json(asked, found, opened.about()))
    if html:
        write_bytes(html, hits.to_html(asked, found, opened.about(), opened.cache).encode())
    print(hits.to_text(found))


def check(data: Data, compute: Compute) -> None:
    """Prints what is missing or unreadable, and on how many queries an evaluation would stand.

    Raises:
        IncompleteError: not all of them.
    """
    from cig.check import check as examine
    from cig.check import picture_set, to_text

    findings = [examine(part, compute.workers) for part in data.load("val")]
    for finding in findings:
        print(to_text(finding))
    print(f"picture set {picture_set(findings)}")
    lacking = [finding.title for finding in findings if not finding.whole]
    if lacking:
        raise IncompleteError(f"incomplete: {', '.join(lacking)}; results on it say so, and are not comparable")


def validate_submission(path: Path, dataset: Path | None = None) -> None:
    """Prints which submission a file is, and that the official server would take it.

    Raises:
        IncompleteError: it would not; every problem is named.
    """
    from cig.submissions import validate

    form, problems = validate(path, dataset)
    what = " ".join(filter(None, (form.benchmark, form.metric)))
    if problems:
        raise IncompleteError("\n  ".join([f"{path} is no valid submission for {what}:", *_first(problems)]))
    names = "checked against the dataset" if dataset else "not checked: give the dataset with --dataset-path"
    print(f"{path} is a valid submission for {what}; names, references and subsets: {names}")


# What verbs share


def _trial_checks(trying: Trying, out: Path) -> list:
    searching = [lambda: check_searching(trying.searching_in(out))]
    if not trying.making:
        return searching
    return [*searching, *_phi_checks(trying.composing), lambda: need_unet(trying.generation.unet)]


def _make_trial(trying: Trying, part: Benchmark, compute: Compute, out: Path, search_batch: int, work: Work) -> Trial:
    """Imagines, unless the pseudo-targets are there; searches with them and without; shuffles."""
    from cig.cache import FeatureCache
    from cig.trial import cost_of, make

    need_pictures([part])
    need_pictures([part], references=True)
    searching = trying.searching_in(out)
    images, cache = searching.pseudo_targets or out, FeatureCache(searching.cache)
    _check_searcher(searching, compute, cache)
    if trying.making:
        _make_targets([part], trying.composing, trying.generation, images, compute, work, cache)
        free_memory()
    found = search_parts((part,), trying.data, replace(compute, batch_size=search_batch), searching, cache)
    cache.close()
    return make(trying, found, secrets.randbits(32), cost_of(images))


def _phi_checks(composing: Composing) -> list:
    phi, phi2 = composing.phis
    return [lambda: need_phi(phi, "phi_vit", "--phi"), lambda: need_phi(phi2, "phi_giga", "--phi2")]


def _search_only(
    parts: tuple[Benchmark, ...],
    data: Data,
    compute: Compute,
    searching: Searching,
    rankings: Path,
    reports: Sequence[Path],
) -> None:
    """For queries without known targets, which no server judges: rankings and the page."""
    from cig.cache import FeatureCache
    from cig.evaluation import missing_of

    cache = FeatureCache(searching.cache)
    found = search_parts(parts, data, compute, searching, cache)
    write_json(rankings, found.names)
    write_reports(found, _without_scores(parts, missing_of(parts, found.rankings)), reports, cache)
    say(f"{found.method.name}: {branches_text(found.branches)}; nobody gave targets, so nothing is scored")
    _complain(found.missing_references, "could not run")


def _without_scores(parts: Sequence[Benchmark], missing: Mapping[str, Any]) -> Report:
    counts = {part.part: {"queries": len(part.queries), "gallery": len(part.gallery)} for part in parts}
    return Report(parts[0].name, parts[0].protocol, {}, {}, {}, missing, counts)


def _has_server(data: Data) -> bool:
    return hasattr(plugins.load("benchmarks", data.name.partition("/")[0]), "submission")


def _need_server(data: Data, name: str) -> str:
    """The benchmark's family, if a server judges it and the submission's name can name files."""
    family = data.name.partition("/")[0]
    if not _has_server(data):
        raise UsageError(f"{family} has no evaluation server; use `cig evaluate`")
    if Path(name).name != name or name.startswith("."):
        raise UsageError(f'--submission-name "{name}" names a file: no folders and no leading dot')
    return family


def _load_composer(composing: Composing, compute: Compute, cache: FeatureCache | None = None) -> Composer:
    from cig.cache import FeatureCache
    from cig.inversion import recall_composer

    device = resolve_device(compute.device)
    dtype = resolve_dtype(compute.dtype, device)
    return recall_composer(
        composing.clip,
        composing.clip2,
        *composing.phis,
        device=device,
        dtype=dtype,
        cache_dir=compute.cache_dir,
        preprocessing=composing.preprocessing,
        cache=cache or FeatureCache(),
    )


def _load_sdxl(generation: Generation, compute: Compute, cache: FeatureCache | None = None) -> Generator:
    from cig.cache import FeatureCache
    from cig.generators.sdxl import recall

    acceptance = ("model_path", "seed", "seeds", "brightness_thresh", "max_retries")
    options = {key: value for key, value in vars(generation).items() if key not in acceptance}
    where = {"device": compute.device, "dtype": compute.dtype, "cache_dir": compute.cache_dir}
    return recall(cache or FeatureCache(), model_path=generation.unet, **where, **options)


def _make_targets(
    parts: Sequence[Benchmark],
    composing: Composing,
    generation: Generation,
    out: Path,
    compute: Compute,
    work: Work,
    cache: FeatureCache,
) -> None:
    """Composes and imagines every part into `out`; embeddings stay in memory, a batch at a time."""
    from cig.composition import Composed

    composer, generator = _load_composer(composing, compute, cache), _load_sdxl(generation, compute, cache)
    sources = [Composed(part, composer, workers=compute.workers) for part in parts]
    _imagine(parts, sources, generator, generation, out, compute, work)


def _check_searcher(searching: Searching, compute: Compute, cache: FeatureCache) -> None:
    """Loads it once, so that what cannot be loaded or used is known."""
    from cig.methods import recall_method

    if not recall_method(searching.method, source_of(searching, compute), cache).uses_picture:
        hint = f"`cig evaluate --method {searching.method}` does without"
        raise UsageError(f"{searching.method} looks at no picture, so there is nothing to imagine; {hint}")


def _imagine(
    parts: Sequence[Benchmark],
    sources: Sequence[Conditions],
    generator: Generator,
    generation: Generation,
    out: Path,
    compute: Compute,
    work: Work,
) -> dict[str, str]:
    """Imagines every part and says how it went; returns queries that could not be composed, and why."""
    from cig.generation import Imagining, imagine

    how = Imagining(generation.seed, generation.seeds, generation.brightness_thresh, generation.max_retries)
    missing: dict[str, str] = {}
    for part, source in zip(parts, sources, strict=True):
        folder = part_folder(out, part)
        done = imagine(
            part, source, generator, folder, how, compute.batch_size, work.overwrite, work.retry_rejected, work.shard
        )
        kept = len(done.pictures) + len(done.refused) - done.made
        say(f"{part.title}: {len(done.pictures)} pseudo-targets in {folder} ({done.made} queries done, {kept} kept)")
        _say_foreign(done.foreign)
        if done.refused:
            say(f"queries without an accepted picture: {len(done.refused)} ({some(done.refused)})")
        missing |= {f"{part.title}/{query}": reason for query, reason in done.missing.items()}
    return missing


def _say_foreign(names: Sequence[str]) -> None:
    if names:
        say(f"files that were there without a line in the manifest, and are kept: {len(names)} ({some(names)})")


def _complain(missing: Mapping[str, str], what: str) -> None:
    """Raises IncompleteError that names the queries and their reasons."""
    if missing:
        lines = _first([f"{query}: {reason}" for query, reason in missing.items()])
        raise IncompleteError("\n  ".join([f"queries that {what}: {len(missing)}", *lines]))


def _first(lines: Sequence[str], most: int = 20) -> list[str]:
    more = [f"and {len(lines) - most} more"] if len(lines) > most else []
    return [*lines[:most], *more]
