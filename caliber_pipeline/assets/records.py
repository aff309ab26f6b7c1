"""Stage `records`: the uploaded queries and answers, and the rows that could not be read."""

from collections.abc import Hashable, Iterator

import dagster as dg

from caliber_pipeline.assets.definition import describe, one_line_failures
from caliber_pipeline.core.records import fingerprint_records
from caliber_pipeline.resources import Project
from caliber_pipeline.stores.ingest import load_records


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
    """Read the records file."""
    with one_line_failures():
        loaded = load_records(project.settings)
    table, rejected = loaded.table, loaded.rejected
    attrs: dict[Hashable | None, str] = {
        "records_fingerprint": fingerprint_records(table),
        "records_input_fingerprint": loaded.input_fingerprint,
    }
    table.attrs = rejected.attrs = attrs
    splits = table["split"].value_counts()
    yield dg.Output(
        table,
        output_name="records",
        metadata={
            "n_records": len(table),
            "n_rejected": len(rejected),
            "n_groups": int(table["group"].nunique()),
            **{f"n_{split}": int(splits.get(split, 0)) for split in ("train", "dev", "test")},
        },
    )
    yield dg.Output(rejected, output_name="rejected_records", metadata={"n_rejected": len(rejected)})
