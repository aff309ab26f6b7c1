"""Ray beside this machine alone: the same verdicts, and nothing lost when a worker is killed."""

import asyncio
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import pandas as pd
import pytest

from caliber_pipeline.core.criteria import Criteria
from caliber_pipeline.core.errors import InputError
from caliber_pipeline.judges.openai_settings import OpenAIJudgeSettings
from caliber_pipeline.judges.ray_shards import Ledger, build_share
from caliber_pipeline.resources import Project
from caliber_pipeline.settings import Settings
from caliber_pipeline.stores.ray_map import import_ray
from caliber_pipeline.stores.verdict_cache import VerdictCache
from caliber_pipeline_tests.benchmarks.loopback_server import LoopbackConfig, loopback
from caliber_pipeline_tests.judges import sharded_judging_process

needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="the extra `ray` is not installed")
N = 1000
_TIMEOUT_S = 240
_STOP_S = 60
DIFFERS = ["is_cached", "latency_s", "n_attempts"]


class Raylets:
    """A process with a cluster of its own; see `raylets_process`."""

    def __init__(self, requests: IO[str], answers: IO[str], log: Path) -> None:
        self._requests, self._answers, self._log = requests, answers, log

    def ask(self, url: str, folder: Path, n: int, **how: object) -> dict[str, Any]:
        self._requests.write(json.dumps({"url": url, "folder": str(folder), "n": n, **how}) + "\n")
        self._requests.flush()
        answer = next((line for line in self._answers if line.startswith("{")), None)
        assert answer is not None, self._log.read_text()[-3000:]
        seen: dict[str, Any] = json.loads(answer)
        assert "error" not in seen, seen["error"]
        return seen


@pytest.fixture(scope="module")
def raylets(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Raylets]:
    path = tmp_path_factory.mktemp("raylets") / "log.txt"
    command = [sys.executable, "-m", "caliber_pipeline_tests.judges.raylets_process"]
    # of its own it waits for 30 seconds for a server that has died
    environment = {**os.environ, "RAY_CLIENT_SERVER_CHECK_CHANNEL_TIMEOUT_S": "10"}
    pipe = subprocess.PIPE
    with (
        path.open("w") as log,
        subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=log, text=True, env=environment) as process,
    ):
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield Raylets(process.stdin, process.stdout, path)
            process.stdin.close()
            process.wait(_STOP_S)
        finally:
            process.kill()


@needs_ray
@pytest.mark.slow
@pytest.mark.parametrize("how", [(), ("kill",), ("client", "abort", "node")], ids="-".join)
def test_two_raylets_give_what_one_process_gives(raylets: Raylets, tmp_path: Path, how: tuple[str, ...]) -> None:
    kills = not {"kill", "node"}.isdisjoint(how)
    lost = len({"kill", "abort", "node"}.intersection(how))
    with loopback(LoopbackConfig(latency_s=0.05)) as server:
        started = time.perf_counter()
        local = pd.read_parquet(sharded_judging_process.main(server.base_url, tmp_path / "local", N))
        local_s = time.perf_counter() - started
        n_local = server.stats()["calls"]
        seen = raylets.ask(server.base_url, tmp_path / "ray", N, how=how)
        n_ray = server.stats()["calls"] - n_local
    assert (seen["n_nodes"], len(seen["killed"])) == (2, lost)
    found = pd.read_parquet(seen["output"])
    expected, found = (frame.sort_values("record_id", ignore_index=True) for frame in (local, found))
    pd.testing.assert_frame_equal(found.drop(columns=DIFFERS), expected.drop(columns=DIFFERS))
    # a lost worker had 8 calls under way, and its verdicts wait a second at most for being stored: 20 rounds of 0.05 s
    assert N <= n_ray <= N + kills * 8 * 21
    with VerdictCache(tmp_path / "ray" / "verdicts.sqlite") as cache:
        assert cache.stats().n_verdicts == N
    print(f"local {local_s:.1f} s, Ray {seen['seconds']:.1f} s, {n_ray - N} calls more")  # noqa: T201 shown with -s


