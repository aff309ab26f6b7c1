"""Stage `optimized_criteria`: decide about a version, and write the next one where that is worth trying."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import dagster as dg
import pandas as pd

from caliber_pipeline.assets.crossfitting import compare_cross_fitted
from caliber_pipeline.assets.decision_metadata import show_decision
from caliber_pipeline.assets.definition import (
    PROMOTION_POOL,
    criteria_versions,
    one_line_failures,
    stage,
    with_attrs,
)
from caliber_pipeline.assets.ground_truth import GroundTruth
from caliber_pipeline.assets.metadata import Metadata, show_numbers
from caliber_pipeline.assets.proposing import open_train_judge, propose_next
from caliber_pipeline.core import optimized_criteria as core
from caliber_pipeline.core.criteria import Criteria
from caliber_pipeline.core.gate import Comparison, compare_versions
from caliber_pipeline.core.loop import LoopState, data_fingerprint, find_fault
from caliber_pipeline.core.staleness import find_stale
from caliber_pipeline.core.stopping import Alignment, Decision, find_stop, measure_alignment
from caliber_pipeline.core.usage import Usage
from caliber_pipeline.renderers.markdown import render_list
from caliber_pipeline.resources import Project
from caliber_pipeline.strategies import Choice
from caliber_pipeline.strategies.crossfitting import settle
from caliber_pipeline.strategies.train_judge import TrainJudge


@stage(
    partitions_def=criteria_versions,
    deps=["misalignments", "patterns"],
    pool=PROMOTION_POOL,
    description="Whether the version is better than its base on dev, who is champion, and the next version to try.",
    group="optimization",
    kinds={"yaml"},
)
def optimized_criteria(
    context: dg.AssetExecutionContext, project: Project, alignment_metrics: pd.DataFrame
) -> dg.Output[pd.DataFrame]:
    """Decide about one criteria version."""
    with one_line_failures():
        row = decide_and_propose(project, context.partition_key)
    decided = row.iloc[0]
    names = ("base_kappa", "kappa", "kappa_corrected", "p_value", "mcnemar_p", "new_error_share", "cost_usd")
    numbers = {name: decided[name] for name in names if not pd.isna(decided[name])}
    return dg.Output(
        with_attrs(row, alignment_metrics),
        metadata={
            **{name: str(decided[name]) for name in ("decision", "decision_reason", "champion", "proposal_reason")},
            **show_numbers({name: float(value) for name, value in numbers.items()}),
            **{name: int(decided[name]) for name in ("n_compared", "n_fixed", "n_broken", "n_calls", "n_test_looks")},
            "n_stale_annotations": int(decided["n_stale_annotations"]),
            "candidates": dg.MetadataValue.md(_candidates(decided["candidates"])),
            **_show(project, decided),
        },
    )


def _candidates(candidates: Iterable[Mapping[str, Any]]) -> str:
    """What became of each proposal, as Markdown."""
    return render_list(
        [f"{c['strategy']}, {c['kind']}: {c['outcome']} ({c['n_screened']} train records)" for c in candidates]
    )


def _show(project: Project, decided: "pd.Series[Any]") -> Metadata:
    """The gate's evidence, and what changed in the criteria."""
    names = ("criteria_version", "base", "proposal_base")
    criteria, base, proposal_base = (
        None if pd.isna(decided[name]) else project.criteria_files.load(str(decided[name])) for name in names
    )
    return {} if criteria is None else show_decision(decided.to_dict(), criteria, base, proposal_base)


@dataclass(frozen=True)
class _Case:
    """A version to decide about, and what is known of it and of the others.

    Attributes:
        project: Where everything is stored.
        version: Its name.
        valid: All criteria by version.
        decided: The rows of the other decided versions.
        previous: Its own row, where it was decided upon before.
        champion: The champion so far.
        verdicts: Its `judge_scores`.
        truth: What people say.
        judge: Tries criteria on train.
    """

    project: Project
    version: str
    valid: Mapping[str, Criteria]
    decided: Mapping[str, pd.DataFrame]
    previous: pd.DataFrame | None
    champion: str | None
    verdicts: pd.DataFrame
    truth: GroundTruth
    judge: TrainJudge

    @classmethod
    def load(cls, project: Project, version: str) -> "_Case":
        tables = project.tables
        decided = tables.load_versions("optimized_criteria")
        champion, previous = core.current_champion(decided), decided.pop(version, None)
        verdicts = tables.require("judge_scores", version)
        truth = GroundTruth.load(project, verdicts)
        valid = {**project.criteria_files.load_all().valid, version: project.criteria_files.load(version)}
        judge = open_train_judge(project, truth)
        return cls(project, version, valid, decided, previous, champion, verdicts, truth, judge)

    @property
    def criteria(self) -> Criteria:
        return self.valid[self.version]

    @property
    def data(self) -> str:
        return data_fingerprint(self.verdicts.attrs)


