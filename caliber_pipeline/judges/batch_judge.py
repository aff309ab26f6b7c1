"""The judge through a provider's batches: half the price, and verdicts within a day instead of seconds."""

import json
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import pandas as pd
import pyarrow as pa

from caliber_pipeline.core.criteria import Criteria
from caliber_pipeline.core.errors import CaliberError, InputError, SpendingCapError
from caliber_pipeline.core.fingerprints import digest
from caliber_pipeline.core.judge_prompt import Message, build_prefix, build_record_message
from caliber_pipeline.core.pricing import Estimate, pico, usd
from caliber_pipeline.judges.batch_files import BatchFiles, BatchProgress, Line, QueueFullError, open_client
from caliber_pipeline.judges.caller import parse_completion
from caliber_pipeline.judges.openai_judge import OpenAIJudge
from caliber_pipeline.judges.openai_run import Row, build_frame, read_vote
from caliber_pipeline.judges.openai_settings import OpenAIJudgeSettings
from caliber_pipeline.judges.protocol import JudgeTask
from caliber_pipeline.stores.batch_folder import BatchFolder, StoredBatch, describe_batches

_log = logging.getLogger(__name__)

PRICE_FACTOR: Final = 0.5  # of the price of single calls, at every provider of the table that has batches
_TELL_EVERY_S: Final = 600.0  # a sign of life for who waits
_CANCELLED: Final = "the batch was cancelled before it came to this record"


class StillUnderWayError(CaliberError):
    """Batches are under way, and nobody waits for them: the next run takes what has ended by then."""


class _StoppedError(Exception):
    """The judge was stopped while it waited."""


@dataclass(frozen=True)
class BatchLimits:
    """What a provider takes as one batch, and how often it is asked.

    Attributes:
        max_requests: Lines of a file.
        max_bytes: Size of a file.
        poll_every_s: Seconds between two looks at the batches under way.
    """

    max_requests: int = 50_000
    max_bytes: int = 190_000_000  # of OpenAI's 200 MB
    poll_every_s: float = 30.0


class BatchJudge:
    """An `OpenAIJudge` that asks through batches; implements `Judge`.

    Lines that failed or expired are asked again one by one, as `OpenAIJudge` does; those of a batch that somebody
    cancelled are not. It has the other judge's identity, so the cache knows the verdicts of both.
    Several threads may judge with it at a time.

    Attributes:
        waits: Whether `judge` waits for batches to end, or raises `StillUnderWayError` after one look at each.
        tell: Called with a line about every batch that was sent, or that ended before all its lines were answered, and
            every ten minutes while one waits.
        endings: How the batches ended whose results were taken, by the provider's word for it.
        sending: Held while a batch is sent, so that who sends knows what else was under way.
        is_full: Set while the provider has no room for more batches.
    """

    is_cacheable: Final = True

    def __init__(
        self,
        single: OpenAIJudge,
        settings: OpenAIJudgeSettings,
        folder: Path,
        *,
        waits: bool = True,
        limits: BatchLimits | None = None,
        sleep: Callable[[float], object] | None = None,
    ) -> None:
        """A judge that has sent nothing yet.

        Args:
            single: Who is asked where a batch gave no answer.
            settings: Its settings.
            folder: Where the ids of the batches under way are kept, so that a restart takes them up again.
            waits: Whether to wait for batches to end.
            limits: What the provider takes.
            sleep: Waits between two looks; the clock where left out.
        """
        self._single = single
        self._settings = settings
        self._folder = BatchFolder(folder)
        self._limits = limits or BatchLimits()
        self._is_stopped = threading.Event()
        self._sleep = sleep or self._is_stopped.wait
        self._single_calls = threading.Lock()  # their limits hold for one run at a time
        self.sending = threading.Lock()
        self.is_full = threading.Event()
        self._told_at = time.monotonic()
        self.waits = waits
        self.tell: Callable[[str], object] = _log.info
        self.endings: Counter[str] = Counter()
        self.max_examples = single.max_examples

    @property
    def provider(self) -> str:
        """The endpoint's provider."""
        return self._single.provider

    @property
    def model(self) -> str:
        """The model that answers."""
        return self._single.model

    def stop(self) -> None:
        """End the waiting of all threads; what is under way at the provider stays so."""
        self._is_stopped.set()

    def pause(self) -> None:
        """Wait until it is time for another look."""
        if time.monotonic() - self._told_at >= _TELL_EVERY_S:
            self._told_at = time.monotonic()
            self.tell(describe_batches(self._folder.load_all()))
        self._sleep(self._limits.poll_every_s)
        if self._is_stopped.is_set():
            raise _StoppedError

    def poll(self) -> BatchProgress:
        """How far the batches under way are.

        Raises:
            JudgeError: the provider does not answer.
        """
        with open_client(self._settings) as client:
            return BatchFiles(client, self._folder).poll(self._folder.load_all())

    def identity(self, criteria: Criteria) -> Mapping[str, str | int | float | None]:
        """That of the single judge."""
        return self._single.identity(criteria)

    def estimate(self, task: JudgeTask, n_cached: int = 0) -> Estimate:
        """Calls, tokens and cost, at half the price of single calls."""
        estimate = self._single.estimate(task, n_cached)
        cost = None if estimate.cost_usd is None else estimate.cost_usd * PRICE_FACTOR
        return replace(estimate, cost_usd=cost)

    def judge(self, task: JudgeTask) -> Generator[pd.DataFrame]:
        """Yield verdicts as batches end, and those of single calls at the end.

        Raises:
            JudgeError: the provider refuses a batch, or single calls cannot work.
            InputError: the criteria ask for several votes, which batches do not give.
            SpendingCapError: they would cost more than the cap, by the estimate.
            StillUnderWayError: batches have not ended, and this judge does not wait.
        """
        if task.criteria.sampling.n_votes > 1:
            raise InputError("several votes are not asked for in batches; judge live, or set n_votes to 1")
        if not len(task.records):
            return
        reserved = self._reserve(task)
        spent = reserved  # what was sent is paid for, also where the replies are not waited for
        under_way: StillUnderWayError | None = None
        try:
            with open_client(self._settings) as client:
                run = _BatchRun(self, task, BatchFiles(client, self._folder), self._folder)
                try:
                    yield from run.take_batches()
                    spent = run.spent
                except StillUnderWayError as error:
                    under_way = error
        finally:
            self._single.budget.settle(reserved, spent)
        if run.to_repeat:
            is_open = task.records["record_id"].isin(list(run.to_repeat)).to_numpy(dtype=bool)
            with self._single_calls:
                yield from self._single.judge(replace(task, records=task.records[is_open]))
        if under_way is not None:
            raise under_way

    def _reserve(self, task: JudgeTask) -> int:
        """Set the estimate aside from the spending cap."""
        cost = self.estimate(task).cost_usd or 0.0
        budget, cap = self._single.budget, self._settings.max_cost_usd
        if not budget.take(pico(cost)):
            taken = {"spent": budget.spent, "set aside for what is under way": budget.reserved}
            parts = " and ".join(f"{usd(amount):.4f} are {what}" for what, amount in taken.items() if amount)
            before = f", of which {parts}" if parts else ""
            raise SpendingCapError(
                f"{len(task.records)} records in batches cost about {cost:.4f} US dollars, over the spending cap of "
                f"{cap:g}{before}; raise it, or judge fewer"
            )
        return pico(cost)


