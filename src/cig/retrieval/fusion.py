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


def mix_scores(reference: Tensor, branches: Sequence[tuple[Tensor, Tensor, float]]) -> Tensor:
    """Return the weighted mean [B, N] of scores that are not of one kind, each standardised over the gallery.

    Scores of different methods have different ranges, so each query's are shifted and scaled to mean 0 and deviation 1
    first. A query that lacks a branch drops it, as in `fuse`.

    Args:
        reference: scores [B, N].
        branches: rows of the queries that have the branch [R], their scores [R, N], and the branch's weight.
    """
    reference_weight = to_reference_weight([weight for _, _, weight in branches])
    mixed, total = reference_weight * standardised(reference), torch.full((len(reference), 1), reference_weight)
    for rows, scores, weight in branches:
        mixed[rows] += weight * standardised(scores)
        total[rows] += weight
    return torch.where(total > 0, mixed / total.clamp(min=1e-12), standardised(reference))


def standardised(scores: Tensor) -> Tensor:
    """Shift and scale each row to mean 0 and deviation 1; a row of equal scores becomes 0."""
    centred = scores - scores.mean(dim=1, keepdim=True)
    return centred / scores.std(dim=1, unbiased=False, keepdim=True).clamp(min=1e-12)


def fuse_pseudo_target(reference: Tensor, pseudo_target: Tensor, reference_weight: float) -> Tensor:
    """Return the fused unit feature [d] of one query and its pseudo-target."""
    return normalize(reference_weight * reference + to_branch_weight(reference_weight) * pseudo_target, dim=-1)
