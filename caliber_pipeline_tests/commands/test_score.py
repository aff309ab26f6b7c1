"""`caliber score` on more records than one block: in the file's order, and after an interruption for the rest alone."""

import io
import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from upath import UPath

from caliber_pipeline import cli
from caliber_pipeline.api import given_records
from caliber_pipeline.api.calibrated_judge import CalibratedJudge
from caliber_pipeline.commands import score
from caliber_pipeline.core.abstention import Abstention
from caliber_pipeline.core.calibrated_judge import JudgeDocument
from caliber_pipeline.core.criteria import Criteria
from caliber_pipeline.core.errors import JudgeError
from caliber_pipeline.core.judge_prompt import TEMPLATE_VERSION
from caliber_pipeline_tests.benchmarks.loopback_server import LoopbackConfig, loopback

N = 45
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(score, "_BLOCK", 10)


@pytest.fixture
def records(tmp_path: Path) -> Path:
    rows = [{"id": f"r{N - i}", "query": f"q{i}", "output": f"o{i}", "score": i % 2} for i in range(N)]
    path = tmp_path / "records.csv"
    pd.DataFrame([*rows, {"id": "r1", "query": "again", "output": "o", "score": 1}]).to_csv(path, index=False)
    return path


def write_judge(folder: Path, provider: str, model: str) -> Path:
    criteria = Criteria(criteria="Be right.")
    document = JudgeDocument(
        criteria_version="v001",
        criteria=criteria.criteria,
        definition=criteria,
        examples=[],
        provider=provider,
        model=model,
        sampling=criteria.sampling.model_dump(),
        template_version=TEMPLATE_VERSION,
        abstention=asdict(Abstention(None, 0.0, 0, 0, 0, None, "no calibration records")),
        certificate=dict.fromkeys(("test", "dev", "labels", "human_ceiling", "fingerprints")) | {"fingerprints": {}},
    )
    path = folder / "judge.json"
    path.write_text(document.model_dump_json(), encoding="utf-8")
    return path


