"""Check that the numbers which models make are finite: a NaN would be ranked, scored and kept like any other."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from cig.errors import NotFiniteError

if TYPE_CHECKING:
    from torch import Tensor


def need_finite(values: Tensor, model: str, dtype: object, *, names: Sequence[str] = ()) -> Tensor:
    """Return values [B, ...] that a model made; raises NotFiniteError for rows with a NaN or an infinity."""
    bad = (~values.isfinite()).flatten(1).any(1).nonzero().flatten().tolist()
    if bad:
        raise NotFiniteError(model, str(dtype), bad, names=[names[row] for row in bad] if names else ())
    return values


@contextlib.contextmanager
def naming(names: Sequence[object]) -> Iterator[None]:
    """Within the context, name the rows of a batch in a NotFiniteError that does not name them itself."""
    try:
        yield
    except NotFiniteError as error:
        if error.names or max(error.rows) >= len(names):
            raise
        named = [str(names[row]) for row in error.rows]
        raise NotFiniteError(error.model, error.dtype, error.rows, names=named) from error
