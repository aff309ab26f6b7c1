"""A call made until it is answered: limits, retries, spending cap, and what the endpoint turns out to accept."""

import asyncio
import json
import logging
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from caliber_pipeline.core.errors import JudgeError, JudgeSettingsError
from caliber_pipeline.core.judge_prompt import Message
from caliber_pipeline.core.judge_reply import clean_text, parse_retry_after
from caliber_pipeline.core.pricing import BYTES_PER_TOKEN, EXPECTED_REPLY_TOKENS, TOKENS_PER_MESSAGE
from caliber_pipeline.judges.budget import Budget
from caliber_pipeline.judges.dialect import Dialect
from caliber_pipeline.judges.openai_settings import OpenAIJudgeSettings, shown_url
from caliber_pipeline.judges.rate_limiter import RateLimiter
from caliber_pipeline.judges.transport import ConnectionFailedError, HttpReply, Transport

_log = logging.getLogger(__name__)

_FIRST_BACKOFF_S: Final = 0.25
_MAX_BACKOFF_S: Final = 20.0
_SHORTEST_S: Final = 0.01  # of an attempt: in less of a record's time nothing is answered
_MAX_LIMITED: Final = 100  # 429s for one record: with all calls pausing together, more is a limit that never opens
_MIN_GIVEN_UP: Final = 20  # calls given up without an answer between them, before the endpoint is held to be down
_GIVEN_UP_PER_CALL: Final = 2  # the same, for each call under way at once: they fail together
_MAX_REASON: Final = 300  # characters of an endpoint's own words
_OVERHEAD_TOKENS: Final = 400  # the reply's schema and the chat's frame, at most
_REFUSAL_CODES: Final = {"content_filter", "content_policy_violation", "moderation"}
_NO_MONEY_CODES: Final = {"insufficient_quota", "billing_hard_limit_reached", "billing_not_active"}


class CallFailedError(Exception):
    """The call failed for good; the message is the reason."""


class RefusedError(Exception):
    """The endpoint refuses this content; the message is the reason."""


@dataclass
class Tally:
    """What one record has taken so far."""

    n_attempts: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    spent: int = 0
    is_counted: bool = True
    started_at: float | None = None
    own_s: float = 0.0


@dataclass(frozen=True)
class Completion:
    """The part of a chat completion that a verdict is read from."""

    text: str
    refusal: str | None
    finish_reason: str | None
    logprobs: Sequence[dict[str, Any]]


@dataclass(frozen=True)
class _Problem:
    """What is wrong with a call, what to do about it, and the wait that is due; None for a back-off.

    "fatal" and "unset" end the run; the second where the settings are to blame: key, model or URL.
    """

    kind: Literal["again", "limited", "changed", "refused", "failed", "fatal", "unset"]
    reason: str
    wait_s: float | None = None


@dataclass
class Counts:
    """What a run has done so far, in all."""

    calls: int = 0
    limited: int = 0
    repeated: int = 0
    repairs: int = 0
    timeouts: int = 0
    spent: int = 0
    adaptations: list[str] = field(default_factory=list)


