import asyncio
import random
import threading

import pytest

from caliber_pipeline.judges.budget import Budget, CapReachedError


def test_a_budget_waits_for_open_calls_and_then_ends() -> None:
    async def run() -> list[str]:
        budget = Budget(100)
        events = []
        await budget.reserve(60)

        async def second() -> None:
            await budget.reserve(60)
            events.append("second")

        waiting = asyncio.create_task(second())
        await asyncio.sleep(0.01)
        events.append("first settles")
        budget.settle(60, 30)
        await waiting
        budget.settle(60, 50)
        with pytest.raises(CapReachedError):
            await budget.reserve(21)
        await budget.reserve(20)
        budget.settle(20, 20)
        assert budget.spent == 100
        return events

    assert asyncio.run(run()) == ["first settles", "second"]


def test_no_cap_never_ends() -> None:
    async def run() -> None:
        await Budget(None).reserve(10**30)

    asyncio.run(run())


def test_callers_in_several_threads_spend_from_one_budget_and_never_exceed_it() -> None:
    budget = Budget(1_000)
    is_told: list[bool] = []

    async def call(seed: int) -> None:
        shuffled = random.Random(seed)
        while True:
            await budget.reserve(20)
            assert budget.spent + 20 <= 1_000
            await asyncio.sleep(0.0005)
            budget.settle(20, shuffled.randint(5, 20))

    async def spend(thread: int) -> None:
        found = await asyncio.gather(*(call(10 * thread + i) for i in range(4)), return_exceptions=True)
        is_told.extend(isinstance(error, CapReachedError) for error in found)

    threads = [threading.Thread(target=lambda i=i: asyncio.run(spend(i))) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    # every caller is told, and what is left does not suffice for another call
    assert is_told == [True] * 12
    assert 980 < budget.spent <= 1_000
