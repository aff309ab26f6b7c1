"""A process with a cluster of two raylets on this machine, which judges on it what it is asked to.

It reads a request per line, as JSON: url, folder, n (how many records) and either `cap`, a spending cap in US dollars
under which it judges before it does without, or `how`, a list of words: `kill` has a worker killed after the first
shard, `node` one of the raylets, `client` has the process talk to the cluster through Ray's client, as from outside it,
and `abort` has the first server that Ray starts for such a client die before it has begun.
It answers with a line of what it saw, or of what it failed by, as JSON.
"""

import functools
import json
import os
import shutil
import signal
import socket
import sys
import tempfile
import time
import traceback
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pandas as pd
import pyarrow as pa
import ray
from ray.cluster_utils import Cluster
from upath import UPath

from caliber_pipeline.core.errors import SpendingCapError
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

_NODE: Final = {"num_cpus": 1, "object_store_memory": 100 << 20}
_SERVER_DIES: Final = Path(tempfile.gettempdir()) / f"caliber-raylets-{os.getpid()}"
_SITE: Final = f"""
import os, pathlib, sys
if "--mode=specific-server" in sys.orig_argv and (note := pathlib.Path({str(_SERVER_DIES / "next")!r})).exists():
    note.unlink()
    os._exit(1)
"""


def build_judge(url: str, seen: Path, n_workers: int, budget: Budget | None) -> OpenAIJudge:
    (seen / str(os.getpid())).touch()
    return build_share(OpenAIJudgeSettings(model="m", base_url=url, max_concurrency=16), n_workers, budget)


class Raylets:
    """The cluster, and what is done on it."""

    def __init__(self) -> None:
        _SERVER_DIES.mkdir()
        (_SERVER_DIES / "sitecustomize.py").write_text(_SITE)
        os.environ["PYTHONPATH"] = os.pathsep.join([str(_SERVER_DIES), *filter(None, [os.environ.get("PYTHONPATH")])])
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        head = {**_NODE, "include_dashboard": False, "ray_client_server_port": port}
        self._cluster = Cluster(initialize_head=True, head_node_args=head)
        self._second = self._cluster.add_node(**_NODE)
        self._addresses = {False: self._cluster.address, True: f"ray://127.0.0.1:{port}"}

    def judge(self, url: str, folder: Path, n: int, how: list[str]) -> dict[str, Any]:
        sharded_work.ROWS_PER_SHARD = 125  # type: ignore[misc]
        killed: list[int | str] = []
        seen = folder / "workers"
        seen.mkdir(parents=True, exist_ok=True)
        records, task = _sharded(folder / "shards", n)

        def lose_one(progress: ShardProgress) -> None:
            if killed or not progress.n_done:
                return
            if "node" in how:
                self._cluster.remove_node(self._second, allow_graceful=False)
                killed.append("node")
            if "kill" in how:
                victim = next(pid for path in seen.iterdir() if (pid := int(path.name)) != os.getpid())
                os.kill(victim, signal.SIGKILL)
                killed.append(victim)

        if "abort" in how:
            (_SERVER_DIES / "next").touch()
        address = self._addresses["client" in how]
        with connected_ray(address), VerdictCache(folder / "verdicts.sqlite") as cache:
            n_nodes = sum(node["Alive"] for node in ray.nodes())
            started = time.perf_counter()
            build = functools.partial(build_judge, url, seen)
            output = judge_in_shards_on_ray(
                build, records.to_batches(max_chunksize=100), task, n_workers=2, cache=cache, on_progress=lose_one
            )
            seconds = time.perf_counter() - started
        if "node" in killed:
            self._second = self._cluster.add_node(**_NODE)
        if "abort" in how and not (_SERVER_DIES / "next").exists():
            killed.append("server")
        return {"output": str(output), "n_nodes": n_nodes, "killed": killed, "seconds": seconds}

    def judge_capped(self, url: str, folder: Path, n: int, cap: float) -> dict[str, Any]:
        sharded_work.ROWS_PER_SHARD = 50  # type: ignore[misc]
        records, task = _sharded(folder, n)
        capped = OpenAIJudgeSettings(
            model="gpt-4o", base_url=url, max_concurrency=8, max_output_tokens=50, max_cost_usd=cap
        )
        refusal, spent = "", 0.0
        with connected_ray(self._cluster.address):
            for settings in (capped, replace(capped, max_cost_usd=None)):
                build = functools.partial(build_share, settings)
                try:
                    output = judge_in_shards_on_ray(build, records.to_batches(), task, n_workers=2)
                except SpendingCapError as error:
                    refusal = str(error)
                    stored = pd.concat(pd.read_parquet(path) for path in folder.glob("*/output/part-*.parquet"))
                    spent = float(stored["cost_usd"].sum())
        n_scored = int((pd.read_parquet(output.path)["status"] == "scored").sum())
        return {"refusal": refusal, "spent": spent, "n_scored": n_scored}

    def stop(self) -> None:
        self._cluster.shutdown()
        shutil.rmtree(_SERVER_DIES)


def _sharded(folder: Path, n: int) -> tuple[pa.Table, ShardedTask]:
    task = make_task({f"r{i}": f"answer {i}" for i in range(n)})
    records = pa.table({name: pa.array(task.records[name], from_pandas=True) for name in JUDGED_COLUMNS})
    return records, ShardedTask(task.criteria, task.examples, UPath(folder), n, "f")


def main() -> None:
    raylets = Raylets()
    for line in sys.stdin:
        request = json.loads(line)
        url, folder, n = request["url"], Path(request["folder"]), request["n"]
        try:
            if "cap" in request:
                answer = raylets.judge_capped(url, folder, n, request["cap"])
            else:
                answer = raylets.judge(url, folder, n, request["how"])
        except Exception:  # noqa: BLE001 the test that asked shows it
            answer = {"error": traceback.format_exc()}
        print(json.dumps(answer), flush=True)  # noqa: T201
    raylets.stop()


if __name__ == "__main__":
    main()
