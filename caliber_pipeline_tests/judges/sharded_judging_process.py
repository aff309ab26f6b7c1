"""Judges in shards, in a process that a test kills or beside one on Ray: the URL, the folder, how many records."""

from pathlib import Path

import pyarrow as pa
from upath import UPath

from caliber_pipeline.judges.openai_judge import OpenAIJudge
from caliber_pipeline.judges.openai_settings import OpenAIJudgeSettings
from caliber_pipeline.judges.sharded import JUDGED_COLUMNS, ShardedTask, judge_in_shards
from caliber_pipeline.stores import sharded_work
from caliber_pipeline.stores.verdict_cache import VerdictCache
from caliber_pipeline_tests.judges.scripted import make_task


def main(url: str, folder: Path, n: int) -> Path:
    sharded_work.ROWS_PER_SHARD = 125  # type: ignore[misc]
    task = make_task({f"r{i}": f"answer {i}" for i in range(n)})
    records = pa.table({name: pa.array(task.records[name], from_pandas=True) for name in JUDGED_COLUMNS})
    judge = OpenAIJudge(OpenAIJudgeSettings(model="m", base_url=url, max_concurrency=16))
    with VerdictCache(folder / "verdicts.sqlite") as cache:
        sharded = ShardedTask(task.criteria, task.examples, UPath(folder / "shards"), n, "f")
        return Path(judge_in_shards(judge, records.to_batches(max_chunksize=100), sharded, cache=cache).path)
