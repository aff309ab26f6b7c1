"""The `recorded` judge: the verdicts that came with the records."""

from collections.abc import Iterator, Mapping

import pandas as pd

from caliber_pipeline.core.criteria import Criteria
from caliber_pipeline.core.errors import JudgeError
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
            JudgeError: no record has a recorded verdict.
        """
        records = task.records
        is_scored = records["llm_score"].notna()
        if self._sees_all and len(records) and not is_scored.any():
            raise JudgeError(
                "no record brings a verdict; the recorded judge needs a column llm_score (or score, llm_judgment)"
            )
        verdicts = pd.DataFrame(index=records.index, columns=VERDICTS.names, dtype=object)
        verdicts["record_id"] = records["record_id"]
        verdicts["status"] = is_scored.map({True: "scored", False: "failed"})
        verdicts["llm_score"] = records["llm_score"]
        verdicts["llm_reasoning"] = records["llm_reasoning"]
        verdicts["failure_reason"] = is_scored.map({True: None, False: "the records file has no verdict here"})
        verdicts["provider"] = self.provider
        verdicts["model"] = self.model
        verdicts["n_attempts"] = 0
        yield verdicts
