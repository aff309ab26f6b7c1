"""Judges records of any number in shards: a verdict file per shard, and finished shards are not judged again."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

import pandas as pd
import pyarrow as pa

from caliber_pipeline.core.criteria import Criteria
from caliber_pipeline.core.fingerprints import digest, verdict_fingerprints
from caliber_pipeline.core.verdicts import refuse_capped, summarize_verdicts
from caliber_pipeline.judges.protocol import Judge, JudgeTask
from caliber_pipeline.judges.runner import run_judge
from caliber_pipeline.stores.sharded_work import ShardedWork, ShardProgress, count_shards
from caliber_pipeline.stores.verdict_cache import VerdictCache

JUDGED_COLUMNS: Final = ("record_id", "query", "output", "reference", "llm_score", "llm_reasoning")
"""What a judge reads of a record."""


def judge_in_shards(
    judge: Judge,
    records: Iterable[pa.RecordBatch],
    criteria: Criteria,
    examples: pd.DataFrame,
    folder: Path,
    *,
    n_records: int,
    records_fingerprint: str,
    cache: VerdictCache | None = None,
    on_progress: Callable[[ShardProgress], None] | None = None,
) -> Path:
    """Judge records that need not fit into memory, labelled or not.

    A run that dies goes on at the first shard that is not finished, and with the cache within it.

    Args:
        judge: Who gives the verdicts.
        records: The records in batches, with the columns JUDGED_COLUMNS; read only where no run has before.
        criteria: The instructions.
        examples: The records that the criteria show as examples, as in `JudgeTask`.
        folder: Where the shards of all criteria lie, each under a name of its own.
        n_records: How many records there are.
        records_fingerprint: What identifies them.
        cache: Where verdicts are kept.
        on_progress: Called after every shard.

    Returns:
        The folder of the verdict files, a Parquet data set in the `judge_scores` schema.

    Raises:
        JudgeError: the judge as a whole cannot work; finished shards stay.
        SpendingCapError: the spending cap left records of a shard unasked; it counts as not finished.
    """
    key = work_key(judge, criteria, examples, records_fingerprint)
    shards = ShardedWork(folder / key[:16], key, n_shards=count_shards(n_records))
    shards.partition(records)

    def judge_shard(shard: pd.DataFrame) -> pd.DataFrame:
        verdicts = run_judge(judge, JudgeTask(shard, criteria, examples), cache=cache)
        refuse_capped(summarize_verdicts(verdicts), "in this shard")
        return verdicts

    shards.run(judge_shard, "judge_scores", on_progress)
    return shards.output


def work_key(judge: Judge, criteria: Criteria, examples: pd.DataFrame, records_fingerprint: str) -> str:
    """A name for these verdicts: equal for the same records, criteria, examples and judge."""
    shown = digest(*(str(value) for name in ("human_score", "human_notes") for value in examples[name]))
    return verdict_fingerprints([records_fingerprint], criteria, {**judge.identity(criteria), "examples": shown})[0]
