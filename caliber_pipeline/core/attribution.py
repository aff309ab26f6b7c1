"""Who is at fault where judge and people differ: the judge, the label, or the criteria."""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from caliber_pipeline.core.agreement import Floats
from caliber_pipeline.core.arguments import accepts, table_with
from caliber_pipeline.core.conforming import conform_frame
from caliber_pipeline.core.schemas import RELABEL_QUEUE

JUDGE_ERROR: Final = "judge_error"
UNVERIFIED: Final = "judge_error_unverified"
LABEL_DOUBT: Final = "label_doubt"
CRITERIA_GAP: Final = "criteria_gap"
ABSTAINS: Final = "the judge abstains"

STABLE_VOTE_SHARE: Final = (
    0.8  # one dissent in five: a judge less sure of itself does not find its answer in the criteria
)
MIN_PATTERN_SPLITS: Final = 3  # fewer split records may share a pattern by accident
N_NEIGHBOURS: Final = 5
MIN_CONTRADICTING: Final = 4  # of five neighbours: with three, chance alone contradicts half of all labels
MAX_SIMILARITIES: Final = 2**24  # at once: 128 MB
MIN_SIMILARITY: Final = 0.8  # cosine below which all-MiniLM's neighbours are of another subject


@dataclass(frozen=True)
class Question:
    """What the owner of the criteria is asked.

    Attributes:
        text: The question.
        pattern_name: The pattern that the records share; None where they share none.
        record_ids: The records that raise it.
    """

    text: str
    pattern_name: str | None
    record_ids: tuple[str, ...]


def attribute_misalignments(
    wrong: pd.DataFrame, scored: pd.DataFrame, members: pd.DataFrame, contradicted: npt.NDArray[np.bool_] | None = None
) -> pd.DataFrame:
    """Attribute each misalignment, with the reason.

    Args:
        wrong: The misaligned rows of `scored`: record_id, human_score, llm_score, n_annotators, n_accepts, vote_share.
        scored: All labelled rows, for how often people split along a pattern.
        members: record_id and pattern_id, one row per note in a pattern.
        contradicted: Per row of `wrong`: most near neighbours carry the judge's verdict; None where not looked at.

    Returns:
        attribution and attribution_reason, in the order and with the index of `wrong`.
    """
    share = wrong["vote_share"].to_numpy(dtype=np.float64, na_value=np.nan)
    n = wrong["n_annotators"].to_numpy(dtype=np.int64)
    is_split = _is_split(wrong)
    has_votes, is_unstable = ~np.isnan(share), share < STABLE_VOTE_SHARE
    gaps = split_patterns(scored, members)
    gap_records = set(members.loc[members["pattern_id"].isin(gaps), "record_id"])
    is_along_pattern = wrong["record_id"].isin(gap_records).to_numpy(dtype=bool)
    is_doubtful = np.zeros(len(wrong), dtype=np.bool_) if contradicted is None else contradicted
    choices = [
        (is_unstable, CRITERIA_GAP, "the judge's own votes differ"),
        (is_split & is_along_pattern, CRITERIA_GAP, "people split along a pattern in their notes"),
        (is_split, LABEL_DOUBT, "annotators differ"),
        ((n < 2) & is_doubtful & has_votes, LABEL_DOUBT, "near neighbours and a stable judge contradict a lone label"),
        ((n >= 2) & has_votes, JUDGE_ERROR, "people agree and the judge is stable"),
        (n >= 2, UNVERIFIED, "people agree; without votes nothing is known of the judge's stability"),
        (has_votes, UNVERIFIED, "the judge is stable; without a second annotator nothing is known of the label"),
    ]
    last = "neither votes nor a second annotator"
    conditions = [condition for condition, _, _ in choices]
    return pd.DataFrame(
        {
            "attribution": np.select(conditions, [kind for _, kind, _ in choices], UNVERIFIED),
            "attribution_reason": np.select(conditions, [reason for _, _, reason in choices], last),
        },
        index=wrong.index,
    )


