"""A judge that follows a script, and records for it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import pyarrow as pa

from caliber_pipeline.core import conforming
from caliber_pipeline.core.criteria import Criteria
from caliber_pipeline.core.verdicts import VERDICTS
from caliber_pipeline.judges.protocol import JudgeTask


def make_records(texts: Mapping[str, str]) -> pd.DataFrame:
    """Records by id; the text is the output, the query is the same for all."""
    columns = {
        "record_id": pa.array(list(texts), pa.string()),
        "query": pa.array(["q"] * len(texts), pa.string()),
        "output": pa.array(list(texts.values()), pa.string()),
        "reference": pa.nulls(len(texts), pa.string()),
        "llm_score": pa.nulls(len(texts), pa.int8()),
        "llm_reasoning": pa.nulls(len(texts), pa.string()),
        "human_score": pa.nulls(len(texts), pa.int8()),
        "human_notes": pa.nulls(len(texts), pa.string()),
    }
    return conforming.frame_from_arrow(pa.table(columns))


def make_task(texts: Mapping[str, str], criteria: Criteria | None = None) -> JudgeTask:
    return JudgeTask(make_records(texts), criteria or Criteria(criteria="be right"), make_records({}))


def verdict(record_id: str, **changes: object) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(VERDICTS.names)
    row |= {"record_id": record_id, "status": "scored", "llm_score": 1, "provider": "p", "model": "m", "n_attempts": 1}
    return row | changes


def batch(rows: list[dict[str, Any]]) -> pd.DataFrame:
    return conforming.frame_from_arrow(pa.Table.from_pylist(rows, schema=VERDICTS))


@dataclass
class ScriptedJudge:
    """Yields one batch per record it is asked about: the scripted rows, else an accept."""

    script: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    is_cacheable: bool = True
    max_examples: int = 20
    provider: str = "p"
    model: str = "m"
    asked: list[str] = field(default_factory=list)
    is_closed: bool = False

    def identity(self, criteria: Criteria) -> Mapping[str, str | int | float | None]:
        return {"provider": self.provider, "model": self.model, "temperature": criteria.sampling.temperature}

    def judge(self, task: JudgeTask) -> Iterator[pd.DataFrame]:
        try:
            for record_id in task.records["record_id"]:
                self.asked.append(record_id)
                yield batch(self.script.get(record_id, [verdict(record_id)]))
        finally:
            self.is_closed = True
