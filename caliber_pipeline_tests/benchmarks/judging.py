"""How fast records are judged, and at what price in CPU and memory: this project beside a bare loop and `openai`.

    python -m caliber_pipeline_tests.benchmarks.judging
    python -m caliber_pipeline_tests.benchmarks.judging --scale 100000

Every client speaks to one loopback server in a process of its own, in one run, on the same messages, after a warm-up
of its own. The bare loop (aiohttp, orjson, no limits, retries or table) is what the machine can do; CPU seconds are the
client process's.
"""

import argparse
import asyncio
import json
import resource
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, Final

import aiohttp
import openai
import orjson
import pyarrow as pa
from pydantic import BaseModel

from caliber_pipeline.core import conforming
from caliber_pipeline.core.criteria import Criteria
from caliber_pipeline.core.judge_prompt import build_prefix, build_record_message
from caliber_pipeline.core.pricing import EXPECTED_REPLY_TOKENS
from caliber_pipeline.judges.openai_judge import OpenAIJudge
from caliber_pipeline.judges.openai_settings import OpenAIJudgeSettings, Transport
from caliber_pipeline.judges.protocol import JudgeTask
from caliber_pipeline.judges.runner import run_judge
from caliber_pipeline.stores.verdict_cache import VerdictCache
from caliber_pipeline_tests.benchmarks.loopback_server import LoopbackConfig, loopback

CRITERIA: Final = Criteria(criteria="Score 1 if the answer is correct and complete, otherwise 0. " * 8)
WARM_UP: Final = 100


class Verdict(BaseModel):
    """What a reply holds."""

    reasoning: str
    score: int


def make_task(n: int) -> JudgeTask:
    """A task of n different records of about 700 bytes."""
    ids = [f"r{i}" for i in range(n)]
    records = pa.table(
        {
            "record_id": pa.array(ids, pa.string()),
            "query": pa.array([f"What is the answer to question {i}?" for i in ids], pa.string()),
            "output": pa.array([f"The answer {i} is as follows. " * 20 for i in ids], pa.string()),
            "reference": pa.nulls(n, pa.string()),
            "llm_score": pa.nulls(n, pa.int8()),
            "llm_reasoning": pa.nulls(n, pa.string()),
            "human_score": pa.nulls(n, pa.int8()),
            "human_notes": pa.nulls(n, pa.string()),
        }
    )
    return JudgeTask(conforming.frame_from_arrow(records), CRITERIA, conforming.frame_from_arrow(records.slice(0, 0)))


def make_messages(task: JudgeTask) -> Iterator[list[Any]]:
    """The same messages that the judge sends, for the other clients."""
    prefix = build_prefix(task.criteria, task.examples)
    for query, output in zip(task.records["query"], task.records["output"], strict=True):
        yield [*prefix, {"role": "user", "content": build_record_message(query, output, None)}]


async def _pool(call: Callable[[list[Any]], Awaitable[int]], task: JudgeTask, concurrency: int) -> None:
    messages = make_messages(task)

    async def work() -> None:
        for each in messages:
            await call(each)

    await asyncio.gather(*(work() for _ in range(concurrency)))


async def run_bare(base_url: str, task: JudgeTask, concurrency: int) -> None:
    """Aiohttp and orjson, nothing else."""
    headers = {"Authorization": "Bearer key", "Content-Type": "application/json"}
    connector = aiohttp.TCPConnector(limit=concurrency)
    async with aiohttp.ClientSession(connector=connector, headers=headers) as session:

        async def call(messages: list[Any]) -> int:
            body = orjson.dumps({"model": "m", "messages": messages, "temperature": 0})
            async with session.post(f"{base_url}/chat/completions", data=body) as reply:
                completion = orjson.loads(await reply.read())
            return int(orjson.loads(completion["choices"][0]["message"]["content"])["score"])

        await _pool(call, task, concurrency)


async def run_typed(base_url: str, task: JudgeTask, concurrency: int) -> None:
    """`openai`'s typed async client, as its documentation shows it."""
    async with openai.AsyncOpenAI(base_url=base_url, api_key="key", max_retries=0) as client:

        async def call(messages: list[Any]) -> int:
            completion = await client.chat.completions.create(model="m", messages=messages, temperature=0)
            return int(json.loads(completion.choices[0].message.content or "")["score"])

        await _pool(call, task, concurrency)


