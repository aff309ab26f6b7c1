"""Stage `optimized_criteria`: is a version better than its base, who is champion, and is there a next one to try."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

import numpy as np
import pandas as pd

from caliber_pipeline.core.agreement import ConfusionMatrix
from caliber_pipeline.core.conforming import conform_frame
from caliber_pipeline.core.criteria import Criteria
from caliber_pipeline.core.errors import CriteriaError
from caliber_pipeline.core.gate import Comparison, decide
from caliber_pipeline.core.loop import WINNING, base_of, data_fingerprint
from caliber_pipeline.core.proposals import Candidate, EarlierProposal, Proposal
from caliber_pipeline.core.schemas import OPTIMIZED_CRITERIA
from caliber_pipeline.core.selection_bias import correct_best
from caliber_pipeline.core.stopping import Decision, LoopSettings
from caliber_pipeline.core.usage import Usage
from caliber_pipeline.core.weights import inclusion_weights

_BEFORE: Final = " (before: "
_AGAIN: Final = "evaluated again; before: "


def current_champion(decided: Mapping[str, pd.DataFrame]) -> str | None:
    """The champion by the latest of the stored decisions."""
    if not decided:
        return None
    latest = max(
        (frame.iloc[0] for frame in decided.values()), key=lambda row: (row["decided_at"], row["criteria_version"])
    )
    return str(latest["champion"])


def select_base(
    version: str,
    criteria: Criteria,
    versions: Sequence[str],
    champion: str | None,
    previous: pd.DataFrame | None = None,
) -> str | None:
    """What a version has to beat: the base that it names, else what it was held against before, else the champion.

    Args:
        version: The version.
        criteria: Its content.
        versions: All versions that there are.
        champion: The champion of the day.
        previous: The version's stored row, where it was decided upon before.

    Raises:
        CriteriaError: it names a base that does not exist.
    """
    if criteria.base is not None:
        if criteria.base not in versions or criteria.base == version:
            raise CriteriaError(f"criteria '{version}' name the base '{criteria.base}', which is no other version")
        return criteria.base
    if previous is not None:
        return base_of(previous)
    return None if champion == version else champion


def strategy_of(version: str, decided: Mapping[str, pd.DataFrame]) -> str | None:
    """The strategy that proposed a version; None for a person's."""
    rows = (frame.iloc[0] for frame in decided.values())
    return next((str(row["strategy"]) for row in rows if str(row["proposed_version"]) == version), None)


def select_earlier(
    decision: Decision, version: str, valid: Mapping[str, Criteria], decided: Mapping[str, pd.DataFrame]
) -> tuple[EarlierProposal, ...]:
    """The versions that edited the champion and did not win, in the order of their names."""
    reasons = {
        name: str(frame["decision_reason"].iloc[0])
        for name, frame in decided.items()
        if base_of(frame) == decision.champion and frame["decision"].iloc[0] not in WINNING
    }
    if decision.decision not in WINNING and decision.base == decision.champion:
        reasons[version] = decision.reason
    return tuple(
        EarlierProposal(v, valid[v].full_text, reasons[v], *_tried(v, decided)) for v in sorted(reasons) if v in valid
    )


