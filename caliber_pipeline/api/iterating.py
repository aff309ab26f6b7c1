"""Goes round: evaluate, propose, evaluate the proposal, decide on dev; with the pipeline's splits, gate and stops."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from caliber_pipeline.core.criteria import DEFAULT_CRITERIA, Criteria, next_version

if TYPE_CHECKING:
    import pandas as pd

    from caliber_pipeline.api.optimization import OptimizationResult
    from caliber_pipeline.api.results import EvaluationResult
    from caliber_pipeline.core.optimized_criteria import Decision, LoopSettings

FIRST_VERSION = "v001"


@dataclass(frozen=True)
class CalibrationRound:
    """One version of the criteria: what it scored, what was decided, what was proposed from it.

    Attributes:
        version: Its name.
        criteria: Its content.
        result: Its evaluation.
        base: The version it was compared with; None for the first.
        decision: baseline, promoted, rejected or undecided.
        decision_reason: Why.
        champion: The best version after the decision.
        is_test_reported: Whether figures on test may be shown: for a person's and for promoted versions only.
        proposal: What was proposed from the champion; None where the loop ended.
    """

    version: str
    criteria: Criteria
    result: EvaluationResult = field(repr=False)
    base: str | None
    decision: str
    decision_reason: str
    champion: str
    is_test_reported: bool
    proposal: OptimizationResult | None = field(default=None, repr=False)

    @property
    def kappa_by_split(self) -> dict[str, float | None]:
        """Cohen's kappa on train, dev and all, and on test unless that is sealed."""
        from caliber_pipeline.core.alignment_metrics import metric_value

        splits = ("train", "dev", "test", "all") if self.is_test_reported else ("train", "dev", "all")
        table = self.result.alignment_metrics
        return {split: metric_value(table, split, "cohen_kappa") for split in splits}

    def to_dict(self) -> dict[str, Any]:
        """What people want to see of it, ready for JSON."""
        return {
            "version": self.version,
            "criteria": self.criteria.full_text,
            "base": self.base,
            "decision": self.decision,
            "decision_reason": self.decision_reason,
            "champion": self.champion,
            "kappa_by_split": self.kappa_by_split,
            "n": self.result.metrics.n,
            "n_failed": len(self.result.failed),
            "n_examples": len(self.result.example_ids),
            "proposal": self.proposal.summary if self.proposal else None,
        }


@dataclass(frozen=True)
class CalibrationOutcome:
    """Every round, and how it ended.

    Attributes:
        rounds: One per version, in the order of evaluation.
        champion: The last version that won on dev.
        stop_reason: Why it ended.
    """

    rounds: tuple[CalibrationRound, ...]
    champion: str
    stop_reason: str

    @property
    def is_aligned(self) -> bool:
        """Whether it ended since judge and people agree well enough on dev."""
        return self.stop_reason.startswith("aligned")

    @property
    def best(self) -> CalibrationRound:
        """The champion's round."""
        return next(each for each in self.rounds if each.version == self.champion)

    def to_dict(self) -> dict[str, Any]:
        """What people want to see of it, ready for JSON."""
        return {
            "champion": self.champion,
            "stop_reason": self.stop_reason,
            "is_aligned": self.is_aligned,
            "rounds": [each.to_dict() for each in self.rounds],
        }


Evaluate = Callable[[Criteria], Awaitable["EvaluationResult"]]
Propose = Callable[["EvaluationResult", Criteria, str, int], Awaitable["OptimizationResult"]]


