"""Reads judged records from whatever callers hold them in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from caliber_pipeline.api.fields import Item, index_by_id, parse_score, read_field, read_text
from caliber_pipeline.api.records import annotations_from, annotations_table
from caliber_pipeline.api.results import EvaluatedRecord, EvaluationResult

if TYPE_CHECKING:
    import pandas as pd


def parse_judged(results: EvaluationResult | Iterable[Item]) -> list[EvaluatedRecord]:
    """Records with both verdicts, sorted by id; those that lack one are left out.

    Args:
        results: An evaluation's result, or dicts or objects with the usual names (id, judgment, score, explanation …).

    Raises:
        InputError: ids repeat or are missing, or a score is neither 0 nor 1.
    """
    if isinstance(results, EvaluationResult):
        return sorted(results.records, key=lambda record: record.record_id)
    by_id = index_by_id(results)
    parsed = (_parse(record_id, by_id[record_id]) for record_id in sorted(by_id))
    return [record for record in parsed if record is not None]


def evidence_frames(results: EvaluationResult | Sequence[EvaluatedRecord]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Judged records as the tables that the stages read, all of them as train.

    Returns:
        Verdicts with labels as `core.judge_scores.join_labels` gives them, and the records.
    """
    if isinstance(results, EvaluationResult):
        return results.scored.assign(split="train"), results.texts.assign(split="train")
    from caliber_pipeline.core.judge_scores import join_labels
    from caliber_pipeline.core.labels import resolve_labels

    records = _table(
        {
            "record_id": [r.record_id for r in results],
            "query": [r.query for r in results],
            "output": [r.output for r in results],
            "reference": [r.reference for r in results],
            "group": [r.record_id for r in results],
            "split": ["train"] * len(results),
        },
        "records",
    )
    verdicts = _table(
        {
            "record_id": [r.record_id for r in results],
            "llm_score": [r.llm_score for r in results],
            "llm_reasoning": [r.llm_reasoning for r in results],
            "confidence": [r.confidence for r in results],
            "vote_share": [None] * len(results),
            "status": ["scored"] * len(results),
            "is_example": [False] * len(results),
        },
        "judge_scores",
    )
    people = annotations_from(
        {"record_id": r.record_id, "score": r.human_score, "notes": r.human_notes} for r in results
    )
    return join_labels(verdicts, resolve_labels(annotations_table(people)), records), records


def _table(columns: Mapping[str, list[Any]], name: str) -> pd.DataFrame:
    """A frame of some columns of the schema declared under `name`."""
    import pyarrow as pa

    from caliber_pipeline.core.conforming import frame_from_arrow
    from caliber_pipeline.core.schemas import SCHEMAS

    schema = pa.schema([SCHEMAS[name].field(column) for column in columns])
    return frame_from_arrow(pa.table(dict(columns), schema=schema))


def _parse(record_id: str, item: Item) -> EvaluatedRecord | None:
    human, llm = read_field(item, "human_score"), read_field(item, "llm_score")
    if human is None or llm is None:
        return None
    people = parse_score(human, what=f"the human_score of '{record_id}'")
    judge = parse_score(llm, what=f"the llm_score of '{record_id}'")
    names = ("llm_reasoning", "human_notes", "query", "output", "reference")
    texts: Mapping[str, str | None] = {name: read_text(item, name) for name in names}
    return EvaluatedRecord(
        record_id,
        people,
        judge,
        texts["llm_reasoning"],
        people == judge,
        judge - people,
        read_field(item, "confidence"),
        texts["human_notes"],
        texts["query"] or "",
        texts["output"] or "",
        texts["reference"],
        read_field(item, "split"),
    )
