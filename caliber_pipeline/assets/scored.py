"""Verdicts joined with labels and splits, for the stages after `judge_scores`.

Records and annotations reach these stages through `judge_scores`, which was made from them: declaring them as inputs of
every stage would draw edges over the chain of the lineage page, and load ten million records to learn their splits.
"""

import dagster as dg
import pandas as pd

from caliber_pipeline.core.annotations import resolve_labels
from caliber_pipeline.core.judge_scores import join_labels
from caliber_pipeline.resources import Project


def load_records(project: Project, made_from: pd.DataFrame) -> pd.DataFrame:
    """The stored records, which must be those that a table was made from."""
    return _load(project, "records", "records_fingerprint", made_from)


def load_annotations(project: Project, made_from: pd.DataFrame) -> pd.DataFrame:
    """The stored annotations, which must be those that a table was made from."""
    return _load(project, "annotations", "annotations_fingerprint", made_from)


def load_scored(project: Project, judge_scores: pd.DataFrame) -> pd.DataFrame:
    """Verdicts with labels, as `join_labels` gives them."""
    labels = resolve_labels(load_annotations(project, judge_scores))
    return join_labels(judge_scores, labels, load_records(project, judge_scores))


def _load(project: Project, name: str, key: str, made_from: pd.DataFrame) -> pd.DataFrame:
    table = project.tables.load(name)
    if table is None or table.attrs[key] != made_from.attrs[key]:
        raise dg.Failure(
            f"the {name} changed after this version was judged; run the job 'calibration' for it again",
            allow_retries=False,
        )
    return table
