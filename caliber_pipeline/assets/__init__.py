"""The Dagster assets: one module per stage, each a thin layer over the core module of the same name."""

from collections.abc import Sequence
from typing import Final

import dagster as dg

from caliber_pipeline.assets.alignment_metrics import alignment_metrics
from caliber_pipeline.assets.all_scores import all_scores
from caliber_pipeline.assets.annotations import annotations
from caliber_pipeline.assets.annotator_agreement import annotator_agreement
from caliber_pipeline.assets.calibrated_judge import calibrated_judge
from caliber_pipeline.assets.calibration_history import calibration_history
from caliber_pipeline.assets.criteria import criteria
from caliber_pipeline.assets.drift import drift
from caliber_pipeline.assets.judge_scores import judge_scores
from caliber_pipeline.assets.learnings import learnings
from caliber_pipeline.assets.misalignments import misalignments
from caliber_pipeline.assets.optimized_criteria import optimized_criteria
from caliber_pipeline.assets.patterns import patterns
from caliber_pipeline.assets.records import records
from caliber_pipeline.assets.relabel_queue import relabel_queue
from caliber_pipeline.assets.report import report

ALL_ASSETS: Final[Sequence[dg.AssetsDefinition | dg.AssetSpec]] = [
    criteria,
    records,
    annotations,
    annotator_agreement,
    judge_scores,
    all_scores,
    alignment_metrics,
    drift,
    patterns,
    misalignments,
    relabel_queue,
    learnings,
    optimized_criteria,
    calibration_history,
    calibrated_judge,
    report,
]

__all__ = ["ALL_ASSETS"]