@needs_ray
@pytest.mark.slow
def test_what_the_cache_knows_is_not_asked_again_on_either_backend(raylets: Raylets, tmp_path: Path) -> None:
    with loopback(LoopbackConfig()) as server:
        sharded_judging_process.main(server.base_url, tmp_path / "local", N // 2)
        paid = server.stats()["calls"]
        shutil.copytree(tmp_path / "local", tmp_path / "ray", ignore=shutil.ignore_patterns("shards"))
        shutil.rmtree(tmp_path / "local" / "shards")
        local = pd.read_parquet(sharded_judging_process.main(server.base_url, tmp_path / "local", N))
        assert server.stats()["calls"] == paid + N // 2
        found = pd.read_parquet(raylets.ask(server.base_url, tmp_path / "ray", N, how=())["output"])
        assert server.stats()["calls"] == paid + N
    expected, found = (frame.sort_values("record_id", ignore_index=True) for frame in (local, found))
    assert expected["is_cached"].sum() == N // 2
    pd.testing.assert_frame_equal(found.drop(columns="latency_s"), expected.drop(columns="latency_s"))


@needs_ray
@pytest.mark.slow
def test_the_spending_cap_holds_for_all_workers_together_and_nothing_is_paid_twice(
    raylets: Raylets, tmp_path: Path
) -> None:
    # a call costs 300 tokens at 2.50 and 20 at 10.00 US dollars per million, which is 0.00095: 105 fit into 0.1
    n, cap, each = 400, 0.1, 0.00095
    with loopback(LoopbackConfig(latency_s=0.01)) as server:
        seen = raylets.ask(server.base_url, tmp_path / "shards", n, cap=cap)
        n_calls = server.stats()["calls"]
    assert "the spending cap was reached" in seen["refusal"]
    assert 0.8 * cap <= seen["spent"] <= cap
    assert seen["spent"] / each == pytest.approx(round(seen["spent"] / each))
    assert (seen["n_scored"], n_calls) == (n, n)


@needs_ray
@pytest.mark.slow
def test_the_command_judges_on_ray(tmp_path: Path) -> None:
    records = [{"id": f"r{i}", "query": f"q{i}", "output": "o", "score": i % 2} for i in range(40)]
    pd.DataFrame(records).to_csv(tmp_path / "r.csv", index=False)
    (tmp_path / "out" / "criteria").mkdir(parents=True)
    (tmp_path / "out" / "criteria" / "v001.yaml").write_text("criteria: Be right.\n")
    at = ["--output", str(tmp_path / "out")]
    judge = ["judge", *at, "--version", "v001", "--judge", "recorded", "--backend", "ray", "--json"]
    for arguments in (["ingest", *at, "--records", str(tmp_path / "r.csv")], judge):
        done = subprocess.run(
            [sys.executable, "-m", "caliber_pipeline.cli", *arguments],
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
        )
        assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["n_by_status"] == {"scored": 40}


def test_workers_share_the_limits_of_one_endpoint() -> None:
    settings = OpenAIJudgeSettings(
        model="m",
        base_url="http://127.0.0.1:1/v1",
        max_concurrency=64,
        requests_per_minute=600,
        max_cost_usd=2.0,
        input_price=1.0,
        output_price=1.0,
    )
    share = build_share(settings, 4, None)._settings
    assert (share.max_concurrency, share.requests_per_minute, share.tokens_per_minute) == (16, 150, None)


@pytest.mark.parametrize(("judge", "n"), [("openai", 3), ("local", 8)])
def test_there_are_no_more_workers_than_calls_at_once(tmp_path: Path, judge: str, n: int) -> None:
    options = {"base_url": "http://127.0.0.1:1/v1", "max_concurrency": 3}
    settings = Settings(output=tmp_path, judge=judge, judge_options=options, backend="ray", ray_workers=8)
    assert Project.from_settings(settings).n_judges == n


def test_what_a_lost_worker_had_set_aside_is_spent_and_nobody_waits_for_it() -> None:
    async def use(ledger: Ledger) -> None:
        await ledger.begin(0, "first")
        assert await ledger.reserve(0, "first", 60)
        await ledger.begin(1, "other")
        waiting = asyncio.create_task(ledger.reserve(1, "other", 50))
        await asyncio.sleep(0)
        assert not waiting.done()
        await ledger.begin(0, "second")  # the first attempt's worker is gone: its 60 may have been paid
        assert not await waiting  # 60 + 50 exceed 100
        await ledger.settle(0, "first", 60, 1)
        assert await ledger.reserve(1, "other", 40)
        await ledger.settle(1, "other", 40, 7)
        assert await ledger.reserve(0, "second", 30)
        await ledger.end(0, "second")
        assert await ledger.spent() == 67

    asyncio.run(use(Ledger(100)))


def test_batches_and_ray_are_not_combined(tmp_path: Path) -> None:
    settings = Settings(output=tmp_path, judge="openai", mode="batch", backend="ray")
    with pytest.raises(InputError, match="leave out --backend ray"):
        Project.from_settings(settings).judge_builder(Criteria(criteria="c"), "v001")


@needs_ray
@pytest.mark.slow
def test_a_cluster_that_does_not_answer_is_told_in_one_line(tmp_path: Path) -> None:
    code = "from caliber_pipeline.resources import connected_ray\nwith connected_ray('ray://127.0.0.1:1'): pass"
    hasty = {**os.environ, "RAY_CLIENT_INITIAL_CONNECTION_TIMEOUT_S": "1"}  # of its own it waits for 5, 10 and 20 s
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=_TIMEOUT_S, env=hasty)
    assert "InputError: no Ray cluster that lets us in at 'ray://127.0.0.1:1': " in done.stderr.splitlines()[-1]


def test_without_ray_the_backend_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match="pip install 'caliber-pipeline"):
        import_ray()
