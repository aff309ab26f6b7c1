"""Stage `misalignments`: every record on which the judge and people differ."""

import numpy as np
import numpy.typing as npt
import pandas as pd

from caliber_pipeline.core.agreement import Floats
from caliber_pipeline.core.attribution import attribute_misalignments, contradicted_by_neighbours
from caliber_pipeline.core.conforming import conform_frame
from caliber_pipeline.core.schemas import MISALIGNMENTS
from caliber_pipeline.core.splits import CALIBRATION


def find_misalignments(
    scored: pd.DataFrame, records: pd.DataFrame, patterns: pd.DataFrame, vectors: Floats | None = None
) -> pd.DataFrame:
    """List the false positives and false negatives, the surest verdicts first, each with who is at fault.

    Args:
        scored: As `join_labels` gives it; records without a verdict and examples are no misalignments.
        records: For the texts.
        patterns: For the pattern that each note belongs to.
        vectors: Shape (n, d), of unit length, one per row of `scored`: to hold lone labels against near neighbours.

    Returns:
        A frame of the `misalignments` schema.
    """
    is_wrong = scored["llm_score"].notna() & ~scored["is_example"] & (scored["llm_score"] != scored["human_score"])
    rows = np.flatnonzero(is_wrong.fillna(value=False).to_numpy(dtype=bool))
    wrong, members = scored.iloc[rows], pattern_members(patterns)
    attributed = attribute_misalignments(wrong, scored, members, _contradicted(scored, rows, vectors))
    wrong = pd.concat([wrong, attributed], axis=1)
    wrong["split"] = wrong["split"].replace(CALIBRATION, "test")
    wrong = wrong.merge(records[["record_id", "query", "output", "reference"]], on="record_id")
    wrong = wrong.merge(members, on="record_id", how="left")
    wrong["kind"] = wrong["llm_score"].map({1: "false_positive", 0: "false_negative"}).astype("string[pyarrow]")
    wrong = wrong.sort_values(["confidence", "record_id"], ascending=[False, True], ignore_index=True)
    return conform_frame(wrong[MISALIGNMENTS.names], "misalignments")


def needs_vectors(scored: pd.DataFrame) -> bool:
    """Whether neighbours could tell anything: only a judge whose votes are known may contradict a lone label."""
    return bool(scored["vote_share"].notna().any() and (scored["n_annotators"] < 2).any())


def _contradicted(
    scored: pd.DataFrame, rows: npt.NDArray[np.int64], vectors: Floats | None
) -> npt.NDArray[np.bool_] | None:
    if vectors is None:
        return None
    labels = scored["human_score"].to_numpy(dtype=np.float64)
    found = contradicted_by_neighbours(vectors, labels, rows)
    # proposals leave doubtful records of train aside: no label of dev or test may have a say in which these are
    train = np.flatnonzero((scored["split"] == "train").to_numpy(dtype=bool))
    is_own = np.isin(rows, train)
    found[is_own] = contradicted_by_neighbours(vectors[train], labels[train], np.searchsorted(train, rows[is_own]))
    return found


def pattern_members(patterns: pd.DataFrame) -> pd.DataFrame:
    """record_id, pattern_id and pattern_name, one row per clustered note."""
    clustered = patterns.loc[~patterns["is_unclustered"].astype(bool), ["record_ids", "pattern_id", "name"]]
    members = clustered.explode("record_ids").rename(columns={"record_ids": "record_id", "name": "pattern_name"})
    return members.astype("string[pyarrow]")
