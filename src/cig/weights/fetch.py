"""Weights from servers: a release's file, resumed and checked; a hub repository's safetensors, at a pinned commit.

How large a thing is, is said before it comes, where the server says it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from cig.errors import CigError, InputError, MismatchError, NotFoundError, reason, some
from cig.io import hub
from cig.io.files import remove
from cig.io.http import Rules, Web, WebError, named_hosts, retried
from cig.io.resumable import Known, fetch_file, need_space
from cig.runtime import say
from cig.weights.catalogue import Weight
from cig.weights.convert import MOST_PHI, adopt_phi, stands_in_the_way
from cig.weights.verify import Finding, State, how_to_get, inspect


def fetch(weight: Weight, mirrors: Sequence[str] = (), cache_dir: Path | None = None) -> Finding:
    """Has it come to its place, and looks at it; one that is there and sound is kept.

    Args:
        mirrors: addresses of folders that have a release's file, tried in order in the place of the release's own.
    """
    before = inspect(weight, cache_dir)
    if before.state == "sound" or weight.shipped or stands_in_the_way(before):
        return before
    if comes_by_hand(weight, mirrors):
        if before.state == "broken":
            return before
        return Finding(weight, "missing", before.path, "not fetched: it has no address", how_to_get(weight))
    try:
        if weight.on_hub:
            _from_hub(weight, cache_dir)
        else:
            own = [f"{mirror.rstrip('/')}/{weight.file}" for mirror in mirrors]
            _from_release(weight, own or [hub.endpoint(weight.address)], bool(mirrors))
    except CigError as error:
        return Finding(weight, _state(before, error), before.path, str(error), _next(weight, error))
    return inspect(weight, cache_dir)


def comes_by_hand(weight: Weight, mirrors: Sequence[str] = ()) -> bool:
    """Whether there is nobody to ask for it."""
    return weight.by_hand and not (mirrors and weight.kind == "phi")


def _state(before: Finding, error: CigError) -> State:
    """Broken is what came and will not do; where nothing came, all is as it was."""
    came = isinstance(error, (InputError, MismatchError)) and not isinstance(error, WebError)
    return "broken" if came else before.state


def _next(weight: Weight, error: CigError) -> str:
    if isinstance(error, WebError) and error.again:
        return f"try again, a rerun goes on from there: {how_to_get(weight)}"
    if weight.on_hub:
        return "a copy's folder can be given where the hub id would be (--clip, --vae-repo, --sdxl-repo)"
    return f"fetch {weight.file} by hand, then: cig models download {weight.name} --from-dir FOLDER"


# A release's file


def _from_release(weight: Weight, addresses: Sequence[str], named: bool) -> None:
    """Raises the last address's error.

    Args:
        named: the user named these servers, which may be on a private network and speak http.
    """
    for address in addresses:
        try:
            _from_address(weight, address, named or address != weight.address)
            return
        except CigError as error:
            if address == addresses[-1]:
                raise
            say(f"{error}; the next mirror is asked")


def _from_address(weight: Weight, address: str, named: bool) -> None:
    original = Path(weight.place).with_suffix(".release")
    with Web(rules(address, named)) as web:
        if not original.exists():
            size = _size(web, address)
            say(f"{weight.file}: {size / 1e6:,.1f} MB from {address}")
            need_space(original.parent, size, weight.file)
            fetch_file(web, address, original, Known(size, weight.sha256))
    try:
        adopt_phi(weight, original, address)
    finally:
        remove(original)  # sound and converted, or not to be kept


def rules(address: str, named: bool) -> Rules:
    """https alone, unless the user named an http server."""
    trusted = named_hosts([address] if named else ())
    schemes = ("https", "http") if named and address.lower().startswith("http:") else ("https",)
    return Rules(schemes, trusted)


def _size(web: Web, address: str) -> int:
    """Bytes; raises InputError for a file that is too large, or of a server that does not say."""

    async def ask(url: str) -> int:
        async with web.answer(url) as response:
            said = response.headers.get("content-length", "")
            return int(said) if said.isascii() and said.isdecimal() and len(said) < 19 else 0

    async def asked(url: str) -> int | CigError:
        try:
            return await retried(lambda: ask(url))
        except CigError as error:
            return error

    ((_, size),) = web.each([address], asked)
    if isinstance(size, CigError):
        raise size
    if not 0 < size <= MOST_PHI:
        what = f"{size:,} bytes, more than any phi" if size else "a file whose size the server does not say"
        raise InputError(f"{address} is {what}; refused")
    return size


# The hub


def _from_hub(weight: Weight, cache_dir: Path | None) -> None:
    """Raises NotFoundError for what the hub does not give, MismatchError for a repository without safetensors."""
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.utils import disable_progress_bars

    if not sys.stderr.isatty():
        disable_progress_bars()
    known = hub.repo(weight.place)
    files = tuple(f"unet/{own}" for own in known.files) if weight.kind == "unet" else known.files
    where = {"cache_dir": cache_dir, "endpoint": os.environ.get("HF_ENDPOINT") or None}
    asked: dict[str, Any] = {"repo_id": weight.place, "revision": known.commit or None, **where}
    try:
        planned = snapshot_download(**asked, allow_patterns=list(files), dry_run=True)
        names = [own.filename for own in planned]
        if weight.kind != "scheduler" and not any(name.endswith(hub.WEIGHTS) for name in names):
            raise MismatchError(_no_safetensors(weight, known.commit))
        coming = [own for own in planned if own.will_download]
        size = sum(own.file_size or 0 for own in coming)
        say(f"{weight.place}: {len(coming)} files, {size / 1e6:,.1f} MB from the hub, {some(names, 6)}")
        need_space(Path(cache_dir or constants.HF_HUB_CACHE), size, weight.place)
        snapshot_download(**asked, allow_patterns=list(files))
    except CigError:
        raise
    except Exception as error:  # the library's own, its web library's, those of the disk
        raise _hub_error(weight, error) from error


def _hub_error(weight: Weight, error: Exception) -> CigError:
    """What the hub said, or that it did not answer: what the library says last is about its own ways around that."""
    from huggingface_hub.errors import HfHubHTTPError, HTTPError

    told, chain = f"{weight.place} cannot be had from the hub", list(_causes(error))
    said = next((own for own in chain if isinstance(own, HfHubHTTPError)), None)
    if said and said.response.status_code < 500 and said.response.status_code != 429:
        return NotFoundError(f"{told}: {reason(said)}")
    away = next((own for own in chain if isinstance(own, (HTTPError, ConnectionError))), None)
    return (
        WebError(f"{told}: {reason(away)}", "unreachable", again=True)
        if away
        else NotFoundError(f"{told}: {reason(error)}")
    )


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error:
        yield error
        error = error.__cause__ or error.__context__


def _no_safetensors(weight: Weight, commit: str) -> str:
    from huggingface_hub import HfApi

    names = HfApi(os.environ.get("HF_ENDPOINT") or None).list_repo_files(weight.place, revision=commit or None)
    pickled = [name for name in names if name.endswith((".bin", ".pt", ".ckpt", ".msgpack", ".h5"))]
    return f"{weight.place} has no safetensors; its weights are {some(pickled) or 'not there'}, and pickles are refused"