class Caller:
    """Makes calls of one run; all methods in one event loop."""

    def __init__(
        self,
        settings: OpenAIJudgeSettings,
        dialect: Dialect,
        transport: Transport,
        limiter: RateLimiter,
        budget: Budget,
    ) -> None:
        """A caller that has not been answered yet."""
        self.dialect = dialect
        self.counts = Counts()
        self.has_answered = False
        self._settings = settings
        self._transport = transport
        self._limiter = limiter
        self._budget = budget
        self._price = settings.price
        self._random = random.Random()  # noqa: S311 spreads retries, keeps no secret
        self._n_given_up = 0
        self._reply_tokens = float(EXPECTED_REPLY_TOKENS)

    async def call(self, messages: Sequence[Message], tally: Tally, vote: int = 0) -> Completion:
        """Have the messages answered.

        Raises:
            CallFailedError: for good, after all attempts.
            RefusedError: the endpoint refuses the content.
            CapReachedError: the spending cap leaves no room for the call.
            JudgeError: the endpoint cannot work for any record.
        """
        n_failed = n_limited = 0
        self._require_time(tally, "the attempts before")
        while True:
            outcome = await self._attempt(messages, tally, vote)
            if isinstance(outcome, Completion):
                return outcome
            if outcome.kind == "limited":
                n_limited += 1
                if outcome.wait_s is None:
                    await self._back_off(n_limited, tally)
            elif outcome.kind == "again":
                n_failed += 1
                if outcome.wait_s is None and n_failed <= self._settings.max_retries:
                    await self._back_off(n_failed, tally)
            self._give_up_on(outcome, n_failed, n_limited, tally)
            self.counts.repeated += 1

    def _give_up_on(self, problem: _Problem, n_failed: int, n_limited: int, tally: Tally) -> None:
        settings = self._settings
        if problem.kind in {"fatal", "unset"}:
            raise self.unusable(problem.reason, JudgeError if problem.kind == "fatal" else JudgeSettingsError)
        if problem.kind == "refused":
            raise RefusedError(problem.reason)
        if problem.kind == "failed":
            raise CallFailedError(problem.reason)
        if n_failed > settings.max_retries or n_limited > _MAX_LIMITED:
            self._n_given_up += 1
            if self._n_given_up >= max(_MIN_GIVEN_UP, _GIVEN_UP_PER_CALL * settings.max_concurrency):
                raise self.unusable(f"no call was answered while {self._n_given_up} were given up: {problem.reason}")
            raise CallFailedError(f"{problem.reason} (attempt {tally.n_attempts}, the last)")
        self._require_time(tally, problem.reason)

    def _left_s(self, tally: Tally) -> float:
        return self._settings.record_timeout_s - tally.own_s

    def _require_time(self, tally: Tally, last: str) -> None:
        """Give up where a record has had its time."""
        if tally.n_attempts and self._left_s(tally) < _SHORTEST_S:
            raise CallFailedError(f"no verdict within {self._settings.record_timeout_s:g} s; last: {last}")

    async def _back_off(self, n: int, tally: Tally) -> None:
        delay = min(_MAX_BACKOFF_S, _FIRST_BACKOFF_S * 2 ** min(n - 1, 10)) * self._random.uniform(0.5, 1.0)
        delay = max(0.0, min(delay, self._left_s(tally)))
        tally.own_s += delay
        await asyncio.sleep(delay)

    async def _attempt(self, messages: Sequence[Message], tally: Tally, vote: int) -> Completion | _Problem:
        dialect = self.dialect
        n_bytes = sum(len(message["content"]) for message in messages)
        expected = int(n_bytes / BYTES_PER_TOKEN + self._reply_tokens)
        reserved = self._most_it_can_cost(messages, dialect)
        await self._budget.reserve(reserved)
        spent = reserved
        try:
            await self._limiter.enter(expected)
            start = time.perf_counter()
            tally.started_at = tally.started_at or start
            tally.n_attempts += 1
            self.counts.calls += 1
            try:
                timeout_s = min(self._settings.attempt_timeout_s, self._left_s(tally))
                reply = await self._transport.post(dialect.body(messages, vote), timeout_s)
            except ConnectionFailedError as error:
                spent = reserved if error.may_have_run else 0
                return self._no_reply(error)
            finally:
                self._limiter.leave()
                tally.own_s += time.perf_counter() - start
            outcome = self._read(reply, dialect)
            spent = self._account(reply, outcome, tally, reserved, expected)
            if reply.status != 429:
                self._limiter.replied(time.perf_counter() - start)
            return outcome[0]
        finally:
            self.counts.spent += spent
            self._budget.settle(reserved, spent)

    def _no_reply(self, error: ConnectionFailedError) -> _Problem:
        self.counts.timeouts += error.is_timeout
        if error.is_unreachable and not self.has_answered:
            return _Problem("unset", str(error))
        return _Problem("again", str(error), 0.0 if error.is_timeout else None)

    def _read(self, reply: HttpReply, dialect: Dialect) -> tuple[Completion | _Problem, dict[str, Any]]:
        try:
            content = json.loads(reply.content)
        except (ValueError, RecursionError):
            content = None
        if reply.status == 200:
            completion = parse_completion(content)
            if completion is not None:
                self.has_answered = True
                self._n_given_up = 0
                return completion, content.get("usage") or {}
        error = _error_of(content)
        status = reply.status
        if status == 200 and error.get("message"):
            status = error["code"] if isinstance(error.get("code"), int) else 502
        return self._problem(status, error, reply, dialect), {}

    def _problem(self, status: int, error: dict[str, Any], reply: HttpReply, dialect: Dialect) -> _Problem:
        words = " ".join(str(error.get("message") or "").split())[:_MAX_REASON]
        reason = self._redact(f"HTTP {status}" + (f": {words}" if words else ""))
        code = {str(error.get("code")), str(error.get("type"))}
        wait_s = parse_retry_after(reply.headers, time.time())
        if wait_s is not None and wait_s > self._settings.max_wait_s:
            longest = f"{self._settings.max_wait_s:g} s (CALIBER_MAX_WAIT_S)"
            return _Problem("fatal", f"{reason}; it asks to wait {wait_s:.0f} s, longer than {longest}")
        if code & _REFUSAL_CODES:
            return _Problem("refused", reason)
        if status == 402 or code & _NO_MONEY_CODES:
            return _Problem("fatal", reason)
        if status == 401 or (status in {403, 404} and not self.has_answered):
            return _Problem("unset", reason)
        if status == 200:
            return _Problem("again", "the reply is no chat completion")
        if status in {400, 422} and self._adapt(error, dialect):
            return _Problem("changed", reason)
        if status == 429:
            self.counts.limited += 1
            self._limiter.refused()
        if status in {408, 409, 425, 429} or status >= 500:
            if wait_s is not None:
                self._limiter.pause(wait_s)
            return _Problem("limited" if status == 429 else "again", reason, wait_s or None)
        return _Problem("failed", reason)

    def _adapt(self, error: dict[str, Any], dialect: Dialect) -> bool:
        """Whether the request has another form to try; it is remembered."""
        if dialect != self.dialect:
            return True
        parameter = error.get("param")
        changed = dialect.after_refusal(parameter if isinstance(parameter, str) else None, str(error.get("message")))
        if changed is None:
            return False
        what = f"replies as {changed.format}" if changed.format != dialect.format else f"no {changed.refused[-1]}"
        _log.info("The endpoint did not accept the request; from now on: %s", what)
        self.counts.adaptations.append(what)
        self.dialect = changed
        return True

    def _account(
        self,
        reply: HttpReply,
        outcome: tuple[Completion | _Problem, dict[str, Any]],
        tally: Tally,
        reserved: int,
        expected: int,
    ) -> int:
        """Note the tokens of a reply; returns what is to be taken as spent."""
        if not isinstance(outcome[0], Completion):
            return reserved if reply.status == 200 else 0
        usage = outcome[1]
        sent, received = usage.get("prompt_tokens"), usage.get("completion_tokens")
        if not isinstance(sent, int) or not isinstance(received, int):
            tally.is_counted = False
            return reserved
        tally.prompt_tokens += sent
        tally.completion_tokens += received
        self._reply_tokens += 0.1 * (received - self._reply_tokens)
        self._limiter.settle(expected, sent + received)
        spent = self._price.cost(sent, received) if self._price else 0
        tally.spent += spent
        return spent

    def _most_it_can_cost(self, messages: Sequence[Message], dialect: Dialect) -> int:
        """A token holds at least one byte, so bytes bound tokens; the reply is bounded by its limit."""
        if self._price is None or self._settings.max_cost_usd is None:
            return 0
        n_bytes = sum(len(message["content"].encode("utf-8", "replace")) for message in messages)
        most_sent = n_bytes + TOKENS_PER_MESSAGE * len(messages) + _OVERHEAD_TOKENS
        return self._price.cost(most_sent, dialect.max_output_tokens or self._settings.max_output_tokens)

    def unusable(self, reason: str, kind: type[JudgeError] = JudgeError) -> JudgeError:
        """The error that ends the run: which endpoint and model, and why."""
        settings = self._settings
        where = f"{settings.provider_name} at {shown_url(settings.endpoint_url)}, model '{self.dialect.model}'"
        return kind(self._redact(f"{where}: {reason}"))

    def _redact(self, text: str) -> str:
        key = self._settings.key
        return clean_text(text.replace(key, "[key]") if len(key) > 4 else text)


