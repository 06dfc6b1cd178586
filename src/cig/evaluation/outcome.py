"""What a report says first: one sentence of outcome, and the queries that pseudo-targets helped and harmed most."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cig.evaluation.paired import PairedComparison
from cig.evaluation.query_cards import QueryCard
from cig.evaluation.report import label
from cig.types import Report

SURE = 0.05  # a p-value below it is called a difference
SHOWN = 3  # queries of a kind

Paired = Mapping[str, Mapping[str, PairedComparison]]  # part -> measure -> with pseudo-targets minus without


def outcome(report: Report, paired: Paired) -> str:
    """Return the sentence that a report begins with; "" where the targets are hidden.

    It takes the benchmark's first measure, over all parts: the average where there are several.
    """
    if not report.scores:
        return ""
    part = "average" if "average" in report.scores else next(iter(report.scores))
    measure, score = next(iter(report.scores[part].items()))
    compared = paired.get(part, {}).get(measure)
    if not compared:
        low, high = report.intervals[part][measure]
        return f"{label(measure)} is {score:.2f} percent (95% interval {low:.2f} to {high:.2f})."
    low, high = compared.interval
    numbers = f"{compared.difference:+.2f} points, 95% interval {low:+.2f} to {high:+.2f}, p = {compared.p:.4f}"
    change = f"{label(measure)} from {score - compared.difference:.2f} to {score:.2f} percent"
    if compared.p >= SURE:
        return f"Pseudo-targets make no difference that chance could not: {change} ({numbers})."
    return f"Pseudo-targets {'raise' if compared.difference > 0 else 'lower'} {change} ({numbers})."


def highlights(cards: Sequence[QueryCard]) -> dict[str, list[QueryCard]]:
    """Return a title -> up to three queries: those that pseudo-targets helped or harmed most.

    Where nothing is compared: those whose target came first, and those whose target came last.
    """
    if any(card.change for card in cards):
        kinds = {"Helped most": "gained", "Harmed most": "lost"}
        picked = {
            title: sorted((card for card in cards if card.change == change), key=lambda card: -abs(card.gain))[:SHOWN]
            for title, change in kinds.items()
        }
    else:
        ranked = sorted((card for card in cards if card.rank), key=lambda card: card.rank or 0)
        picked = {"Best": ranked[:SHOWN], "Worst": ranked[SHOWN:][-SHOWN:]}
    return {title: chosen for title, chosen in picked.items() if chosen}


def described(branch: Mapping[str, Any], method: str) -> str:
    """Say in one line how a branch searches, and where its weight comes from."""
    caption = "with the caption" if branch.get("caption", True) else "without the caption"
    line = f"{branch.get('method', method)}, {caption}"
    if pictures := branch.get("pictures"):
        line += f"; pictures of {pictures}"
    return f"{line}; weight: {branch['source']}"
