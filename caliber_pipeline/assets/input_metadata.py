"""What the UI shows of the records and the annotations: how good they are, and how far labelling has come."""

import re
from typing import Any, Final

import dagster as dg
import pandas as pd

from caliber_pipeline.assets.metadata import Metadata, share_of, show_numbers, show_table

MAX_LOOKED_AT: Final = 100_000  # rows; of more the first stand for all
LOOKED_AT: Final = ("query", "output", "reference", "llm_score")
MAX_REASONS: Final = 10
MAX_ANNOTATORS: Final = 20
_VALUES: Final = re.compile(r"'[^']*'|\"[^\"]*\"|\d+")


def show_records(looked_at: pd.DataFrame) -> Metadata:
    """What the records bring along, and how long their texts are.

    Args:
        looked_at: The first of them: all, unless there are very many.
    """
    n = len(looked_at)
    hashes = pd.util.hash_pandas_object(looked_at[["query", "output"]], index=False)
    return {
        **show_numbers(
            {
                "with_reference_share": share_of(int(looked_at["reference"].notna().sum()), n),
                "with_recorded_verdict_share": share_of(int(looked_at["llm_score"].notna().sum()), n),
                "repeated_text_share": share_of(int(hashes.duplicated().sum()), n),
            }
        ),
        "lengths_in_characters": show_table(
            [
                {
                    "text": name,
                    "median": int(lengths.median()),
                    "95 %": int(lengths.quantile(0.95)),
                    "longest": int(lengths.max()),
                }
                for name in ("query", "output", "reference")
                if len(lengths := looked_at[name].dropna().str.len())
            ]
        ),
    }


def show_rejected(rejected: pd.DataFrame, n_rejected: int) -> Metadata:
    """How many rows were rejected, and why; the first of them are looked at."""
    return {"n_rejected": n_rejected, "rejections": show_rejections(rejected)}


def show_rejections(rejected: pd.DataFrame) -> dg.MetadataValue[Any]:
    """The reasons, the most frequent first, each with one row for it."""
    kinds = rejected["reason"].map(lambda reason: _VALUES.sub("…", reason))
    counts = kinds.value_counts().head(MAX_REASONS)
    rows = []
    for kind, n in counts.items():
        first = rejected[kinds == kind].iloc[0]
        line = None if pd.isna(first["line"]) else int(first["line"])
        rows.append({"rows": int(n), "reason": str(first["reason"]), "first in line": line})
    return show_table(rows)


def show_annotations(annotations: pd.DataFrame, labels: pd.DataFrame, n_records: int) -> Metadata:
    """How many records have a label, how sure the labels are, and what each annotator did."""
    n_labelled = int(labels["human_score"].notna().sum())
    by_people = annotations[~annotations["is_gold"].astype(bool)]
    verdicts = by_people.groupby("record_id")["score"]
    is_disputed = verdicts.nunique() > 1
    n_twice = int((verdicts.size() > 1).sum())
    return {
        **show_numbers(
            {
                "n_annotations": len(annotations),
                "n_annotators": int(by_people["annotator"].nunique()),
                "n_labelled_records": n_labelled,
                "labelled_share": share_of(n_labelled, n_records),
                "n_tied_records": int(labels["human_score"].isna().sum()),
                "n_unannotated_records": n_records - len(labels),
                "n_noted_records": int(labels["human_notes"].notna().sum()),
                "n_records_of_several_annotators": n_twice,
                "disputed_share": share_of(int(is_disputed.sum()), n_twice),
                "accept_rate": float(labels["human_score"].mean()) if n_labelled else None,
            }
        ),
        "annotators": show_table(_by_annotator(annotations)),
    }


def _by_annotator(annotations: pd.DataFrame) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    counts = annotations["annotator"].value_counts()
    for annotator, n in counts.head(MAX_ANNOTATORS).items():
        own = annotations[annotations["annotator"] == annotator]
        latest = own["created_at"].max()
        rows.append(
            {
                "annotator": str(annotator),
                "annotations": int(n),
                "accept rate": float(own["score"].mean()),
                "with a note": float(own["notes"].notna().mean()),
                "latest": None if pd.isna(latest) else f"{latest:%Y-%m-%d}",
            }
        )
    return rows
