"""Stage `patterns`: the themes in people's notes."""

import dagster as dg
import pandas as pd

from caliber_pipeline.assets.definition import criteria_versions, log_progress, one_line_failures, stage, with_attrs
from caliber_pipeline.assets.ground_truth import load_records
from caliber_pipeline.assets.pattern_metadata import show_patterns
from caliber_pipeline.core.labels import resolve_labels, select_notes
from caliber_pipeline.core.patterns import FIT_VERSION, discover_patterns
from caliber_pipeline.encoders.notes import encode_notes
from caliber_pipeline.resources import Project


@stage(
    partitions_def=criteria_versions,
    description="Themes in the notes, fitted on train, the others assigned; versions on the same notes share them.",
    group="discovery",
    kinds={"scikitlearn", "huggingface"},
)
def patterns(
    context: dg.AssetExecutionContext,
    project: Project,
    annotations: pd.DataFrame,
    alignment_metrics: pd.DataFrame,
) -> dg.Output[pd.DataFrame]:
    """Find the patterns in the notes."""
    notes = select_notes(resolve_labels(annotations), load_records(project, alignment_metrics))
    with one_line_failures():
        encoder = project.build_encoder(log_progress(context, "texts encoded"))
        vectors, phrases = encode_notes(encoder, list(notes["text"]))
        found = project.fits.load_or_fit(
            notes, f"{encoder.name} {FIT_VERSION}", lambda: discover_patterns(notes, vectors, phrases)
        )
        metadata = show_patterns(notes, vectors, found)
    return dg.Output(with_attrs(found, alignment_metrics), metadata=metadata)