@pytest.mark.parametrize("name", ["verdicts.csv", "verdicts.parquet"])
def test_blocks_come_in_the_order_of_the_file(
    tmp_path: Path, records: Path, name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(given_records, "UploadHandler", None)  # what was ingested is not parsed a second time
    judge, target = write_judge(tmp_path, "recorded", "recorded"), tmp_path / name
    arguments = ["score", "--judge", str(judge), "--records", str(records), "--to", str(target), "--json"]
    assert cli.main(arguments) == 0, capsys.readouterr().err
    counts = json.loads(capsys.readouterr().out)
    # 45 records, of which those with an odd number are accepted; the last row repeats an id
    expected = {"n_records": 45, "n_rejected_records": 1, "n_accepted": 22, "n_rejected": 23, "n_failed": 0}
    assert expected.items() <= counts.items()
    found = pd.read_csv(target) if name.endswith("csv") else pd.read_parquet(target)
    assert found["record_id"].tolist() == [f"r{N - i}" for i in range(N)]
    assert found["llm_score"].tolist() == [i % 2 for i in range(N)]
    assert {path.name for path in tmp_path.iterdir()} == {"judge.json", "records.csv", name}


def test_what_was_answered_before_an_interruption_is_not_asked_again(
    tmp_path: Path, records: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    n_blocks = 0
    whole = CalibratedJudge.score

    def break_off(self: CalibratedJudge, block: Any, **kept: Any) -> pd.DataFrame:  # noqa: ANN401
        nonlocal n_blocks
        n_blocks += 1
        if n_blocks == 3:
            raise JudgeError("the endpoint is gone")
        return whole(self, block, **kept)

    judge, target = write_judge(tmp_path, "openai", "m"), tmp_path / "verdicts.csv"
    arguments = ["score", "--judge", str(judge), "--records", str(records), "--to", str(target)]
    with loopback(LoopbackConfig()) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
        with monkeypatch.context() as patch:
            patch.setattr(CalibratedJudge, "score", break_off)
            assert cli.main(arguments) == 1
        assert not target.exists()
        assert server.stats()["calls"] == 20
        assert cli.main(arguments) == 0, capsys.readouterr().err
        assert server.stats()["calls"] == N
    assert len(pd.read_csv(target)) == N


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_bucket_that_is_not_there_is_told_before_anything_is_asked(
    tmp_path: Path, bucket: str, records: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    judge, target = write_judge(tmp_path, "openai", "m"), f"{bucket}-missing/verdicts.csv"
    with loopback(LoopbackConfig()) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
        arguments = ["score", "--judge", str(judge), "--records", str(records), "--to"]
        assert cli.main([*arguments, target]) == 2
        assert "-missing/: cannot be written (The specified bucket does not exist); check" in capsys.readouterr().err
        assert "calls" not in server.stats()
        assert cli.main([*arguments, f"{bucket}/verdicts.csv"]) == 0
    assert [path.name for path in UPath(bucket).iterdir()] == ["verdicts.csv"]


def test_the_file_of_the_records_is_not_overwritten(
    tmp_path: Path, records: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    before = records.read_bytes()
    judge = str(write_judge(tmp_path, "recorded", "recorded"))

    assert cli.main(["score", "--judge", judge, "--records", str(records), "--to", records.name]) == 2
    assert "which would be lost; name another" in capsys.readouterr().err
    assert records.read_bytes() == before
    (tmp_path / "folder.csv").mkdir()
    assert cli.main(["score", "--judge", judge, "--records", str(records), "--to", "folder.csv"]) == 2
    assert "folder.csv: is a folder" in capsys.readouterr().err
    beneath = str(records / "x.csv")
    assert cli.main(["score", "--judge", judge, "--records", beneath, "--to", "found.csv"]) == 2
    assert f"{beneath}: cannot be read (Not a directory)" in capsys.readouterr().err


def test_a_reader_that_has_enough_ends_the_command_without_a_word(tmp_path: Path) -> None:
    judge = write_judge(tmp_path, "recorded", "recorded")
    many = tmp_path / "many.csv"
    pd.DataFrame({"id": range(5000), "query": "q", "output": "o", "score": 1}).to_csv(many, index=False)
    command = [sys.executable, "-m", "caliber_pipeline.cli", "score", "--judge", str(judge), "--records", str(many)]

    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().startswith("record_id,")
        process.stdout.close()
        told = process.stderr.read()

    assert "BrokenPipe" not in told
    assert "Traceback" not in told


def test_records_that_cannot_be_used_leave_nothing_behind(tmp_path: Path) -> None:
    judge = write_judge(tmp_path, "openai", "m")
    (tmp_path / "records.csv").write_text("id,text\n1,a\n")
    before = set(tmp_path.iterdir())
    at = ["--records", str(tmp_path / "records.csv"), "--to", str(tmp_path / "scored.csv")]
    assert cli.main(["score", "--judge", str(judge), *at]) == 2
    assert set(tmp_path.iterdir()) == before


@pytest.fixture
def priced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CALIBER_INPUT_PRICE", "1")
    monkeypatch.setenv("CALIBER_OUTPUT_PRICE", "1")


@pytest.mark.usefixtures("priced")
def test_at_the_spending_cap_the_command_says_so_and_the_next_run_asks_for_the_rest_alone(
    tmp_path: Path, records: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    judge, target = write_judge(tmp_path, "openai", "m"), tmp_path / "verdicts.parquet"
    arguments = ["score", "--judge", str(judge), "--records", str(records), "--to", str(target), "--json"]
    with loopback(LoopbackConfig()) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
        monkeypatch.setenv("CALIBER_MAX_COST_USD", "0.01")
        assert cli.main(arguments) == 3
        told = capsys.readouterr()
        n_asked = server.stats()["calls"]
        assert 0 < n_asked < N
        assert f"the spending cap was reached: {n_asked} of {N} records judged" in told.err
        assert "run again with a higher cap to go on from there" in told.err
        assert json.loads(told.out)["n_failed"] == N - n_asked
        # every record has its row: what was judged, and of the others that they were not asked about
        assert pd.read_parquet(target)["status"].value_counts().to_dict() == {
            "scored": n_asked,
            "skipped": N - n_asked,
        }
        monkeypatch.setenv("CALIBER_MAX_COST_USD", "10")
        assert cli.main(arguments) == 0, capsys.readouterr().err
        assert server.stats()["calls"] == N
    assert pd.read_parquet(target)["status"].eq("scored").all()
    assert {path.name for path in tmp_path.iterdir()} == {"judge.json", "records.csv", target.name}


@pytest.mark.usefixtures("priced")
def test_a_capped_run_that_writes_to_stdout_fails_and_says_how_to_keep_the_verdicts(
    tmp_path: Path, records: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    judge = write_judge(tmp_path, "openai", "m")
    monkeypatch.setenv("CALIBER_MAX_COST_USD", "0.01")
    with loopback(LoopbackConfig()) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
        assert cli.main(["score", "--judge", str(judge), "--records", str(records)]) == 3
    told = capsys.readouterr()
    assert len(pd.read_csv(io.StringIO(told.out))) == N
    assert "the spending cap was reached" in told.err
    assert "name a file with --to" in told.err


def test_only_the_records_whose_calls_failed_are_asked_about_again(
    tmp_path: Path, records: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    judge, target = write_judge(tmp_path, "openai", "m"), tmp_path / "verdicts.csv"
    arguments = ["score", "--judge", str(judge), "--records", str(records), "--to", str(target)]
    with loopback(LoopbackConfig(errors={"o31": (400, "odd"), "o44": (400, "odd")})) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
        assert cli.main(arguments) == 0
        told = capsys.readouterr().err
        assert "2 records failed; run again to have these asked about, and no others" in told
        assert pd.read_csv(target)["status"].value_counts().to_dict() == {"scored": N - 2, "failed": 2}
        n_asked = server.stats()["calls"]
        assert cli.main(arguments) == 0
        assert server.stats()["calls"] == n_asked + 2


def test_a_refusal_is_an_answer_which_another_run_does_not_pay_for_again(
    tmp_path: Path, records: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    judge, target = write_judge(tmp_path, "openai", "m"), tmp_path / "verdicts.csv"
    arguments = ["score", "--judge", str(judge), "--records", str(records), "--to", str(target)]
    with loopback(LoopbackConfig(errors={"o31": (400, "content_filter")})) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
        assert cli.main(arguments) == 0
        assert "1 answer without a verdict, which another run would repeat" in capsys.readouterr().err
        n_asked = server.stats()["calls"]
        assert cli.main(arguments) == 0
        assert server.stats()["calls"] == n_asked
    assert pd.read_csv(target)["status"].value_counts().to_dict() == {"scored": N - 1, "refused": 1}
