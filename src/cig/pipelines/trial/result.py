"""What a trial's votes say, in numbers and in words that claim no more than the numbers do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cig.errors import some
from cig.evaluation.significance import share_interval, sign_test
from cig.pipelines.trial.trial import Trial, Votes
from cig.runtime import number

ALPHA = 0.05


@dataclass(frozen=True)
class Verdict:
    """Counts of queries; those that decided are base + pseudo."""

    trial: Trial
    base: int  # queries whose vote preferred the list without the pseudo-target
    pseudo: int
    ties: int
    both_bad: int
    not_voted: int

    @classmethod
    def of(cls, trial: Trial, votes: Votes) -> Verdict:
        counts = Counter(_meaning(case.base, votes.choices.get(case.id)) for case in trial.cases)
        return cls(trial, *(counts[name] for name in ("base", "pseudo", "tie", "bad", "")))

    @property
    def decided(self) -> int:
        return self.base + self.pseudo

    @property
    def p(self) -> float:
        """Of the exact two-sided sign test; ties and both bad are left out (Dixon and Mood, 1946)."""
        return sign_test(self.pseudo, self.base)

    @property
    def interval(self) -> tuple[float, float]:
        """95%, of the share that prefers pseudo-targets among queries that decide."""
        return share_interval(self.pseudo, self.base)

    @property
    def words(self) -> list[str]:
        """For people, a line each."""
        return [
            self._finding(),
            self._share(),
            f"votes: pseudo-targets {self.pseudo}, base {self.base}, ties {self.ties}, both bad {self.both_bad}, "
            f"not voted {self.not_voted}",
            *self._not_shown(),
            *self._stopped_early(),
            f"searched by {self.trial.searched.get('recipe')}; base is the reference alone",
            cost_text(self.trial.cost),
        ]

    def to_json(self) -> dict[str, Any]:
        votes = {"pseudo_targets": self.pseudo, "base": self.base, "ties": self.ties, "both_bad": self.both_bad}
        return {
            "trial": self.trial.name,
            "votes": {**votes, "not_voted": self.not_voted},
            "not_shown": {
                "same_lists": list(self.trial.same),
                "no_pseudo_target": list(self.trial.without),
                "could_not_run": dict(self.trial.missing),
            },
            "p": self.p,
            "share": self.pseudo / self.decided if self.decided else None,
            "interval": self.interval,
            "cost": self.trial.cost,
            "words": self.words,
        }

    def shown(self, votes: Votes) -> dict[str, Any]:
        """Return what the page shows once votes are closed: the numbers of its drawing, and which side was which."""
        counts = {"pseudo": self.pseudo, "base": self.base, "ties": self.ties, "both bad": self.both_bad}
        cases = [
            {"id": case.id, "captions": case.captions, "base": case.base, "choice": votes.choices.get(case.id)}
            for case in self.trial.cases
        ]
        share = self.pseudo / self.decided if self.decided else None
        return {"words": self.words, "counts": counts, "share": share, "interval": self.interval, "cases": cases}

    def _finding(self) -> str:
        if not self.decided:
            return "no query was decided: no evidence either way"
        more, name = max((self.pseudo, "pseudo-targets"), (self.base, "base"))
        many = "query" if self.decided == 1 else "queries"
        verdict = f"evidence that {name} did better" if self.p < ALPHA else "no evidence either way"
        return f"{more} of {self.decided} decided {many} preferred {name}, p = {self.p:.2g}: {verdict}"

    def _share(self) -> str:
        low, high = self.interval
        share = f"{self.pseudo / self.decided:.2f}" if self.decided else "unknown"
        return f"share preferring pseudo-targets: {share}, 95% interval {low:.2f} to {high:.2f}"

    def _not_shown(self) -> list[str]:
        trial = self.trial
        kinds = (
            ("have the same list on both sides (ties)", trial.same),
            ("have no pseudo-target", trial.without),
            ("could not run", trial.missing),
        )
        return [f"not shown: {len(ids)} that {what} ({some(ids)})" for what, ids in kinds if ids]

    def _stopped_early(self) -> list[str]:
        hint = "p holds only if nobody stopped because of what the votes said"
        return [f"not all are voted on: {hint}"] if self.not_voted else []


def _meaning(base: str, choice: str | None) -> str:
    """ "base", "pseudo", "tie", "bad", or "" for a case that is not voted on."""
    if choice in ("left", "right"):
        return "base" if choice == base else "pseudo"
    return choice or ""


def cost_text(cost: Mapping[str, Any] | None) -> str:
    """Of a query, against base."""
    if not cost or not cost["queries"]:
        return "cost: pseudo-targets were made elsewhere, not measured; base imagines nothing"
    memory = f", with at most {cost['gigabytes']:.1f} GB in use" if cost["gigabytes"] else ""
    seconds = cost["seconds"] / cost["queries"]
    return f"cost: imagining took {number(seconds)} s a query{memory} ({cost['device']}); base imagines nothing"