def decide_and_propose(project: Project, version: str) -> pd.DataFrame:
    """The version's row: the decision, and the next version where one is written."""
    case = _Case.load(project, version)
    decision, judge = _decide(case), case.judge
    choice = Choice(None, _find_stop(case, decision), (), Usage())
    if choice.reason is None:
        choice = propose_next(project, case.truth, decision, version, case.valid, case.decided, judge)
    proposal = choice.proposal
    proposed_version = project.criteria_files.add(proposal.criteria) if proposal else None
    evaluation = _evaluate(case, decision)
    evaluation = evaluation.with_proposing(choice.candidates, (judge.n_calls, judge.cost_usd), judge.model_usage)
    now = datetime.now(UTC)
    return core.build_row(version, case.criteria, decision, proposal, proposed_version, choice.reason, now, evaluation)


def _decide(case: _Case) -> Decision:
    """By the gate on dev, by cross-fitting where that is left open, and against the champion where that is no base."""
    project, version, criteria, champion = case.project, case.version, case.criteria, case.champion
    base = core.select_base(version, criteria, list(case.valid), champion, case.previous)
    comparison = None if base is None else _compare(case, base)
    decision = core.decide_version(
        version, base, champion, comparison, case.previous, project.loop, is_simpler=_is_simpler(case, base)
    )
    decision = settle(
        version,
        decision,
        core.strategy_of(version, case.decided),
        project.loop,
        lambda base: compare_cross_fitted(project, case.truth, base, criteria.round, case.judge),
    )
    if champion is None or not core.is_challenger(decision, version, champion, case.previous):
        return decision
    is_simpler = _is_simpler(case, champion)
    return core.challenge(decision, champion, _compare(case, champion), project.loop, is_simpler=is_simpler)


def _is_simpler(case: _Case, other: str | None) -> bool:
    return other is not None and core.is_simpler(case.criteria, case.valid[other])


def _find_stop(case: _Case, decision: Decision) -> str | None:
    """Why no next version is proposed, or None where one is worth trying."""
    version, champion = case.version, decision.champion
    if case.previous is not None and champion != version:
        return f"{version} was evaluated again; the champion {champion} stands"
    costs = [float(frame["cost_usd"].fillna(0).sum()) for frame in case.decided.values()]
    costs += [cost or 0.0 for cost in (core.measure_effort(case.verdicts)[1], case.judge.cost_usd)]
    stop_reason = find_stop(
        decision,
        case.criteria,
        _align(case, champion),
        case.truth.n_groups,
        case.decided,
        case.data,
        case.project.loop,
        cost_usd=sum(costs),
    )
    return stop_reason or _find_pending(case)


def _evaluate(case: _Case, decision: Decision) -> core.Evaluation:
    """What the evaluation cost, and what its figures are worth."""
    tables, version, truth = case.project.tables, case.version, case.truth
    n_calls, cost = core.measure_effort(case.verdicts)
    corrected = None
    if decision.decision == "promoted":
        same_data = [v for v, frame in case.decided.items() if data_fingerprint(frame.attrs) == case.data]
        others = {v: truth.join(tables.require("judge_scores", v)) for v in same_data}
        corrected = core.correct_kappa({**others, version: truth.join(case.verdicts)}, version)
    return core.Evaluation(
        kappa_corrected=corrected,
        n_calls=n_calls,
        cost_usd=cost,
        n_test_looks=core.count_test_looks(case.decided, case.data) + core.is_test_reported(decision.decision),
        n_stale_annotations=len(find_stale(truth.annotations, case.valid, version)),
    )


def _compare(case: _Case, base: str) -> Comparison:
    """Compare with another version on the same data."""
    verdicts, truth = case.verdicts, case.truth
    base_verdicts = case.project.tables.load("judge_scores", base)
    if base_verdicts is None:
        raise dg.Failure(
            f"the base '{base}' is not evaluated yet; run the job 'calibration' for it first", allow_retries=False
        )
    if data_fingerprint(base_verdicts.attrs) != case.data:
        raise dg.Failure(
            f"'{base}' was evaluated on other data; run the job 'calibration' for it first", allow_retries=False
        )
    return compare_versions(truth.join(base_verdicts), truth.join(verdicts), n_all_groups=truth.n_groups)


def _align(case: _Case, champion: str) -> Alignment:
    """How sure it is that the champion agrees with people."""
    tables = case.project.tables
    scored = case.truth.join(tables.require("judge_scores", champion))
    return measure_alignment(scored, tables.require("alignment_metrics", champion))


def _find_pending(case: _Case) -> str | None:
    """Which versions' evaluation would come before that of a proposal, in words; None where none would."""
    state = LoopState(missing_input=None, is_ingested=True, criteria=case.valid)
    undecided = [other for other in case.valid if other not in case.decided and other != case.version]
    pending = [other for other in undecided if find_fault(other, case.valid[other], state) is None]
    return f"{', '.join(pending)} still to be evaluated" if pending else None
