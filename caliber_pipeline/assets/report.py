"""`report`: the champion in one HTML file, to forward."""

from datetime import UTC, datetime

import dagster as dg

from caliber_pipeline.assets.definition import OWNERS, WHEN_DEPS_ARE_DONE, one_line_failures
from caliber_pipeline.core.report import find_verdict
from caliber_pipeline.renderers.report import load_report_source, render_report
from caliber_pipeline.resources import Project


@dg.asset(
    deps=["calibration_history"],
    group_name="optimization",
    kinds={"html"},
    owners=OWNERS,
    code_version="1",
    automation_condition=WHEN_DEPS_ARE_DONE,
    description="The champion in one HTML file that needs no network; `caliber report` writes one of any version.",
)
def report(project: Project) -> dg.MaterializeResult[None]:
    """Write the report on the champion."""
    with one_line_failures():
        source = load_report_source(
            project.tables,
            project.criteria_files,
            kappa_target=project.settings.kappa_target,
            max_rounds=project.settings.max_iterations,
        )
    html = render_report(source, made_at=datetime.now(UTC))
    path = project.tables.folder / "report.html"
    path.write_text(html, encoding="utf-8")
    return dg.MaterializeResult(
        metadata={
            "file": dg.MetadataValue.path(str(path)),
            "criteria_version": source.version,
            "verdict": find_verdict(source)["sentence"],
            "size_kb": round(len(html.encode()) / 1024),
        }
    )
