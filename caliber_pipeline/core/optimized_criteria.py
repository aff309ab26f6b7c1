"""Stage `optimized_criteria`: is a version better than its base, who is champion, and is there a next one to try."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import pandas as pd

from caliber_pipeline.core.agreement import CELLS, ConfusionMatrix
from caliber_pipeline.core.criteria import Criteria
from caliber_pipeline.core.errors import CriteriaError
from caliber_pipeline.core.gate import Comparison, decide
from caliber_pipeline.core.loop import base_of, data_fingerprint
from caliber_pipeline.core.proposals import Proposal
from caliber_pipeline.core.schemas import conform_frame
from caliber_pipeline.core.splits import MIN_GROUPS

MAX_FAILURES_IN_A_ROW: Final = 2  # two proposals in a row that did not win: more of the same will not either
WINNING: Final = ("baseline", "promoted")


@dataclass(frozen=True)
class LoopSettings:
    """When the loop ends.

    Attributes:
        kappa_target: Cohen's kappa on dev from which judge and people count as aligned.
        max_iterations: Proposals since a person's file.
    """

    kappa_target: float = 0.6
    max_iterations: int = 3


@dataclass(frozen=True)
class Decision:
    """What was decided about a version.

    Attributes:
        decision: baseline, promoted, rejected or undecided.
        reason: The decision in words.
        base: The version it was compared with; None for a first one.
        champion: The champion after the decision.
        comparison: The evidence; None where there was no base.
    """

    decision: str
    reason: str
    base: str | None
    champion: str
    comparison: Comparison | None


def current_champion(decided: Mapping[str, pd.DataFrame]) -> str | None:
    """The champion by the latest of the stored decisions."""
    if not decided:
        return None
    latest = max(
        (frame.iloc[0] for frame in decided.values()), key=lambda row: (row["decided_at"], row["criteria_version"])
    )
    return str(latest["champion"])


def select_base(version: str, criteria: Criteria, versions: Sequence[str], champion: str | None) -> str | None:
    """What a version has to beat: the base that it names, else the champion of the day.

    Raises:
        CriteriaError: it names a base that does not exist.
    """
    if criteria.base is not None:
        if criteria.base not in versions or criteria.base == version:
            raise CriteriaError(f"criteria '{version}' name the base '{criteria.base}', which is no other version")
        return criteria.base
    return None if champion == version else champion


def decide_version(
    version: str,
    base: str | None,
    champion: str | None,
    comparison: Comparison | None,
    previous: pd.DataFrame | None,
    settings: LoopSettings,
) -> Decision:
    """Decide about a version.

    A version that won before keeps its decision when it is evaluated again: only a better version replaces it.
    """
    if previous is not None and previous["decision"].iloc[0] in WINNING:
        row = previous.iloc[0]
        reason = f"evaluated again; {row['decision']} before"
        return Decision(str(row["decision"]), reason, base, champion or version, comparison)
    if base is None or comparison is None:
        return Decision("baseline", "the first version: nothing to compare it with", None, champion or version, None)
    decision, reason = decide(comparison, max_rounds=settings.max_iterations)
    return Decision(decision, reason, base, version if decision == "promoted" else champion or base, comparison)


def find_stop(
    decision: Decision,
    criteria: Criteria,
    champion_dev_kappa: float | None,
    n_groups: int,
    decided: Mapping[str, pd.DataFrame],
    data: str,
    settings: LoopSettings,
) -> str | None:
    """Why the loop ends with this version, or None where a next one is worth trying.

    Args:
        decision: What was decided about it.
        criteria: Its content.
        champion_dev_kappa: Cohen's kappa of the champion on dev.
        n_groups: Groups among all labelled records.
        decided: The rows of the other decided versions.
        data: The data fingerprint of this evaluation: proposals that failed on other data do not count.
        settings: When the loop ends.
    """
    if settings.max_iterations == 0:
        return "proposals are switched off (max_iterations is 0)"
    if n_groups < MIN_GROUPS:
        return f"too few groups: with {n_groups} of the {MIN_GROUPS} needed no proposal could be decided upon"
    if champion_dev_kappa is not None and champion_dev_kappa >= settings.kappa_target:
        return f"aligned: kappa on dev {champion_dev_kappa:.3f} reaches the target {settings.kappa_target:g}"
    if criteria.round >= settings.max_iterations:
        return f"all {settings.max_iterations} rounds are used up"
    losers = [
        version
        for version, frame in decided.items()
        if base_of(frame) == decision.champion
        and frame["decision"].iloc[0] not in WINNING
        and data_fingerprint(frame.attrs) == data
    ]
    n_failures = len(losers) + (decision.decision not in WINNING)
    if n_failures >= MAX_FAILURES_IN_A_ROW:
        return f"no improvement {n_failures} times over {decision.champion}"
    return None


def is_test_reported(criteria: Criteria, decision: str) -> bool:
    """Test is for versions that people wrote and that were promoted; for others it stays sealed."""
    return criteria.author == "person" or decision in WINNING


def build_row(
    version: str,
    criteria: Criteria,
    decision: Decision,
    scored: pd.DataFrame,
    proposal: Proposal | None,
    proposed_version: str | None,
    stop_reason: str | None,
    decided_at: datetime,
) -> pd.DataFrame:
    """The one row of the `optimized_criteria` table of a version."""
    comparison = decision.comparison
    test = scored[(scored["split"] == "test") & scored["llm_score"].notna() & ~scored["is_example"]]
    cells = count_cells(test).cells if is_test_reported(criteria, decision.decision) else (None,) * 4
    row: dict[str, Any] = {
        "criteria_version": version,
        "base": decision.base,
        "round": criteria.round,
        "decision": decision.decision,
        "decision_reason": decision.reason,
        "champion": decision.champion,
        "base_kappa": comparison and comparison.base_kappa,
        "kappa": comparison and comparison.kappa,
        "p_value": comparison and comparison.p_value,
        "n_compared": comparison.n_compared if comparison else 0,
        "n_groups": comparison.n_groups if comparison else 0,
        **{f"test_{name}": cell for name, cell in zip(CELLS, cells, strict=True)},
        "decided_at": decided_at,
        "is_proposed": proposed_version is not None,
        "proposal_reason": proposal.summary if proposal else stop_reason or "",
        "stop_reason": stop_reason,
        "proposed_version": proposed_version,
        "proposal_base": proposal.criteria.base if proposal else None,
        "strategy": proposal.strategy if proposal else None,
        "proposed_criteria": proposal.criteria.full_text if proposal else None,
        "suggestions": _suggestions(proposal),
        "example_ids": [e.record_id for e in proposal.criteria.examples] if proposal else [],
    }
    frame = pd.DataFrame({name: pd.Series([value], dtype=object) for name, value in row.items()})
    return conform_frame(frame, "optimized_criteria")


def count_cells(scored: pd.DataFrame) -> ConfusionMatrix:
    """The four cells of rows that all have both verdicts."""
    return ConfusionMatrix.from_scores(*(scored[c].to_numpy(dtype="int8") for c in ("human_score", "llm_score")))


def _suggestions(proposal: Proposal | None) -> list[dict[str, Any]]:
    if proposal is None:
        return []
    return [
        {
            "aspect": clause.evidence.pattern or "",
            "suggestion": clause.text,
            "rationale": f"{len(clause.evidence.record_ids)} errors of the judge on train carry such notes",
            "expected_improvement": "fewer false positives" if clause.verdict == 0 else "fewer false negatives",
            "pattern_ids": [clause.evidence.pattern_id] if clause.evidence.pattern_id else [],
            "record_ids": list(clause.evidence.record_ids),
        }
        for clause in proposal.clauses
    ]
