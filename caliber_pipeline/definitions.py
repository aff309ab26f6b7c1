"""The Dagster code location: wiring only."""

import os

import dagster as dg

from caliber_pipeline.alerts import alert_sensor
from caliber_pipeline.asset_checks import ALL_CHECKS
from caliber_pipeline.assets import ALL_ASSETS
from caliber_pipeline.automation import (
    annotations_sensor,
    batches_sensor,
    build_recalibration_schedule,
    calibration_job,
    criteria_sensor,
    history_job,
    ingest_job,
    recalibration_job,
    scoring_job,
    test_job,
)
from caliber_pipeline.io_managers import ParquetIOManager
from caliber_pipeline.resources import Project
from caliber_pipeline.settings import Settings


def build_definitions(settings: Settings, project: Project | None = None) -> dg.Definitions:
    """The definitions of a project with these settings, or of one with its own judge and encoder."""
    return dg.Definitions(
        assets=ALL_ASSETS,
        asset_checks=ALL_CHECKS,
        jobs=[ingest_job, calibration_job, test_job, recalibration_job, history_job, scoring_job],
        schedules=[build_recalibration_schedule(settings.recalibration_cron)],
        sensors=[
            criteria_sensor,
            annotations_sensor,
            batches_sensor,
            alert_sensor,
            dg.AutomationConditionSensorDefinition(
                "history_sensor",
                target=dg.AssetSelection.assets("calibration_history", "report", "calibrated_judge"),
                default_status=dg.DefaultSensorStatus.RUNNING,
            ),
        ],
        resources={
            "io_manager": ParquetIOManager(output_dir=str(settings.output)),
            "project": project or Project.from_settings(settings),
        },
    )


defs = build_definitions(Settings.from_env(os.environ))
