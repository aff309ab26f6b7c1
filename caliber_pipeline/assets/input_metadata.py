"""What the UI shows of the records and the annotations: how good they are, and how far labelling has come."""

import re
from typing import Any, Final

import dagster as dg
import pandas as pd

from caliber_pipeline.assets.metadata import Metadata, share_of, show_numbers, show_table
from caliber_pipeline.core.annotator_agreement import EVERYBODY
from caliber_pipeline.core.conforming import plain_cell

MAX_LOOKED_AT: Final = 100_000  # rows; of more the first stand for all
LOOKED_AT: Final = ("query", "output", "reference", "llm_score")
MAX_REASONS: Final = 10
MAX_ANNOTATORS: Final = 20
ANNOTATOR_FIGURES: Final = {
    "accept_rate": "accepts",
    "bias": "above the others by",
    "dawid_skene_recall": "finds the good",
    "dawid_skene_specificity": "finds the bad",
}
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


def show_annotators(agreement: pd.DataFrame) -> Metadata:
    """How far everybody agrees, how any two do, and how strict and how able each annotator is."""
    alpha = agreement.loc[agreement["annotator"] == EVERYBODY, "value"]
    of_pairs = agreement[agreement["other"].notna() & (agreement["metric"] == "cohen_kappa")]
    own = agreement[agreement["other"].isna() & (agreement["annotator"] != EVERYBODY)]
    pairs = [
        {"annotator": row["annotator"], "other": row["other"], "kappa": plain_cell(row["value"]), "records": row["n"]}
        for row in of_pairs.sort_values("n", ascending=False, kind="stable").head(MAX_ANNOTATORS).to_dict("records")
    ]
    people = []
    for annotator, figures in own.groupby("annotator", sort=True):
        values = figures.set_index("metric")["value"]
        row = {label: plain_cell(values.get(name)) for name, label in ANNOTATOR_FIGURES.items()}
        people.append({"annotator": str(annotator), **row})
    return {
        "n_annotators": len(people),
        **show_numbers({"krippendorff_alpha": alpha.iloc[0] if len(alpha) else None}),
        "pairs": show_table(pairs),
        "annotators": show_table(people[:MAX_ANNOTATORS]),
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
