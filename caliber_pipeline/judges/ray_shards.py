"""Judges shards on a Ray cluster, through Ray Data; output must be where all of its machines see it."""

import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import pyarrow as pa
from upath import UPath

from caliber_pipeline.core.errors import SpendingCapError
from caliber_pipeline.judges.budget import Budget, CapReachedError
from caliber_pipeline.judges.openai_judge import OpenAIJudge
from caliber_pipeline.judges.openai_settings import OpenAIJudgeSettings
from caliber_pipeline.judges.protocol import Judge, JudgeTask
from caliber_pipeline.judges.runner import find_known
from caliber_pipeline.judges.sharded import OnProgress, ShardedTask, judge_shard, load_open, survey
from caliber_pipeline.stores.ray_map import import_ray, map_on_ray, start_here
from caliber_pipeline.stores.ray_verdicts import SharedVerdicts, share_verdicts
from caliber_pipeline.stores.sharded_work import ShardedWork
from caliber_pipeline.stores.verdict_cache import VerdictCache

BuildJudge = Callable[[int, Budget | None], Judge]
"""Makes a worker's judge, of the number of workers, which share the endpoint's limits, and their budget."""


def judge_in_shards_on_ray(
    build_judge: BuildJudge,
    records: Iterable[pa.RecordBatch],
    task: ShardedTask,
    *,
    n_workers: int,
    cache: VerdictCache | None = None,
    on_progress: OnProgress | None = None,
) -> UPath:
    """As `judge_in_shards`, by actors over the shards; the results are the same, and either goes on with the other's.

    A worker that is lost is started again, and its shard with it; what it had been answered is known by then. The
    spending cap holds for all workers together. Ray must be connected.

    Args:
        build_judge: Makes a judge in each worker, once; must be picklable.
        records: As of `judge_in_shards`.
        task: As of `judge_in_shards`.
        n_workers: Actors, each with a judge of its own.
        cache: Where verdicts are kept, on this machine; the workers see what it holds, and all that they put there.
        on_progress: Called after every shard.

    Raises:
        JudgeError: the judge as a whole cannot work; finished shards stay.
        SpendingCapError: the spending cap left records unasked; what was judged is stored.
    """
    judge = build_judge(n_workers, None)
    work = replace(task, folder=task.folder.absolute()).open(judge)  # workers have working folders of their own
    work.partition(records)
    waiting, progress = survey(work, judge)
    ledger = _open_ledger(judge)
    capped: str | None = None
    with _share(cache, judge, task, work, waiting) as (shared, keep):
        arguments = (build_judge, n_workers, task, work, ledger, shared)
        for n_rows, refusal in _map_shards(waiting, _Worker, arguments, n_workers):
            keep()
            if refusal is not None:
                capped = capped or refusal
                continue
            progress = progress.after(n_rows)
            if on_progress is not None:
                on_progress(progress)
    if capped is not None:
        raise SpendingCapError(capped)
    return work.output


@contextmanager
def _share(
    cache: VerdictCache | None, judge: Judge, task: ShardedTask, work: ShardedWork, waiting: list[int]
) -> Iterator[tuple[SharedVerdicts | None, Callable[[], None]]]:
    """What the cache knows of the waiting shards, for all workers, and what keeps in it what they have found."""
    if cache is None or not judge.is_cacheable or not waiting:
        yield None, lambda: None
        return
    with share_verdicts(cache) as shared:
        for shard in [] if cache.is_empty() else waiting:
            records, _ = load_open(work, shard)
            known = find_known(judge, JudgeTask(records, task.criteria, task.examples), cache)
            if known.num_rows:
                shared.seed(known)
        yield shared, lambda: shared.keep_new(cache)


