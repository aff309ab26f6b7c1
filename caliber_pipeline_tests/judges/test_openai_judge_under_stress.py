import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from caliber_pipeline.judges.openai_judge import OpenAIJudge, RunStats
from caliber_pipeline.judges.openai_settings import OpenAIJudgeSettings
from caliber_pipeline.judges.rate_limiter import RateLimiter
from caliber_pipeline.judges.runner import run_judge
from caliber_pipeline.stores.verdict_cache import VerdictCache
from caliber_pipeline_tests.benchmarks.loopback_server import Loopback, LoopbackConfig, loopback
from caliber_pipeline_tests.judges.scripted import make_task

ATTEMPT_TIMEOUT_S = 1.0


def make_judge(server: Loopback, *, max_concurrency: int = 64, max_cost_usd: float | None = None) -> OpenAIJudge:
    settings = OpenAIJudgeSettings(
        model="m",
        base_url=server.base_url,
        max_concurrency=max_concurrency,
        max_cost_usd=max_cost_usd,
        attempt_timeout_s=ATTEMPT_TIMEOUT_S,
        input_price=100.0,
        output_price=1000.0,
        max_output_tokens=20,
    )
    return OpenAIJudge(settings)


def make_texts(n: int) -> dict[str, str]:
    return {f"r{i}": f"answer {i}" for i in range(n)}


def timed(server: Loopback, n: int) -> tuple[pd.DataFrame, float, RunStats]:
    judge = make_judge(server)
    start = time.perf_counter()
    scores = run_judge(judge, make_task(make_texts(n)))
    elapsed = time.perf_counter() - start
    assert judge.last_run is not None
    return scores, elapsed, judge.last_run


FAULTS: dict[str, Any] = {"p_429": 0.10, "p_500": 0.05, "p_drop": 0.02, "p_hang": 0.01, "p_bad_json": 0.03}


@pytest.mark.parametrize(
    ("n", "form", "retry_after_s"),
    [
        pytest.param(300, "ms", 0.02),
        pytest.param(5000, "ms", 0.02, marks=pytest.mark.slow),
        pytest.param(300, "seconds", 0.05, marks=pytest.mark.slow),
        pytest.param(300, "date", 1.5, marks=pytest.mark.slow),  # dates have whole seconds: a wait of 0.5 to 1.5 s
    ],
)
def test_every_recoverable_fault_is_recovered_from_with_few_calls_and_little_time(
    n: int, form: str, retry_after_s: float
) -> None:
    with loopback(LoopbackConfig(latency_s=0.05)) as server:
        clean, undisturbed_s, _ = timed(server, n)
    with loopback(
        LoopbackConfig(latency_s=0.05, retry_after_form=form, retry_after_s=retry_after_s, **FAULTS)
    ) as server:
        scores, elapsed, stats = timed(server, n)
        calls = server.stats()
    assert (scores["status"] == "scored").all()
    assert scores["llm_score"].tolist() == clean["llm_score"].tolist()
    assert scores["n_attempts"].sum() == stats.n_calls == calls["calls"]
    # A call fails with probability 0.18 and a reply is cut with 0.03 of the rest: 1 / (0.82 * 0.97) = 1.26 calls each.
    # The standard deviation of the mean is 0.57 / sqrt(n).
    assert stats.n_calls / n <= (1.35 if n >= 5000 else 1.26 + 5 * 0.57 / n**0.5)
    # A hang holds one of 64 places for its time-out; the last ones end after all else.
    hangs_s = stats.n_timeouts * ATTEMPT_TIMEOUT_S / 64 + 3 * ATTEMPT_TIMEOUT_S
    assert elapsed - stats.paused_s - hangs_s <= 2 * undisturbed_s + (0 if n >= 5000 else 1.5)