def split_patterns(scored: pd.DataFrame, members: pd.DataFrame) -> frozenset[str]:
    """Patterns along which people split: on at least three records, and on half of those that several people judged."""
    several = scored[scored["n_annotators"] >= 2]
    judged = pd.DataFrame({"record_id": several["record_id"].to_numpy(dtype=object), "is_split": _is_split(several)})
    known = judged.merge(members[["record_id", "pattern_id"]].astype(object), on="record_id")
    counts = known.groupby("pattern_id")["is_split"].agg(["sum", "count"])
    is_gap = (counts["sum"] >= MIN_PATTERN_SPLITS) & (2 * counts["sum"] >= counts["count"])
    return frozenset(map(str, counts.index[is_gap]))


def contradicted_by_neighbours(vectors: Floats, labels: Floats, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Whether at least four of the five nearest labelled records, all near, carry the other label.

    Args:
        vectors: Shape (n, d), of unit length: all labelled records.
        labels: Shape (n,): people's verdicts.
        rows: The rows to look at.
    """
    if len(vectors) <= N_NEIGHBOURS:
        return np.zeros(len(rows), dtype=np.bool_)
    blocks = np.array_split(rows, max(1, math.ceil(len(rows) * len(vectors) / MAX_SIMILARITIES)))
    return np.concatenate([_contradicted(vectors, labels, block) for block in blocks])


def _contradicted(vectors: Floats, labels: Floats, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    similarity = vectors[rows] @ vectors.T
    similarity[np.arange(len(rows)), rows] = -np.inf
    nearest = np.argpartition(similarity, -N_NEIGHBOURS, axis=1)[:, -N_NEIGHBOURS:]
    is_near = np.take_along_axis(similarity, nearest, axis=1) >= MIN_SIMILARITY
    contradicts = is_near & (labels[nearest] != labels[rows][:, None])
    return np.asarray(contradicts.sum(axis=1) >= MIN_CONTRADICTING)


def build_relabel_queue(
    labels: pd.DataFrame, records: pd.DataFrame, misalignments: pd.DataFrame, abstained: tuple[str, ...] = ()
) -> pd.DataFrame:
    """What people should judge (again): ties, label doubts, and what the judge abstains on; each record once.

    Args:
        labels: As `resolve_labels` gives them.
        records: For the texts.
        misalignments: With their attribution.
        abstained: Records that the judge leaves to people.

    Returns:
        A frame of the `relabel_queue` schema, ties first. It does not tell the judge's verdict: who labels is blind.
    """
    doubts = misalignments[misalignments["attribution"] == LABEL_DOUBT]
    parts = [
        labels.loc[labels["human_score"].isna(), ["record_id"]].assign(reason="annotators tie"),
        doubts[["record_id"]].assign(reason=doubts["attribution_reason"]),
        pd.DataFrame({"record_id": list(abstained), "reason": ABSTAINS}, dtype="string[pyarrow]"),
    ]
    queue = pd.concat(parts, ignore_index=True).drop_duplicates("record_id")
    queue = queue.merge(records[["record_id", "query", "output", "reference"]], on="record_id")
    queue = queue.merge(labels[["record_id", "n_annotators", "n_accepts"]], on="record_id", how="left")
    queue[["n_annotators", "n_accepts"]] = queue[["n_annotators", "n_accepts"]].fillna(0)
    return conform_frame(queue[RELABEL_QUEUE.names], "relabel_queue")


@accepts(misalignments=table_with("attribution"))
def ask_owner(misalignments: pd.DataFrame) -> list[Question]:
    """One question per pattern among the criteria gaps, and one for those without a pattern."""
    gaps = misalignments[misalignments["attribution"] == CRITERIA_GAP]
    questions = []
    for name, rows in gaps.groupby(gaps["pattern_name"].fillna(""), sort=True):
        accepted, about = int((rows["human_score"] == 1).sum()), f" about '{name}'" if name else ""
        text = (
            f"The criteria leave {len(rows)} records{about} open: people accept {accepted} and reject "
            f"{len(rows) - accepted}, the judge the reverse. Which is right, and what rule says so?"
        )
        questions.append(Question(text, str(name) or None, tuple(map(str, rows["record_id"]))))
    return questions


def _is_split(rows: pd.DataFrame) -> npt.NDArray[np.bool_]:
    """Whether an annotator differs from the label, be it a consensus or gold."""
    n, accepts = (rows[c].to_numpy(dtype=np.int64) for c in ("n_annotators", "n_accepts"))
    agreeing = np.where(rows["human_score"].to_numpy(dtype=np.int64) == 1, accepts, n - accepts)
    return np.asarray(agreeing < n)
