"""Stage `judge_scores`: the judge's verdict on every labelled record."""

from datetime import UTC, datetime

import dagster as dg
import pandas as pd

from caliber_pipeline.assets.definition import criteria_versions, log_progress, one_line_failures, stage, with_attrs
from caliber_pipeline.core.annotations import resolve_labels
from caliber_pipeline.core.criteria import Criteria
from caliber_pipeline.core.errors import CriteriaError
from caliber_pipeline.core.judge_scores import coverage, resolve_examples, select_judged
from caliber_pipeline.core.loop import describe_change
from caliber_pipeline.judges.protocol import JudgeTask
from caliber_pipeline.judges.runner import run_judge
from caliber_pipeline.resources import Project


@stage(
    partitions_def=criteria_versions,
    deps=["criteria"],
    description="One row per labelled record: the judge's verdict under a criteria version, or why there is none.",
    group="evaluation",
    kinds={"openai"},
)
def judge_scores(
    context: dg.AssetExecutionContext, project: Project, records: pd.DataFrame, annotations: pd.DataFrame
) -> dg.Output[pd.DataFrame]:
    """Judge the labelled records under one criteria version."""
    version = context.partition_key
    with one_line_failures():
        criteria = load_unchanged(project, version)
        labels = resolve_labels(annotations)
        examples = resolve_examples(criteria, records, labels)
        task = JudgeTask(select_judged(records, labels, with_ties=True), criteria, examples)
        judge = project.build_judge(log_progress(context, "texts encoded"))
        with project.open_verdict_cache() as cache:
            verdicts = run_judge(judge, task, cache=cache, on_progress=log_progress(context, "records judged"))
    evaluated_at = datetime.now(UTC).isoformat()
    n_invented = int(verdicts.attrs.get("n_invented", 0))
    with_attrs(verdicts, records, annotations, criteria_fingerprint=criteria.fingerprint, evaluated_at=evaluated_at)
    statuses = verdicts["status"].value_counts()
    return dg.Output(
        verdicts,
        metadata={
            "n_judged": len(verdicts),
            "coverage": coverage(verdicts),
            "n_cached": int(verdicts["is_cached"].sum()),
            "n_examples": len(examples),
            "n_invented": n_invented,
            **{f"n_{status}": int(n) for status, n in statuses.items()},
        },
    )


def load_unchanged(project: Project, version: str) -> Criteria:
    """The criteria of a version.

    Raises:
        CriteriaError: the file is invalid, or changed after the version was evaluated.
    """
    criteria = project.criteria_files.load(version)
    before = (project.tables.load_attrs("judge_scores", version) or {}).get("criteria_fingerprint")
    if before is not None and before != criteria.fingerprint:
        raise CriteriaError(describe_change(version, before, criteria.fingerprint))
    return criteria
