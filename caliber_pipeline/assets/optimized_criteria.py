"""Stage `optimized_criteria`: decide about a version, and write the next one where that is worth trying."""

from collections.abc import Iterable, Mapping
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
from caliber_pipeline.core.loop import data_fingerprint
from caliber_pipeline.core.staleness import find_stale
from caliber_pipeline.core.stopping import Alignment, Decision, find_stop, measure_alignment
from caliber_pipeline.core.usage import Usage
from caliber_pipeline.renderers.markdown import render_list
from caliber_pipeline.resources import Project
from caliber_pipeline.strategies import Choice
from caliber_pipeline.strategies.crossfitting import settle


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


def decide_and_propose(project: Project, version: str) -> pd.DataFrame:
    """The version's row: the decision, and the next version where one is written."""
    files, tables = project.criteria_files, project.tables
    listing = files.load_all()
    criteria = files.load(version)
    decided = tables.load_versions("optimized_criteria")
    previous = decided.pop(version, None)
    champion = core.current_champion(decided)
    base = core.select_base(version, criteria, list(listing.valid), champion)
    verdicts = tables.require("judge_scores", version)
    truth = GroundTruth.load(project, verdicts)
    comparison = _compare(project, truth, base, verdicts)
    is_simpler = base is not None and core.is_simpler(criteria, listing.valid[base])
    decision = core.decide_version(version, base, champion, comparison, previous, project.loop, is_simpler=is_simpler)
    judge = open_train_judge(project, truth)
    decision = settle(
        version,
        decision,
        core.strategy_of(version, decided),
        project.loop,
        lambda base: compare_cross_fitted(project, truth, base, criteria.round, judge),
    )
    stop_reason = find_stop(
        decision,
        criteria,
        _align(project, truth, decision.champion),
        truth.n_groups,
        decided,
        data_fingerprint(verdicts.attrs),
        project.loop,
        cost_usd=sum(float(frame["cost_usd"].fillna(0).sum()) for frame in decided.values()),
    )
    stop_reason = stop_reason or _find_pending(listing.valid, decided, version)
    choice = Choice(None, stop_reason, (), Usage())
    if stop_reason is None:
        choice = propose_next(project, truth, decision, version, listing.valid, decided, judge)
    proposal = choice.proposal
    proposed_version = files.add(proposal.criteria) if proposal else None
    evaluation = _evaluate(project, truth, version, listing.valid, decision, verdicts, decided)
    evaluation = evaluation.with_proposing(choice.candidates, (judge.n_calls, judge.cost_usd), judge.model_usage)
    now = datetime.now(UTC)
    return core.build_row(version, criteria, decision, proposal, proposed_version, choice.reason, now, evaluation)


def _evaluate(
    project: Project,
    truth: GroundTruth,
    version: str,
    valid: Mapping[str, Criteria],
    decision: Decision,
    verdicts: pd.DataFrame,
    decided: Mapping[str, pd.DataFrame],
) -> core.Evaluation:
    """What the evaluation cost, and what its figures are worth."""
    data = data_fingerprint(verdicts.attrs)
    same_data = {v: frame for v, frame in decided.items() if data_fingerprint(frame.attrs) == data}
    n_calls, cost = core.measure_effort(verdicts)
    corrected = None
    if decision.decision == "promoted":
        others = {v: truth.join(project.tables.require("judge_scores", v)) for v in same_data}
        corrected = core.correct_kappa({**others, version: truth.join(verdicts)}, version)
    return core.Evaluation(
        kappa_corrected=corrected,
        n_calls=n_calls,
        cost_usd=cost,
        n_test_looks=core.count_test_looks(decided, data) + core.is_test_reported(decision.decision),
        n_stale_annotations=len(find_stale(truth.annotations, valid, version)),
    )


def _compare(project: Project, truth: GroundTruth, base: str | None, verdicts: pd.DataFrame) -> Comparison | None:
    """Compare with the base on the same data; None where there is no base that was evaluated."""
    if base is None:
        return None
    base_verdicts = project.tables.load("judge_scores", base)
    if base_verdicts is None:
        raise dg.Failure(
            f"the base '{base}' is not evaluated yet; run the job 'calibration' for it first", allow_retries=False
        )
    for key in ("records_fingerprint", "annotations_fingerprint"):
        if base_verdicts.attrs[key] != verdicts.attrs[key]:
            raise dg.Failure(
                f"'{base}' was evaluated on other data; run the job 'calibration' for it first", allow_retries=False
            )
    return compare_versions(truth.join(base_verdicts), truth.join(verdicts), n_all_groups=truth.n_groups)


def _align(project: Project, truth: GroundTruth, champion: str) -> Alignment:
    """How sure it is that the champion agrees with people."""
    metrics = project.tables.require("alignment_metrics", champion)
    return measure_alignment(truth.join(project.tables.require("judge_scores", champion)), metrics)


def _find_pending(valid: Mapping[str, Criteria], decided: Mapping[str, pd.DataFrame], version: str) -> str | None:
    """Which versions' evaluation would come before that of a proposal, in words; None where none would."""
    pending = [other for other in valid if other not in decided and other != version]
    return f"{', '.join(pending)} still to be evaluated" if pending else None
