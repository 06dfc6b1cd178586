"""The verbs of `cig models`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from cig.cli.flags import COMPUTE, Flag, output_file
from cig.errors import UsageError
from cig.io import outputs

Json = Annotated[Path | None, output_file(outputs.MODELS)]
CacheDir = Annotated[Path | None, Parameter(group=COMPUTE, help="The hub's cache.")]


def list_(*names: str, json: Json = None, cache_dir: CacheDir = None) -> None:
    """Every weight that is wanted: where it is looked for and got, its licence, by whom, and whether it is there.

    Parameters
    ----------
    names
        Some of them, or methods and verbs that want them: SEARLE_ViT-B32, searle-xl, generate. Default: all.
    json
        Write the list here.
    """
    from cig.weights import manage

    print(manage.describe(names, json, cache_dir))


def check(*names: str, json: Json = None, cache_dir: CacheDir = None) -> None:
    """Whether weights can be read, are whole, have the widths that are wanted, and the content that is known.

    Parameters
    ----------
    names
        As in `cig models list`, or files and folders; what is named must be there. Default: all that are there.
    json
        Write the findings here.
    """
    from cig.weights import manage

    inspections = manage.check(names, json, cache_dir)
    print("\n".join(manage.check_lines(inspections, bool(names))))
    manage.need_sound(inspections, bool(names))


def download(
    *names: str,
    from_dir: Path | None = None,
    link: Annotated[bool, Flag] = False,
    mirror: Annotated[tuple[str, ...], Flag] = (),
    cache_dir: CacheDir = None,
) -> None:
    """Fetches weights, only as safetensors: a release's .pt is converted, and no pickle is run. A rerun goes on.

    Parameters
    ----------
    names
        As in `cig models list`. Default: all that can be fetched; the others are named.
    from_dir
        Instead, a folder that you downloaded by hand: what is known in it, at any depth, goes to its place.
    link
        With --from-dir: link to the UNet's files, do not copy them.
    mirror
        The address of a folder with the releases' files, asked in the place of the releases; several: in order.
    """
    from cig.weights import manage
    from cig.weights.verify import to_text

    if from_dir and mirror:
        raise UsageError("--from-dir takes what is on this machine, --mirror what is on a server; give one of them")
    if link and not from_dir:
        raise UsageError("--link is about --from-dir FOLDER; give that, too")
    fetched = manage.import_folder(names, from_dir, link) if from_dir else manage.download(names, mirror, cache_dir)
    for inspection in fetched:
        print(to_text(inspection), flush=True)
