"""Runs a judge over records: reads what is known, has the rest judged, and accounts for every record."""

import logging
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import replace
from typing import Any, Final, cast

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from caliber_pipeline.core import conforming, schemas
from caliber_pipeline.core.errors import InputError, SchemaError
from caliber_pipeline.core.fingerprints import content_hashes, digest, verdict_fingerprints
from caliber_pipeline.core.verdicts import STATUSES, VERDICTS
from caliber_pipeline.judges.protocol import Judge, JudgeTask
from caliber_pipeline.stores.verdict_cache import CACHED_VERDICTS, Verdicts

NO_VERDICT: Final = "the judge returned nothing for this record"

_log = logging.getLogger(__name__)
_VERDICT: Final = pa.schema([field for field in VERDICTS if field.name != "record_id"])


def run_judge(
    judge: Judge,
    task: JudgeTask,
    *,
    cache: Verdicts | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> pd.DataFrame:
    """Judge the task's records.

    Verdicts in the cache are read; of the others, each batch is stored as soon as it arrives, so that a run that dies
    loses what arrived in its last second at most. Records that are equal in all that the judge reads are judged once.

    Args:
        judge: Who gives the verdicts.
        task: The records, the criteria and the examples.
        cache: Where verdicts are kept; left aside where the judge says that keeping them is not worth it.
        on_progress: Called with (records done, records in all), first with what was read from the cache, then as
            verdicts arrive.

    Returns:
        The `judge_scores` table, one row per record, in the records' order. A record that the judge left out has the
        status failed; verdicts for ids that nobody asked about are dropped, and counted in `attrs["n_invented"]`.

    Raises:
        JudgeError: the judge as a whole cannot work.
        InputError: record ids repeat.
        SchemaError: the judge's table lacks a column or has one too many.
    """
    run = _Run(judge, task, cache)
    report = on_progress or _ignore
    if run.n_done:
        report(run.n_done, run.n_records)
    if run.n_done < run.n_records:
        batches = cast("Generator[pd.DataFrame]", judge.judge(run.remaining_task()))
        with closing(batches):
            for batch in batches:
                run.add(batch)
                report(run.n_done, run.n_records)
    if run.n_invented:
        _log.warning("%d verdicts dropped: their record ids were not asked for, or repeat", run.n_invented)
    return run.table()


def find_open(judge: Judge, task: JudgeTask, cache: Verdicts | None) -> tuple[JudgeTask, int]:
    """What a run would have judged, and how many records it would not: known ones, and twins of others.

    Raises:
        InputError: record ids repeat.
    """
    remaining = _Run(judge, task, cache).remaining_task()
    return remaining, len(task.records) - len(remaining.records)


def find_known(judge: Judge, task: JudgeTask, cache: Verdicts) -> pa.Table:
    """The verdicts that a run would read from the cache, in its layout."""
    return cache.get_many(sorted(set(_fingerprints(judge, task))))


def _fingerprints(judge: Judge, task: JudgeTask) -> list[str]:
    identity = {**judge.identity(task.criteria), "examples": _digest_examples(task.examples)}
    return verdict_fingerprints(content_hashes(task.records), task.criteria, identity)


class _Run:
    """The state of one run: which verdict belongs to which record."""

    def __init__(self, judge: Judge, task: JudgeTask, cache: Verdicts | None) -> None:
        self._judge = judge
        self._task = task
        self._cache = cache if judge.is_cacheable else None
        # told the dtype: pandas would guess another than the batches have, and convert all ids for each of them
        self._ids = pd.Index(task.records["record_id"].to_numpy(dtype=object), dtype=object)
        _refuse_repeated(self._ids)
        self._fingerprints = _fingerprints(judge, task)
        self.n_records = len(self._ids)
        self.n_invented = 0
        self._pieces: list[pa.Table] = []
        self._n_rows = 0
        self._row_of = np.full(self.n_records, -1, dtype=np.int64)
        self._is_cached = np.zeros(self.n_records, dtype=np.bool_)
        self._twin_of = _first_of_each(self._fingerprints) if judge.is_cacheable else np.arange(self.n_records)
        self._n_twins = np.bincount(self._twin_of, minlength=self.n_records)
        self.n_done = 0
        self._read_cache()

    def remaining_task(self) -> JudgeTask:
        """What is left to judge: one record of each that are equal."""
        is_open = (self._row_of < 0) & (self._twin_of == np.arange(self.n_records))
        if is_open.all():  # as of most tasks: the texts need not be copied
            return self._task
        return replace(self._task, records=self._task.records.iloc[np.flatnonzero(is_open)])

    def add(self, frame: pd.DataFrame) -> None:
        """Take a batch from the judge and store it."""
        batch = _valid_verdicts(frame)
        positions = self._ids.get_indexer(pd.Index(batch.column("record_id").to_numpy(), dtype=object))
        is_new = _is_first(positions) & (positions >= 0)
        is_new[is_new] = self._row_of[positions[is_new]] < 0
        self.n_invented += int(np.count_nonzero(~is_new))
        verdicts = batch.filter(pa.array(is_new)).drop_columns(["record_id"])
        positions = positions[is_new]
        self._append(verdicts, positions)
        if self._cache is not None:
            fingerprints = pa.array([self._fingerprints[position] for position in positions], pa.string())
            self._cache.put_many(verdicts.add_column(0, CACHED_VERDICTS.field("fingerprint"), fingerprints))

    def table(self) -> pd.DataFrame:
        """The judge_scores table of all records."""
        is_twin = self._twin_of != np.arange(self.n_records)
        rows = self._row_of[self._twin_of]
        self._is_cached |= is_twin & (rows >= 0)
        self._is_cached |= self._is_cached[self._twin_of]
        missing = _missing_verdict(self._judge)
        rows[rows < 0] = self._n_rows
        verdicts = pa.concat_tables([*self._pieces, missing]).take(pa.array(rows))
        ids = pa.array(self._ids, pa.string())
        examples = pa.array([example.record_id for example in self._task.criteria.examples], pa.string())
        columns = {
            "record_id": ids,
            **{name: verdicts.column(name) for name in _VERDICT.names},
            "is_cached": pa.array(self._is_cached),
            "is_example": pc.is_in(ids, value_set=examples),
            "fingerprint": pa.array(self._fingerprints, pa.string()),
        }
        table = conforming.conform_table(pa.table(columns), schemas.JUDGE_SCORES, "judge_scores")
        frame = conforming.frame_from_arrow(table)
        frame.attrs["n_invented"] = self.n_invented
        return frame

    def _read_cache(self) -> None:
        if self._cache is None or not self.n_records:
            return
        firsts = np.flatnonzero(self._twin_of == np.arange(self.n_records))
        known = self._cache.get_many([self._fingerprints[position] for position in firsts])
        position_of = {self._fingerprints[position]: position for position in firsts}
        positions = np.array([position_of[key] for key in known.column("fingerprint").to_pylist()], dtype=np.int64)
        self._append(known.drop_columns(["fingerprint"]), positions)
        self._is_cached[positions] = True

    def _append(self, verdicts: pa.Table, positions: NDArray[np.int64]) -> None:
        self._row_of[positions] = np.arange(self._n_rows, self._n_rows + len(positions))
        self._n_rows += len(positions)
        self.n_done += int(self._n_twins[positions].sum())
        self._pieces.append(verdicts)


def _valid_verdicts(frame: pd.DataFrame) -> pa.Table:
    """The judge's batch in its schema; a score beside 0 and 1 is no verdict, a failure has no score."""
    arrays: dict[str, Any] = {str(column): pa.array(frame[column], from_pandas=True) for column in frame.columns}
    table = conforming.conform_table(pa.table(arrays), VERDICTS, "verdicts")
    statuses = pc.unique(table.column("status")).to_pylist()
    unknown = sorted(set(statuses) - set(STATUSES))
    if unknown:
        raise SchemaError(f"verdicts of unknown status {unknown}; a judge gives one of {STATUSES}")
    is_scored = pc.equal(table.column("status"), "scored")
    is_binary = pc.is_in(table.column("llm_score"), value_set=pa.array([0, 1], pa.int8()))
    if pc.all(pc.equal(is_scored, is_binary)).as_py() is not False:
        return table
    is_broken = pc.and_(is_scored, pc.invert(is_binary))
    reason = pc.if_else(is_broken, "the judge's score is neither 0 nor 1", table.column("failure_reason"))
    score = pc.if_else(pc.and_(is_scored, is_binary), table.column("llm_score"), pa.scalar(None, pa.int8()))
    changed = {
        "status": pc.if_else(is_broken, "unparseable", table.column("status")),
        "llm_score": score,
        "failure_reason": reason,
    }
    columns = [changed.get(name, table.column(name)) for name in VERDICTS.names]
    return pa.Table.from_arrays(columns, schema=VERDICTS)


def _digest_examples(examples: pd.DataFrame) -> str:
    """What a judge is shown of the examples beside their texts: people's verdicts and notes, which may change."""
    shown = (examples[name].astype("string[pyarrow]").fillna("") for name in ("human_score", "human_notes"))
    return digest(*(text for column in shown for text in column))


def _missing_verdict(judge: Judge) -> pa.Table:
    row: dict[str, object] = dict.fromkeys(_VERDICT.names)
    row |= {"status": "failed", "failure_reason": NO_VERDICT, "n_attempts": 0}
    row |= {"provider": judge.provider, "model": judge.model}
    return pa.Table.from_pylist([row], schema=_VERDICT)


def _first_of_each(fingerprints: list[str]) -> NDArray[np.int64]:
    """For each position, the first position with the same fingerprint."""
    first: dict[str, int] = {}
    positions = (first.setdefault(key, position) for position, key in enumerate(fingerprints))
    return np.fromiter(positions, dtype=np.int64, count=len(fingerprints))


def _is_first(positions: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Where a value stands for the first time."""
    is_first = np.zeros(len(positions), dtype=np.bool_)
    is_first[np.unique(positions, return_index=True)[1]] = True
    return is_first


def _refuse_repeated(ids: pd.Index) -> None:
    if not ids.is_unique:
        repeated = ids[ids.duplicated()].unique()
        raise InputError(f"{len(repeated)} record ids repeat, e.g. {list(repeated[:3])}; rename or drop the repeats")


def _ignore(done: int, total: int) -> None:
    """Progress that nobody asked for."""
