"""The `recorded` judge: the verdicts that came with the records."""

from collections.abc import Iterator, Mapping

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from caliber_pipeline.core import conforming
from caliber_pipeline.core.criteria import Criteria
from caliber_pipeline.core.errors import JudgeSettingsError
from caliber_pipeline.core.verdicts import VERDICTS
from caliber_pipeline.judges.protocol import JudgeTask


class RecordedJudge:
    """Repeats the `llm_score` and `llm_reasoning` of the records file; it reads no criteria."""

    provider = "recorded"
    model = "recorded"
    is_cacheable = False
    max_examples = 0

    def __init__(self, *, sees_all: bool = True) -> None:
        """A judge of the records in a task, or of one shard of them, which may be one without any verdict."""
        self._sees_all = sees_all

    def identity(self, criteria: Criteria) -> Mapping[str, str | int | float | None]:
        """Recorded verdicts depend on nothing but the file."""
        return {"provider": self.provider, "model": self.model}

    def judge(self, task: JudgeTask) -> Iterator[pd.DataFrame]:
        """Yield the recorded verdicts; a record without one has failed.

        Raises:
            JudgeSettingsError: no record has a recorded verdict.
        """
        records = task.records
        score, reasoning = (pa.array(records[name], from_pandas=True) for name in ("llm_score", "llm_reasoning"))
        is_scored = pc.is_valid(score)
        if self._sees_all and len(records) and not pc.any(is_scored).as_py():
            raise JudgeSettingsError(
                "no record brings a verdict; the recorded judge needs a column llm_score (or score, llm_judgment)"
            )
        columns = {name: pa.nulls(len(records)) for name in VERDICTS.names}
        columns |= {
            "record_id": pa.array(records["record_id"], from_pandas=True),
            "status": pc.if_else(is_scored, "scored", "failed"),
            "llm_score": score,
            "llm_reasoning": reasoning,
            "failure_reason": pc.if_else(is_scored, None, "the records file has no verdict here"),
            "provider": pa.repeat(self.provider, len(records)),
            "model": pa.repeat(self.model, len(records)),
            "n_attempts": pa.repeat(0, len(records)),
        }
        yield conforming.frame_from_arrow(pa.table(columns))
