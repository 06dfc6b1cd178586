"""The walk, as sentences of verbs: what the command line's verbs do, and Python can call. Read this file first.

extract   reference + caption -> composed embeddings       (CIG, stage 1)
generate  composed embeddings -> pseudo-targets            (CIG, stage 2)
evaluate  reference and pseudo-target -> rankings, scores  (CIG, stage 3, where targets are public)
submit    reference and pseudo-target -> the official files (where they are not)
run       all of it in one process, without the files between
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from cig import config, registry
from cig.benchmarks import Data
from cig.benchmarks._requirements import need_all, need_outside, need_pictures
from cig.errors import NotFoundError, UsageError
from cig.evaluation.trec import write_qrels, write_run
from cig.generators import Composing, Generation, need_unet
from cig.io.dataset_paths import existing_part, part_folder
from cig.io.files import remove
from cig.io.json_files import write_json
from cig.pipelines._models import (
    check_searcher,
    complain,
    imagine_parts,
    load_composer,
    load_sdxl,
    make_targets,
    need_embeddings,
    phi_checks,
    say_foreign,
)
from cig.pipelines._search_benchmark import (
    branches_text,
    check_searching,
    need_known_forms,
    search_parts,
    write_reports,
)
from cig.retrieval.requests import Searching
from cig.runtime import Compute, Work, free_memory, say
from cig.types import Benchmark, Report

if TYPE_CHECKING:
    from cig.pipelines._search_benchmark import Found


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
    parts = need_all(lambda: data.load("test"), phi_checks(composing))
    from cig.generators._compose import extract as extract_part

    need_pictures(parts, references=True)
    out = out or data.default_folder("embeddings", "test")
    composer = load_composer(composing, compute)
    missing: dict[str, str] = {}
    for part in parts:
        folder = part_folder(out, part)
        done = extract_part(part, composer, folder, compute.batch_size, work.overwrite, compute.workers, work.shard)
        say(f"{part.title}: {done.made} embeddings written to {folder}, {done.kept} kept")
        say_foreign(done.foreign)
        missing |= {f"{part.title}/{query}": reason for query, reason in done.missing.items()}
    complain(missing, "had no readable reference and have no embedding")
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
        IncompleteError: queries without an embedding, or a reference that has to be shown; the others were done.
    """
    generation = generation or Generation()
    embeddings = embeddings or data.default_folder("embeddings", "test")
    out = out or data.default_folder("generated_images", "test")
    checks = [lambda: need_unet(generation.unet), lambda: need_embeddings(embeddings)]
    parts = need_all(lambda: need_outside(data.load("test"), out), checks)
    from cig.generators._compose import EmbeddingFolder

    sources = [EmbeddingFolder(part, existing_part(embeddings, part, len(data.categories) == 1)) for part in parts]
    if not any(source.files for source in sources):
        raise NotFoundError(f"{embeddings} has no embedding of {parts[0].name}; run `cig extract` for it first")
    generator = load_sdxl(generation, compute)
    missing = imagine_parts(parts, sources, generator, generation, out, compute, work or Work())
    complain(missing, "have no pseudo-target")
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
    from cig.evaluation import report
    from cig.evaluation.score import evaluate as score
    from cig.io.feature_cache import FeatureCache

    need_known_forms(reports)
    parts = need_all(lambda: data.load("val"), [lambda: check_searching(searching)])
    if any(part.hidden for part in parts):
        instead = "use `cig submit`, or evaluate val" if _has_server(data) else "`cig run` searches without scores"
        raise UsageError(f"the targets of {parts[0].name} are hidden; {instead}")
    cache = FeatureCache(searching.cache)
    found = search_parts(parts, data, compute, searching, cache)
    result = score(found.parts, found.rankings, found.alone)
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
    complain(found.missing_references, "could not run and score 0")
    return result


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
    json: Path | None = None,
) -> list[Path]:
    """The official files of a hidden split; returns their paths. JSON, where asked for, is evaluate's without scores.

    Raises:
        UsageError: the benchmark has no evaluation server.
        IncompleteError: references are missing and allow_missing is off; nothing is written.
    """
    from cig.evaluation.report import notes, to_json
    from cig.io.feature_cache import FeatureCache

    family = _need_server(data, name)
    need_known_forms(reports)
    parts = need_all(lambda: data.load("test"), [lambda: check_searching(searching)])
    cache = FeatureCache(searching.cache)
    found = search_parts(parts, data, compute, searching, cache, allow_missing)
    if not allow_missing:
        hint = "could not run, so nothing was written; --allow-missing ranks them by text"
        complain(found.missing_references, hint)
    out = out or config.place("submissions") / family
    paths = []
    for prefix, content in registry.load("benchmarks", family).submission(found.rankings[0]).items():
        paths.append(out / f"{prefix}{name}.json")
        write_json(paths[-1], content)
    if found.missing_references:
        write_json(out / f"{name}.missing.json", found.missing_references, indent=1)
    else:
        remove(out / f"{name}.missing.json")  # of an earlier call
    if rankings:
        write_json(rankings, found.names)
    if run:
        write_run(run, parts, found.rankings, found.method.name)
    result = _without_scores(found)
    if json:
        about = to_json(result, found.method.name, found.branches, found.provenance)
        write_json(json, about | {"submissions": list(map(str, paths))})
    write_reports(found, result, reports, cache)
    for line in (f"{found.method.name}: {branches_text(found.branches)}", *notes(result.missing)):
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
    from cig.io.feature_cache import FeatureCache

    composing, generation = composing or Composing(), generation or Generation()
    out = out or data.default_folder("runs", "val")
    searching, images = searching or Searching(), out / "pseudo_targets"
    searching = replace(searching, pseudo_targets=images, cache=searching.cache or out / "features")
    checks = [*phi_checks(composing), lambda: need_unet(generation.unet), lambda: check_searching(searching)]
    parts = need_all(lambda: need_outside(data.load("val"), out), checks)
    name = name or "_".join(parts[0].name.split("/"))
    if parts[0].hidden and _has_server(data):
        _need_server(data, name)
    need_pictures(parts)
    need_pictures(parts, references=True)
    cache = FeatureCache(searching.cache)
    check_searcher(searching, compute, cache)  # what does not fit is said now, not after hours
    make_targets(parts, composing, generation, images, compute, work or Work(), cache)
    free_memory()
    cache.close()
    data, compute = replace(data, name=parts[0].name), replace(compute, batch_size=search_batch)
    rankings, reports = out / "rankings.json", (out / "report.html", out / "report.md")
    if parts[0].hidden and _has_server(data):
        about = out / "record.json"
        submit(data, compute, searching, name, out / "submission", rankings, allow_missing, reports[:1], json=about)
    elif parts[0].hidden:
        _search_only(parts, data, compute, searching, rankings, reports[:1])
    else:
        evaluate(data, compute, searching, out / "scores.json", rankings, reports)
    say(f"{out / 'report.html'} shows the queries; scores, rankings and pseudo-targets are beside it")
    return out


