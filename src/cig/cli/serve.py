"""The command that serves a folder or an index over HTTP."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Group, Parameter

from cig.cli.flags import (
    ComposeFlags,
    ComputeFlags,
    GenerateFlags,
    GeneratorName,
    OwnSearchFlags,
    computing,
    prefixed,
    without,
)
from cig.config import DEFAULT_GENERATOR
from cig.errors import NotFoundError
from cig.generators import Composing, Generation
from cig.retrieval.requests import OwnSearching
from cig.runtime import Compute, say
from cig.service.settings import Serving

if TYPE_CHECKING:
    from cig.service.running import Running

SERVE = Group("serve", sort_key=8)


def serve(
    pictures: Path,
    /,
    *,
    serving: Annotated[Serving, Parameter(name="*", negative="", group=SERVE)] = Serving(),
    search: Annotated[OwnSearchFlags, without("frozen_weights", "reference_weight")] = OwnSearching(),
    compose: Annotated[ComposeFlags, prefixed("compose")] = Composing(),
    generator: GeneratorName = DEFAULT_GENERATOR,
    generation: GenerateFlags = Generation(),
    compute: ComputeFlags = Compute(),
    batch_size: int = 32,
) -> None:
    """Serve composed search over pictures of your own: a page for people, and an API for programs.

    It answers on this machine alone, to whoever has the address that it prints. Ctrl-C or SIGTERM ends it.

    Parameters
    ----------
    pictures
        A folder, an index that cig index build made, or icons: those that are shipped, by pic2word/icons.
    batch_size
        Pictures embedded at once, when the folder is new or changed.
    """
    need_server("cig serve")
    # torch reads this when it is loaded. Its threads would else spin while they wait for each other, and take the cores
    # from the thread that speaks HTTP: docs/serve.md has what that cost on two busy cores.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from cig.service.access import Access
    from cig.service.app import make_app
    from cig.service.running import Running
    from cig.service.server import address_of, listen
    from cig.service.server import serve as answer

    if not os.path.isdir(pictures) and str(pictures) != "icons":
        raise NotFoundError(f"{pictures} is neither a folder of pictures nor an index; `cig serve icons` is for a try")
    access, compute = Access.of(serving), computing(compute, batch_size)
    running, taken = Running(serving), listen(serving)
    address = address_of(taken, access.secret)

    def open_index() -> None:
        _open(pictures, running, search, compute=compute, imagine_by=(compose, generation))
        count = len(running.need_open().index)
        say(f"{count} pictures of {pictures} at {address} (Ctrl-C ends it)")

    if not answer(make_app(running, access), taken, open_index):
        sys.stderr.flush()
        os._exit(130)  # models run in the thread that opens: Python's own end would abort; what is embedded is kept


def need_server(verb: str) -> None:
    """Raise NotFoundError where the extra with the web server is not installed."""
    if not all(importlib.util.find_spec(name) for name in ("fastapi", "uvicorn")):
        raise NotFoundError(f"{verb} needs FastAPI and uvicorn: pip install 'cig[serve]'")


def _open(
    location: Path,
    running: Running,
    search: OwnSearching,
    *,
    compute: Compute,
    imagine_by: tuple[Composing, Generation],
) -> None:
    from cig.benchmarks._requirements import need_all
    from cig.pipelines._icons_index import open_icons
    from cig.pipelines._imagine import imaginer
    from cig.pipelines._models import generator_checks, phi_checks
    from cig.pipelines.open import open_place

    composing, generation = imagine_by
    if running.serving.imagine:
        need_all(lambda: (), [*phi_checks(composing), *generator_checks(generation, compute)])
    index = open_place(location, search, compute) if location.is_dir() else open_icons(search, compute)
    imagine = imaginer(index.cache, compute, composing=composing, generation=generation)
    running.open(index, imagine if running.serving.imagine else None)
