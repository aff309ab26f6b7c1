"""The ground truth as stored, for the stages after `judge_scores`.

Records and annotations reach these stages through `judge_scores`, which was made from them: declaring them as inputs of
every stage would draw edges over the chain of the lineage page, and load ten million records where a few thousand of
them have annotations.
"""

from dataclasses import dataclass

import dagster as dg
import pandas as pd

from caliber_pipeline.core.judge_scores import count_labelled_groups, join_labels
from caliber_pipeline.core.labels import resolve_labels
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


@dataclass(frozen=True)
class GroundTruth:
    """What people say, read once: the records that have annotations, these, and the labels that they come to.

    Attributes:
        records: The stored records that have annotations.
        annotations: The stored annotations.
        labels: As `resolve_labels` gives them.
    """

    records: pd.DataFrame
    annotations: pd.DataFrame
    labels: pd.DataFrame

    @classmethod
    def load(cls, project: Project, made_from: pd.DataFrame) -> "GroundTruth":
        """The stored ground truth, which must be the one that a table was made from."""
        annotations = load_annotations(project, made_from)
        return cls(load_records(project, made_from), annotations, resolve_labels(annotations))

    @property
    def n_groups(self) -> int:
        """Groups among all labelled records, those of a sealed test among them."""
        return count_labelled_groups(self.records, self.labels)

    def join(self, judge_scores: pd.DataFrame) -> pd.DataFrame:
        """Verdicts with labels, as `join_labels` gives them; they must have been given on this ground truth."""
        for name, table in (("records", self.records), ("annotations", self.annotations)):
            if table.attrs[f"{name}_fingerprint"] != judge_scores.attrs[f"{name}_fingerprint"]:
                raise _changed(name)
        return join_labels(judge_scores, self.labels, self.records)


def _changed(name: str) -> dg.Failure:
    return dg.Failure(
        f"the {name} changed after this version was judged; run the job 'calibration' for it again",
        allow_retries=False,
    )
