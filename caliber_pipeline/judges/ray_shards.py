"""Judges shards on a Ray cluster; the folder must be one that all of its machines see under the same path."""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import pandas as pd
import pyarrow as pa

from caliber_pipeline.core.criteria import Criteria
from caliber_pipeline.core.errors import InputError
from caliber_pipeline.judges.openai_judge import OpenAIJudge
from caliber_pipeline.judges.openai_settings import OpenAIJudgeSettings
from caliber_pipeline.judges.protocol import Judge, JudgeTask
from caliber_pipeline.judges.runner import run_judge
from caliber_pipeline.judges.sharded import work_key
from caliber_pipeline.stores.sharded_work import ShardedWork, ShardProgress, count_shards

BuildJudge = Callable[[int], Judge]
"""Makes a worker's judge, with its share of the endpoint's limits; the argument is the number of workers."""

MAX_TRIES: Final = 5  # of a shard whose worker is lost: a machine that is taken away is no fault of the shard


@dataclass(frozen=True)
class RayWorkers:
    """Which cluster, and how much of it.

    Attributes:
        address: As `ray.init` takes it; None starts a cluster on this machine, "auto" joins the one that runs here.
        n_workers: Actors, each with a judge of its own.
    """

    address: str | None = None
    n_workers: int = 2


def judge_in_shards_on_ray(
    build_judge: BuildJudge,
    records: Iterable[pa.RecordBatch],
    criteria: Criteria,
    examples: pd.DataFrame,
    folder: Path,
    *,
    n_records: int,
    records_fingerprint: str,
    workers: RayWorkers,
    on_progress: Callable[[ShardProgress], None] | None = None,
) -> Path:
    """As `judge_in_shards`, by actors over the shards; the results are the same, and either goes on with the other's.

    A worker that is lost is started again, and its shard with it; the other shards are not touched.

    Args:
        build_judge: Makes a judge in each worker; must be picklable.
        records: As of `judge_in_shards`, as the rest of them.
        criteria: The instructions.
        examples: The records that the criteria show as examples.
        folder: Where the shards of all criteria lie.
        n_records: How many records there are.
        records_fingerprint: What identifies them.
        workers: Which cluster, and how much of it.
        on_progress: Called after every shard.

    Raises:
        InputError: Ray is not installed.
        JudgeError: the judge as a whole cannot work; finished shards stay.
    """
    ray = _import_ray()
    key = work_key(build_judge(workers.n_workers), criteria, examples, records_fingerprint)
    shards = ShardedWork((folder / key[:16]).resolve(), key, n_shards=count_shards(n_records))
    shards.partition(records)
    is_ours = not ray.is_initialized()
    if is_ours:
        ray.init(address=workers.address, include_dashboard=None if workers.address else False, log_to_driver=False)
    try:
        actor = ray.remote(max_restarts=-1, max_task_retries=MAX_TRIES)(_Worker)
        actors = [actor.remote(build_judge, workers.n_workers, criteria, examples) for _ in range(workers.n_workers)]
        _run(ray, shards, key, actors, on_progress)
    finally:
        if is_ours:
            ray.shutdown()
    return shards.output


def build_share(settings: OpenAIJudgeSettings, n_workers: int) -> OpenAIJudge:
    """A worker's judge at an endpoint: all workers together keep to the limits that the settings name."""

    def part(limit: float | None) -> float | None:
        return None if limit is None else limit / n_workers

    share = replace(
        settings,
        max_concurrency=max(1, settings.max_concurrency // n_workers),
        requests_per_minute=part(settings.requests_per_minute),
        tokens_per_minute=part(settings.tokens_per_minute),
        max_cost_usd=part(settings.max_cost_usd),
    )
    return OpenAIJudge(share)


class _Worker:
    """An actor: one judge, made once, and one shard after the other."""

    def __init__(self, build_judge: BuildJudge, n_workers: int, criteria: Criteria, examples: pd.DataFrame) -> None:
        self._judge = build_judge(n_workers)
        self._criteria = criteria
        self._examples = examples

    def judge_shard(self, folder: Path, key: str, n_shards: int, shard: int) -> int:
        work = ShardedWork(folder, key, n_shards=n_shards)
        return work.do_shard(
            shard,
            lambda frame: run_judge(self._judge, JudgeTask(frame, self._criteria, self._examples)),
            "judge_scores",
        )


def _run(
    ray: Any,  # noqa: ANN401 the module
    shards: ShardedWork,
    key: str,
    actors: list[Any],
    on_progress: Callable[[ShardProgress], None] | None,
) -> None:
    """Keep every actor at work on one shard until none is left."""
    progress = shards.progress()
    waiting = shards.open_shards()
    at_work: dict[Any, Any] = {}
    while waiting or at_work:
        for actor in [actor for actor in actors if actor not in at_work.values()]:
            if waiting:
                at_work[actor.judge_shard.remote(shards.folder, key, shards.n_shards, waiting.pop(0))] = actor
        for done in ray.wait(list(at_work))[0]:
            del at_work[done]
            progress = ShardProgress(progress.n_shards, progress.n_done + 1, progress.n_rows + _result(ray, done))
            if on_progress is not None:
                on_progress(progress)


def _result(ray: Any, done: Any) -> int:  # noqa: ANN401 the module, and a reference
    try:
        n_rows: int = ray.get(done)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from error
    return n_rows


def _import_ray() -> Any:  # noqa: ANN401 a module without types
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent anywhere unless somebody asks for it
    try:
        import ray
        import ray.exceptions
    except ImportError:
        raise InputError(
            "the backend 'ray' needs Ray; install the extra: pip install 'caliber-pipeline[ray]'"
        ) from None
    return ray
