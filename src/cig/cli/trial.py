"""The command of the blind trial of pseudo-targets on one's own pictures."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from cig.cli.flags import (
    OUTPUT_FOLDER,
    Branches,
    ComposeFlags,
    ComputeFlags,
    Flag,
    GenerateFlags,
    GeneratorName,
    RunSearchFlags,
    computing,
)
from cig.config import DEFAULT_GENERATOR
from cig.errors import at_least_1
from cig.generators import Composing, Generation
from cig.retrieval.requests import Searching
from cig.runtime import Compute


def trial(
    pictures: Path,
    /,
    *,
    queries: Path | None = None,
    generated_image_dir: Path | None = None,
    compose: ComposeFlags = Composing(),
    generator: GeneratorName = DEFAULT_GENERATOR,
    generation: GenerateFlags = Generation(),
    search: RunSearchFlags = Searching(),
    branch: Branches = (),
    compute: ComputeFlags = Compute(),
    out: Annotated[Path | None, OUTPUT_FOLDER] = None,
    top: int = 6,
    batch_size: int = 4,
    search_batch_size: int = 32,
    retry_rejected: Annotated[bool, Flag] = False,
    port: int = 0,
    browse: Annotated[bool, Parameter(name="--open", negative="")] = False,
    result: Annotated[bool, Flag] = False,
) -> None:
    """Do pseudo-targets help on your pictures? A blind vote on a local page: lists with them and without. Resumable.

    Parameters
    ----------
    pictures
        The folder that is searched, with everything below it (see docs/folder.md).
    queries
        A CSV file with the columns reference and caption. Default: queries.csv in the folder.
    generated_image_dir
        Pseudo-targets that exist, by the query's id. Default: they are made, with the flags of `cig run`.
    out
        trial.json, votes.jsonl, result.json; pseudo_targets/, features/. Default: ./outputs/trials/NAME.
    top
        Pictures a list.
    batch_size
        Pictures imagined at once; halved where they do not fit into memory.
    search_batch_size
        Pictures embedded at once.
    retry_rejected
        Go on with the next seeds for queries without an accepted picture.
    port
        Of the page. Default: any that is free.
    browse
        Open the page in this machine's browser.
    result
        Print what was voted so far, and serve no page.
    """
    from cig.cli.branch_flags import requested_branches
    from cig.cli.serve import need_server
    from cig.pipelines.trial.run import trial, trial_folder, trial_result
    from cig.pipelines.trial.trial import TrialRequest
    from cig.runtime import Work

    if result:
        print("\n".join(trial_result(out or trial_folder(pictures)).words))
        return
    need_server("cig trial")
    from cig.service.trial import hold_vote

    at_least_1("--top", top)
    at_least_1("--search-batch-size", search_batch_size)
    branches = requested_branches(branch, search, pseudo_targets=True)
    searching = replace(search, pseudo_targets=generated_image_dir, branches=branches)
    trying = TrialRequest(pictures, queries, searching=searching, composing=compose, generation=generation, top=top)
    compute, work = computing(compute, batch_size), Work(retry_rejected=retry_rejected)
    voting = partial(hold_vote, port=port, browse=browse)
    verdict = trial(trying, compute, out, search_batch=search_batch_size, work=work, hold_vote=voting)
    print("\n".join(verdict.words))
