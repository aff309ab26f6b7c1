"""How much may be spent: one budget for all who call an endpoint, whatever thread and event loop they are in."""

import asyncio
import contextlib
import threading
from typing import Self

from caliber_pipeline.core.pricing import pico


class CapReachedError(Exception):
    """The next call might exceed the spending cap, and no call is under way whose cost is still open."""


class Budget:
    """A spending cap in whole units of `pricing.pico`: what is reserved and spent never exceeds it.

    Attributes:
        cap: What may be spent in all; None for no cap.
        spent: What has been.
    """

    def __init__(self, cap: int | None) -> None:
        """A budget; None never runs out."""
        self.cap = cap
        self._reserved = 0
        self.spent = 0
        self._lock = threading.Lock()
        self._waiting: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    @classmethod
    def of(cls, max_cost_usd: float | None) -> Self:
        """A budget of US dollars."""
        return cls(None if max_cost_usd is None else pico(max_cost_usd))

    @property
    def reserved(self) -> int:
        """What is set aside for what is under way."""
        return self._reserved

    async def reserve(self, amount: int) -> None:
        """Set the most that a call can cost aside, waiting for open calls to settle where it does not fit now.

        Raises:
            CapReachedError: it will not fit.
        """
        while not self._takes(amount, settled := asyncio.Event()):
            await settled.wait()

    def take(self, amount: int) -> bool:
        """Set an amount aside if it fits now; whether it does."""
        with self._lock:
            fits = self._fits(amount)
            self._reserved += amount if fits else 0
            return fits

    def _takes(self, amount: int, settled: asyncio.Event) -> bool:
        """Whether the amount fits now; if not, the event is set as soon as a call settles."""
        with self._lock:
            if self._fits(amount):
                self._reserved += amount
                return True
            if not self._reserved:
                raise CapReachedError
            self._waiting.append((asyncio.get_running_loop(), settled))
            return False

    def _fits(self, amount: int) -> bool:
        return self.cap is None or self.spent + self._reserved + amount <= self.cap

    def settle(self, reserved: int, spent: int) -> None:
        """Replace a reservation by what the call cost."""
        with self._lock:
            self._reserved -= reserved
            self.spent += spent
            waiting, self._waiting = self._waiting, []
        for loop, settled in waiting:
            with contextlib.suppress(RuntimeError):  # that loop is closed, and nobody waits in it any more
                loop.call_soon_threadsafe(settled.set)
