"""Fetch checkpoints: a release's file, resumed and verified; a hub repository's safetensors, at a pinned commit.

The size is printed before a download starts, where the server states it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from cig.errors import CigError, InputError, MismatchError, NotFoundError, reason, some
from cig.io import hub
from cig.io.addresses import certificate_problem, named_hosts
from cig.io.files import remove
from cig.io.http import Rules, Web, WebError, retried
from cig.io.locks import hold_file
from cig.io.resumable import Expected, fetch_file, need_space
from cig.runtime import say, warn
from cig.weights.catalogue import ModelCheckpoint
from cig.weights.convert import MOST_PHI, belongs_to_user, convert_phi
from cig.weights.verify import Inspection, State, how_to_get, inspect


def fetch(checkpoint: ModelCheckpoint, mirrors: Sequence[str] = (), cache_dir: Path | None = None) -> Inspection:
    """Fetch a checkpoint into its location and inspect it; a sound one is kept.

    Args:
        mirrors: addresses of folders that have a release's file, tried in order instead of the release's address.
    """
    before = inspect(checkpoint, cache_dir)
    if before.state == "sound" or checkpoint.shipped or belongs_to_user(before):
        return before
    if comes_by_hand(checkpoint, mirrors):
        if before.state == "broken":
            return before
        detail, hint = "not fetched: it has no address", how_to_get(checkpoint)
        return Inspection(checkpoint, "missing", before.path, detail=detail, hint=hint)
    try:
        if checkpoint.on_hub:
            _from_hub(checkpoint, cache_dir)
        else:
            addresses = [f"{mirror.rstrip('/')}/{checkpoint.file}" for mirror in mirrors]
            _from_release(checkpoint, addresses or [hub.endpoint(checkpoint.address)], bool(mirrors))
    except CigError as error:
        # A file that came and was refused is broken; where nothing came, the state is the one before.
        came = isinstance(error, (InputError, MismatchError)) and not isinstance(error, WebError)
        state: State = "broken" if came else before.state
        return Inspection(checkpoint, state, before.path, detail=str(error), hint=_next_step(checkpoint, error))
    return inspect(checkpoint, cache_dir)


def comes_by_hand(checkpoint: ModelCheckpoint, mirrors: Sequence[str] = ()) -> bool:
    """Return whether there is no server to ask for it."""
    return checkpoint.by_hand and not (mirrors and checkpoint.kind == "phi")


def _next_step(checkpoint: ModelCheckpoint, error: CigError) -> str:
    if isinstance(error, GatedError):
        return f"accept the terms and give a token, then: {how_to_get(checkpoint)}"
    if isinstance(error, WebError) and error.again:
        return f"try again, a rerun goes on from there: {how_to_get(checkpoint)}"
    if checkpoint.on_hub:
        return "a copy's folder can be given where the hub id would be (--clip, --vae-repo, --sdxl-repo)"
    terms = ", which may want you to sign in and to accept terms in a browser" if _is_refused(error) else ""
    return f"fetch {checkpoint.file} by hand{terms}, then: cig models download {checkpoint.name} --from-dir FOLDER"


def _is_refused(error: CigError) -> bool:
    return isinstance(error, WebError) and error.kind == "refused"


# A release's file


def _from_release(checkpoint: ModelCheckpoint, addresses: Sequence[str], named: bool) -> None:
    """Try the addresses in order; raise the last one's error.

    Args:
        named: the user named these servers, so they may be on a private network and speak http.
    """
    for address in addresses:
        try:
            _from_address(checkpoint, address, named or address != checkpoint.address)
            return
        except CigError as error:
            if address == addresses[-1]:
                raise
            warn(f"{error}; the next mirror is asked")


def _from_address(checkpoint: ModelCheckpoint, address: str, named: bool) -> None:
    original = Path(checkpoint.location).with_suffix(".release")
    with Web(rules(address, named)) as web:
        size = 0 if original.exists() else _size(web, address)
        with hold_file(original, "download"):
            if not original.exists():
                shown = f"{size / 1e6:,.1f} MB" if size else "a file whose size the server does not say,"
                say(f"{checkpoint.file}: {shown} from {address}")
                need_space(original.parent, size, checkpoint.file)
                fetch_file(web, address, original, expected=Expected(size, checkpoint.sha256, most=MOST_PHI))
            try:
                convert_phi(checkpoint, original, address)
            finally:
                remove(original)  # it was converted or refused


def rules(address: str, named: bool) -> Rules:
    """Return which addresses may be asked.

    A release's address comes from a method's file, which may be a plugin's: only https, and no private network, so that
    it cannot reach services behind the user's firewall. A mirror that the user typed is trusted as a host. The
    environment's proxies are used, as the hub's library does.
    """
    trusted = named_hosts([address] if named else ())
    schemes = ("https", "http") if named and address.lower().startswith("http:") else ("https",)
    return Rules(schemes, trusted, proxies=True)


def _size(web: Web, address: str) -> int:
    """Ask for a file's bytes, 0 if the server does not state them; raise InputError for one that is too large."""

    async def ask(url: str) -> int:
        async with web.answer(url) as response:
            length = response.headers.get("content-length", "")
            return int(length) if length.isascii() and length.isdecimal() and len(length) < 19 else 0

    async def ask_or_fail(url: str) -> int | CigError:
        try:
            return await retried(lambda: ask(url))
        except CigError as error:
            return error

    ((_, size),) = web.each([address], ask_or_fail)
    if isinstance(size, CigError):
        raise size
    if size > MOST_PHI:
        raise InputError(f"{address} is {size:,} bytes, more than any phi; refused")
    return size


