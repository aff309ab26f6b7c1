"""Lets the same work be awaited or called plainly, in a script and under a notebook's event loop."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeAlias, TypeVar

from caliber_pipeline.core.arguments import FUNCTION, accepts

T = TypeVar("T")
OnProgress: TypeAlias = Callable[[int, int], object]
"""Called with (records done, records in all) while the work goes on."""


class _StoppedError(Exception):
    """Ends work whose caller has gone."""


@accepts(on_progress=FUNCTION.or_none)
async def run_in_thread(work: Callable[[OnProgress], T], on_progress: OnProgress | None = None) -> T:
    """Run blocking work beside the event loop.

    Progress is reported on the event loop's thread, in order, and before the result is there. Cancelling stops the
    work at its next report, and so does an error of `on_progress`, which is raised.

    Args:
        work: Takes a function to report progress with.
        on_progress: Where progress goes; None to nowhere.
    """
    loop = asyncio.get_running_loop()
    is_cancelled = threading.Event()
    errors: list[Exception] = []

    def deliver(done: int, total: int) -> None:
        if on_progress is None or errors:
            return
        try:
            on_progress(done, total)
        except Exception as error:  # noqa: BLE001 - raised below, where the caller waits
            errors.append(error)
            is_cancelled.set()

    def report(done: int, total: int) -> None:
        if is_cancelled.is_set():
            raise _StoppedError
        loop.call_soon_threadsafe(deliver, done, total)

    try:
        result = await asyncio.to_thread(work, report)
    except _StoppedError:
        raise errors[0] from None
    finally:
        is_cancelled.set()
    if errors:
        raise errors[0]
    return result


def run_sync(coroutine: Coroutine[Any, Any, T]) -> T:
    """The coroutine's result; where an event loop is running already, by a loop of its own in another thread."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(coroutine)
    with ThreadPoolExecutor(max_workers=1) as pool:
        return pool.submit(asyncio.run, coroutine).result()