def _tried(version: str, decided: Mapping[str, pd.DataFrame]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What a proposal changed, and what else was tried when it was chosen."""
    rows = (frame.iloc[0] for frame in decided.values())
    row = next((row for row in rows if str(row.get("proposed_version")) == version), None)
    if row is None:
        return (), ()
    changes = (str(row["proposal_reason"]), *(str(change["suggestion"]) for change in row["suggestions"]))
    others = (c for c in row["candidates"] if not str(c["outcome"]).startswith("chosen"))
    return changes, tuple(f"{c['kind']}: {c['outcome']}" for c in others)


def decide_version(
    version: str,
    base: str | None,
    champion: str | None,
    comparison: Comparison | None,
    previous: pd.DataFrame | None,
    settings: LoopSettings,
    *,
    is_simpler: bool = False,
) -> Decision:
    """Decide about a version.

    A version that won before keeps its decision when it is evaluated again: only a better version replaces it.

    Args:
        version: The version.
        base: What it has to beat; None for a first one.
        champion: The champion so far.
        comparison: The evidence; None where there is no base.
        previous: The version's stored row, where it was decided upon before.
        settings: Rounds and budgets.
        is_simpler: It tells the judge less than its base.
    """
    if previous is not None and previous["decision"].iloc[0] in WINNING:
        row = previous.iloc[0]
        reason = _AGAIN + str(row["decision_reason"]).removeprefix(_AGAIN)
        is_by_hand = bool(row["is_by_hand"])
        return Decision(str(row["decision"]), reason, base, champion or version, comparison, is_by_hand)
    if base is None or comparison is None:
        return Decision("baseline", "the first version: nothing to compare it with", None, champion or version, None)
    decision, reason = decide(
        comparison,
        max_rounds=settings.max_iterations,
        max_new_errors=settings.max_new_errors,
        is_simpler=is_simpler,
    )
    return Decision(decision, reason, base, version if decision == "promoted" else champion or base, comparison)


def is_challenger(decision: Decision, version: str, champion: str | None, previous: pd.DataFrame | None) -> bool:
    """Whether a version has just won over a base that is not the champion, which it then has to beat too."""
    has_won_before = previous is not None and previous["decision"].iloc[0] in WINNING
    return decision.decision == "promoted" and not has_won_before and champion not in (None, version, decision.base)


def challenge(
    decision: Decision, champion: str, comparison: Comparison, settings: LoopSettings, *, is_simpler: bool = False
) -> Decision:
    """The decision about a version that won over its base: it stands where the version beats the champion too.

    Args:
        decision: Over the base.
        champion: The champion, another version than the base.
        comparison: Of the version with the champion.
        settings: Rounds and budgets.
        is_simpler: The version tells the judge less than the champion.
    """
    verdict, reason = decide(
        comparison,
        max_rounds=settings.max_iterations,
        max_new_errors=settings.max_new_errors,
        is_simpler=is_simpler,
    )
    told = f"{decision.reason} over {decision.base}; over the champion {champion}: {reason}"
    if verdict == "promoted":
        return replace(decision, reason=told)
    return replace(decision, decision=verdict, reason=told, champion=champion)


def add_effort(one: tuple[int, float | None], other: tuple[int, float | None]) -> tuple[int, float | None]:
    """Calls and cost together; a cost is None where one is unknown."""
    cost = None if one[1] is None or other[1] is None else one[1] + other[1]
    return one[0] + other[0], cost


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation adds to its decision in the stored row.

    Attributes:
        kappa_corrected: The version's kappa on dev less what being the best so far made of it; None unless it won.
        n_calls: Calls to the judge and to language models that this evaluation and its proposal made.
        cost_usd: What they cost; None where a price is unknown.
        n_model_calls: Those to language models.
        n_model_tokens: Their tokens; None where a reply did not tell.
        model_cost_usd: What these cost; None where the price is unknown.
        n_test_looks: Versions whose figures on test were shown so far on these data, this one included.
        n_stale_annotations: Annotations made under criteria that differ from these in substance.
        candidates: The proposals among which the next version was chosen.
    """

    kappa_corrected: float | None = None
    n_calls: int = 0
    cost_usd: float | None = None
    n_model_calls: int = 0
    n_model_tokens: int | None = 0
    model_cost_usd: float | None = 0.0
    n_test_looks: int = 0
    n_stale_annotations: int = 0
    candidates: tuple[Candidate, ...] = ()

    def with_proposing(
        self, candidates: tuple[Candidate, ...], tried: tuple[int, float | None], asked: Usage
    ) -> "Evaluation":
        """The same with what proposing took on top.

        Args:
            candidates: The proposals.
            tried: Calls of the judge that tried them, and their cost.
            asked: What asking language models for them took.
        """
        effort = add_effort((self.n_calls, self.cost_usd), tried)
        n_calls, cost = add_effort(effort, (asked.n_calls, asked.cost_usd))
        return replace(
            self,
            candidates=candidates,
            n_calls=n_calls,
            cost_usd=cost,
            n_model_calls=asked.n_calls,
            n_model_tokens=asked.n_tokens,
            model_cost_usd=asked.cost_usd,
        )


def is_simpler(criteria: Criteria, base: Criteria) -> bool:
    """Whether criteria tell a judge less: no more text, clauses and examples, and fewer of one of them."""
    told, before = ((len(c.full_text), len(c.clauses), len(c.examples)) for c in (criteria, base))
    return told != before and all(now <= then for now, then in zip(told, before, strict=True))


def correct_kappa(scored_by_version: Mapping[str, pd.DataFrame], version: str) -> float | None:
    """A version's kappa on dev, corrected for being the best of all versions that were compared on these records.

    None where it is not the best of them, where records were judged under no two of them, or where nothing is left.

    Args:
        scored_by_version: As `join_labels` gives it, all on the same data.
        version: The version to correct.
    """
    frames = {
        name: f[(f["split"] == "dev") & f["llm_score"].notna() & ~f["is_example"]].set_index("record_id")
        for name, f in scored_by_version.items()
    }
    shared = sorted(set.intersection(*(set(frame.index) for frame in frames.values()))) if frames else []
    if not shared:
        return None
    names = sorted(frames)
    verdicts = np.stack([frames[name].loc[shared, "llm_score"].to_numpy(dtype=np.int8) for name in names])
    first = frames[version].loc[shared]
    groups = pd.factorize(first["group"], sort=True)[0].astype(np.int64)
    human = first["human_score"].to_numpy(dtype=np.int8)
    best = correct_best(human, verdicts, groups, inclusion_weights(first))
    return best.corrected if best is not None and names[best.position] == version else None


def measure_effort(verdicts: pd.DataFrame) -> tuple[int, float | None]:
    """Calls made for verdicts that were not known before, and their cost; None where a price is unknown."""
    new = verdicts[~verdicts["is_cached"].astype(bool)]
    called = new[new["n_attempts"] > 0]
    cost = None if called["cost_usd"].isna().any() else float(called["cost_usd"].sum())
    return int(new["n_attempts"].sum()), cost


def count_test_looks(decided: Mapping[str, pd.DataFrame], data: str) -> int:
    """How many versions won on these data, and so were looked at on test."""
    return sum(
        data_fingerprint(frame.attrs) == data and is_test_reported(str(frame["decision"].iloc[0]))
        for frame in decided.values()
    )


def promote_by_hand(row: pd.DataFrame, reason: str, decided_at: datetime, n_test_looks: int) -> pd.DataFrame:
    """The row of a version that a person made champion, whatever the gate said, recorded as such.

    Args:
        row: Its row so far.
        reason: Why, in the person's words.
        decided_at: When.
        n_test_looks: Versions looked at on test so far on these data, this one included.
    """
    before = row.iloc[0]
    _, is_again, by_the_gate = str(before["decision_reason"]).partition(_BEFORE)
    if not (is_again and bool(before["is_by_hand"])):  # whoever goes back and forth reads the gate's reason, once
        by_the_gate = f"{before['decision']}, {before['decision_reason']})"
    changed = row.assign(
        decision="promoted",
        decision_reason=f"by hand: {reason}{_BEFORE}{by_the_gate}",
        champion=before["criteria_version"],
        is_by_hand=True,
        n_test_looks=n_test_looks,
        decided_at=decided_at,
    )
    promoted = conform_frame(changed, "optimized_criteria")
    promoted.attrs = dict(row.attrs)
    return promoted


def is_test_reported(decision: str) -> bool:
    """Test is for the first version and for those that were promoted; for others it stays sealed."""
    return decision in WINNING


def may_judge_test(version: str, criteria: Criteria, decided: Mapping[str, pd.DataFrame]) -> bool:
    """Whether test is open to a version: it won before, or is the first, which nothing is compared with.

    Args:
        version: The version.
        criteria: Its content.
        decided: The rows of the decided versions, its own among them where it was decided upon before.
    """
    others = {name: frame for name, frame in decided.items() if name != version}
    if version in decided and is_test_reported(str(decided[version]["decision"].iloc[0])):
        return True
    return criteria.base is None and current_champion(others) in (None, version)


def build_row(
    version: str,
    criteria: Criteria,
    decision: Decision,
    proposal: Proposal | None,
    proposed_version: str | None,
    stop_reason: str | None,
    decided_at: datetime,
    evaluation: Evaluation = Evaluation(),
) -> pd.DataFrame:
    """The one row of the `optimized_criteria` table of a version."""
    comparison = decision.comparison
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
        "mcnemar_p": comparison and comparison.mcnemar_p,
        "n_fixed": comparison.n_fixed if comparison else 0,
        "n_broken": comparison.n_broken if comparison else 0,
        "new_error_share": comparison and comparison.new_error_share,
        "basis": comparison and comparison.basis,
        "is_by_hand": decision.is_by_hand,
        **{name: value for name, value in vars(evaluation).items() if name in OPTIMIZED_CRITERIA.names},
        "candidates": [vars(candidate) for candidate in evaluation.candidates],
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
    """The four cells of rows that all have both verdicts, weighted where the rows weigh differently."""
    human, llm = (scored[c].to_numpy(dtype="int8") for c in ("human_score", "llm_score"))
    return ConfusionMatrix.from_scores(human, llm, inclusion_weights(scored))


def _suggestions(proposal: Proposal | None) -> list[dict[str, Any]]:
    if proposal is None:
        return []
    changes = [vars(change) for change in proposal.all_changes]
    return [{**c, "pattern_ids": list(c["pattern_ids"]), "record_ids": list(c["record_ids"])} for c in changes]
