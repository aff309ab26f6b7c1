"""The checks of the pipeline: what must hold of each stage, and what to do where it does not.

A check on a table of one criteria version reads its own partition from the store. A blocking check keeps what is
downstream from running; a warning tells a person, and stops nothing.
"""

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

import dagster as dg
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from caliber_pipeline.assets.metadata import show_numbers
from caliber_pipeline.core.alignment_metrics import metric_value
from caliber_pipeline.core.conforming import find_schema_faults
from caliber_pipeline.core.judge_scores import MIN_COVERAGE, coverage
from caliber_pipeline.core.judged_texts import OUTDATED
from caliber_pipeline.core.loop import data_fingerprint
from caliber_pipeline.core.optimized_criteria import current_champion
from caliber_pipeline.core.schemas import SCHEMAS
from caliber_pipeline.core.splits import MIN_GROUPS
from caliber_pipeline.core.stability import MIN_STABILITY
from caliber_pipeline.resources import Project

MAX_ANNOTATION_AGE: Final = timedelta(days=90)  # what a system answers, and what is asked of it, moves in a quarter
MAX_NAMED: Final = 5
INPUT_TABLES: Final = (
    "records",
    "rejected_records",
    "annotations",
    "rejected_annotations",
    "annotator_agreement",
)
VERSION_TABLES: Final = (
    "judge_scores",
    "alignment_metrics",
    "patterns",
    "learnings",
    "misalignments",
    "relabel_queue",
    "optimized_criteria",
    "drift",
)


@dg.asset_check(
    asset="judge_scores",
    blocking=True,
    description=f"At least {MIN_COVERAGE:.0%} of the labelled records got a verdict; below that figures describe those "
    "that happened to get one. What to do: see failures_by_kind, then run the job 'calibration' again: verdicts that "
    "are there cost nothing.",
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
        metadata=show_numbers({"coverage": share}),
    )


@dg.asset_check(
    asset="records",
    description=f"At least {MIN_GROUPS} groups, so that a split of them can decide something. What to do: add records, "
    "or name a finer column with --group-by.",
)
def enough_groups(project: Project) -> dg.AssetCheckResult:
    """Warn where the gate will refuse to decide."""
    n_groups = count_up_to(project.tables.scan("records", columns=["group"]), MIN_GROUPS)
    counted = f"{n_groups} groups" if n_groups < MIN_GROUPS else f"{MIN_GROUPS} groups or more"
    return _warn_unless(n_groups >= MIN_GROUPS, f"{counted}; under {MIN_GROUPS} splits describe but decide nothing")


@dg.asset_check(
    asset="annotations",
    description=f"The newest annotation is known to be at most {MAX_ANNOTATION_AGE.days} days old. What to do: "
    "annotate a sample of recent records (`caliber annotate` notes the time), so that the judge is measured on what "
    "the system answers today; give annotations of a file their created_at.",
)
def annotations_are_fresh(project: Project) -> dg.AssetCheckResult:
    """Warn where people's verdicts are old, or carry no times, so that nobody knows how old they are."""
    times = project.tables.select("annotations", columns=["created_at"])["created_at"]
    newest, n_untimed = times.max(), int(times.isna().sum())
    if pd.isna(newest):
        what = "none of the annotations carries a time (created_at), so that nothing tells how old they are"
        return _warn_unless(False, what, n_untimed=n_untimed)
    age = datetime.now(UTC) - newest
    untimed = f"; {n_untimed} annotations carry no time" if n_untimed else ""
    what = f"the newest annotation is of {newest:%Y-%m-%d}, {age.days} days ago{untimed}"
    return _warn_unless(age <= MAX_ANNOTATION_AGE, what, age_days=age.days, n_untimed=n_untimed)


@dg.asset_check(
    asset="annotations",
    description="Every verdict given on the annotation page is on the text that its record has now. What to do: judge "
    "those records again (`caliber annotate` lists them as not annotated); until then the verdicts do not count.",
)
def annotated_texts_are_current(project: Project) -> dg.AssetCheckResult:
    """Warn where records were changed after people judged them."""
    rejected = project.tables.require("rejected_annotations")
    outdated = rejected.loc[rejected["reason"].str.endswith(OUTDATED).astype(bool), "reason"]
    named = "".join(f"; {reason}" for reason in outdated.head(MAX_NAMED))
    what = (
        f"{len(outdated)} verdicts are on a text that has changed since{named}"
        if named
        else "no text has changed since it was judged"
    )
    return _warn_unless(outdated.empty, what, n_outdated=len(outdated))


@dg.asset_check(
    asset="alignment_metrics",
    description="Cohen's kappa on dev reaches the target. What to do: read the misalignments and the patterns, then "
    "write a version that settles them, or let the next proposal be evaluated.",
)
def kappa_reaches_target(context: dg.AssetCheckExecutionContext, project: Project) -> dg.AssetCheckResult:
    """Warn where judge and people do not agree well enough yet."""
    return compare_with_target(project, context.partition_key)


def compare_with_target(project: Project, version: str) -> dg.AssetCheckResult:
    """Whether a version's kappa on dev reaches the target."""
    metrics = project.tables.require("alignment_metrics", version)
    kappa, target = metric_value(metrics, "dev", "cohen_kappa"), project.settings.kappa_target
    if kappa is None:
        return _warn_unless(False, "kappa on dev is undefined; annotate more records of both verdicts", target=target)
    verb = "reaches" if kappa >= target else "misses"
    return _warn_unless(
        kappa >= target, f"kappa on dev {kappa:.3f} {verb} the target {target:g}", dev_cohen_kappa=kappa, target=target
    )


