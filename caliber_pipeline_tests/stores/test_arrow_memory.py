"""Which of Arrow's allocators is at work, and when."""

import csv
from contextlib import ExitStack
from pathlib import Path

import pyarrow as pa
import pytest

from caliber_pipeline.settings import Settings
from caliber_pipeline.stores.arrow_memory import ALLOCATOR, kept_memory
from caliber_pipeline.stores.ingest_records import ingest_records
from caliber_pipeline.stores.tables import TableStore

needs_the_allocator = pytest.mark.skipif(
    ALLOCATOR not in pa.supported_memory_backends(), reason=f"this Arrow comes without {ALLOCATOR}"
)


@needs_the_allocator
def test_ingest_keeps_memory_while_it_reads_and_no_longer(tmp_path: Path) -> None:
    source = tmp_path / "records.csv"
    with source.open("w", newline="") as file:
        csv.writer(file).writerows([("query", "output"), ("How?", "So."), ("Why?", "Because.")])
    tables = TableStore(str(tmp_path / "out"))
    before, during = pa.default_memory_pool().backend_name, []

    ingested = ingest_records(
        Settings(records=source, output=tmp_path / "out"),
        tables,
        lambda _: during.append(pa.default_memory_pool().backend_name),
    )

    assert during == [ALLOCATOR]
    assert pa.default_memory_pool().backend_name == before
    ingested.place(tables)
    assert [text.as_py() for batch in tables.scan("records", columns=["output"]) for text in batch.column(0)] == [
        "So.",
        "Because.",
    ]


@needs_the_allocator
def test_an_error_leaves_the_usual_allocator_behind() -> None:
    before = pa.default_memory_pool().backend_name

    with pytest.raises(RuntimeError, match="in the midst"), kept_memory():
        raise RuntimeError("in the midst")

    assert pa.default_memory_pool().backend_name == before


@needs_the_allocator
def test_of_two_at_the_same_time_the_last_one_switches_back() -> None:
    before = pa.default_memory_pool().backend_name
    first, second = kept_memory(), kept_memory()
    with ExitStack() as of_the_second:
        with first:
            of_the_second.enter_context(second)
        assert pa.default_memory_pool().backend_name == ALLOCATOR
    assert pa.default_memory_pool().backend_name == before


def test_arrow_without_the_allocator_keeps_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pa, "supported_memory_backends", lambda: ["system"])
    before = pa.default_memory_pool().backend_name

    with kept_memory():
        assert pa.default_memory_pool().backend_name == before
