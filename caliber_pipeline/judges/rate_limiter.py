"""What all calls of a run share: how many at once, how fast, and when to pause."""

import asyncio
import random
from collections import deque
from typing import Final

_RISE: Final = 0.2  # per call that was not refused
_FALL: Final = 0.6  # per 429: with the rise above, concurrency falls while more than a quarter of replies are 429
_SPREAD: Final = 0.1  # of a pause: enough to break a wave up, too little to matter beside the pause itself
_SMOOTHING: Final = 0.1  # weight of the newest call in the running latency


class RateLimiter:
    """Admits calls: a bounded number at once, paced to the limits per minute, none during a pause.

    All methods must be called in one event loop.

    Attributes:
        limit: Calls at once, now; falls with each 429 and rises with each other reply.
        paused_s: Seconds in which all calls were held back, in all.
        max_in_flight: The most calls that were under way at once.
    """

    def __init__(
        self,
        max_concurrency: int,
        *,
        requests_per_minute: float | None = None,
        tokens_per_minute: float | None = None,
        seed: int = 0,
    ) -> None:
        """A limiter with its full concurrency open."""
        self.limit = float(max_concurrency)
        self.paused_s = 0.0
        self.max_in_flight = 0
        self._max_concurrency = max_concurrency
        self._s_per_request = 60.0 / requests_per_minute if requests_per_minute else 0.0
        self._s_per_token = 60.0 / tokens_per_minute if tokens_per_minute else 0.0
        self._is_paced = bool(requests_per_minute or tokens_per_minute)
        self._next_request = self._next_token = 0.0
        self._paused_until = 0.0
        self._in_flight = 0
        self._latency_s = 0.0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._random = random.Random(seed)  # noqa: S311 spreads wake-ups, keeps no secret
        self._now = asyncio.get_running_loop().time

    async def enter(self, tokens: int) -> None:
        """Wait for a place; `tokens` is what the call is expected to take, sent and received."""
        if self._in_flight >= self.limit or self._waiting:
            place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(place)
            await place
        else:
            self._in_flight += 1
        try:
            await self._wait_for_turn(tokens)
        except BaseException:
            self.leave()
            raise
        self.max_in_flight = max(self.max_in_flight, self._in_flight)

    def leave(self) -> None:
        """Give the place back."""
        self._in_flight -= 1
        while self._waiting and self._in_flight < self.limit:
            place = self._waiting.popleft()
            if not place.done():
                self._in_flight += 1
                place.set_result(None)

    def settle(self, expected_tokens: int, tokens: int) -> None:
        """Correct the pace by the tokens that a call really took."""
        self._next_token += (tokens - expected_tokens) * self._s_per_token

    def replied(self, latency_s: float) -> None:
        """Note a reply other than 429."""
        self._latency_s += (latency_s - self._latency_s) * (_SMOOTHING if self._latency_s else 1.0)
        self.limit = min(self._max_concurrency, self.limit + _RISE)

    def refused(self) -> None:
        """Note a 429."""
        self.limit = max(1.0, self.limit - _FALL)

    def pause(self, wait_s: float) -> None:
        """Hold all calls back for as long as the endpoint asks; pauses overlap, they do not add up."""
        now = self._now()
        until = now + wait_s
        self.paused_s += max(0.0, until - max(now, self._paused_until))
        self._paused_until = max(self._paused_until, until)

    async def _wait_for_turn(self, tokens: int) -> None:
        await self._sit_out_pause()
        if self._is_paced:
            now = self._now()
            start = max(now, self._next_request, self._next_token)
            self._next_request = max(now, self._next_request) + self._s_per_request
            self._next_token = max(now, self._next_token) + tokens * self._s_per_token
            if start > now:
                await asyncio.sleep(start - now)
                await self._sit_out_pause()

    async def _sit_out_pause(self) -> None:
        """Sleep until no pause is left; wake-ups are spread over a part of it, so that no wave follows."""
        while (pause := self._paused_until - self._now()) > 0:
            spread = min(self._latency_s, _SPREAD * pause)
            await asyncio.sleep(pause + self._random.random() * spread)
