"""`relabel_queue`: what people should judge again, as a table and as a file to annotate."""

import dagster as dg
import pandas as pd

from caliber_pipeline.assets.definition import criteria_versions, stage, with_attrs
from caliber_pipeline.assets.scored import load_records
from caliber_pipeline.core.annotations import resolve_labels
from caliber_pipeline.core.attribution import build_relabel_queue
from caliber_pipeline.resources import Project


@stage(
    partitions_def=criteria_versions,
    description="Records whose annotators tie, and labels in doubt; also as CSV, to be filled in as annotations.",
    group="discovery",
    kinds={"csv"},
)
def relabel_queue(
    context: dg.AssetExecutionContext, project: Project, annotations: pd.DataFrame, misalignments: pd.DataFrame
) -> dg.Output[pd.DataFrame]:
    """Collect what people should judge again."""
    records = load_records(project, misalignments)
    queue = build_relabel_queue(resolve_labels(annotations), records, misalignments)
    path = project.tables.path("relabel_queue", context.partition_key).with_suffix(".csv")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        form = queue[["record_id", "query", "output", "reference"]]
        form.assign(annotator="", score="", notes="").to_csv(file, index=False)
    return dg.Output(
        with_attrs(queue, misalignments),
        metadata={"n_records": len(queue), "file_to_annotate": dg.MetadataValue.path(str(path))},
    )
