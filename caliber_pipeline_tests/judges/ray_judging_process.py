"""A process that judges on a cluster of two raylets on this machine, and prints what it saw as JSON.

Arguments: the URL, the folder, the number of records, and words: `kill` has a worker killed after the first shard,
`node` one of the raylets; `client` has the process talk to the cluster through Ray's client, as from outside it.
"""

import functools
import json
import os
import signal
import socket
import sys
import time
from pathlib import Path

import pyarrow as pa
import ray
from ray.cluster_utils import Cluster
from upath import UPath

from caliber_pipeline.judges.budget import Budget
from caliber_pipeline.judges.openai_judge import OpenAIJudge
from caliber_pipeline.judges.openai_settings import OpenAIJudgeSettings
from caliber_pipeline.judges.ray_shards import build_share, judge_in_shards_on_ray
from caliber_pipeline.judges.sharded import JUDGED_COLUMNS, ShardedTask
from caliber_pipeline.resources import connected_ray
from caliber_pipeline.stores import sharded_work
from caliber_pipeline.stores.sharded_work import ShardProgress
from caliber_pipeline.stores.verdict_cache import VerdictCache
from caliber_pipeline_tests.judges.scripted import make_task


def build_judge(url: str, seen: Path, n_workers: int, budget: Budget | None) -> OpenAIJudge:
    (seen / str(os.getpid())).touch()
    return build_share(OpenAIJudgeSettings(model="m", base_url=url, max_concurrency=16), n_workers, budget)


def main(url: str, folder: str, n: int, *how: str) -> None:
    sharded_work.ROWS_PER_SHARD = 125  # type: ignore[misc]
    killed: list[int | str] = []
    seen = Path(folder) / "workers"
    seen.mkdir(parents=True, exist_ok=True)
    task = make_task({f"r{i}": f"answer {i}" for i in range(n)})
    records = pa.table({name: pa.array(task.records[name], from_pandas=True) for name in JUDGED_COLUMNS})

    def lose_one(progress: ShardProgress) -> None:
        if killed or not progress.n_done:
            return
        if "node" in how:
            cluster.remove_node(second, allow_graceful=False)
            killed.append("node")
        if "kill" in how:
            victim = next(pid for path in seen.iterdir() if (pid := int(path.name)) != os.getpid())
            os.kill(victim, signal.SIGKILL)
            killed.append(victim)

    small = {"num_cpus": 1, "object_store_memory": 100 << 20}
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    head = {**small, "include_dashboard": False, "ray_client_server_port": port}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    second = cluster.add_node(**small)
    address = f"ray://127.0.0.1:{port}" if "client" in how else cluster.address
    with connected_ray(address), VerdictCache(Path(folder) / "verdicts.sqlite") as cache:
        n_nodes = len(ray.nodes())
        started = time.perf_counter()
        output = judge_in_shards_on_ray(
            functools.partial(build_judge, url, seen),
            records.to_batches(max_chunksize=100),
            ShardedTask(task.criteria, task.examples, UPath(folder) / "shards", n, "f"),
            n_workers=2,
            cache=cache,
            on_progress=lose_one,
        )
    seconds = time.perf_counter() - started
    cluster.shutdown()
    print(json.dumps({"output": str(output), "n_nodes": n_nodes, "killed": killed, "seconds": seconds}))  # noqa: T201


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), *sys.argv[4:])
