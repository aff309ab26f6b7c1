"""The commands with their output in an object store: a real S3 protocol on loopback."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from upath import UPath

from caliber_pipeline import cli
from caliber_pipeline.commands.run import hold_output
from caliber_pipeline.core.errors import InputError
from caliber_pipeline.settings import Settings
from caliber_pipeline.stores.tables import TableStore

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


def run_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert cli.main([*arguments, "--json"]) == 0, capsys.readouterr().err
    found: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return found


@pytest.fixture
def records(tmp_path: Path) -> Path:
    rows = [
        {"id": f"r{i}", "query": f"q{i}", "output": "o", "score": i % 2, "human_score": int(i % 3 > 0)}
        for i in range(120)
    ]
    path = tmp_path / "records.csv"
    pd.DataFrame(rows).to_csv(path, index=False)
    return path


def test_ingest_and_judging_in_shards_write_to_the_object_store(
    tmp_path: Path, bucket: str, records: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("caliber_pipeline.stores.sharded_work.ROWS_PER_SHARD", 20)
    local, remote = str(tmp_path / "out"), f"{bucket}/ingested"
    (tmp_path / "criteria").mkdir()
    (tmp_path / "criteria" / "v001.yaml").write_text("criteria: Be right.\n")
    monkeypatch.setenv("CALIBER_CRITERIA_DIR", str(tmp_path / "criteria"))
    found = {}
    for output in (local, remote):
        run_json(capsys, "ingest", "--records", str(records), "--output", output)
        judge = ["judge", "--output", output, "--version", "v001", "--judge", "recorded"]
        judged = run_json(capsys, *judge)
        assert judged["n_by_status"] == {"scored": 120}
        assert run_json(capsys, *judge) == judged
        assert len(list(UPath(judged["folder"]).glob("part-*.parquet"))) == 8
        found[output] = pd.read_parquet(judged["folder"]).sort_values("record_id", ignore_index=True)
    pd.testing.assert_frame_equal(found[local], found[remote])
    assert not list(Path(tmp_path).glob("s3*"))


def test_the_loop_keeps_its_tables_in_the_object_store_and_the_rest_here(
    tmp_path: Path, bucket: str, records: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    remote = f"{bucket}/loop"
    options = ["--records", str(records), "--judge", "recorded", "--max-iterations", "0"]
    run_json(capsys, "run", *options, "--output", remote)
    tables, state = TableStore(remote), Settings(output=remote).state_folder
    assert tables.versions("optimized_criteria") == ["v001"]
    assert tables.count("calibration_history") == 1
    assert tables.count("judge_scores", "v001") == 120
    assert (state / ".dagster" / "dagster.yaml").exists()
    assert (state / "criteria" / "v001.yaml").exists()
    assert not list(state.glob("*.parquet"))


@pytest.mark.parametrize("command", [["ingest"], ["run", "--judge", "recorded"]], ids=lambda command: command[0])
def test_a_bucket_that_is_not_there_is_bad_input(
    tmp_path: Path,
    bucket: str,
    records: Path,
    command: list[str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    output = f"{bucket}-missing/o"
    assert cli.main([*command, "--records", str(records), "--output", output]) == 2
    said = "cannot be written (The specified bucket does not exist); check its name, the endpoint and the keys"
    assert capsys.readouterr().err.splitlines()[-1] == f"caliber: {output}: {said}"
    assert not UPath(f"{bucket}-missing").exists()


def test_an_endpoint_that_does_not_answer_is_bad_input_for_who_writes_tables(tmp_path: Path, bucket: str) -> None:
    output = UPath(f"{bucket}/o", endpoint_url="http://127.0.0.1:9")
    settings = Settings(output=output, state_dir=tmp_path)
    said = r"/o: cannot be written \(Could not connect .*127\.0\.0\.1:9"
    with pytest.raises(InputError, match=said), hold_output(settings):
        pass
    with hold_output(settings, writes_tables=False):
        assert settings.cache_folder.is_dir()


def test_an_output_that_can_be_written_is_left_as_it_was(tmp_path: Path, bucket: str) -> None:
    with hold_output(Settings(output=UPath(f"{bucket}/o"), state_dir=tmp_path)):
        assert list(UPath(bucket).iterdir()) == []
