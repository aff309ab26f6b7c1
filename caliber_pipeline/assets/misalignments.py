"""Stage `misalignments`: where judge and people differ."""

import dagster as dg
import pandas as pd

from caliber_pipeline.assets.decision_metadata import show_misalignments
from caliber_pipeline.assets.definition import criteria_versions, stage, with_attrs
from caliber_pipeline.assets.ground_truth import load_records
from caliber_pipeline.assets.pattern_metadata import show_enrichment
from caliber_pipeline.core.attribution import ask_owner
from caliber_pipeline.core.enrichment import measure_enrichment
from caliber_pipeline.core.judge_scores import join_labels
from caliber_pipeline.core.labels import resolve_labels
from caliber_pipeline.core.misalignments import find_misalignments
from caliber_pipeline.encoders.neighbours import encode_neighbours
from caliber_pipeline.renderers.markdown import render_list
from caliber_pipeline.resources import Project


@stage(
    partitions_def=criteria_versions,
    description="Every false positive and false negative, with both verdicts, the note and its pattern.",
    group="discovery",
    kinds={"pandas"},
)
def misalignments(
    project: Project, annotations: pd.DataFrame, judge_scores: pd.DataFrame, patterns: pd.DataFrame
) -> dg.Output[pd.DataFrame]:
    """List the misalignments of one criteria version."""
    records = load_records(project, judge_scores)
    scored = join_labels(judge_scores, resolve_labels(annotations), records)
    vectors = encode_neighbours(project.build_encoder(), scored, records)
    found = find_misalignments(scored, records, patterns, vectors)
    return dg.Output(
        with_attrs(found, judge_scores),
        metadata={
            **show_misalignments(found),
            "questions_for_the_owner": dg.MetadataValue.md(
                render_list([question.text for question in ask_owner(found)])
            ),
            "enrichment_on_train": show_enrichment(measure_enrichment(scored[scored["split"] == "train"], patterns)),
        },
    )
