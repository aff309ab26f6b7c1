"""`relabel_queue`: what people should judge again, as a table and as a file to annotate."""

import dagster as dg
import pandas as pd

from caliber_pipeline.assets.definition import criteria_versions, stage, with_attrs
from caliber_pipeline.assets.ground_truth import load_records
from caliber_pipeline.core.abstention import learn_abstention, list_abstained
from caliber_pipeline.core.attribution import build_relabel_queue
from caliber_pipeline.core.judge_scores import join_labels
from caliber_pipeline.core.labels import resolve_labels
from caliber_pipeline.resources import Project
from caliber_pipeline.stores.forms import write_form


@stage(
    partitions_def=criteria_versions,
    description="Records whose annotators tie, labels in doubt, and what the judge abstains on; also as CSV, to be "
    "filled in as annotations.",
    group="discovery",
    kinds={"csv"},
)
def relabel_queue(
    context: dg.AssetExecutionContext, project: Project, annotations: pd.DataFrame, misalignments: pd.DataFrame
) -> dg.Output[pd.DataFrame]:
    """Collect what people should judge again."""
    records, labels = load_records(project, misalignments), resolve_labels(annotations)
    scored = join_labels(project.tables.require("judge_scores", context.partition_key), labels, records)
    settings = project.settings
    abstention = learn_abstention(scored, alpha=settings.abstention_alpha, delta=settings.abstention_delta)
    abstained = list_abstained(scored, abstention)
    queue = build_relabel_queue(labels, records, misalignments, abstained)
    path = project.tables.path("relabel_queue", context.partition_key).with_suffix(".csv")
    write_form(path, queue[["record_id", "query", "output", "reference"]])
    return dg.Output(
        with_attrs(queue, misalignments),
        metadata={
            "n_records": len(queue),
            "n_abstained": len(abstained),
            "judge_may_decide": abstention.in_words,
            "file_to_annotate": dg.MetadataValue.path(str(path)),
        },
    )
