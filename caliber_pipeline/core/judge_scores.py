"""Stage `judge_scores`: what is judged, and how verdicts and people's labels come together."""

from collections.abc import Mapping
from typing import Any, Final

import pandas as pd

from caliber_pipeline.core.criteria import Criteria
from caliber_pipeline.core.errors import CriteriaError
from caliber_pipeline.core.fingerprints import content_hashes
from caliber_pipeline.core.splits import set_aside_calibration

MIN_COVERAGE: Final = 0.95  # below it the figures describe the records that happened to get a verdict, not the judge
_EXAMPLE_COLUMNS: Final = ["record_id", "query", "output", "reference", "human_score", "human_notes"]


def select_judged(
    records: pd.DataFrame, labels: pd.DataFrame, *, with_ties: bool = False, with_test: bool = True
) -> pd.DataFrame:
    """The records to judge, sorted by id: those with a label, without those of test where it stays sealed.

    With ties also those on which the annotators split evenly: they enter no metric but that of the judge against single
    annotators, which would look better without them.
    """
    labelled = labels["record_id"] if with_ties else labels.loc[labels["human_score"].notna(), "record_id"]
    is_judged = records["record_id"].isin(labelled)
    if not with_test:
        is_judged &= records["split"] != "test"
    return records[is_judged].sort_values("record_id", ignore_index=True)


def count_labelled_groups(records: pd.DataFrame, labels: pd.DataFrame) -> int:
    """Groups among all labelled records, those of a sealed test among them."""
    labelled = labels.loc[labels["human_score"].notna(), "record_id"]
    return int(records.loc[records["record_id"].isin(labelled), "group"].nunique())


def is_test_judged(attrs: Mapping[Any, Any]) -> bool:
    """Whether verdicts made like this hold those on test."""
    return attrs.get("has_test") != "False"


def resolve_examples(criteria: Criteria, records: pd.DataFrame, labels: pd.DataFrame) -> pd.DataFrame:
    """The records that the criteria show as examples, in their order: id, texts, human_score, human_notes.

    Raises:
        CriteriaError: an example is no labelled record, or its text is not the one that the criteria were written with.
    """
    wanted = [example.record_id for example in criteria.examples]
    texts = records.drop(columns=["human_score", "human_notes"]).merge(labels, on="record_id")
    texts = texts.loc[texts["human_score"].notna(), _EXAMPLE_COLUMNS].set_index("record_id", drop=False)
    missing = [record_id for record_id in wanted if record_id not in texts.index]
    if missing:
        raise CriteriaError(
            f"{len(missing)} examples of the criteria are no labelled records, e.g. {missing[:3]}; "
            "restore them or write a version without them"
        )
    examples = texts.loc[wanted].reset_index(drop=True)
    stored = [example.content_hash for example in criteria.examples]
    changed = [
        record_id for record_id, old, new in zip(wanted, stored, content_hashes(examples), strict=True) if old != new
    ]
    if changed:
        raise CriteriaError(
            f"{len(changed)} examples of the criteria changed their text, e.g. {changed[:3]}; "
            "restore them or write a version with the new texts"
        )
    return examples


def join_labels(judge_scores: pd.DataFrame, labels: pd.DataFrame, records: pd.DataFrame) -> pd.DataFrame:
    """One row per judged record with its label, ready for metrics and comparisons.

    Returns:
        Sorted by record_id: record_id, group, split (as `assign_splits` gives it), human_score, human_notes, severity,
        weight (1 / inclusion probability), llm_score, llm_reasoning, confidence, vote_share, status, is_example.
    """
    labelled = labels.loc[labels["human_score"].notna()]
    verdicts = judge_scores[
        ["record_id", "llm_score", "llm_reasoning", "confidence", "vote_share", "status", "is_example"]
    ]
    scored = (
        labelled.merge(verdicts, on="record_id")
        .merge(assign_splits(judge_scores, records), on="record_id")
        .sort_values("record_id", ignore_index=True)
    )
    scored["weight"] = 1 / scored["inclusion_probability"]
    return scored


def assign_splits(judge_scores: pd.DataFrame, records: pd.DataFrame) -> pd.DataFrame:
    """record_id, group and split of the records, as the figures of this judge take them.

    Where the judge tells how sure it is, half of test is `calibration`, on which abstention is learned and which enters
    no figure on test; a judge that does not tell leaves nothing to learn, and test stays whole.
    """
    placed = records[["record_id", "group", "split"]]
    if judge_scores["confidence"].isna().all():
        return placed
    return placed.assign(split=set_aside_calibration(placed["split"], placed["group"]))


def place_verdicts(judge_scores: pd.DataFrame, records: pd.DataFrame) -> pd.DataFrame:
    """The verdicts with their splits, those on ties among them, as the agreement with single people is counted on."""
    return judge_scores[["record_id", "llm_score", "is_example"]].merge(assign_splits(judge_scores, records))


def coverage(judge_scores: pd.DataFrame) -> float | None:
    """Share of the annotated records that got a verdict; None without any."""
    return float((judge_scores["status"] == "scored").mean()) if len(judge_scores) else None
