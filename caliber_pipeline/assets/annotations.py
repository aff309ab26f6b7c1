"""Stage `annotations`: people's verdicts, from the records file, a file of their own and the annotation page."""

from collections.abc import Iterator
from datetime import UTC, datetime

import dagster as dg

from caliber_pipeline.assets.definition import describe, one_line_failures
from caliber_pipeline.assets.input_metadata import show_annotations, show_rejected
from caliber_pipeline.core.labels import resolve_labels
from caliber_pipeline.resources import Project
from caliber_pipeline.stores.ingest import load_annotatable, load_annotations, refuse_losing_all, stamp_annotations


@dg.multi_asset(
    name="annotations",
    deps=["records"],
    outs={
        "annotations": dg.AssetOut(
            description="One row per judgment of a person: accept (1) or reject (0), and a note.",
            **describe("annotations", "input", {"pandas"}),
        ),
        "rejected_annotations": dg.AssetOut(
            description="Every row of the annotations file that is no annotation, with its line and the reason.",
            **describe("rejected_annotations", "input", {"pandas"}),
        ),
    },
)
def annotations(project: Project) -> Iterator[dg.Output[object]]:
    """Read the annotations."""
    with one_line_failures():
        loaded = load_annotations(project.settings, load_annotatable(project.settings, project.tables))
        refuse_losing_all(project.settings, loaded, project.tables)
    table, rejected = loaded.table, loaded.rejected
    stamp_annotations(loaded, project.settings, datetime.now(UTC))
    metadata = show_annotations(table, resolve_labels(table), project.tables.count("records"))
    metadata |= show_rejected(rejected, len(rejected))
    yield dg.Output(table, output_name="annotations", metadata=metadata)
    yield dg.Output(rejected, output_name="rejected_annotations", metadata=show_rejected(rejected, len(rejected)))
