"""Judges records of any number in shards: a verdict file per shard, and finished shards are not judged again."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import pandas as pd
import pyarrow as pa
from upath import UPath

from caliber_pipeline.core.criteria import Criteria
from caliber_pipeline.core.fingerprints import digest, verdict_fingerprints
from caliber_pipeline.core.verdicts import refuse_capped, summarize_verdicts
from caliber_pipeline.judges.batch_judge import BatchJudge, StillUnderWayError
from caliber_pipeline.judges.protocol import Judge, JudgeTask
from caliber_pipeline.judges.runner import run_judge
from caliber_pipeline.stores.sharded_work import ShardedWork, ShardProgress, count_shards
from caliber_pipeline.stores.verdict_cache import VerdictCache, Verdicts

JUDGED_COLUMNS: Final = ("record_id", "query", "output", "reference", "llm_score", "llm_reasoning")
"""What a judge reads of a record."""

BATCHED_AT_ONCE: Final = 32  # shards whose batches are under way at once: half a million records, or 2 GB of texts
_UNSETTLED: Final = ("failed", "skipped")
OnProgress = Callable[[ShardProgress], None]


@dataclass(frozen=True)
class ShardedTask:
    """What is asked about records that need not fit into memory, labelled or not.

    Attributes:
        criteria: The instructions.
        examples: The records that the criteria show as examples, as in `JudgeTask`.
        folder: Where the shards of all criteria lie, each under a name of its own.
        n_records: How many records there are.
        records_fingerprint: What identifies them.
        n_bytes: Of their texts; 0 where it is not known, and their number alone decides on the shards.
    """

    criteria: Criteria
    examples: pd.DataFrame
    folder: UPath
    n_records: int
    records_fingerprint: str
    n_bytes: int = 0

    def open(self, judge: Judge) -> ShardedWork:
        """The shards of this task under a judge, as new or as an earlier run left them."""
        key = self._key(judge)
        return ShardedWork(self.folder / key[:16], key, n_shards=count_shards(self.n_records, self.n_bytes))

    def _key(self, judge: Judge) -> str:
        """Equal for the same records, criteria, examples and judge."""
        shown = digest(*(str(value) for name in ("human_score", "human_notes") for value in self.examples[name]))
        identity = {**judge.identity(self.criteria), "examples": shown}
        return verdict_fingerprints([self.records_fingerprint], self.criteria, identity)[0]


def judge_in_shards(
    judge: Judge,
    records: Iterable[pa.RecordBatch],
    task: ShardedTask,
    *,
    cache: VerdictCache | None = None,
    on_progress: OnProgress | None = None,
) -> UPath:
    """Judge records shard by shard.

    A run that dies goes on at the first shard that is not finished, and with the cache within it. Records whose calls
    failed, or that a spending cap left out, are asked about again by the next run.

    Args:
        judge: Who gives the verdicts; of one that sends batches, the batches of several shards are under way at once.
        records: The records in batches, with the columns JUDGED_COLUMNS; read only where no run has before.
        task: What is asked about them.
        cache: Where verdicts are kept.
        on_progress: Called after every shard.

    Returns:
        The folder of the verdict files, a Parquet data set in the `judge_scores` schema.

    Raises:
        JudgeError: the judge as a whole cannot work; finished shards stay.
        SpendingCapError: the spending cap left records of a shard unasked.
        StillUnderWayError: batches are under way that the judge was told not to wait for.
    """
    work = task.open(judge)
    work.partition(records)
    waiting, progress = survey(work, judge)

    def judge_one(shard: int) -> int:
        return judge_shard(work, shard, judge, task, cache)

    n_under_way = 0
    with _in_threads(judge_one, waiting, judge) as results:
        for n_rows in results:
            if n_rows is None:
                n_under_way += 1
                continue
            progress = progress.after(n_rows)
            if on_progress is not None:
                on_progress(progress)
    if n_under_way:
        raise StillUnderWayError(
            f"{n_under_way} of {progress.n_shards} shards wait for their batches; run again to take what has ended"
        )
    return work.output


def survey(work: ShardedWork, judge: Judge) -> tuple[list[int], ShardProgress]:
    """The shards that are to be judged, and how far the others are.

    A shard is finished when every record has an answer: of failed calls the next run makes new ones, unless the judge
    would repeat itself.
    """
    shards, done = work.shards(), set(work.shards_done())
    waiting, n_rows = [], 0
    for shard in shards:
        if shard in done:
            statuses = work.load_output(shard, ["status"])["status"]
            if not judge.is_cacheable or not statuses.isin(_UNSETTLED).any():
                n_rows += len(statuses)
                continue
        waiting.append(shard)
    return waiting, ShardProgress(len(shards), len(shards) - len(waiting), n_rows)


def judge_shard(work: ShardedWork, shard: int, judge: Judge, task: ShardedTask, cache: Verdicts | None) -> int:
    """Judge what a shard has no answer for, store its verdicts, and return how many there are.

    Raises:
        SpendingCapError: the spending cap left records unasked; what was judged is stored.
    """
    records, known = load_open(work, shard)
    verdicts = run_judge(judge, JudgeTask(records, task.criteria, task.examples), cache=cache)
    summary = summarize_verdicts(verdicts)
    if known:
        verdicts = pd.concat([*known, verdicts], ignore_index=True).sort_values("record_id", ignore_index=True)
    work.save_output(shard, verdicts, "judge_scores")
    refuse_capped(summary, "in this shard")
    return len(verdicts)


def load_open(work: ShardedWork, shard: int) -> tuple[pd.DataFrame, list[pd.DataFrame]]:
    """The records of a shard that have no answer yet, and the rows of the others as an earlier run stored them."""
    records = work.load_records(shard)
    try:
        before = work.load_output(shard)
    except FileNotFoundError:
        return records, []
    settled = before[~before["status"].isin(_UNSETTLED)]
    return records[~records["record_id"].isin(settled["record_id"])], [settled]


@contextmanager
def _in_threads(judge_one: Callable[[int], int], shards: list[int], judge: Judge) -> Iterator[Iterator[int | None]]:
    """The shards' numbers of rows as they are done, one after the other, or of batches many at once.

    None stands for a shard whose batch is under way.
    """
    if not isinstance(judge, BatchJudge):
        yield map(judge_one, shards)
        return

    def unless_under_way(shard: int) -> int | None:
        try:
            return judge_one(shard)
        except StillUnderWayError:
            return None

    executor = ThreadPoolExecutor(BATCHED_AT_ONCE)
    try:
        yield (done.result() for done in as_completed([executor.submit(unless_under_way, shard) for shard in shards]))
    except BaseException:
        judge.stop()
        raise
    finally:
        executor.shutdown(cancel_futures=True)
