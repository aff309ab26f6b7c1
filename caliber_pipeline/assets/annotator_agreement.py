"""Stage `annotator_agreement`: how far people agree with each other."""

import dagster as dg
import pandas as pd

from caliber_pipeline.assets.definition import stage, with_attrs
from caliber_pipeline.assets.input_metadata import show_annotators
from caliber_pipeline.core.annotator_agreement import describe_annotators
from caliber_pipeline.resources import Project
from caliber_pipeline.stores.ingest import load_annotated


@stage(
    description="Pairwise kappa, Krippendorff's alpha, biases, skills and test-retest of the annotators.",
    group="input",
    kinds={"pandas"},
)
def annotator_agreement(project: Project, annotations: pd.DataFrame) -> dg.Output[pd.DataFrame]:
    """Describe the annotators."""
    groups = load_annotated(project.tables, ["record_id", "group"])
    table = describe_annotators(annotations.merge(groups, on="record_id", how="left"))
    return dg.Output(with_attrs(table, annotations), metadata=show_annotators(table))