def test_a_hard_limit_of_3000_calls_a_minute_under_concurrency_64_loses_no_record() -> None:
    # 10 calls in each 0.2 s; the rest get 429 until the window ends
    with loopback(LoopbackConfig(latency_s=0.02, window_calls=10, window_s=0.2)) as server:
        scores, elapsed, stats = timed(server, 150)
    assert (scores["status"] == "scored").all()
    assert stats.n_limited > 0
    # 150 records take at least 14 windows of 0.2 s; a limiter that wasted every second one would take twice as long
    assert elapsed + 0.2 >= 2.8
    assert elapsed < 2 * 3.0 + 1.5
    # one that did not learn would send 64 at once into each of 14 windows of 10
    assert stats.n_limited < 14 * 54 / 2


def test_a_limit_kept_on_this_side_meets_no_429() -> None:
    with loopback(LoopbackConfig(window_calls=60, window_s=1.0)) as server:
        settings = OpenAIJudgeSettings(model="m", base_url=server.base_url, requests_per_minute=3000)
        start = time.perf_counter()
        scores = run_judge(OpenAIJudge(settings), make_task(make_texts(75)))
        elapsed = time.perf_counter() - start
        assert server.stats().get("429", 0) == 0
    assert (scores["status"] == "scored").all()
    assert elapsed >= 74 / 50


def test_a_spending_cap_is_never_exceeded_and_what_was_judged_is_kept(tmp_path: Path) -> None:
    # A call costs 300 * 0.0001 + 20 * 0.001 = 0.05 dollars: 100 calls are 5 dollars.
    with loopback(LoopbackConfig(latency_s=0.005)) as server, VerdictCache(tmp_path / "c.sqlite") as cache:
        judge = make_judge(server, max_cost_usd=5.0)
        scores = run_judge(judge, make_task(make_texts(300)), cache=cache)
        calls = server.stats()["calls"]
        assert cache.stats().n_verdicts == calls
        again = run_judge(make_judge(server, max_cost_usd=5.0), make_task(make_texts(300)), cache=cache)
    assert scores["status"].value_counts().to_dict() == {"skipped": 300 - calls, "scored": calls}
    assert scores["cost_usd"].sum() <= 5.0
    # The most that a call can cost is bounded by bytes, about 1,900 of them: 0.19 + 0.02 dollars. The run ends when
    # that much is not left any more.
    assert scores["cost_usd"].sum() >= 5.0 - 0.25
    skipped = scores[scores["status"] == "skipped"]
    assert skipped["failure_reason"].unique().tolist() == ["not asked: the spending cap of 5 US dollars was reached"]
    assert skipped["n_attempts"].unique().tolist() == [0]
    assert int(again["is_cached"].sum()) == calls
    assert int((again["status"] == "scored").sum()) > calls


def test_a_cap_below_one_call_asks_nothing() -> None:
    with loopback(LoopbackConfig()) as server:
        scores = run_judge(make_judge(server, max_cost_usd=0.01), make_task(make_texts(20)))
        assert server.stats().get("calls", 0) == 0
    assert scores["status"].unique().tolist() == ["skipped"]


def test_a_hang_counts_in_full_against_the_cap() -> None:
    with loopback(LoopbackConfig(p_hang=1.0)) as server:
        judge = make_judge(server, max_cost_usd=0.3)
        scores = run_judge(judge, make_task(make_texts(2)))
        assert server.stats()["calls"] == 1
    assert scores["status"].unique().tolist() == ["skipped"]


@pytest.mark.parametrize("p_hang", [0.0, 1.0])
def test_closing_the_judge_stops_the_work_within_two_seconds(p_hang: float) -> None:
    with loopback(LoopbackConfig(latency_s=0.05, p_hang=p_hang)) as server:
        settings = OpenAIJudgeSettings(model="m", base_url=server.base_url, max_concurrency=16)
        batches = OpenAIJudge(settings).judge(make_task(make_texts(5000)))
        if p_hang:
            timer = threading.Timer(0.5, lambda: os.kill(os.getpid(), signal.SIGINT))
            timer.start()
            try:
                with pytest.raises(KeyboardInterrupt):
                    next(batches)
            finally:
                timer.cancel()  # where the call ended otherwise, no later test is to be interrupted
        else:
            assert len(next(batches)) > 0
        start = time.perf_counter()
        batches.close()
        assert time.perf_counter() - start < 2
        n_calls = server.stats()["calls"]
        time.sleep(0.3)
        assert server.stats()["calls"] == n_calls
    assert not [thread for thread in threading.enumerate() if thread.name == "judge"]