@dg.asset_check(
    asset="optimized_criteria",
    description="The version is the champion, or agrees with people on dev at least as well as the champion does. What "
    "to do where it is behind: go on with the champion; this version's misalignments tell what it broke.",
)
def kappa_against_champion(context: dg.AssetCheckExecutionContext, project: Project) -> dg.AssetCheckResult:
    """Warn where a version is worse than what is in use."""
    return compare_with_champion(project, context.partition_key)


def compare_with_champion(project: Project, version: str) -> dg.AssetCheckResult:
    """Whether a version's kappa on dev is the champion's or more, on the same data."""
    tables = project.tables
    champion = current_champion(tables.load_versions("optimized_criteria")) or version
    own, best = (tables.require("alignment_metrics", name) for name in (version, champion))
    if data_fingerprint(own.attrs) != data_fingerprint(best.attrs):
        return _warn_unless(False, f"the champion {champion} was measured on other data; run 'calibration' for it")
    kappa, best_kappa = (metric_value(metrics, "dev", "cohen_kappa") for metrics in (own, best))
    if kappa is None or best_kappa is None:
        return _warn_unless(False, "kappa on dev is undefined; annotate more records of both verdicts")
    gap = kappa - best_kappa
    what = f"{version} is the champion" if version == champion else f"{version} against the champion {champion}"
    return _warn_unless(gap >= 0, f"{what}: kappa on dev {kappa:.3f} against {best_kappa:.3f}", gap_to_champion=gap)


@dg.asset_check(
    asset="optimized_criteria",
    description="The version was decided upon, and no annotation was made under criteria of another substance. What to "
    "do: the decision's reason tells what the gate lacked; have stale labels given again (`caliber annotate`).",
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


@dg.asset_check(
    asset="drift",
    description="Agreement on the records labelled since a version won is as certified. What to do: judge again, and "
    "read what changed, the judge or the data, in the drift table.",
)
def no_drift(context: dg.AssetCheckExecutionContext, project: Project) -> dg.AssetCheckResult:
    """Fail where the drift test raised its alarm: people are told, and nothing is stopped."""
    state = project.tables.require("drift", context.partition_key).iloc[0]
    return dg.AssetCheckResult(passed=not state["is_alarm"], description=str(state["summary"]))


@dg.asset_check(
    asset="patterns",
    description=f"Every pattern comes back when the notes are resampled (stability at least {MIN_STABILITY}). What to "
    "do: read an unstable one's notes before anything is built on it; more notes settle it.",
)
def patterns_are_stable(context: dg.AssetCheckExecutionContext, project: Project) -> dg.AssetCheckResult:
    """Warn where a theme may be chance."""
    return find_unstable(project.tables.require("patterns", context.partition_key))


def find_unstable(patterns: pd.DataFrame) -> dg.AssetCheckResult:
    """Which patterns do not come back when the notes are resampled."""
    themes = patterns[~patterns["is_unclustered"].astype(bool)]
    unstable = themes[(themes["stability"] < MIN_STABILITY).fillna(value=False).astype(bool)]
    named = ", ".join(f"'{name}'" for name in unstable["name"].head(MAX_NAMED))
    what = f"{len(unstable)} of {len(themes)} patterns are unstable" + (f": {named}" if named else "")
    return _warn_unless(unstable.empty, what, n_unstable_patterns=len(unstable))


def count_up_to(batches: Iterable[pa.RecordBatch], enough: int) -> int:
    """How many distinct values the one column of the batches has, reading no further than to `enough`."""
    distinct = pa.array([], pa.string())
    for batch in batches:
        distinct = pc.unique(pa.concat_arrays([distinct, batch.column(0)]))
        if len(distinct) >= enough:
            return enough
    return len(distinct)


def _warn_unless(passed: bool, description: str, **numbers: float) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        passed=passed, severity=dg.AssetCheckSeverity.WARN, description=description, metadata=show_numbers(numbers)
    )


def _build_schema_checks(name: str, tables: Sequence[str], *, by_version: bool) -> dg.AssetChecksDefinition:
    """One step that holds the stored files of several assets against their declared schemas."""
    description = (
        "The stored file has the declared columns, types and nullability. What to do: materialize the asset again with "
        "this version of the code."
    )
    specs = [dg.AssetCheckSpec("schema", asset=table, description=description) for table in tables]

    @dg.multi_asset_check(name=name, specs=specs, can_subset=True)
    def check(context: dg.AssetCheckExecutionContext, project: Project) -> Iterator[dg.AssetCheckResult]:
        version = context.partition_key if by_version else None
        for key in sorted(context.selected_asset_check_keys, key=str):
            table = key.asset_key.path[-1]
            faults = find_schema_faults(project.tables.stored_schema(table, version), SCHEMAS[table])
            yield dg.AssetCheckResult(
                check_name="schema",
                asset_key=key.asset_key,
                passed=not faults,
                description="; ".join(faults) or f"{len(SCHEMAS[table])} columns as declared",
                metadata={"n_faults": len(faults)},
            )

    return check


ALL_CHECKS: Final = [
    judge_coverage,
    enough_groups,
    annotations_are_fresh,
    annotated_texts_are_current,
    kappa_reaches_target,
    kappa_against_champion,
    sound_decision,
    no_drift,
    patterns_are_stable,
    _build_schema_checks("input_schemas", INPUT_TABLES, by_version=False),
    _build_schema_checks("calibration_schemas", VERSION_TABLES, by_version=True),
    _build_schema_checks("history_schema", ("calibration_history",), by_version=False),
]
