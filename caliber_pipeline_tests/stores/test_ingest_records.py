"""Ingest in batches: the same tables as all at once, every row accounted for, memory and layout that fit the size."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from caliber_pipeline.api.upload import UploadHandler
from caliber_pipeline.core.errors import InputError
from caliber_pipeline.core.fingerprints import fingerprint_frame
from caliber_pipeline.core.records import FINGERPRINTED
from caliber_pipeline.settings import Settings
from caliber_pipeline.stores import input_files, shards
from caliber_pipeline.stores.ingest import load_records
from caliber_pipeline.stores.ingest_records import ingest_records
from caliber_pipeline.stores.tables import TableStore

Row = tuple[str, str, str, str]


def write_csv(path: Path, rows: list[Row]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([("id", "query", "output", "human_score"), *rows])
    return path


def ingest(records: Path, output: Path, **options: object) -> tuple[pd.DataFrame, pd.DataFrame]:
    chosen = Settings.checked({"records": records, "output": output, **options})
    tables = TableStore(str(output))
    ingest_records(chosen, tables).place(tables)
    return tables.require("records"), tables.require("rejected_records")


def assert_same(one: pd.DataFrame, other: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(one, other)


def test_batches_give_what_reading_all_at_once_gives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [(f"r{i % 90}", f"query {i}", "x\ny" if i % 7 else " ", "maybe" if i % 11 == 0 else "") for i in range(100)]
    path = write_csv(tmp_path / "r.csv", rows)
    whole = load_records(Settings(records=path))
    monkeypatch.setattr(input_files, "BLOCK_BYTES", 200)
    records, rejected = ingest(path, tmp_path / "out")
    assert_same(records, whole.table)
    assert_same(rejected, whole.rejected)
    assert records.attrs["records_fingerprint"] == fingerprint_frame(whole.table, FINGERPRINTED)


cells = st.sampled_from(["", " ", "1", "0", "x", 'a"b', "a\nb", "a,b", "é"])


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.tuples(cells, cells, cells, cells), min_size=1, max_size=25))
def test_every_row_is_a_record_or_a_rejection_however_it_is_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: list[Row]
) -> None:
    path = write_csv(tmp_path / "r.csv", rows)
    try:
        whole = load_records(Settings(records=path))
    except InputError as error:
        with pytest.raises(InputError, match=re.escape(str(error))):
            ingest(path, tmp_path / "out")
        return
    with monkeypatch.context() as patch:
        patch.setattr(input_files, "BLOCK_BYTES", 64)
        records, rejected = ingest(path, tmp_path / "out")
    n_blank = sum(not any(row) for row in rows)
    assert len(records) + len(rejected) == len(rows) - n_blank
    assert_same(records, whole.table)
    assert_same(rejected, whole.rejected)


def test_a_repeat_in_a_later_batch_is_rejected_with_its_text_and_the_first_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [(f"r{i}", f"query {i}", "o", "") for i in range(50)]
    path = write_csv(tmp_path / "r.csv", [*rows, ("r3", "other, query", "o", "")])
    monkeypatch.setattr(input_files, "BLOCK_BYTES", 100)
    records, rejected = ingest(path, tmp_path / "out")
    assert len(records) == 50
    assert rejected[["line", "reason", "raw"]].to_dict("records") == [
        {"line": 52, "reason": "record_id 'r3' repeats that of line 5", "raw": 'r3,"other, query",o,'}
    ]


def test_the_grouping_is_decided_on_the_whole_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(input_files, "BLOCK_BYTES", 100)
    few = write_csv(tmp_path / "few.csv", [(str(i), f"query {i % 19}", f"output {i}", "") for i in range(60)])
    assert ingest(few, tmp_path / "few")[0]["group"].nunique() == 60
    many = write_csv(tmp_path / "many.csv", [(str(i), f"query {min(i, 20)}", f"output {i}", "") for i in range(60)])
    assert ingest(many, tmp_path / "many")[0]["group"].nunique() == 21


def test_jsonl_in_blocks_keeps_a_column_that_comes_late(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    contents = [{"id": i, "query": f"q{i}", "output": "o"} | ({"late": True} if i > 30 else {}) for i in range(40)]
    path = tmp_path / "r.jsonl"
    path.write_text("".join(json.dumps(content) + "\n" for content in contents) + "{broken\n")
    whole = load_records(Settings(records=path))
    monkeypatch.setattr(input_files, "BLOCK_BYTES", 150)
    records, rejected = ingest(path, tmp_path / "out")
    assert_same(records, whole.table)
    assert dict(records["metadata"].iloc[0]) == {"late": None}
    assert dict(records["metadata"].iloc[39]) == {"late": "true"}
    assert rejected["line"].tolist() == [41]


def test_jsonl_in_blocks_may_bring_a_required_column_late(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "r.jsonl"
    path.write_text('{"id": 1, "query": "q"}\n' * 20 + '{"id": 2, "query": "q", "answer": "o"}\n')
    monkeypatch.setattr(input_files, "BLOCK_BYTES", 100)
    records, rejected = ingest(path, tmp_path / "out")
    assert records[["record_id", "output", "line"]].to_numpy().tolist() == [["2", "o", 21]]
    assert rejected["reason"].tolist() == ["output is blank"] * 20


@pytest.mark.parametrize("last", ["", "{broken\n"], ids=["all at once", "line by line"])
def test_a_rejected_jsonl_row_is_shown_as_its_line_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, last: str
) -> None:
    bad = '{"id": "b\\u00e9", "query": "q,", "output":  "", "human_score": 1.0}'
    good = '{"id": 1, "query": "q", "output": "ö", "human_score": 1}'
    path = tmp_path / "r.jsonl"
    path.write_bytes(f"{good}\n{bad}\r\n{bad}\n{last}".encode())
    expected = [(2, bad, "output is blank"), (3, bad, "output is blank")]
    whole = load_records(Settings(records=path))
    assert list(whole.rejected[["line", "raw", "reason"]].itertuples(index=False, name=None))[:2] == expected
    monkeypatch.setattr(input_files, "BLOCK_BYTES", 10)
    records, rejected = ingest(path, tmp_path / "out")
    assert_same(rejected, whole.rejected)
    assert records["record_id"].tolist() == ["1"]
    assert [(row.line, row.raw, row.reason) for row in UploadHandler().from_jsonl(path).rejected][:2] == expected


def test_parquet_comes_in_batches_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frame = pd.DataFrame({"id": np.arange(50), "query": [f"q{i}" for i in range(50)], "output": "o"})
    frame.to_parquet(tmp_path / "r.parquet")
    monkeypatch.setattr(input_files, "_PARQUET_BATCH_ROWS", 7)
    records, _ = ingest(tmp_path / "r.parquet", tmp_path / "out")
    assert records["record_id"].tolist() == [str(i) for i in range(50)]
    assert records["line"].tolist() == list(range(1, 51))


def test_a_scan_holds_few_row_groups_at_a_time_however_long_the_texts_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = np.random.default_rng(0)
    texts = ["".join(map(chr, random.integers(0x4E00, 0x9FFF, 40_000))) for _ in range(100)]
    pd.DataFrame({"query": range(100), "output": texts}).to_json(tmp_path / "r.jsonl", orient="records", lines=True)
    monkeypatch.setattr(shards, "MAX_GROUP_BYTES", 120_000)
    monkeypatch.setattr(input_files, "BLOCK_BYTES", 300_000)
    ingest(tmp_path / "r.jsonl", tmp_path / "out")
    batches = TableStore(str(tmp_path / "out")).scan("records", columns=["output"])
    before = pa.total_allocated_bytes()
    batch = next(batches)
    time.sleep(0.5)  # for what is read ahead
    # each text has 120 kB
    assert batch.nbytes < 500_000
    assert pa.total_allocated_bytes() - before < 3_000_000
    assert batch.num_rows + sum(later.num_rows for later in batches) == 100


def test_the_bytes_of_all_texts_are_told(tmp_path: Path) -> None:
    lines = ['{"query": "qé", "output": "out"}', '{"query": "q", "output": "o", "reference": "r", "reasoning": "why"}']
    (tmp_path / "r.jsonl").write_text("\n".join(lines), encoding="utf-8")
    records, _ = ingest(tmp_path / "r.jsonl", tmp_path / "out")
    assert records["llm_reasoning"].tolist()[1] == "why"
    # qé 3, out 3, q 1, o 1, r 1, why 3
    assert records.attrs["n_text_bytes"] == "12"


def test_a_large_table_is_a_folder_that_pandas_reads_like_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_csv(tmp_path / "r.csv", [(f"r{i}", f"query {i}", "o", "1") for i in range(100)])
    small, _ = ingest(path, tmp_path / "out")
    assert (tmp_path / "out" / "records.parquet").is_file()
    monkeypatch.setattr(shards, "MAX_GROUP_ROWS", 30)
    monkeypatch.setattr(shards.ShardWriter.__init__, "__kwdefaults__", {"max_shard_rows": 30})
    large, _ = ingest(path, tmp_path / "out")
    assert len(list((tmp_path / "out" / "records.parquet").iterdir())) == 4
    assert_same(large, small)
    assert large.attrs == small.attrs
    by_pandas = pd.read_parquet(tmp_path / "out" / "records.parquet")
    assert by_pandas["record_id"].tolist() == small["record_id"].tolist()
    assert by_pandas.attrs == small.attrs
    tables = TableStore(str(tmp_path / "out"))
    assert tables.count("records") == 100
    assert sum(batch.num_rows for batch in tables.scan("records", columns=["line"])) == 100
    monkeypatch.undo()
    assert_same(ingest(path, tmp_path / "out")[0], small)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["records.parquet", "rejected_records.parquet"]


def test_a_file_that_breaks_midway_leaves_what_was_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_csv(tmp_path / "r.csv", [(f"r{i}", f"query {i}", "o", "1") for i in range(100)])
    before, _ = ingest(path, tmp_path / "out")
    path.write_bytes(path.read_bytes() + b"x,\xff,o,1\n")
    monkeypatch.setattr(input_files, "BLOCK_BYTES", 200)
    with pytest.raises(InputError, match="line 102 is not UTF-8"):
        ingest(path, tmp_path / "out")
    assert_same(TableStore(str(tmp_path / "out")).require("records"), before)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["records.parquet", "rejected_records.parquet"]


_KILLED = "from caliber_pipeline.cli import main; import sys; sys.exit(main(sys.argv[1:]))"


@pytest.mark.slow
def test_ingest_killed_at_any_point_and_run_again_gives_the_undisturbed_tables(tmp_path: Path) -> None:
    rows = [(f"r{i % 29_000}", f"query {i}", "word " * 60, "1" if i % 5 else "?") for i in range(30_000)]
    path = write_csv(tmp_path / "r.csv", rows)
    expected = ingest(path, tmp_path / "undisturbed")
    command = [sys.executable, "-c", _KILLED, "ingest", "--records", str(path), "--output", str(tmp_path / "out")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    started = time.monotonic()
    subprocess.run(command, check=True, capture_output=True, env=environment)
    whole_s = time.monotonic() - started
    n_killed, draw = 0, np.random.default_rng(0)
    while n_killed < 20:
        started = time.monotonic()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
        try:
            assert process.wait(draw.uniform(0.3, 1.0) * whole_s) == 0
            whole_s = time.monotonic() - started  # a machine that was busy at first is less so now
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            n_killed += 1
        tables = TableStore(str(tmp_path / "out"))
        if tables.path("records").exists():
            assert_same(tables.require("records"), expected[0])
    subprocess.run(command, check=True, capture_output=True, env=environment)
    tables = TableStore(str(tmp_path / "out"))
    assert_same(tables.require("records"), expected[0])
    assert_same(tables.require("rejected_records"), expected[1])
    left = sorted(p.name for p in (tmp_path / "out").iterdir())
    assert left == [".cache", "records.parquet", "rejected_records.parquet"]  # the first holds the lock
    assert pq.read_metadata(tmp_path / "out" / "records.parquet").num_rows == len(expected[0])
