import asyncio
import time

import pytest

from caliber_pipeline.judges.rate_limiter import RateLimiter


def test_no_more_calls_than_the_limit_are_under_way_and_all_get_their_turn() -> None:
    async def run() -> tuple[int, int]:
        limiter = RateLimiter(3)
        n_now = most = 0

        async def call() -> None:
            nonlocal n_now, most
            await limiter.enter(0)
            n_now += 1
            most = max(most, n_now)
            await asyncio.sleep(0.001)
            n_now -= 1
            limiter.leave()

        await asyncio.gather(*(call() for _ in range(20)))
        return most, limiter.max_in_flight

    assert asyncio.run(run()) == (3, 3)


def test_concurrency_falls_with_each_429_and_recovers_with_other_replies() -> None:
    async def run() -> list[float]:
        limiter = RateLimiter(10)
        limits = []
        for _ in range(100):
            limiter.refused()
        limits.append(limiter.limit)
        for _ in range(20):
            limiter.replied(0.1)
        limits.append(limiter.limit)
        for _ in range(100):
            limiter.replied(0.1)
        return [*limits, limiter.limit]

    # never below 1; 20 replies give 20 * 0.2 = 4 back; never above the maximum
    assert asyncio.run(run()) == [1.0, pytest.approx(5.0), 10.0]


@pytest.mark.parametrize(("share", "expected"), [(0.1, 64.0), (0.5, 1.0)])
def test_a_few_429s_leave_concurrency_alone_and_many_bring_it_down(share: float, expected: float) -> None:
    async def run() -> float:
        limiter = RateLimiter(64)
        for i in range(2000):
            if i % 10 < share * 10:
                limiter.refused()
            else:
                limiter.replied(0.1)
        return limiter.limit

    # Per ten replies: 10 % are +9 * 0.2 - 0.6 = +1.2, half are 5 * 0.2 - 5 * 0.6 = -2.
    assert asyncio.run(run()) == pytest.approx(expected, abs=3)


def test_a_pause_holds_every_call_back_and_overlapping_pauses_do_not_add_up() -> None:
    async def run() -> tuple[float, float]:
        limiter = RateLimiter(8)
        start = time.perf_counter()
        limiter.pause(0.2)
        limiter.pause(0.1)
        waited: list[float] = []

        async def call() -> None:
            await limiter.enter(0)
            waited.append(time.perf_counter() - start)
            limiter.leave()

        await asyncio.gather(*(call() for _ in range(20)))
        return min(waited), limiter.paused_s

    shortest, paused = asyncio.run(run())
    assert shortest >= 0.19
    assert paused == pytest.approx(0.2, abs=0.01)


@pytest.mark.parametrize("limits", [(6000.0, None), (None, 60000.0)])
def test_calls_keep_the_pace_of_the_limits_per_minute(limits: tuple[float | None, float | None]) -> None:
    # 6,000 calls a minute, or 60,000 tokens at 10 a call, are one call every 10 ms: the 21st comes after 200 ms.
    async def run() -> float:
        limiter = RateLimiter(64, requests_per_minute=limits[0], tokens_per_minute=limits[1])
        start = time.perf_counter()

        async def call() -> None:
            await limiter.enter(10)
            limiter.leave()

        await asyncio.gather(*(call() for _ in range(21)))
        return time.perf_counter() - start

    assert 0.19 <= asyncio.run(run()) < 5  # a machine that is busy wakes late


def test_calls_that_took_more_tokens_than_expected_slow_the_next_ones_down() -> None:
    async def run() -> float:
        limiter = RateLimiter(1, tokens_per_minute=60000.0)
        await limiter.enter(10)
        limiter.leave()
        limiter.settle(10, 210)  # 200 tokens more: 200 ms
        start = time.perf_counter()
        await limiter.enter(10)
        return time.perf_counter() - start

    assert asyncio.run(run()) >= 0.19


def test_a_call_that_is_cancelled_while_it_waits_gives_its_place_back() -> None:
    async def run() -> None:
        limiter = RateLimiter(1)
        limiter.pause(30)
        waiting = asyncio.create_task(limiter.enter(0))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert limiter.max_in_flight == 0
        limiter = RateLimiter(1)
        await limiter.enter(0)
        limiter.leave()
        await asyncio.wait_for(limiter.enter(0), 1)

    asyncio.run(run())
