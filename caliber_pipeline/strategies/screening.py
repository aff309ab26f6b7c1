"""Screening: proposals race on train, and the clearly worse are dropped before they cost more."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from caliber_pipeline.core.agreement import ConfusionMatrix
from caliber_pipeline.core.fingerprints import hash_texts
from caliber_pipeline.core.proposals import Candidate, Proposal, ProposalRequest, TrainEvidence
from caliber_pipeline.core.selection_bias import correct_best
from caliber_pipeline.core.weights import inclusion_weights

JudgeSome = Callable[[Proposal, Sequence[str]], pd.DataFrame]
"""Judges the named train records under a proposal: record_id and llm_score (null: no verdict) come back."""

STAGES: Final = (16, 32, 64)  # records tried by the end of each stage: most of the worse go after a quarter of the cost
ASIDE: Final = 4  # one group in so many of train is kept for the race
MIN_SCREENED: Final = 12  # on fewer records nothing can be told apart
_CLEARLY: Final = 1.645  # standard errors: one-sided 5 %; dropping the second best costs little, as the gate decides
_CHAMPION: Final = -1


@dataclass(frozen=True)
class Screening:
    """The outcome of a race.

    Attributes:
        chosen: The best proposal; None where all were clearly worse than the champion.
        candidates: What became of each, in the order given.
        n_judged: Verdicts asked for, those from the cache among them.
    """

    chosen: Proposal | None
    candidates: tuple[Candidate, ...]
    n_judged: int


def set_aside(evidence: TrainEvidence) -> tuple[TrainEvidence, pd.DataFrame]:
    """Part train in what the strategies are shown and the records that the race is held on.

    What a strategy chose from cannot be raced on: examples are taken from the champion's errors first, so that the
    champion would be right on nearly all that is left. The part is the same in every round.

    Returns:
        The evidence without a quarter of the groups, and the scored records of that quarter.
    """
    scored = evidence.scored
    is_aside = hash_texts(scored["group"].astype("string[pyarrow]") + "\x1fscreening") % np.uint64(ASIDE) == 0
    aside = scored[is_aside]
    shown = TrainEvidence(
        scored=scored[~is_aside],
        misalignments=evidence.misalignments[~evidence.misalignments["record_id"].isin(aside["record_id"])],
        patterns=evidence.patterns,
        records=evidence.records[~evidence.records["record_id"].isin(aside["record_id"])],
    )
    return shown, aside


def select_minibatch(request: ProposalRequest, proposals: Sequence[Proposal], pool: pd.DataFrame) -> pd.DataFrame:
    """Records to race on: judged under the champion, an example of none, whole groups in a seeded order."""
    shown = {e.record_id for p in proposals for e in p.criteria.examples}
    shown |= {e.record_id for e in request.champion.examples}
    usable = pool[pool["llm_score"].notna() & ~pool["record_id"].isin(shown)]
    keys = hash_texts(usable["group"].astype("string[pyarrow]") + f"\x1fscreening{request.round_}")
    return usable.assign(_order=keys).sort_values(["_order", "record_id"]).head(STAGES[-1]).drop(columns="_order")


def race(
    request: ProposalRequest, proposals: Sequence[Proposal], judge: JudgeSome, pool: pd.DataFrame | None = None
) -> Screening:
    """Try the proposals on a minibatch of train, stage by stage, and choose the one with the highest kappa.

    A single proposal needs no race: the gate decides about it. Ties go to the simpler.

    Args:
        request: What was asked for.
        proposals: The proposals.
        judge: Gives verdicts under a proposal.
        pool: The train records to try them on, which no strategy saw; None for all of train.
    """
    if len(proposals) <= 1:
        return Screening(*_without_race(proposals, "chosen: the only one"), 0)
    batch = select_minibatch(request, proposals, request.evidence.scored if pool is None else pool)
    if len(batch) < MIN_SCREENED:
        reason = f"chosen: the first, as only {len(batch)} train records are left to try them on"
        return Screening(*_without_race(proposals, reason), 0)
    return _Race(proposals, batch, judge).run()


def _without_race(proposals: Sequence[Proposal], reason: str) -> tuple[Proposal | None, tuple[Candidate, ...]]:
    outcomes = [reason, *["not tried"] * len(proposals)]
    candidates = tuple(Candidate(p.strategy, p.kind, o) for p, o in zip(proposals, outcomes, strict=False))
    return (proposals[0] if proposals else None), candidates


class _Race:
    def __init__(self, proposals: Sequence[Proposal], batch: pd.DataFrame, judge: JudgeSome) -> None:
        self._proposals = proposals
        self._judge = judge
        self._ids = batch["record_id"].astype(str).tolist()
        self._human = batch["human_score"].to_numpy(dtype=np.int8)
        self._groups = pd.factorize(batch["group"])[0].astype(np.int64)
        self._weights = inclusion_weights(batch)
        # a missing verdict is -1, and agrees with nobody
        self._verdicts = {_CHAMPION: batch["llm_score"].to_numpy(dtype=np.int8, na_value=-1)}
        self._verdicts |= {i: np.full(len(batch), -1, dtype=np.int8) for i in range(len(proposals))}
        self._dropped: dict[int, str] = {}
        self._tried = dict.fromkeys(range(len(proposals)), 0)

    def run(self) -> Screening:
        n_done = 0
        for stage in STAGES:
            n = min(stage, len(self._ids))
            for i in self._racing:
                self._try(i, n_done, n)
            n_done = n
            self._drop_worse(n)
            if n == len(self._ids):
                break
        return self._finish(n_done)

    @property
    def _racing(self) -> list[int]:
        return [i for i in range(len(self._proposals)) if i not in self._dropped]

    def _try(self, i: int, start: int, stop: int) -> None:
        given = self._judge(self._proposals[i], self._ids[start:stop])
        known = given.dropna(subset=["llm_score"])
        score_of = dict(zip(known["record_id"].astype(str), known["llm_score"].astype(int), strict=True))
        self._verdicts[i][start:stop] = [score_of.get(record_id, -1) for record_id in self._ids[start:stop]]
        self._tried[i] = stop

    def _weighted(self, counted: NDArray[np.float64], n: int) -> NDArray[np.float64]:
        return counted if self._weights is None else counted * self._weights[:n]

    def _is_right(self, i: int, n: int) -> NDArray[np.float64]:
        """1 for each of the first n records on which it agrees with people."""
        return np.asarray(self._verdicts[i][:n] == self._human[:n], dtype=np.float64)

    def _advantage(self, leader: int, i: int, n: int) -> NDArray[np.float64]:
        """By how much the leader agrees more with people per group, over the records with a verdict from both."""
        is_known = (self._verdicts[leader][:n] >= 0) & (self._verdicts[i][:n] >= 0)
        gain = self._weighted(self._is_right(leader, n) - self._is_right(i, n), n)
        groups = pd.factorize(self._groups[:n][is_known])[0].astype(np.int64)
        return np.bincount(groups, weights=gain[is_known]).astype(np.float64)

    def _drop_worse(self, n: int) -> None:
        """Drop who is clearly worse than the best so far, the champion among them, by paired differences of groups."""
        right = {i: float(self._weighted(self._is_right(i, n), n).sum()) for i in (_CHAMPION, *self._racing)}
        leader = max(right, key=lambda i: (right[i], -i))
        for i in self._racing:
            difference = self._advantage(leader, i, n)
            spread = float(difference.std(ddof=1)) if len(difference) > 1 else 0.0
            error = spread * np.sqrt(len(difference))
            if i != leader and spread > 0 and difference.sum() > _CLEARLY * error:
                who = "the champion" if leader == _CHAMPION else self._proposals[leader].kind
                self._dropped[i] = f"dropped after {n} records: clearly worse than {who}"

    def _finish(self, n: int) -> Screening:
        kappas = {i: self._kappa(i) for i in self._tried}
        finalists = self._racing
        best = min(finalists, key=lambda i: (-(kappas[i] or 0.0), *_complexity(self._proposals[i]), i), default=None)
        corrected = self._correct(finalists, n)
        candidates = []
        for i, proposal in enumerate(self._proposals):
            outcome = self._dropped.get(i, "chosen" if i == best else "not the best")
            value = corrected if i == best else None
            candidates.append(Candidate(proposal.strategy, proposal.kind, outcome, self._tried[i], kappas[i], value))
        chosen = None if best is None else self._proposals[best]
        return Screening(chosen, tuple(candidates), sum(self._tried.values()))

    def _correct(self, finalists: list[int], n: int) -> float | None:
        """The best one's kappa less what choosing made of it, over records with a verdict from all finalists."""
        if not finalists:
            return None
        verdicts = np.stack([self._verdicts[i][:n] for i in finalists])
        is_known = (verdicts >= 0).all(axis=0)
        groups = pd.factorize(self._groups[:n][is_known])[0].astype(np.int64)
        weights = None if self._weights is None else self._weights[:n][is_known]
        best = correct_best(self._human[:n][is_known], verdicts[:, is_known], groups, weights)
        return None if best is None else best.corrected

    def _kappa(self, i: int) -> float | None:
        """Over the records that a proposal was tried on and gave a verdict for."""
        n = self._tried[i]
        human, given = self._human[:n], self._verdicts[i][:n]
        is_known = given >= 0
        weights = None if self._weights is None else self._weights[:n][is_known]
        return ConfusionMatrix.from_scores(human[is_known], given[is_known], weights).cohen_kappa


def _complexity(proposal: Proposal) -> tuple[int, int]:
    criteria = proposal.criteria
    return len(criteria.clauses) + len(criteria.examples), len(criteria.full_text)