class _BatchRun:
    """One task: which record is which line, and what became of each."""

    def __init__(self, judge: BatchJudge, task: JudgeTask, files: BatchFiles, folder: BatchFolder) -> None:
        self._judge = judge
        self._task = task
        self._files = files
        self._folder = folder
        self._dialect = judge._single.first_dialect(task.criteria)  # noqa: SLF001 of the same judge
        self._prefix = build_prefix(task.criteria, task.examples)
        self._record_of = {custom_id: record_id for custom_id, record_id, _ in self._requests()}
        self._open = set(self._record_of)
        self._unsent: set[str] = set()
        self.to_repeat: set[str] = set()
        self.spent = 0

    def take_batches(self) -> Iterator[pd.DataFrame]:
        under_way = self._resume()
        sent = {custom_id for custom_ids in under_way.values() for custom_id in custom_ids}
        under_way |= self._send(sent)
        while under_way or self._unsent:
            for batch, custom_ids in list(under_way.items()):
                try:
                    status, lines = self._files.look(batch)
                except QueueFullError:
                    if batch.is_alone:  # no other was to end: this one by itself is too much
                        raise
                    self._judge.is_full.set()
                    del under_way[batch]
                    self._unsent.update(custom_ids)
                    continue
                if status in {"completed", "expired", "cancelled"}:
                    if rows := self._take(batch, custom_ids, status, dict(lines)):
                        yield build_frame(rows)
                    # only now: who dies before the rows are stored finds the batch again
                    self._files.discard(batch)
                    self._judge.is_full.clear()
                    del under_way[batch]
            if under_way or self._unsent:
                under_way |= self._wait()

    def _wait(self) -> dict[StoredBatch, tuple[str, ...]]:
        """Wait a little, then send again what the provider had no room for."""
        if self._judge.waits:
            self._judge.pause()
        elif batches := self._folder.load_all():
            raise StillUnderWayError(describe_batches(batches))
        unsent, self._unsent = self._unsent, set()
        self._judge.is_full.clear()
        return self._send(set(self._record_of) - unsent) if unsent else {}

    def _resume(self) -> dict[StoredBatch, tuple[str, ...]]:
        """The batches of an earlier run that hold records of this task."""
        resumed = {}
        for batch in self._folder.load_all():
            # of other shards there are hundreds: to read all ids of each would take longer the more there are, squared
            if self._open.isdisjoint(batch.sample):
                continue
            custom_ids = self._folder.load_custom_ids(batch)
            if (found := self._files.find_sent(batch)) is not None:
                resumed[found] = custom_ids
        return resumed

    def _send(self, sent: set[str]) -> dict[StoredBatch, tuple[str, ...]]:
        """Send what is not sent yet, unless the provider has just said that it has no room."""
        batches = {}
        for requests in self._chunks(sent):
            if self._judge.is_full.is_set():
                self._unsent.update(requests)
                continue
            with self._judge.sending:
                batch = self._files.send(requests)
            batches[batch] = tuple(requests)
            self._judge.tell(f"batch {batch.batch_id} sent, {batch.n_requests} records")
        return batches

    def _chunks(self, sent: set[str]) -> Iterator[dict[str, dict[str, Any]]]:
        limits = self._judge._limits  # noqa: SLF001 of the same judge
        chunk: dict[str, dict[str, Any]] = {}
        n_bytes = 0
        for custom_id, _, body in self._requests():
            if custom_id in sent:
                continue
            size = len(json.dumps(body, ensure_ascii=False).encode()) + len(custom_id) + 100
            if chunk and (len(chunk) >= limits.max_requests or n_bytes + size > limits.max_bytes):
                yield chunk
                chunk, n_bytes = {}, 0
            chunk[custom_id] = body
            n_bytes += size
        if chunk:
            yield chunk

    def _requests(self) -> Iterator[tuple[str, str, dict[str, Any]]]:
        """Custom id, record id and body per record; the custom id tells of any change in what is asked."""
        names = ("record_id", "query", "output", "reference")
        columns = [pa.array(self._task.records[name], from_pandas=True) for name in names]
        for position in range(len(self._task.records)):
            record_id, query, output, reference = (column[position].as_py() for column in columns)
            shown = Message(role="user", content=build_record_message(query, output, reference))
            body = self._dialect.body([*self._prefix, shown])
            yield digest(record_id, json.dumps(body, sort_keys=True)), record_id, body

    def _take(
        self, batch: StoredBatch, custom_ids: tuple[str, ...], status: str, lines: Mapping[str, Line]
    ) -> list[Row]:
        rows = []
        n_repeated = len(self.to_repeat)
        for custom_id in custom_ids:
            if custom_id not in self._open:
                continue
            self._open.remove(custom_id)
            record_id = self._record_of[custom_id]
            line = lines.get(custom_id)
            row = None if line is None or line.reason is not None else self._row(record_id, line)
            if row is not None:
                rows.append(row)
            elif status == "cancelled" and line is None:
                rows.append(self._cancelled(record_id))
            else:
                self.to_repeat.add(record_id)
        self._judge.endings[status] += 1
        self._tell_of_gaps(batch, status, len(lines), len(self.to_repeat) - n_repeated)
        return rows

    def _tell_of_gaps(self, batch: StoredBatch, status: str, n_lines: int, n_repeated: int) -> None:
        what = f"batch {batch.batch_id}, sent {batch.sent_at[:16]}, {status}"
        if status == "cancelled":
            self._judge.tell(
                f"{what}: {batch.n_requests - n_lines} of its {batch.n_requests} records have no answer, and count as "
                "failed until a further run asks about them"
            )
        if n_repeated:
            self._judge.tell(
                f"{what}: {n_repeated} of its {batch.n_requests} records got no answer, and are asked one by one, at "
                "the full price"
            )

    def _row(self, record_id: str, line: Line) -> Row | None:
        """The verdict of a line; None where the reply holds none, which is worth another question."""
        completion = parse_completion(line.content)
        if completion is None:
            return None
        usage = line.content.get("usage") or {}
        sent, received = usage.get("prompt_tokens"), usage.get("completion_tokens")
        cost = self._spend(sent, received)  # billed, whatever the reply says
        vote = read_vote(completion)
        if vote.status == "unparseable":
            return None
        provider, model = self._judge.provider, self._judge.model
        judged = (record_id, vote.status, vote.score, vote.reasoning, vote.confidence, None, None, vote.reason)
        return (*judged, provider, model, sent, received, cost, None, 1)

    def _spend(self, sent: object, received: object) -> float | None:
        """Count what a line cost in, and return it; None where price or tokens are not known."""
        price = self._judge._settings.price  # noqa: SLF001 of the same judge
        if price is None or not isinstance(sent, int) or not isinstance(received, int):
            return None
        cost = usd(price.cost(sent, received)) * PRICE_FACTOR
        self.spent += pico(cost)
        return cost

    def _cancelled(self, record_id: str) -> Row:
        unknown = (None,) * 5
        asked = (self._judge.provider, self._judge.model, None, None, None, None, 0)
        return (record_id, "failed", *unknown, _CANCELLED, *asked)
