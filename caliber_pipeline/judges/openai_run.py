"""One run of the OpenAI-compatible judge: an event loop in a thread of its own, and what is judged in it."""

import asyncio
import contextlib
import json
import queue
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

import pandas as pd
import pyarrow as pa

from caliber_pipeline.core import conforming
from caliber_pipeline.core.judge_prompt import REPAIR_REQUEST, Message, build_prefix, build_record_message
from caliber_pipeline.core.judge_reply import ParsedReply, clean_text, majority, parse_reply, score_confidence
from caliber_pipeline.core.pricing import usd
from caliber_pipeline.core.verdicts import VERDICTS
from caliber_pipeline.judges.budget import Budget, CapReachedError
from caliber_pipeline.judges.caller import Caller, CallFailedError, Completion, RefusedError, Tally
from caliber_pipeline.judges.dialect import Dialect
from caliber_pipeline.judges.openai_settings import OpenAIJudgeSettings
from caliber_pipeline.judges.protocol import JudgeTask
from caliber_pipeline.judges.rate_limiter import RateLimiter
from caliber_pipeline.judges.transport import open_transport

Row = tuple[str | int | float | None, ...]
"""One verdict, in the order of the VERDICTS schema."""

_FLUSH_EVERY_S: Final = 0.2
_STOP_WITHIN_S: Final = 1.5
_MAX_PROBES: Final = 3  # records that may fail on their own account before the endpoint is held to be at fault
_WORKERS_PER_CALL: Final = 2  # a record that waits for its retry leaves its place to another
_MAX_SHOWN: Final = 200
_REFUSAL_FINISHES: Final = {"content_filter", "refusal"}


@dataclass(frozen=True)
class Vote:
    """What one question gave; the score only where the status is scored."""

    status: str
    score: int | None = None
    reasoning: str | None = None
    confidence: float | None = None
    reason: str | None = None


@dataclass(frozen=True)
class _Record:
    record_id: str
    query: str
    output: str
    reference: str | None


