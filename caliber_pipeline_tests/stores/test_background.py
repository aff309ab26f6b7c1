"""Threads that read ahead and write behind."""

import os
import sys
import threading
from collections.abc import Iterable, Iterator

import pytest

from caliber_pipeline.stores.background import Behind, read_ahead, step_back

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="niceness is counted by threads on Linux alone")


def niceness() -> int:
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


@on_linux
def test_what_reads_ahead_leaves_the_processor_to_others() -> None:
    own = niceness()

    assert list(read_ahead((niceness() for _ in range(2)), 1)) == [own + 5] * 2
    assert niceness() == own


@on_linux
def test_what_works_behind_steps_back_where_it_is_told_to() -> None:
    found: list[int] = []

    for initializer in (None, step_back):
        hand_over(Behind(lambda _: found.append(niceness()), 1, initializer=initializer), [0])

    assert found == [niceness(), niceness() + 5]


def test_a_sandbox_that_forbids_it_stops_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbid(*_: int) -> None:
        raise PermissionError("not permitted")

    monkeypatch.setattr(os, "setpriority", forbid)

    assert list(read_ahead(iter([1, 2, 3]), 1)) == [1, 2, 3]


def read_four(log: list[str]) -> Iterator[int]:
    for number in range(1, 5):
        log.append(f"read {number}")
        yield number
    raise ValueError("the fifth cannot be read")


def take_all(items: Iterator[int], log: list[str]) -> None:
    for number in items:
        log.append(f"took {number}")  # noqa: PERF401 the reader appends to it meanwhile


def test_no_more_is_read_ahead_than_asked_for_and_an_error_comes_in_its_place() -> None:
    log: list[str] = []

    with pytest.raises(ValueError, match="the fifth"):
        take_all(read_ahead(read_four(log), 1), log)

    assert [entry for entry in log if entry.startswith("took")] == [f"took {number}" for number in range(1, 5)]
    # behind the one that was taken one waits, one stands before the full queue, and what is taken is logged late
    assert log.index("read 4") > log.index("took 1")


def hand_over(behind: Behind[int], items: Iterable[int]) -> None:
    with behind:
        for item in items:
            behind(item)


def test_an_error_of_what_works_behind_is_raised_to_who_hands_over() -> None:
    done: list[int] = []

    def work(item: int) -> None:
        if item == 2:
            raise ValueError("the second fails")
        done.append(item)

    with pytest.raises(ValueError, match="the second"):
        hand_over(Behind(work, 2), range(1, 6))

    assert done[0] == 1
