"""A process that judges on Ray under a spending cap and then without one; prints what it saw as JSON.

Arguments: the URL, the folder, the number of records, and the cap in US dollars.
"""

import functools
import json
import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pyarrow as pa
import ray
from upath import UPath

from caliber_pipeline.core.errors import SpendingCapError
from caliber_pipeline.judges.openai_settings import OpenAIJudgeSettings
from caliber_pipeline.judges.ray_shards import build_share, judge_in_shards_on_ray
from caliber_pipeline.judges.sharded import JUDGED_COLUMNS, ShardedTask
from caliber_pipeline.stores import sharded_work
from caliber_pipeline_tests.judges.scripted import make_task


def main(url: str, folder: Path, n: int, cap: float) -> None:
    sharded_work.ROWS_PER_SHARD = 50  # type: ignore[misc]
    task = make_task({f"r{i}": f"answer {i}" for i in range(n)})
    records = pa.table({name: pa.array(task.records[name], from_pandas=True) for name in JUDGED_COLUMNS})
    sharded = ShardedTask(task.criteria, task.examples, UPath(folder), n, "f")
    capped = OpenAIJudgeSettings(
        model="gpt-4o", base_url=url, max_concurrency=8, max_output_tokens=50, max_cost_usd=cap
    )
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    refusal, spent = "", 0.0
    for settings in (capped, replace(capped, max_cost_usd=None)):
        try:
            output = judge_in_shards_on_ray(
                functools.partial(build_share, settings), records.to_batches(), sharded, n_workers=2
            )
        except SpendingCapError as error:
            refusal = str(error)
            stored = pd.concat(pd.read_parquet(path) for path in folder.glob("*/output/part-*.parquet"))
            spent = float(stored["cost_usd"].sum())
    ray.shutdown()
    found = pd.read_parquet(output.path)
    n_scored = int((found["status"] == "scored").sum())
    print(json.dumps({"refusal": refusal, "spent": spent, "n_scored": n_scored}))  # noqa: T201


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]))
