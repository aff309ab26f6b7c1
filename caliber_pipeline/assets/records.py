"""Stage `records`: the uploaded queries and answers, and the rows that could not be read."""

from collections.abc import Iterator

import dagster as dg

from caliber_pipeline.assets.definition import describe, log_progress, one_line_failures
from caliber_pipeline.assets.input_metadata import LOOKED_AT, MAX_LOOKED_AT, show_records, show_rejected
from caliber_pipeline.resources import Project
from caliber_pipeline.stores.ingest_records import ingest_records


@dg.multi_asset(
    name="records",
    outs={
        "records": dg.AssetOut(
            description="One row per valid record of the input file, with its group and split.",
            **describe("records", "input", {"pandas"}),
        ),
        "rejected_records": dg.AssetOut(
            description="Every row of the records file that is no record, with its line and the reason.",
            **describe("rejected_records", "input", {"pandas"}),
        ),
    },
)
def records(context: dg.AssetExecutionContext, project: Project) -> Iterator[dg.Output[object]]:
    """Read the records file, a batch at a time."""
    progress = log_progress(context, "rows read")
    with one_line_failures():
        ingested = ingest_records(project.settings, project.tables, lambda n_rows: progress(n_rows, 0))
    rejected = ingested.rejected.head(MAX_LOOKED_AT, ["reason", "line"])
    metadata = {
        "n_records": ingested.records.n_rows,
        "n_groups": ingested.n_groups,
        "n_files": ingested.records.n_shards,
        **{f"n_{split}": n for split, n in ingested.n_by_split.items()},
        **show_records(ingested.records.head(MAX_LOOKED_AT, LOOKED_AT)),
        **show_rejected(rejected, ingested.rejected.n_rows),
    }
    yield dg.Output(ingested.records, output_name="records", metadata=metadata)
    metadata = show_rejected(rejected, ingested.rejected.n_rows)
    yield dg.Output(ingested.rejected, output_name="rejected_records", metadata=metadata)
