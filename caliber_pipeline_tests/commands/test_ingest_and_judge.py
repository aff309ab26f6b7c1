"""`caliber ingest` and `caliber judge`: from a file to verdicts on all of its records, without a label."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from caliber_pipeline import cli
from caliber_pipeline.core.schemas import JUDGE_SCORES
from caliber_pipeline.stores import input_files, sharded_work
from caliber_pipeline_tests.judges.batch_server import BatchConfig, batch_server


def run_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert cli.main([*arguments, "--json"]) == 0, capsys.readouterr().err
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


@pytest.fixture
def records(tmp_path: Path) -> Path:
    rows = [{"id": f"r{i}", "query": f"q{i}", "output": "o", "score": i % 2} for i in range(40)]
    path = tmp_path / "records.csv"
    pd.DataFrame([*rows, {"id": "r41", "query": None, "output": "o", "score": 1}]).to_csv(path, index=False)
    return path


def test_records_without_labels_are_ingested_and_judged(
    tmp_path: Path, records: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    ingested = run_json(capsys, "ingest", "--records", str(records), "--output", str(output))
    assert (ingested["n_records"], ingested["n_rejected"], ingested["n_groups"], ingested["n_files"]) == (40, 1, 40, 1)
    (output / "criteria").mkdir()
    (output / "criteria" / "v001.yaml").write_text("criteria: Be right.\n")
    judged = run_json(capsys, "judge", "--output", str(output), "--version", "v001", "--judge", "recorded")
    assert judged["n_by_status"] == {"scored": 40}
    verdicts = pd.read_parquet(judged["folder"])
    assert list(verdicts.columns) == JUDGE_SCORES.names
    assert verdicts["llm_score"].sum() == 20
    again = run_json(capsys, "judge", "--output", str(output), "--version", "v001", "--judge", "recorded")
    assert again == judged


def test_a_judge_without_a_verdict_is_an_error(
    tmp_path: Path, records: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    records.write_text(records.read_text().replace("score", "points"))
    output = ["--output", str(tmp_path / "out")]
    run_json(capsys, "ingest", "--records", str(records), *output)
    (tmp_path / "out" / "criteria").mkdir()
    (tmp_path / "out" / "criteria" / "v001.yaml").write_text("criteria: Be right.\n")
    assert cli.main(["judge", *output, "--version", "v001", "--judge", "recorded"]) == 1
    told = capsys.readouterr()
    assert "v001: 40 failed" in told.out
    assert "v001: no record got a verdict (40 failed)" in told.err


def test_long_records_are_judged_in_more_shards(
    tmp_path: Path, records: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    run_json(capsys, "ingest", "--records", str(records), "--output", str(output))
    (output / "criteria").mkdir()
    (output / "criteria" / "v001.yaml").write_text("criteria: Be right.\n")
    monkeypatch.setattr(sharded_work, "BYTES_PER_SHARD", 40)
    # of 40 records 10 have 3 bytes and 30 have 4: 150 bytes in 4 shards
    judged = run_json(capsys, "judge", "--output", str(output), "--version", "v001", "--judge", "recorded")
    assert judged["n_by_status"] == {"scored": 40}
    assert len(list(Path(judged["folder"]).iterdir())) == 4


def test_the_reason_of_the_first_rejection_is_told(
    tmp_path: Path, records: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["ingest", "--records", str(records), "--output", str(tmp_path / "out")]) == 0
    assert "1 row rejected, see rejected_records.parquet; the first, line 42: query is blank" in capsys.readouterr().out


def test_that_the_file_is_read_again_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(input_files, "BLOCK_BYTES", 200)
    path = tmp_path / "records.csv"
    pd.DataFrame([{"id": i % 90, "query": f"q{i}", "output": "o"} for i in range(100)]).to_csv(path, index=False)
    assert cli.main(["ingest", "--records", str(path), "--output", str(tmp_path / "out")]) == 0
    told = capsys.readouterr()
    assert told.err.count("reading the file again: ids repeat") == 1
    assert "10 rows rejected" in told.out


def test_what_is_missing_is_told_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["judge", "--output", str(tmp_path)]) == 2
    assert "no version is champion yet; name one with --version" in capsys.readouterr().err
    assert cli.main(["ingest", "--records", str(tmp_path / "none.csv"), "--output", str(tmp_path)]) == 2
    assert "none.csv: no such file" in capsys.readouterr().err


def test_all_records_are_judged_through_batches(
    tmp_path: Path, records: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    run_json(capsys, "ingest", "--records", str(records), "--output", str(output))
    (output / "criteria").mkdir()
    (output / "criteria" / "v001.yaml").write_text("criteria: Be right.\n")
    with batch_server(BatchConfig(n_looks=0)) as server:
        endpoint = ["--judge", "openai", "--model", "gpt-4o", "--base-url", server.base_url]
        arguments = ["judge", "--output", str(output), "--version", "v001", "--mode", "batch", *endpoint]
        assert run_json(capsys, *arguments)["n_by_status"] == {"scored": 40}
        assert (len(server.batches), server.n_single) == (1, 0)
