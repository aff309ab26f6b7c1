"""Stage `misalignments`: every record on which the judge and people differ."""

import pandas as pd

from caliber_pipeline.core.schemas import MISALIGNMENTS, conform_frame


def find_misalignments(scored: pd.DataFrame, records: pd.DataFrame, patterns: pd.DataFrame) -> pd.DataFrame:
    """List the false positives and false negatives, the surest verdicts first.

    Args:
        scored: As `join_labels` gives it; records without a verdict and examples are no misalignments.
        records: For the texts.
        patterns: For the pattern that each note belongs to.

    Returns:
        A frame of the `misalignments` schema.
    """
    is_wrong = scored["llm_score"].notna() & ~scored["is_example"] & (scored["llm_score"] != scored["human_score"])
    wrong = scored[is_wrong.fillna(value=False).astype(bool)]
    wrong = wrong.merge(records[["record_id", "query", "output", "reference"]], on="record_id")
    wrong = wrong.merge(pattern_members(patterns), on="record_id", how="left")
    wrong["kind"] = wrong["llm_score"].map({1: "false_positive", 0: "false_negative"}).astype("string[pyarrow]")
    wrong = wrong.sort_values(["confidence", "record_id"], ascending=[False, True], ignore_index=True)
    return conform_frame(wrong[MISALIGNMENTS.names], "misalignments")


def pattern_members(patterns: pd.DataFrame) -> pd.DataFrame:
    """record_id, pattern_id and pattern_name, one row per clustered note."""
    clustered = patterns.loc[~patterns["is_unclustered"].astype(bool), ["record_ids", "pattern_id", "name"]]
    members = clustered.explode("record_ids").rename(columns={"record_ids": "record_id", "name": "pattern_name"})
    return members.astype("string[pyarrow]")