# Where nobody knows the targets


def _search_only(
    parts: tuple[Benchmark, ...],
    data: Data,
    compute: Compute,
    searching: Searching,
    rankings: Path,
    reports: Sequence[Path],
) -> None:
    """For queries without known targets, which no server judges: rankings and the page."""
    from cig.io.feature_cache import FeatureCache

    cache = FeatureCache(searching.cache)
    found = search_parts(parts, data, compute, searching, cache)
    write_json(rankings, found.names)
    write_reports(found, _without_scores(found), reports, cache)
    say(f"{found.method.name}: {branches_text(found.branches)}; nobody gave targets, so nothing is scored")
    complain(found.missing_references, "could not run")


def _without_scores(found: Found) -> Report:
    from cig.evaluation.score import counts_of, missing_of

    first, told = found.parts[0], (found.parts, found.rankings)
    return Report(first.name, first.protocol, {}, {}, {}, missing_of(*told), counts_of(*told))


def _has_server(data: Data) -> bool:
    return hasattr(registry.load("benchmarks", data.name.partition("/")[0]), "submission")


def _need_server(data: Data, name: str) -> str:
    """The benchmark's family, if a server judges it and the submission's name can name files."""
    family = data.name.partition("/")[0]
    if not _has_server(data):
        raise UsageError(f"{family} has no evaluation server; use `cig evaluate`")
    if not name or Path(name).name != name or name.startswith("."):
        raise UsageError(f'--submission-name "{name}" names a file: no folders and no leading dot')
    return family