class OpenAIRun:
    """Judges a task's records in a thread; rows are fetched with `next_rows` from the thread that started it."""

    def __init__(self, settings: OpenAIJudgeSettings, dialect: Dialect, task: JudgeTask, budget: Budget) -> None:
        """A run that has not started."""
        self.caller: Caller | None = None
        self.limiter: RateLimiter
        self._settings = settings
        self._dialect = dialect
        self._task = task
        self._budget = budget
        self._provider = settings.provider_name
        self._has_price = settings.price is not None
        self._n_votes = task.criteria.sampling.n_votes
        self._prefix = build_prefix(task.criteria, task.examples)
        self._results: queue.SimpleQueue[list[Row] | BaseException | None] = queue.SimpleQueue()
        self._buffer: list[Row] = []
        self._is_capped = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._main: asyncio.Task[None] | None = None
        self._is_stopped = False
        self._thread = threading.Thread(target=self._run_loop, name="judge", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def next_rows(self) -> list[Row] | None:
        """The next verdicts, waiting for them; None after the last.

        Raises:
            JudgeError: the endpoint cannot work.
        """
        found = self._results.get()
        if isinstance(found, BaseException):
            raise found
        return found

    def stop(self) -> None:
        """End the work, if it is not at its end, and wait for the thread a little."""
        self._is_stopped = True
        if self._loop is not None and self._main is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed already
                self._loop.call_soon_threadsafe(self._main.cancel)
        self._thread.join(_STOP_WITHIN_S)

    def take_rest(self) -> list[Row]:
        """The verdicts that have arrived and that nobody has taken, once the work is stopped."""
        rest: list[Row] = []
        while not self._results.empty():
            found = self._results.get()
            rest += found if isinstance(found, list) else []
        return rest

    def _run_loop(self) -> None:
        try:
            asyncio.run(self._work())
        except asyncio.CancelledError:
            self._results.put(None)
        except BaseException as error:  # noqa: BLE001 it is raised in the thread that waits for the rows
            self._results.put(error)
        else:
            self._results.put(None)

    async def _work(self) -> None:
        self._main, self._loop = asyncio.current_task(), asyncio.get_running_loop()
        if self._is_stopped:
            return
        settings = self._settings
        self.limiter = RateLimiter(
            settings.max_concurrency,
            requests_per_minute=settings.requests_per_minute,
            tokens_per_minute=settings.tokens_per_minute,
        )
        transport = open_transport(settings)
        caller = self.caller = Caller(settings, self._dialect, transport, self.limiter, self._budget)
        flusher = asyncio.create_task(self._flush_now_and_then())
        try:
            await self._judge_all(caller, _records(self._task))
        finally:
            flusher.cancel()
            self._flush()
            await transport.aclose()

    async def _judge_all(self, caller: Caller, records: Iterator[_Record]) -> None:
        if not await self._probe(caller, records):
            return
        workers = min(len(self._task.records), self._settings.max_concurrency * _WORKERS_PER_CALL)
        tasks = [asyncio.create_task(self._judge_each(caller, records)) for _ in range(workers)]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()

    async def _probe(self, caller: Caller, records: Iterator[_Record]) -> bool:
        """Judge the first record alone, and the next ones while none is answered; False when none is left."""
        for n_probes, record in enumerate(records, start=1):
            row = await self._judge_one(caller, record)
            if caller.has_answered or self._is_capped:
                return True
            if n_probes == _MAX_PROBES and len(self._task.records) > _MAX_PROBES:
                raise caller.unusable(f"the first {n_probes} records failed, the last one with: {row}")
        return False

    async def _judge_each(self, caller: Caller, records: Iterator[_Record]) -> None:
        for record in records:
            await self._judge_one(caller, record)

    async def _judge_one(self, caller: Caller, record: _Record) -> str | None:
        """Judge a record, put its row into the buffer, and return why it has no verdict."""
        tally = Tally()
        messages = [
            *self._prefix,
            Message(role="user", content=build_record_message(record.query, record.output, record.reference)),
        ]
        votes: list[Vote] = []
        while not self._is_capped and len(votes) < self._n_votes:
            votes.append(await self._ask(caller, messages, tally, len(votes)))
        if len(votes) < self._n_votes or votes[-1].status == "skipped":
            cap = self._settings.max_cost_usd
            votes = [Vote("skipped", reason=f"not asked: the spending cap of {cap:g} US dollars was reached")]
        self._buffer.append(self._row(record.record_id, votes, tally))
        return votes[-1].reason

    async def _ask(self, caller: Caller, messages: list[Message], tally: Tally, vote: int) -> Vote:
        """Ask, once more where the reply broke off on its way, and have a reply without a verdict repaired once."""
        try:
            completion = await caller.call(messages, tally, vote)
            found = read_vote(completion)
            if found.status == "unparseable" and _is_broken_off(completion):
                completion = await caller.call(messages, tally, vote)
                found = read_vote(completion)
            if found.status != "unparseable":
                return found
            caller.counts.repairs += 1
            repair = [
                *messages,
                Message(role="assistant", content=completion.text or "(empty)"),
                Message(role="user", content=REPAIR_REQUEST),
            ]
            try:
                return read_vote(await caller.call(repair, tally, vote))
            except (CallFailedError, CapReachedError):
                return found
        except CallFailedError as error:
            return Vote("failed", reason=str(error))
        except RefusedError as error:
            return Vote("refused", reason=str(error))
        except CapReachedError:
            self._is_capped = True
            return Vote("skipped")

    def _row(self, record_id: str, votes: list[Vote], tally: Tally) -> Row:
        share, n_votes = None, None
        verdict = votes[0]
        if self._n_votes > 1 and verdict.status != "skipped":
            verdict, share, n_votes = _count(votes)
        was_called = tally.n_attempts > 0
        tokens = (tally.prompt_tokens, tally.completion_tokens) if was_called and tally.is_counted else (None, None)
        cost = usd(tally.spent) if was_called and tally.is_counted and self._has_price else None
        latency = time.perf_counter() - tally.started_at if tally.started_at is not None else None
        return (
            record_id,
            verdict.status,
            verdict.score,
            verdict.reasoning,
            verdict.confidence,
            share,
            n_votes,
            verdict.reason,
            self._provider,
            self._settings.model,
            *tokens,
            cost,
            latency,
            tally.n_attempts,
        )

    def _flush(self) -> None:
        if self._buffer:
            self._results.put(self._buffer)
            self._buffer = []

    async def _flush_now_and_then(self) -> None:
        while True:
            await asyncio.sleep(_FLUSH_EVERY_S)
            self._flush()


def build_frame(rows: Sequence[Row]) -> pd.DataFrame:
    """The rows as a judge yields them."""
    columns = zip(*rows, strict=True)
    arrays = [pa.array(column, field.type) for column, field in zip(columns, VERDICTS, strict=True)]
    return conforming.frame_from_arrow(pa.Table.from_arrays(arrays, schema=VERDICTS))


def read_vote(completion: Completion) -> Vote:
    """The vote that a completion holds, or why it holds none."""
    if completion.refusal or completion.finish_reason in _REFUSAL_FINISHES:
        return Vote("refused", reason=clean_text(completion.refusal or "the endpoint filtered the reply")[:_MAX_SHOWN])
    found = parse_reply(completion.text)
    if found is None:
        end = ", cut at its length limit" if completion.finish_reason == "length" else ""
        shown = json.dumps(clean_text(completion.text)[:_MAX_SHOWN], ensure_ascii=False)
        return Vote("unparseable", reason=f"the reply says neither 0 nor 1{end}: {shown}")
    return _scored(found, completion)


def _is_broken_off(completion: Completion) -> bool:
    """Whether the text is the beginning of a JSON object that the model itself does not say it left unfinished."""
    text = completion.text.strip()
    return completion.finish_reason == "stop" and text.startswith("{") and not text.endswith("}")


def _scored(found: ParsedReply, completion: Completion) -> Vote:
    confidence = score_confidence(completion.logprobs, found.score) if completion.logprobs else None
    reasoning = clean_text(found.reasoning) if found.reasoning else None
    return Vote("scored", found.score, reasoning, confidence)


def _count(votes: list[Vote]) -> tuple[Vote, float | None, int | None]:
    """The majority's vote with its share as confidence, the share, and the number of votes that had a score."""
    scores = [vote.score for vote in votes if vote.score is not None]
    score, share = majority(scores)
    if not scores:
        return votes[0], None, None
    if score is None:
        half = len(scores) // 2
        return Vote("unparseable", reason=f"the votes tie, {half} to {half}"), share, len(scores)
    first = next(vote for vote in votes if vote.score == score)
    return replace(first, confidence=share), share, len(scores)


def _records(task: JudgeTask) -> Iterator[_Record]:
    names = ("record_id", "query", "output", "reference")
    columns = [pa.array(task.records[name], from_pandas=True).to_pylist() for name in names]
    return (_Record(*fields) for fields in zip(*columns, strict=True))
