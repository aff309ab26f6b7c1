"""Lets reading, checking and writing run beside one another, each in a thread, with little waiting between them."""

import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Final, Generic, Self, TypeVar

T = TypeVar("T")
_POLL_S: Final = 0.2


def read_ahead(items: Iterator[T], n: int) -> Iterator[T]:
    """The items, read in a thread, at most `n` ahead of who takes them; ends the thread when it is closed."""
    waiting: queue.Queue[tuple[T | None, BaseException | None, bool]] = queue.Queue(maxsize=n)
    is_over = threading.Event()

    def put(entry: tuple[T | None, BaseException | None, bool]) -> None:
        while not is_over.is_set():
            try:
                waiting.put(entry, timeout=_POLL_S)
            except queue.Full:
                continue
            return

    def read() -> None:
        try:
            for item in items:
                put((item, None, False))
                if is_over.is_set():
                    return
            put((None, None, True))
        except BaseException as error:  # noqa: BLE001 it is raised where the items are taken
            put((None, error, True))

    thread = threading.Thread(target=read, name="read-ahead", daemon=True)
    thread.start()
    try:
        while True:
            item, error, is_last = waiting.get()
            if error is not None:
                raise error
            if is_last:
                return
            yield item  # type: ignore[misc]
    finally:
        is_over.set()
        thread.join()


class Behind(Generic[T]):
    """Calls a function with one item after the other in a thread, at most one item behind."""

    def __init__(self, function: Callable[[T], None]) -> None:
        """Start the thread."""
        self._function = function
        self._executor = ThreadPoolExecutor(1)
        self._last: Future[None] | None = None

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait for the last item; raise what went wrong with it, unless something did already."""
        try:
            if kind is None:
                self.wait()
        finally:
            self._executor.shutdown()

    def __call__(self, item: T) -> None:
        """Hand over an item, once the one before is done."""
        self.wait()
        self._last = self._executor.submit(self._function, item)

    def wait(self) -> None:
        """Wait until everything is done."""
        if self._last is not None:
            self._last.result()
            self._last = None
