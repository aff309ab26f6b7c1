"""Builds the exported judge of a version from what is stored."""

from datetime import datetime

import pandas as pd

from caliber_pipeline.assets.ground_truth import GroundTruth
from caliber_pipeline.core.abstention import learn_abstention
from caliber_pipeline.core.alignment_metrics import metric_row
from caliber_pipeline.core.calibrated_judge import ExampleTexts, JudgeDocument, build_document
from caliber_pipeline.core.conforming import plain_cell
from caliber_pipeline.core.judge_scores import resolve_examples
from caliber_pipeline.resources import Project


def export_judge(
    project: Project, version: str, issued_at: datetime, *, example_texts: ExampleTexts = "full"
) -> JudgeDocument:
    """The exported judge of an evaluated version.

    Raises:
        MissingStepError: the version is not evaluated.
    """
    tables = project.tables
    verdicts = tables.require("judge_scores", version)
    criteria = project.criteria_files.load(version)
    truth = GroundTruth.load(project, verdicts)
    scored, settings = truth.join(verdicts), project.settings
    return build_document(
        version,
        criteria,
        resolve_examples(criteria, truth.records, truth.labels),
        scored,
        verdicts,
        tables.require("optimized_criteria", version).iloc[0],
        _ceiling(tables.require("alignment_metrics", version)),
        issued_at,
        example_texts=example_texts,
        abstention=learn_abstention(scored, alpha=settings.abstention_alpha, delta=settings.abstention_delta),
    )


def _ceiling(metrics: pd.DataFrame) -> dict[str, float | None]:
    """How far people agree with each other, over all records that two of them judged."""
    row = metric_row(metrics, "all", "human_human_kappa")
    figures = {name: plain_cell(row[name]) for name in ("value", "ci_low", "ci_high")}
    return {**figures, "n": int(row["n"])}
