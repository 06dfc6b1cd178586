"""The commands that search pictures of one's own: search, and demo, over icons."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from cig.cli.flags import (
    OUTPUT_FOLDER,
    ComposeFlags,
    ComputeFlags,
    Flag,
    GenerateFlags,
    GeneratorName,
    OwnSearchFlags,
    computing,
    output_file,
    prefixed,
    without,
)
from cig.config import DEFAULT_GENERATOR
from cig.errors import UsageError, at_least_1
from cig.generators import Composing, Generation
from cig.io import outputs
from cig.io.outputs import check_distinct
from cig.retrieval.requests import FolderSearch, OwnSearching
from cig.runtime import Compute, say


def search(
    folder: Path | None = None,
    /,
    *,
    gallery: Path | None = None,
    request: Annotated[FolderSearch, Parameter(name="*", negative="")] = FolderSearch(),
    html: Annotated[Path | None, output_file(outputs.HTML)] = None,
    json: Annotated[Path | None, output_file(outputs.HITS)] = None,
    search: Annotated[OwnSearchFlags, without("frozen_weights")] = OwnSearching(),
    compose: Annotated[ComposeFlags, prefixed("compose")] = Composing(),
    generator: GeneratorName = DEFAULT_GENERATOR,
    generation: GenerateFlags = Generation(),
    compute: ComputeFlags = Compute(),
    batch_size: int = 32,
) -> None:
    """Composed search over pictures of your own: a picture and a sentence find the picture you mean.

    Without --image and --text, searches are read line by line: TEXT, or PICTURE | TEXT, or PICTURE | TEXT | WITHOUT. A
    number in the place of PICTURE is a hit of the search before: 3 | but blue.

    Parameters
    ----------
    folder
        A folder, whose pictures in all folders below are searched, or an index that cig index build made.
    gallery
        The same.
    html
        Write a page with the pictures here.
    json
        Write the hits here.
    batch_size
        Pictures embedded at once, when the folder is new or changed.
    """
    from cig.pipelines.search import answers, find, open_gallery, to_text

    if request.from_lines and (json or html):
        raise UsageError("--json and --html are of one search: give --image or --text with them, not lines")
    check_distinct([json, html])
    pictures = folder or gallery
    if not pictures or (folder and gallery):
        raise UsageError("which pictures? Give one folder, or one index: cig search FOLDER --text 'a red sofa'")
    request = replace(request, gallery=pictures)
    opened = open_gallery(request, computing(compute, batch_size), search, composing=compose, generation=generation)
    for note in opened.notes():
        say(note)
    if not request.from_lines:
        print(to_text(find(opened, compose, generation, json=json, html=html).hits))
        if html:
            say(f"{html} shows them")
        return
    for _, hits, seconds in answers(opened, _lines()):
        print(to_text(hits), flush=True)
        say(f"{seconds:.3f} s")


HELP = "type what you look for: TEXT, or PICTURE | TEXT, or PICTURE | TEXT | WITHOUT; a hit's number is a PICTURE, too"


def _lines() -> Iterator[str]:
    """Yield lines of standard input; on a terminal, ask for each."""
    if isinstance(sys.stdin, TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")  # so that one line of another encoding does not end the others
    if not sys.stdin.isatty():
        yield from sys.stdin
        return
    say(f"{HELP}; Ctrl-D ends")
    while True:
        print("> ", end="", file=sys.stderr, flush=True)
        line = sys.stdin.readline()
        if not line:
            return
        if line.strip() in ("?", "help"):
            say(HELP)
        else:
            yield line


def demo(
    *,
    full: Annotated[bool, Flag] = False,
    query: str | None = None,
    text: str | None = None,
    imagine: Annotated[bool, Flag] = False,
    k: Annotated[int, Parameter(name=["-k", "--k"])] = 20,
    out: Annotated[Path, OUTPUT_FOLDER] = Path("outputs/demo"),
    compute: ComputeFlags = Compute(),
    batch_size: int = 256,
) -> None:
    """Composed retrieval over icons, with what the package ships: no network, nothing of yours, two minutes.

    Prints the table of methods on icons/val and writes a page; with --query and --text, answers one search.

    Parameters
    ----------
    full
        All queries of icons/val, not the first 400.
    query
        An icon to start from: folder, tabler/folder, tabler/folder.orange.
    text
        What should be different: "has a check badge".
    imagine
        Of that search: make a pseudo-target by the shipped generator, show it, and search with it, too.
    k
        How many icons a search shows.
    out
        Gets report.html and scores.json, or query.html; pseudo-targets and features, which a rerun does not make again.
    batch_size
        Pictures embedded at once.
    """
    from cig.pipelines import demo as room
    from cig.pipelines.search import to_text

    compute = computing(compute, batch_size)
    if query is not None or text is not None:
        if not query or query.isspace():
            raise UsageError("which icon should it start from? Name it with --query: --query folder")
        if not text or text.isspace():
            raise UsageError('what should be different? Say it with --text: --text "has a check badge"')
        at_least_1("-k", k)
        print(to_text(room.ask(query, text, out, k=k, imagine=imagine, compute=compute).hits))
    elif imagine:
        raise UsageError("--imagine makes a picture of one search: give --query and --text, too")
    else:
        print(room.to_text(room.run(out, full, compute)))
