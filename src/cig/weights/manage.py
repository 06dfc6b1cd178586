"""What `cig models` does: shows the weights that are wanted, looks at those that are there, fetches and adopts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from cig.errors import IncompleteError, NotFoundError, some
from cig.io.json_files import write_json
from cig.runtime import say
from cig.weights import catalogue
from cig.weights.convert import adopt_folder
from cig.weights.fetch import comes_by_hand, fetch
from cig.weights.verify import Finding, inspect, to_json, to_text


def show(names: Sequence[str], json: Path | None = None, cache_dir: Path | None = None) -> None:
    """Prints a few lines a weight."""
    picked = catalogue.select(names)
    if json:
        write_json(json, [catalogue.to_json(own, cache_dir) for own in picked], indent=1)
    print("\n".join(catalogue.to_text(own, cache_dir) for own in picked))
    lacking = [own.name for own in picked if not own.found(cache_dir)]
    print(f"not there: {len(lacking)} of {len(picked)}" + (f" ({some(lacking)})" if lacking else ""))


def check(names: Sequence[str], json: Path | None = None, cache_dir: Path | None = None) -> None:
    """Prints what was found.

    Raises:
        IncompleteError: something is broken, or named and not there.
    """
    findings = [inspect(own, cache_dir) for own in catalogue.select(names)]
    if json:
        write_json(json, [to_json(own) for own in findings], indent=1)
    for own in findings:
        if names or own.state != "missing":
            print(to_text(own))
    missing = [own.weight.name for own in findings if own.state == "missing"]
    if missing and not names:
        print(f"not there: {len(missing)} ({some(missing)}); `cig models list` says where they come from")
    _need_sound(findings, bool(names))


def download(names: Sequence[str], mirrors: Sequence[str] = (), cache_dir: Path | None = None) -> None:
    """Fetches what is not there, one after another, and prints how each went.

    Raises:
        IncompleteError: something could not be had, or is named and can only be fetched by hand.
    """
    findings = []
    for own in catalogue.select(names):
        if names or not own.shipped:
            findings.append(fetch(own, mirrors, cache_dir))
            print(to_text(findings[-1]), flush=True)
    by_hand = [own for own in findings if own.state == "missing" and comes_by_hand(own.weight, mirrors)]
    if by_hand:
        say(f"to be fetched by hand: {some(own.weight.name for own in by_hand)}")
    _need_sound([own for own in findings if names or own not in by_hand], named=True)


def adopt(names: Sequence[str], folder: Path, link: bool = False) -> None:
    """Puts what a hand-downloaded folder has into place, and prints how each went.

    Raises:
        NotFoundError: the folder has nothing that is wanted.
        IncompleteError: something in it is broken, or named and not in it.
    """
    wanted = catalogue.select(names)
    findings = adopt_folder(wanted, folder, link)
    if not findings:
        files = some(own.file for own in wanted if own.kind in ("phi", "unet") and not own.shipped)
        raise NotFoundError(f"{folder} has none of {files}, nor below; give the folder that holds them")
    for own in findings:
        print(to_text(own))
    found = {own.weight.name for own in findings}
    absent = [own for own in wanted if own.name not in found and own.kind in ("phi", "unet") and not own.shipped]
    _need_sound([*findings, *(inspect(own) for own in absent)], bool(names))


def _need_sound(findings: Iterable[Finding], named: bool) -> None:
    bad = ("broken", "missing") if named else ("broken",)
    lines = [f"{own.weight.name} is {own.state}: {own.about}" for own in findings if own.state in bad]
    if lines:
        raise IncompleteError("\n  ".join([f"weights that cannot be used: {len(lines)}", *lines]))
