"""`calibrated_judge`: the champion as one file, ready for use, with its certificate."""

from datetime import UTC, datetime

import dagster as dg

from caliber_pipeline.assets.definition import OWNERS, WHEN_DEPS_ARE_DONE, one_line_failures
from caliber_pipeline.assets.exporting import export_judge
from caliber_pipeline.core.calibrated_judge import render_card, render_document
from caliber_pipeline.core.errors import MissingStepError
from caliber_pipeline.core.optimized_criteria import current_champion
from caliber_pipeline.io_managers import column_lineage
from caliber_pipeline.resources import Project


@dg.asset(
    deps=["calibration_history"],
    group_name="optimization",
    kinds={"json"},
    owners=OWNERS,
    code_version="1",
    automation_condition=WHEN_DEPS_ARE_DONE,
    description="The champion in one JSON file, with thresholds and certificate; `caliber export` writes it elsewhere.",
)
def calibrated_judge(project: Project) -> dg.MaterializeResult[None]:
    """Write the champion's file and its model card."""
    with one_line_failures():
        champion = current_champion(project.tables.load_versions("optimized_criteria"))
        if champion is None:
            raise MissingStepError("nothing was evaluated yet; run the job 'calibration' first")
        document = export_judge(project, champion, datetime.now(UTC))
    card = render_card(document)
    folder = project.tables.folder
    (folder / "calibrated_judge.json").write_text(render_document(document), encoding="utf-8")
    (folder / "calibrated_judge.md").write_text(card, encoding="utf-8")
    return dg.MaterializeResult(
        metadata={
            "file": dg.MetadataValue.path(str(folder / "calibrated_judge.json")),
            "criteria_version": champion,
            "model_card": dg.MetadataValue.md(card),
            **column_lineage("calibrated_judge"),
        }
    )
