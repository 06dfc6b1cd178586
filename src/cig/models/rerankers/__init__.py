"""Verifiers that re-rank the first pictures of a search: one file each, of which the file's name is the verifier's.

A module has `load(source, prompt, *, device, dtype, cache_dir) -> Verifier`; a prompt of None is the module's default.
A module of another package is named with dots.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from cig import registry

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image


class Verifier(Protocol):
    """What judges candidates by the reference picture and the caption."""

    identity: Mapping[str, Any]  # the model, its digest or revision, its precision
    settings: Mapping[str, Any]  # the prompt, and whatever else changes a score
    jointly: bool  # True: a score depends on the other candidates, which one call sees together

    def __call__(self, reference: Image, caption: str, candidates: Sequence[Image]) -> list[float | None]:
        """Score the candidates, higher is better, 0 to 1; None where the model refuses to judge one."""
        ...


def load_verifier(
    name: str,
    source: str,
    prompt: str | None = None,
    *,
    device: torch.device,
    dtype: torch.dtype,
    cache_dir: Path | None = None,
) -> Verifier:
    """Load a verifier by its name and a model's hub id or folder.

    Raises:
        NotFoundError: no verifier has this name; no model is there.
        InputError: the model cannot be loaded.
    """
    verifier: Verifier = registry.load("models.rerankers", name).load(
        source, prompt, device=device, dtype=dtype, cache_dir=cache_dir
    )
    return verifier