async def run_parse(base_url: str, task: JudgeTask, concurrency: int) -> None:
    """`openai`'s `.parse` with a Pydantic model."""
    async with openai.AsyncOpenAI(base_url=base_url, api_key="key", max_retries=0) as client:

        async def call(messages: list[Any]) -> int:
            completion = await client.chat.completions.parse(
                model="m", messages=messages, temperature=0, response_format=Verdict
            )
            parsed = completion.choices[0].message.parsed
            assert parsed is not None
            return parsed.score

        await _pool(call, task, concurrency)


def run_project(base_url: str, task: JudgeTask, concurrency: int, transport: Transport) -> None:
    """The whole of this project's judging: prompt, limits, retries, accounting, cache on disk, table."""
    settings = OpenAIJudgeSettings(model="m", base_url=base_url, max_concurrency=concurrency, transport=transport)
    with tempfile.TemporaryDirectory() as folder, VerdictCache(Path(folder) / "verdicts.sqlite") as cache:
        scores = run_judge(OpenAIJudge(settings), task, cache=cache)
    assert (scores["status"] == "scored").all()


def compare(n: int, concurrency: int, latency_s: float) -> list[tuple[str, float, float]]:
    """Calls per second and CPU seconds per 1,000 calls of each client."""
    clients: dict[str, Callable[[str, JudgeTask], None]] = {
        "bare aiohttp + orjson": lambda url, task: asyncio.run(run_bare(url, task, concurrency)),
        "caliber": lambda url, task: run_project(url, task, concurrency, "direct"),
        "caliber, transport=package": lambda url, task: run_project(url, task, concurrency, "package"),
        "openai typed async": lambda url, task: asyncio.run(run_typed(url, task, concurrency)),
        "openai .parse": lambda url, task: asyncio.run(run_parse(url, task, concurrency)),
    }
    rows = []
    warm_up, task = make_task(WARM_UP), make_task(n)
    config = LoopbackConfig(latency_s=latency_s, has_logprobs=False, completion_tokens=EXPECTED_REPLY_TOKENS)
    with loopback(config) as server:
        for name, run in clients.items():
            run(server.base_url, warm_up)
            wall, cpu = time.perf_counter(), time.process_time()
            run(server.base_url, task)
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            rows.append((name, n / wall, cpu / n * 1000))
    return rows


def measure_scale(n: int, concurrency: int) -> list[tuple[str, float, float]]:
    """Seconds and peak memory (MB over the start) of judging n records, then of the same run from the cache."""
    task = make_task(n)
    rows = []
    with (
        loopback(LoopbackConfig(has_logprobs=False)) as server,
        tempfile.TemporaryDirectory() as folder,
        VerdictCache(Path(folder) / "verdicts.sqlite") as cache,
    ):
        settings = OpenAIJudgeSettings(model="m", base_url=server.base_url, max_concurrency=concurrency)
        start_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        for name in ("judged", "from the cache"):
            wall = time.perf_counter()
            scores = run_judge(OpenAIJudge(settings), task, cache=cache)
            wall = time.perf_counter() - wall
            peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            rows.append((name, wall, peak_mb - start_mb))
        table_mb = sum(frame.memory_usage(deep=True).sum() for frame in (scores, task.records)) / 1e6
        rows.append(("the two tables themselves", 0.0, table_mb))
    return rows


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=3000)
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--latency", type=float, default=0.05, help="seconds")
    parser.add_argument("--scale", type=int, default=0, metavar="RECORDS", help="measure memory and the cache instead")
    options = parser.parse_args()
    lines = []
    if options.scale:
        lines += [f"{options.scale:,} records, concurrency {options.concurrency}, no latency", ""]
        lines += ["| run | seconds | peak memory over the start, MB |", "|---|---|---|"]
        rows = measure_scale(options.scale, options.concurrency)
        lines += [f"| {name} | {seconds:.1f} | {mb:.0f} |" for name, seconds, mb in rows]
    else:
        lines += [
            f"{options.calls:,} calls, concurrency {options.concurrency}, latency {options.latency * 1000:g} ms",
            "",
        ]
        lines += ["| client | calls/s | of the bare loop | CPU s per 1,000 calls | times the bare loop |"]
        lines += ["|---|---|---|---|---|"]
        rows = compare(options.calls, options.concurrency, options.latency)
        _, rate0, cpu0 = rows[0]
        lines += [
            f"| {name} | {rate:,.0f} | {rate / rate0:.0%} | {cpu:.2f} | {cpu / cpu0:.1f} |" for name, rate, cpu in rows
        ]
    print("\n".join(lines))  # noqa: T201 a benchmark's output


if __name__ == "__main__":
    main()