# The hub


class GatedError(NotFoundError):
    """A repository that the hub gives only to those who accepted its terms, or to its owner."""


def _from_hub(checkpoint: ModelCheckpoint, cache_dir: Path | None) -> None:
    """Fetch a repository's files at its pinned commit into the hub's cache.

    A dry run comes first: it names the files and their sizes, so that pickles are refused and a full disk is noticed
    before anything is downloaded.

    Raises:
        NotFoundError: the hub does not give the repository.
        MismatchError: the repository has no safetensors.
    """
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.utils import disable_progress_bars

    if why := hub.unreachable():
        raise WebError(f"{checkpoint.location} cannot be had from the hub: {why}", "unreachable", again=True)
    if not sys.stderr.isatty():
        disable_progress_bars()
    repo = hub.repo(checkpoint.location)
    patterns = [f"unet/{name}" if checkpoint.kind == "unet" else name for name in repo.files]
    request: dict[str, Any] = {
        "repo_id": checkpoint.location,
        "revision": repo.commit or None,
        "cache_dir": cache_dir,
        "endpoint": os.environ.get("HF_ENDPOINT") or None,
        "allow_patterns": patterns,
    }
    try:
        planned = snapshot_download(**request, dry_run=True)
        names = [file.filename for file in planned]
        if checkpoint.kind != "scheduler" and not any(name.endswith(hub.WEIGHTS) for name in names):
            raise MismatchError(_no_safetensors(checkpoint, repo.commit))
        coming = [file for file in planned if file.will_download]
        size = sum(file.file_size or 0 for file in coming)
        say(f"{checkpoint.location}: {len(coming)} files, {size / 1e6:,.1f} MB from the hub, {some(names, 6)}")
        need_space(Path(cache_dir or constants.HF_HUB_CACHE), size, checkpoint.location)
        snapshot_download(**request)
    except CigError:
        raise
    except Exception as error:  # errors of the library, of its HTTP client and of the disk share no base
        raise _hub_error(checkpoint, error) from error


def _hub_error(checkpoint: ModelCheckpoint, error: Exception) -> CigError:
    """Turn the library's error into ours: what the hub answered, or that it is unreachable, to be tried again.

    The last error in the chain is often about the library's fallbacks (offline mode, a dry run), so the chain is
    searched for the answer of the hub first, then for a failed connection.
    """
    from huggingface_hub.errors import HfHubHTTPError, HTTPError

    message, chain = f"{checkpoint.location} cannot be had from the hub", list(_causes(error))
    answer = next((cause for cause in chain if isinstance(cause, HfHubHTTPError)), None)
    if answer and answer.response.status_code in (401, 403):
        return GatedError(
            f"{message}: it is gated or private. Sign in at {hub.HUB}/{checkpoint.location} and accept its terms, then "
            f"give a token of yours by `hf auth login` or HF_TOKEN"
        )
    if answer and answer.response.status_code < 500 and answer.response.status_code != 429:
        return NotFoundError(f"{message}: {reason(answer)}")
    if untrusted := certificate_problem(error):
        return WebError(f"{message}: {untrusted}", "certificate")
    failure = next((cause for cause in chain if isinstance(cause, (HTTPError, ConnectionError))), None)
    if failure:
        return WebError(f"{message}: {reason(failure)}", "unreachable", again=True)
    return NotFoundError(f"{message}: {reason(error)}")


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error:
        yield error
        error = error.__cause__ or error.__context__


def _no_safetensors(checkpoint: ModelCheckpoint, commit: str) -> str:
    from huggingface_hub import HfApi

    names = HfApi(os.environ.get("HF_ENDPOINT") or None).list_repo_files(checkpoint.location, revision=commit or None)
    pickled = [name for name in names if name.endswith((".bin", ".pt", ".ckpt", ".msgpack", ".h5"))]
    files = some(pickled) or "not there"
    return f"{checkpoint.location} has no safetensors; its weights are {files}, and pickles are refused"
