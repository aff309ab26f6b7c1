"""Stage `calibration_history`: every evaluation of every version, over time."""

from collections.abc import Mapping

import dagster as dg
import pandas as pd

from caliber_pipeline.assets.definition import WHEN_DEPS_ARE_DONE, stage
from caliber_pipeline.assets.evaluation_metadata import show_history
from caliber_pipeline.assets.metadata import show_numbers
from caliber_pipeline.core.calibration_history import append_evaluations, latest_evaluations
from caliber_pipeline.resources import Project

_ALL_VERSIONS = dg.AssetIn(partition_mapping=dg.AllPartitionMapping(), metadata={"allow_missing_partitions": True})


@stage(
    ins={"alignment_metrics": _ALL_VERSIONS, "optimized_criteria": _ALL_VERSIONS},
    description="One row per evaluation of a criteria version; recalibrations add rows and change none.",
    automation_condition=WHEN_DEPS_ARE_DONE,
    group="optimization",
    kinds={"pandas"},
)
def calibration_history(
    project: Project,
    alignment_metrics: Mapping[str, pd.DataFrame],
    optimized_criteria: Mapping[str, pd.DataFrame],
) -> dg.Output[pd.DataFrame]:
    """Add the evaluations that the history lacks."""
    stored = project.tables.load("calibration_history")
    history = append_evaluations(stored, alignment_metrics, optimized_criteria)
    latest = latest_evaluations(history)
    kappas = latest.dropna(subset=["dev_cohen_kappa"])
    return dg.Output(
        history,
        metadata={
            "n_evaluations": len(history),
            "n_versions": len(latest),
            "champion": str(history["champion"].iloc[-1]) if len(history) else "none",
            **show_history(history),
            **show_numbers(
                {
                    f"dev_cohen_kappa/{version}": kappa
                    for version, kappa in zip(kappas["criteria_version"], kappas["dev_cohen_kappa"], strict=True)
                }
            ),
        },
    )