def build_share(settings: OpenAIJudgeSettings, n_workers: int, budget: Budget | None) -> OpenAIJudge:
    """A worker's judge at an endpoint: all workers together keep to the limits that the settings name."""

    def part(limit: float | None) -> float | None:
        return None if limit is None else limit / n_workers

    share = replace(
        settings,
        max_concurrency=max(1, settings.max_concurrency // n_workers),
        requests_per_minute=part(settings.requests_per_minute),
        tokens_per_minute=part(settings.tokens_per_minute),
    )
    return OpenAIJudge(share, budget)


def _map_shards(
    shards: list[int], worker: type, arguments: tuple[Any, ...], n_workers: int
) -> Iterator[tuple[int, str | None]]:
    for row in map_on_ray(({"shard": shard} for shard in shards), worker, arguments, n_workers):
        yield int(row["n_rows"]), row["refusal"] or None


class _Worker:
    """An actor: one judge, made once, and one shard after the other."""

    def __init__(
        self,
        build_judge: BuildJudge,
        n_workers: int,
        task: ShardedTask,
        work: ShardedWork,
        ledger: Any,  # noqa: ANN401 a handle
        shared: SharedVerdicts | None,
    ) -> None:
        self._shared = shared
        self._budget = None if ledger is None else LedgerBudget(ledger)
        self._judge = build_judge(n_workers, self._budget)
        self._task, self._work = task, work
        self._refusal = ""

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        n_rows = 0
        if not self._refusal:
            try:
                n_rows = self._judge_shard(int(batch["shard"][0]))
            except SpendingCapError as error:  # the other workers end as they come to the cap themselves
                self._refusal = str(error)
        return {"n_rows": [n_rows], "refusal": [self._refusal]}

    def _judge_shard(self, shard: int) -> int:
        with nullcontext() if self._budget is None else self._budget.for_shard(shard):
            return judge_shard(self._work, shard, self._judge, self._task, self._shared)


def _open_ledger(judge: Judge) -> Any:  # noqa: ANN401 a handle
    """The budget of all workers, on the machine that this process talks to; None where nothing bounds it."""
    cap = judge.budget.cap if isinstance(judge, OpenAIJudge) else None
    return None if cap is None else start_here(Ledger, cap, max_concurrency=10_000)


class Ledger:
    """The budget that all workers spend from.

    What a lost worker had set aside for its shard counts as spent as soon as the shard is begun again: those calls may
    have been answered, and paid for.
    """

    def __init__(self, cap: int) -> None:
        """A budget of which nothing is spent."""
        self._budget = Budget(cap)
        self._attempts: dict[int, str] = {}
        self._reserved: Counter[str] = Counter()

    async def begin(self, shard: int, attempt: str) -> None:
        """Note that an attempt at a shard begins, and that earlier ones are no more."""
        lost = self._reserved.pop(self._attempts.get(shard, ""), 0)
        self._budget.settle(lost, lost)
        self._attempts[shard] = attempt

    async def reserve(self, shard: int, attempt: str, amount: int) -> bool:
        """Set the most that a call can cost aside; False where it will never fit."""
        try:
            await self._budget.reserve(amount)
        except CapReachedError:
            return False
        if self._attempts.get(shard) == attempt:
            self._reserved[attempt] += amount
        else:
            self._budget.settle(amount, 0)
        return True

    async def settle(self, shard: int, attempt: str, reserved: int, spent: int) -> None:
        """Replace a reservation by what the call cost."""
        if self._attempts.get(shard) == attempt:
            self._reserved[attempt] -= reserved
            self._budget.settle(reserved, spent)

    async def end(self, shard: int, attempt: str) -> None:
        """Give back what an attempt has set aside and not used."""
        if self._attempts.get(shard) == attempt:
            self._budget.settle(self._reserved.pop(attempt, 0), 0)

    async def spent(self) -> int:
        """What was spent so far."""
        return self._budget.spent


class LedgerBudget(Budget):
    """A worker's view of the ledger."""

    def __init__(self, ledger: Any) -> None:  # noqa: ANN401 a handle
        """Spend from a ledger, on behalf of the shard that `for_shard` names."""
        super().__init__(None)
        self._ledger = ledger
        self._attempt = (-1, "")
        self._settling: list[Any] = []

    @contextmanager
    def for_shard(self, shard: int) -> Iterator[None]:
        """What is spent meanwhile is spent for this shard."""
        ray = import_ray()
        self._attempt = (shard, uuid.uuid4().hex)
        ray.get(self._ledger.begin.remote(*self._attempt))
        try:
            yield
        finally:
            # an end that overtook them would give back what they settle, and the cap would not hold
            ray.get(self._settling)
            self._settling.clear()
            ray.get(self._ledger.end.remote(*self._attempt))

    async def reserve(self, amount: int) -> None:
        """Set the most that a call can cost aside, waiting for open calls of any worker to settle.

        Raises:
            CapReachedError: it will not fit.
        """
        if not await self._ledger.reserve.remote(*self._attempt, amount):
            raise CapReachedError

    def settle(self, reserved: int, spent: int) -> None:
        """Replace a reservation by what the call cost."""
        self.spent += spent
        self._settling.append(self._ledger.settle.remote(*self._attempt, reserved, spent))