def require_price(settings: OpenAIJudgeSettings) -> None:
    """Refuse a spending cap without a price to hold the spending against.

    Raises:
        JudgeSettingsError: there is a cap and no price.
    """
    if settings.max_cost_usd is not None and settings.price is None:
        raise JudgeSettingsError(
            f"no price is known for model '{settings.model}', so a spending cap cannot be kept; set "
            "CALIBER_INPUT_PRICE and CALIBER_OUTPUT_PRICE (US dollars per million tokens)"
        )


def parse_completion(content: object) -> Completion | None:
    """The completion in the content of a reply; None where it is none."""
    try:
        choice = content["choices"][0]  # type: ignore[index]
        message = choice["message"]
        text = message.get("content")
        logprobs = (choice.get("logprobs") or {}).get("content") or ()
        if isinstance(text, list):
            text = "".join(part.get("text", "") for part in text)
        return Completion(text or "", message.get("refusal"), choice.get("finish_reason"), logprobs)
    except (KeyError, IndexError, TypeError, AttributeError):
        return None


def _error_of(content: object) -> dict[str, Any]:
    if isinstance(content, list) and content:
        content = content[0]
    if not isinstance(content, dict):
        return {}
    error = content.get("error", content)
    return error if isinstance(error, dict) else {"message": str(error)}