async def calibrate(
    start: Criteria,
    evaluate: Evaluate,
    propose: Propose,
    settings: LoopSettings,
    on_round: Callable[[CalibrationRound], object] | None = None,
) -> CalibrationOutcome:
    """Go round until judge and people are aligned or nothing better is found.

    Args:
        start: The first criteria.
        evaluate: Judges the labelled records under criteria.
        propose: Makes a proposal from an evaluation, its criteria, their version and the round.
        settings: When to end.
        on_round: Called with each round as soon as it is decided.
    """
    versions, rounds, stop_reason = {FIRST_VERSION: start}, dict[str, CalibrationRound](), None
    decided: dict[str, pd.DataFrame] = {}
    version = FIRST_VERSION
    while stop_reason is None:
        result = await evaluate(versions[version])
        current, decision = _decide(version, versions, result, rounds, decided, settings)
        rounds[version] = current
        stop_reason = _find_stop(current, decision, rounds, decided, settings)
        if stop_reason is None:
            best = rounds[decision.champion]
            proposal = await propose(best.result, best.criteria, best.version, current.criteria.round + 1)
            stop_reason = _useless(proposal, versions)
            rounds[version] = current = replace(current, proposal=None if stop_reason else proposal)
        decided[version] = _row(current, decision, stop_reason)
        if on_round is not None:
            on_round(current)
        if current.proposal is not None:
            version = next_version(list(versions))
            versions[version] = current.proposal.version
    return CalibrationOutcome(tuple(rounds.values()), rounds[version].champion, stop_reason)


def first_version(
    criteria: str | Criteria | None, system_prompt: str | None, evaluation: EvaluationResult | None
) -> Criteria:
    """What iterating starts with: a version that a person wrote, without a base."""
    if criteria is None:
        criteria = evaluation.criteria if evaluation is not None else DEFAULT_CRITERIA
    first = Criteria(criteria=criteria) if isinstance(criteria, str) else criteria
    update: dict[str, object] = {"base": None, "round": 0, "author": "person"}
    if system_prompt is not None:
        update["system_prompt"] = system_prompt
    return first.model_copy(update=update)


def _decide(
    version: str,
    versions: dict[str, Criteria],
    result: EvaluationResult,
    rounds: dict[str, CalibrationRound],
    decided: dict[str, pd.DataFrame],
    settings: LoopSettings,
) -> tuple[CalibrationRound, Decision]:
    from caliber_pipeline.core import optimized_criteria as core
    from caliber_pipeline.core.gate import compare_versions

    criteria = versions[version]
    champion = core.current_champion(decided)
    base = core.select_base(version, criteria, list(versions), champion)
    comparison = compare_versions(rounds[base].result.scored, result.scored) if base is not None else None
    decision = core.decide_version(version, base, champion, comparison, None, settings)
    is_reported = core.is_test_reported(criteria, decision.decision)
    current = CalibrationRound(
        version, criteria, result, base, decision.decision, decision.reason, decision.champion, is_reported
    )
    return current, decision


def _find_stop(
    current: CalibrationRound,
    decision: Decision,
    rounds: dict[str, CalibrationRound],
    decided: dict[str, pd.DataFrame],
    settings: LoopSettings,
) -> str | None:
    from caliber_pipeline.core.loop import data_fingerprint
    from caliber_pipeline.core.stopping import Alignment, find_stop, kappa_lower_bound

    champion = rounds[decision.champion]
    on_dev = champion.result.scored[(champion.result.scored["split"] == "dev").astype(bool)]
    alignment = Alignment(champion.kappa_by_split["dev"], kappa_lower_bound(on_dev))
    n_groups = int(current.result.scored["group"].nunique())
    data = data_fingerprint(_ATTRS)
    return find_stop(decision, current.criteria, alignment, n_groups, decided, data, settings)


def _useless(proposal: OptimizationResult, versions: dict[str, Criteria]) -> str | None:
    from caliber_pipeline.core.proposals import find_twin

    if not proposal.has_changed:
        return "the champion makes no error on train that it was not shown"
    twin = find_twin(proposal.version, versions)
    return None if twin is None else f"the next proposal would repeat {twin}"


_ATTRS = {"records_fingerprint": "session", "annotations_fingerprint": "session"}
"""All rounds see the same data: the session's."""


def _row(current: CalibrationRound, decision: Decision, stop_reason: str | None) -> pd.DataFrame:
    """The decision as a row of the `optimized_criteria` table, which later decisions read."""
    from caliber_pipeline.core.optimized_criteria import build_row
    from caliber_pipeline.core.proposals import Proposal

    proposed = current.proposal
    proposal = Proposal(proposed.version, (), proposed.strategy, proposed.summary) if proposed else None
    now = datetime.now(UTC)
    row = build_row(
        current.version, current.criteria, decision, current.result.scored, proposal, None, stop_reason, now
    )
    row.attrs.update(_ATTRS)
    return row
