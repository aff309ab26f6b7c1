"""Reads judged records from whatever callers hold them in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from caliber_pipeline.api.fields import Item, index_by_id, parse_score, read_field
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


def evidence_frames(judged: Iterable[EvaluatedRecord]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Judged records as the tables that the stages read, all of them as train.

    Returns:
        Verdicts with labels as `core.judge_scores.join_labels` gives them, and the records.
    """
    import pandas as pd

    rows = list(judged)
    frame = pd.DataFrame(
        {
            "record_id": [r.record_id for r in rows],
            "query": [r.query for r in rows],
            "output": [r.output for r in rows],
            "reference": [r.reference for r in rows],
            "human_score": [r.human_score for r in rows],
            "human_notes": [r.human_notes for r in rows],
            "llm_score": [r.llm_score for r in rows],
            "llm_reasoning": [r.llm_reasoning for r in rows],
            "confidence": [r.confidence for r in rows],
        }
    ).astype(
        {
            **dict.fromkeys(["record_id", "query", "output", "reference"], "string[pyarrow]"),
            **dict.fromkeys(["human_notes", "llm_reasoning"], "string[pyarrow]"),
            **dict.fromkeys(["human_score", "llm_score"], "int8[pyarrow]"),
            "confidence": "double[pyarrow]",
        }
    )
    frame["split"] = pd.Series(["train"] * len(rows), dtype="string[pyarrow]")
    frame["group"] = frame["record_id"]
    frame["severity"] = pd.Series([None] * len(rows), dtype="double[pyarrow]")
    frame["is_example"] = pd.Series([False] * len(rows), dtype="bool[pyarrow]")
    texts = ["query", "output", "reference"]
    return frame.drop(columns=texts), frame[["record_id", *texts, "split"]]


def _parse(record_id: str, item: Item) -> EvaluatedRecord | None:
    human, llm = read_field(item, "human_score"), read_field(item, "llm_score")
    if human is None or llm is None:
        return None
    people = parse_score(human, what=f"the human_score of '{record_id}'")
    judge = parse_score(llm, what=f"the llm_score of '{record_id}'")
    names = ("llm_reasoning", "human_notes", "query", "output", "reference")
    texts: Mapping[str, str | None] = {name: _text(read_field(item, name)) for name in names}
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


def _text(value: object) -> str | None:
    return None if value is None or not str(value).strip() else str(value)
