"""Labels: what the annotators of a record say together, and the notes of those who agree with it."""

import pandas as pd

from caliber_pipeline.core.annotations import latest_verdicts
from caliber_pipeline.core.annotators import build_ratings, fit_dawid_skene


def resolve_labels(annotations: pd.DataFrame) -> pd.DataFrame:
    """One label per annotated record: the gold label, else the consensus of the annotators' latest verdicts.

    The consensus is the majority; where `annotations.attrs["consensus"]` is "dawid_skene", the likelier verdict by the
    annotators' estimated skills.

    Returns:
        One row per annotated record, sorted by record_id: record_id, human_score (null where the annotators tie),
        human_notes (the notes of those who agree with the label), n_annotators, n_accepts, severity (mean, null where
        not given), inclusion_probability (the smallest, null where not given).
    """
    latest = latest_verdicts(annotations)
    has_gold = latest.groupby("record_id")["is_gold"].transform("max")
    counted = latest[latest["is_gold"] | ~has_gold]
    votes = counted.groupby("record_id", sort=True)["score"].agg(["sum", "count"])
    people = latest[~latest["is_gold"]].groupby("record_id")["score"].agg(["sum", "count"])
    label = pd.Series(pd.NA, index=votes.index, dtype="int8[pyarrow]")
    label[votes["sum"] * 2 > votes["count"]] = 1
    label[votes["sum"] * 2 < votes["count"]] = 0
    if annotations.attrs.get("consensus") == "dawid_skene":
        label = _weigh_by_skill(annotations, label, has_gold.groupby(latest["record_id"]).max())
    labels = pd.DataFrame({"human_score": label})
    labels["human_notes"] = _agreeing_notes(latest, label)
    labels["n_annotators"] = people["count"].reindex(labels.index).fillna(0).astype("int64[pyarrow]")
    labels["n_accepts"] = people["sum"].reindex(labels.index).fillna(0).astype("int64[pyarrow]")
    by_record = latest.groupby("record_id")
    labels["severity"] = by_record["severity"].mean().astype("double[pyarrow]")
    labels["inclusion_probability"] = by_record["inclusion_probability"].min().astype("double[pyarrow]")
    return labels.reset_index().astype({"record_id": "string[pyarrow]"})


def select_notes(labels: pd.DataFrame, records: pd.DataFrame) -> pd.DataFrame:
    """The notes to find patterns in: record_id, text, polarity (reject or accept, by the label) and split."""
    noted = labels[labels["human_score"].notna() & labels["human_notes"].notna()]
    notes = pd.DataFrame(
        {
            "record_id": noted["record_id"],
            "text": noted["human_notes"],
            "polarity": noted["human_score"].map({0: "reject", 1: "accept"}).astype("string[pyarrow]"),
        }
    )
    return notes.merge(records[["record_id", "split"]], on="record_id", how="left")


def _weigh_by_skill(annotations: pd.DataFrame, majority: pd.Series, has_gold: pd.Series) -> pd.Series:
    """The labels with those that are not gold by Dawid and Skene's estimate."""
    ratings = build_ratings(annotations)
    accept = pd.Series(fit_dawid_skene(ratings).accept_probability, index=ratings.record_ids)
    likelier = accept.map(lambda p: pd.NA if p == 0.5 else int(p > 0.5)).reindex(majority.index)
    is_gold = has_gold.reindex(majority.index).to_numpy(dtype=bool)
    return likelier.where(~is_gold, majority).astype("int8[pyarrow]")


def _agreeing_notes(latest: pd.DataFrame, label: pd.Series) -> pd.Series:
    noted = latest[latest["notes"].notna()].sort_values(["record_id", "annotator"])
    agrees = noted["score"] == noted["record_id"].map(label)
    agreeing = noted[agrees.fillna(value=False).astype(bool)]
    return agreeing.groupby("record_id")["notes"].agg(" / ".join).reindex(label.index).astype("string[pyarrow]")
