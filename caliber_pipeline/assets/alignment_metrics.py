"""Stage `alignment_metrics`: how well the judge agrees with people."""

import dagster as dg
import pandas as pd

from caliber_pipeline.assets.definition import criteria_versions, one_line_failures, stage, with_attrs
from caliber_pipeline.assets.evaluation_metadata import show_agreement
from caliber_pipeline.assets.ground_truth import load_records
from caliber_pipeline.assets.metadata import Metadata
from caliber_pipeline.core.alignment_metrics import (
    compute_alignment_metrics,
    label_verdict,
    seal_test,
)
from caliber_pipeline.core.human_ceiling import compute_people_metrics
from caliber_pipeline.core.judge_scores import is_test_judged, join_labels, place_verdicts
from caliber_pipeline.core.labels import resolve_labels
from caliber_pipeline.core.records import metadata_columns
from caliber_pipeline.resources import Project


@stage(
    partitions_def=criteria_versions,
    description="Agreement between judge and people on train, dev, test and all, with 95 % intervals.",
    group="evaluation",
    kinds={"pandas"},
)
def alignment_metrics(
    context: dg.AssetExecutionContext, project: Project, annotations: pd.DataFrame, judge_scores: pd.DataFrame
) -> dg.Output[pd.DataFrame]:
    """Measure the agreement under one criteria version."""
    records = load_records(project, judge_scores)
    scored = join_labels(judge_scores, resolve_labels(annotations), records)
    slices = list(project.settings.slice_columns)
    with one_line_failures():
        if slices:
            judged = records[records["record_id"].isin(scored["record_id"])]
            scored = scored.merge(metadata_columns(judged, slices), on="record_id")
        metrics = compute_alignment_metrics(scored, slice_columns=slices)
    people = compute_people_metrics(annotations, place_verdicts(judge_scores, records))
    metrics = pd.concat([metrics, people], ignore_index=True)
    verdict = label_verdict(metrics, "dev")
    if not is_test_judged(judge_scores.attrs):
        metrics = seal_test(metrics)
    metrics = with_attrs(metrics, judge_scores)
    return dg.Output(metrics, metadata={"labels_on_dev": verdict, **_show(project, context.partition_key, metrics)})


def _show(project: Project, version: str, metrics: pd.DataFrame) -> Metadata:
    """The figures, against those of the other versions and of earlier evaluations."""
    tables = project.tables
    decided = tables.load_versions("optimized_criteria")
    return show_agreement(
        version,
        metrics,
        tables.load_versions("alignment_metrics"),
        {name: str(row["decision"].iloc[0]) for name, row in decided.items()},
        tables.load("calibration_history"),
        project.settings.kappa_target,
    )
