"""Verdicts joined with labels and splits, for the stages after `judge_scores`.

Records and annotations reach these stages through `judge_scores`, which was made from them: declaring them as inputs of
every stage would draw edges over the chain of the lineage page, and load ten million records where a few thousand of
them have annotations.
"""

import dagster as dg
import pandas as pd

from caliber_pipeline.core.annotations import resolve_labels
from caliber_pipeline.core.judge_scores import count_labelled_groups, join_labels
from caliber_pipeline.resources import Project
from caliber_pipeline.stores.ingest import load_annotated


def load_records(project: Project, made_from: pd.DataFrame) -> pd.DataFrame:
    """The stored records that have annotations; they must be of those that a table was made from."""
    if (project.tables.load_attrs("records") or {}).get("records_fingerprint") != made_from.attrs[
        "records_fingerprint"
    ]:
        raise _changed("records")
    return load_annotated(project.tables)


def load_annotations(project: Project, made_from: pd.DataFrame) -> pd.DataFrame:
    """The stored annotations, which must be those that a table was made from."""
    table = project.tables.load("annotations")
    if table is None or table.attrs["annotations_fingerprint"] != made_from.attrs["annotations_fingerprint"]:
        raise _changed("annotations")
    return table


def load_scored(project: Project, judge_scores: pd.DataFrame) -> pd.DataFrame:
    """Verdicts with labels, as `join_labels` gives them."""
    labels = resolve_labels(load_annotations(project, judge_scores))
    return join_labels(judge_scores, labels, load_records(project, judge_scores))


def count_groups(project: Project, judge_scores: pd.DataFrame) -> int:
    """Groups among all labelled records, those of a sealed test among them."""
    labels = resolve_labels(load_annotations(project, judge_scores))
    return count_labelled_groups(load_records(project, judge_scores), labels)


def _changed(name: str) -> dg.Failure:
    return dg.Failure(
        f"the {name} changed after this version was judged; run the job 'calibration' for it again",
        allow_retries=False,
    )
