"""That Ctrl-C ends the command wherever it arrives, and leaves no traceback behind."""

import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

_REPEAT_S: Final = 0.02  # after it the frame that cannot raise has returned
_SIGNALS: Final = frozenset({signal.SIGINT, signal.SIGTERM})  # Dagster takes the second for the first


def is_interrupt(error: BaseException | None) -> bool:
    """Whether somebody asked to stop; Dagster's own exception for it goes by name, as importing it takes a second."""
    return isinstance(error, KeyboardInterrupt) or type(error).__name__ == "DagsterExecutionInterruptedError"


@contextmanager
def hear_interrupts() -> Iterator[None]:
    """Repeat an interrupt that arrives where Python cannot raise it, and keep others from writing its traceback.

    Python drops what is raised in a finalizer or in a weak reference's callback, of which there are many while modules
    are imported. Packages log an interrupt that they pass on.
    """

    def repeat(unraisable: "sys.UnraisableHookArgs") -> None:
        if is_interrupt(unraisable.exc_value):
            timer = threading.Timer(_REPEAT_S, stop)
            timer.daemon = True
            timer.start()
        else:
            before(unraisable)

    def stop() -> None:
        if sys.unraisablehook is repeat:  # else the command has ended meanwhile
            os.kill(os.getpid(), signal.SIGINT)

    before, sys.unraisablehook = sys.unraisablehook, repeat
    shown = logging.lastResort  # writes to stderr what no logger has a handler for
    if shown is not None:
        shown.addFilter(_is_no_interrupt)
    try:
        yield
    finally:
        sys.unraisablehook = before
        if shown is not None:
            shown.removeFilter(_is_no_interrupt)


@contextmanager
def refuse_lost_interrupts() -> Iterator[None]:
    """Raise at the end an interrupt that arrived within and was dropped, as Dagster does after a run's last step.

    Raises:
        KeyboardInterrupt: there was one.
    """
    if threading.current_thread() is not threading.main_thread():  # no other receives signals
        yield
        return
    reader, writer = socket.socketpair()
    with reader, writer:
        reader.setblocking(False)
        writer.setblocking(False)
        before = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(before)
        received = b""
        with suppress(BlockingIOError):
            received = reader.recv(4096)
    if not _SIGNALS.isdisjoint(received):
        raise KeyboardInterrupt


def _is_no_interrupt(record: logging.LogRecord) -> bool:
    return not (record.exc_info and is_interrupt(record.exc_info[1]))
