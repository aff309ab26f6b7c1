"""`learnings`: advice distilled from the patterns, what the judge misses most first."""

import dagster as dg
import pandas as pd

from caliber_pipeline.assets.definition import criteria_versions, stage, with_attrs
from caliber_pipeline.assets.ground_truth import GroundTruth
from caliber_pipeline.assets.pattern_metadata import show_enrichment
from caliber_pipeline.core.enrichment import measure_enrichment
from caliber_pipeline.core.labels import select_notes
from caliber_pipeline.core.learnings import distil_patterns
from caliber_pipeline.resources import Project


@stage(
    partitions_def=criteria_versions,
    description="One learning per pattern, from its train notes and how often the judge misses its train records.",
    group="discovery",
    kinds={"pandas"},
)
def learnings(project: Project, judge_scores: pd.DataFrame, patterns: pd.DataFrame) -> dg.Output[pd.DataFrame]:
    """Distil the learnings of one criteria version."""
    truth = GroundTruth.load(project, judge_scores)
    notes, scored = select_notes(truth.labels, truth.records), truth.join(judge_scores)
    enrichment = measure_enrichment(scored[scored["split"] == "train"], patterns)
    found = distil_patterns(patterns, notes, enrichment)
    return dg.Output(
        with_attrs(found, judge_scores),
        metadata={
            "n_learnings": len(found),
            "n_enriched": int(enrichment["is_enriched"].sum()),
            "enrichment_on_train": show_enrichment(enrichment),
        },
    )
