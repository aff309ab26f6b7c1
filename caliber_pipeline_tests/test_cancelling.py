"""A run that is cancelled in the Dagster UI stops judging at once and keeps what was judged."""

import time
from pathlib import Path

import pytest

from caliber_pipeline.stores.verdict_cache import VerdictCache
from caliber_pipeline_tests.benchmarks.loopback_server import LoopbackConfig, loopback
from caliber_pipeline_tests.dagster_dev import DagsterDev
from caliber_pipeline_tests.test_dagster_dev import write_input

STOP_S = 2.0
RUNS = """
{ runsOrError(filter: {pipelineName: "calibration"}) { ... on Runs { results { runId status } } } }"""
TERMINATE = """
mutation ($run: String!) { terminateRun(runId: $run) { __typename } }"""
N_RECORDS = 60


@pytest.mark.slow
def test_cancelling_in_the_ui_stops_within_two_seconds_and_keeps_what_is_done(tmp_path: Path) -> None:
    write_input(tmp_path)
    with loopback(LoopbackConfig(latency_s=0.5)) as server:
        settings = {
            "CALIBER_JUDGE": "openai",
            "CALIBER_MODEL": "m",
            "CALIBER_BASE_URL": server.base_url,
            "CALIBER_API_KEY": "k",
            "CALIBER_MAX_CONCURRENCY": "2",
        }
        with DagsterDev(tmp_path, settings) as dev:
            dev.wait_for(lambda: True if server.stats().get("calls", 0) >= 6 else None, 180)
            (run,) = dev.ask(RUNS)["runsOrError"]["results"]
            dev.ask(TERMINATE, run=run["runId"])
            time.sleep(STOP_S)
            n_calls = server.stats()["calls"]
            time.sleep(STOP_S)
            assert server.stats()["calls"] == n_calls < N_RECORDS
            dev.wait_for(lambda: _is_canceled(dev), 60)
    with VerdictCache(tmp_path / "data" / "assets" / ".cache" / "verdicts.sqlite") as cache:
        assert n_calls - 2 <= cache.stats().n_verdicts <= n_calls  # two were under way
    assert not (tmp_path / "data" / "assets" / "judge_scores").exists()


def _is_canceled(dev: DagsterDev) -> bool | None:
    runs = dev.ask(RUNS)["runsOrError"]["results"]
    return True if runs[0]["status"] == "CANCELED" else None
