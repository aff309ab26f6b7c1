"""Lets reading, checking and writing run beside one another, each in a thread, with little waiting between them."""

import os
import queue
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Generic, Self, TypeVar

T = TypeVar("T")
_POLL_S: Final = 0.2
_NICENESS: Final = 5  # a third of the processor's time of a thread that is as busy beside it


def step_back() -> None:
    """Let other threads go first where there are more of them than processors.

    For the threads that run ahead of the slowest, which then has a processor of its own instead of a share of one while
    the others hurry towards a full queue. Linux alone counts niceness by threads.
    """
    if sys.platform == "linux":
        with suppress(OSError):  # a sandbox that forbids it
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)


def read_ahead(items: Iterator[T], n: int) -> Iterator[T]:
    """The items, read in a thread that steps back, at most `n` ahead of who takes them; closing it ends the thread."""
    reader = _Reader(items, n)
    try:
        yield from reader.taken()
    finally:
        reader.stop()


class _Reader(Generic[T]):
    def __init__(self, items: Iterator[T], n: int) -> None:
        self._items = items
        self._waiting: queue.Queue[T | _End] = queue.Queue(maxsize=n)
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._read, name="read-ahead", daemon=True)
        self._thread.start()

    def taken(self) -> Iterator[T]:
        while not isinstance(item := self._waiting.get(), _End):
            yield item
        if item.error is not None:
            raise item.error

    def stop(self) -> None:
        self._is_over.set()
        self._thread.join()

    def _read(self) -> None:
        step_back()
        end = _End()
        try:
            for item in self._items:
                self._put(item)
                if self._is_over.is_set():
                    return
        except BaseException as error:  # noqa: BLE001 it is raised where the items are taken
            end = _End(error)
        self._put(end)

    def _put(self, entry: "T | _End") -> None:
        while not self._is_over.is_set():
            try:
                self._waiting.put(entry, timeout=_POLL_S)
            except queue.Full:
                continue
            return


@dataclass(frozen=True)
class _End:
    error: BaseException | None = None


class Behind(Generic[T]):
    """Calls a function with one item after the other in a thread, at most some items behind."""

    def __init__(self, function: Callable[[T], None], n: int, *, initializer: Callable[[], None] | None = None) -> None:
        """Start the thread; `n` items may wait or be under way, and the initializer is called in it first."""
        self._function = function
        self._n = n
        self._executor = ThreadPoolExecutor(1, initializer=initializer)
        self._waiting: deque[Future[None]] = deque()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait for the last item; raise what went wrong with it, unless something did already."""
        try:
            if kind is None:
                self._wait(0)
        finally:
            self._executor.shutdown(cancel_futures=True)

    def __call__(self, item: T) -> None:
        """Hand over an item, once no more than `n` - 1 are waiting; raises what went wrong with an earlier one."""
        self._wait(self._n - 1)
        self._waiting.append(self._executor.submit(self._function, item))

    def _wait(self, n_left: int) -> None:
        while len(self._waiting) > n_left:
            self._waiting.popleft().result()
