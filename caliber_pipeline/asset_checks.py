"""The gates of the pipeline: what must hold before the next stage is worth running."""

from collections.abc import Iterable

import dagster as dg
import pyarrow as pa
import pyarrow.compute as pc

from caliber_pipeline.core.judge_scores import MIN_COVERAGE, coverage
from caliber_pipeline.core.splits import MIN_GROUPS
from caliber_pipeline.resources import Project


@dg.asset_check(
    asset="judge_scores",
    blocking=True,
    description=f"At least {MIN_COVERAGE:.0%} of the labelled records got a verdict; below that, see failure_reason.",
)
def judge_coverage(context: dg.AssetCheckExecutionContext, project: Project) -> dg.AssetCheckResult:
    """Block the run where too many verdicts are missing."""
    judge_scores = project.tables.require("judge_scores", context.partition_key)
    share = coverage(judge_scores)
    reasons = judge_scores["failure_reason"].dropna().value_counts().head(3)
    what = "no labelled record to judge" if share is None else f"{share:.1%} of {len(judge_scores)} records judged"
    return dg.AssetCheckResult(
        passed=share is not None and share >= MIN_COVERAGE,
        description="; ".join([what, *(f"{n} of: {reason}" for reason, n in reasons.items())]),
        metadata={"coverage": share if share is not None else 0.0},
    )


@dg.asset_check(
    asset="records", description=f"At least {MIN_GROUPS} groups, so that a split of them can decide something."
)
def enough_groups(project: Project) -> dg.AssetCheckResult:
    """Warn where the gate will refuse to decide."""
    n_groups = count_up_to(project.tables.scan("records", columns=["group"]), MIN_GROUPS)
    counted = f"{n_groups} groups" if n_groups < MIN_GROUPS else f"{MIN_GROUPS} groups or more"
    return dg.AssetCheckResult(
        passed=n_groups >= MIN_GROUPS,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"{counted}; under {MIN_GROUPS} splits describe but decide nothing",
    )


@dg.asset_check(
    asset="drift",
    description="Agreement on the records labelled since a version won is as certified; else judge again.",
)
def no_drift(context: dg.AssetCheckExecutionContext, project: Project) -> dg.AssetCheckResult:
    """Warn where the drift test raised its alarm."""
    state = project.tables.require("drift", context.partition_key).iloc[0]
    return dg.AssetCheckResult(
        passed=not state["is_alarm"], severity=dg.AssetCheckSeverity.WARN, description=str(state["summary"])
    )


@dg.asset_check(
    asset="optimized_criteria",
    description="The version was decided upon, and no annotation was made under criteria of another substance.",
)
def sound_decision(context: dg.AssetCheckExecutionContext, project: Project) -> dg.AssetCheckResult:
    """Warn where the gate could not decide, or labels are older than the criteria."""
    row = project.tables.require("optimized_criteria", context.partition_key).iloc[0]
    n_stale = int(row["n_stale_annotations"])
    is_decided = row["decision"] != "undecided"
    stale = f"; {n_stale} annotations are stale: made under criteria of another substance" if n_stale else ""
    return dg.AssetCheckResult(
        passed=bool(is_decided and not n_stale),
        severity=dg.AssetCheckSeverity.WARN,
        description=f"{row['decision']}: {row['decision_reason']}{stale}",
        metadata={"n_stale_annotations": n_stale, "champion": str(row["champion"])},
    )


def count_up_to(batches: Iterable[pa.RecordBatch], enough: int) -> int:
    """How many distinct values the one column of the batches has, reading no further than to `enough`."""
    distinct = pa.array([], pa.string())
    for batch in batches:
        distinct = pc.unique(pa.concat_arrays([distinct, batch.column(0)]))
        if len(distinct) >= enough:
            return enough
    return len(distinct)


ALL_CHECKS = [sound_decision, judge_coverage, enough_groups, no_drift]
