"""Fusion: a query's feature is the weighted sum of its reference's and its branches' unit features, normalised."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from cig.retrieval.fusion_weight import to_branch_weight, to_reference_weight


@dataclass(frozen=True)
class BranchFeatures:
    """One branch's features of the queries that have pictures for it."""

    queries: Tensor  # [R] int64: rows of the queries
    features: Tensor  # [R, d] unit rows


def fuse(reference: Tensor, branches: Sequence[tuple[BranchFeatures, float]]) -> Tensor:
    """Return normalise(w0 * reference + w1 * branch 1 + ...), unit rows [Q, d], with w0 = 1 - w1 - ...

    A query that lacks a branch drops it: the others keep their proportions, since the sum is normalised. A query that
    is left without any positive weight is searched by its reference alone.
    """
    reference_weight = to_reference_weight([weight for _, weight in branches])
    fused, total = reference_weight * reference, torch.full((len(reference), 1), reference_weight)
    for branch, weight in branches:
        if not len(branch.queries):  # an empty branch's features have no width that fits
            continue
        fused[branch.queries] += weight * branch.features
        total[branch.queries] += weight
    return normalize(torch.where(total > 0, fused, reference), dim=-1)


def fuse_pseudo_target(reference: Tensor, pseudo_target: Tensor, reference_weight: float) -> Tensor:
    """Return the fused unit feature [d] of one query and its pseudo-target."""
    return normalize(reference_weight * reference + to_branch_weight(reference_weight) * pseudo_target, dim=-1)