def start_process(server: Loopback, cache: Path, n: int) -> subprocess.Popen[str]:
    command = [
        sys.executable,
        "-m",
        "caliber_pipeline_tests.judges.judging_process",
        server.base_url,
        str(cache),
        str(n),
    ]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(process: subprocess.Popen[str], is_enough: Callable[[int], bool]) -> int:
    assert process.stdout is not None
    for line in process.stdout:
        if is_enough(int(line)):
            return int(line)
    raise AssertionError(process.stderr.read() if process.stderr else "ended early")


def stored(cache: Path) -> int:
    with VerdictCache(cache) as opened:
        return opened.stats().n_verdicts


def test_ctrl_c_stops_the_calls_within_two_seconds_and_keeps_what_is_done(tmp_path: Path) -> None:
    with (
        loopback(LoopbackConfig(latency_s=0.05, p_hang=0.01)) as server,
        start_process(server, tmp_path / "c.sqlite", 20000) as process,
    ):
        done = wait_for(process, lambda n: n >= 100)
        process.send_signal(signal.SIGINT)
        time.sleep(2)
        calls = server.stats()["calls"]
        process.communicate(timeout=30)
        assert server.stats()["calls"] == calls < 20000
    assert process.returncode != 0
    assert stored(tmp_path / "c.sqlite") >= done


def test_kill_9_loses_no_verdict_older_than_a_second_and_none_is_paid_twice(tmp_path: Path) -> None:
    n, latency_s, concurrency = 600, 0.05, 16
    with loopback(LoopbackConfig(latency_s=latency_s)) as server:
        with start_process(server, tmp_path / "c.sqlite", n) as process:
            done = wait_for(process, lambda n_done: n_done >= 200)
            process.kill()
            process.communicate()
        kept = stored(tmp_path / "c.sqlite")
        assert kept >= done
        paid = server.stats()["calls"]
        with VerdictCache(tmp_path / "c.sqlite") as cache:
            judge = make_judge(server, max_concurrency=concurrency)
            resumed = run_judge(judge, make_task(make_texts(n)), cache=cache)
        calls = server.stats()["calls"]
        with VerdictCache(tmp_path / "other.sqlite") as cache:
            undisturbed = run_judge(make_judge(server), make_task(make_texts(n)), cache=cache)
    # What was under way or a second old at most when the process died is asked again, and nothing else.
    assert calls - n == paid - kept
    assert paid - kept <= concurrency * (1 + 1.0 / latency_s)
    assert int(resumed["is_cached"].sum()) == kept
    assert resumed["cost_usd"].unique().tolist() == [pytest.approx(0.05)]  # 300 tokens at 0.0001 and 20 at 0.001
    differs = ["is_cached", "latency_s"]
    pd.testing.assert_frame_equal(resumed.drop(columns=differs), undisturbed.drop(columns=differs))


@pytest.mark.slow
def test_memory_does_not_grow_with_the_records_beyond_the_tables() -> None:
    from caliber_pipeline_tests.benchmarks.judging import measure_scale

    rows = {name: (seconds, mb) for name, seconds, mb in measure_scale(20000, 64)}
    assert rows["judged"][1] < 3 * rows["the two tables themselves"][1] + 60
    assert rows["from the cache"][0] < 4


def test_a_gate_needs_a_running_loop() -> None:
    with pytest.raises(RuntimeError):
        RateLimiter(1)
