"""Promoting by hand, comparing, exporting, scoring and checking, on a stored run with recorded verdicts."""

import asyncio
import json
import shutil
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from caliber_pipeline import cli
from caliber_pipeline.api import judging
from caliber_pipeline.api.calibrated_judge import CalibratedJudge
from caliber_pipeline.commands.stored import open_project
from caliber_pipeline.core.calibrated_judge import parse_document
from caliber_pipeline.stores.tables import TableStore
from caliber_pipeline_tests.projects import WordEncoder

N = 120


def write_records(path: Path) -> None:
    """Every tenth verdict of the judge is wrong; the customer's mail address stands in one query."""
    lines = ["id,query,output,score,reasoning,human_score,rater2_score"]
    for i in range(N):
        human = i % 2
        judge = 1 - human if i % 10 == 3 else human
        lines.append(f"r{i},question {i} of ann@example.com,answer {i},{judge},because {i},{human},{human}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run: v001, and a person's v002 that recorded verdicts cannot tell from it."""
    folder = tmp_path_factory.mktemp("run")
    write_records(folder / "records.csv")
    out = folder / "out"
    (out / "criteria").mkdir(parents=True)
    (out / "criteria" / "v001.yaml").write_text("criteria: Score 1 if it is right and complete", encoding="utf-8")
    (out / "criteria" / "v002.yaml").write_text("criteria: Score 1 if right\nbase: v001\n", encoding="utf-8")
    options = ["--judge", "recorded", "--max-iterations", "0", "--output", str(out)]
    assert cli.main(["run", "--records", str(folder / "records.csv"), *options]) == 0
    return out


def call(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> str:
    capsys.readouterr()
    assert cli.main(list(arguments)) == code
    captured = capsys.readouterr()
    return captured.out if code == 0 else captured.err


def call_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(call(capsys, *arguments, "--json").splitlines()[-1])
    return content


def test_verdicts_are_written_in_a_form_that_is_known(capsys: pytest.CaptureFixture[str]) -> None:
    refused = call(capsys, "score", "--judge", "j.json", "--records", "r.csv", "--to", "scores.xlsx", code=2)
    assert "--to scores.xlsx: verdicts are written as .csv or .parquet" in refused


def test_a_version_is_worked_on_with_the_judge_that_judged_it(stored: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(stored, tmp_path / "out"))
    tables = TableStore(str(out))
    rejected = tables.require("optimized_criteria", "v002").assign(champion="v001")
    tables.save(rejected, tables.path("optimized_criteria", "v002"), "optimized_criteria")
    judged = tables.require("judge_scores", "v002").assign(provider="ollama", model="m")
    tables.save(judged, tables.path("judge_scores", "v002"), "judge_scores")

    def find_judge(version: str | None) -> str:
        return open_project(Namespace(output=str(out), version=version)).settings.judge

    assert find_judge(None) == find_judge("v001") == "recorded"  # v001 is champion
    assert find_judge("v002") == "openai"


def test_two_versions_stand_side_by_side(stored: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = call_json(capsys, "compare", "v001", "v002", "--assets", str(stored))
    # The same verdicts and a shorter text: a tie, which the simpler wins.
    assert found["decision"] == {"v001": "baseline", "v002": "promoted"}
    assert found["fixed"] == found["broken"] == []
    assert found["figures"]["v001"]["dev"] == found["figures"]["v002"]["dev"]
    text = call(capsys, "compare", "v001", "v002", "--assets", str(stored))
    assert "+Score 1 if right" in text
    assert "is no evaluated version" in call(capsys, "compare", "v001", "v9", "--assets", str(stored), code=2)


def test_a_person_rolls_back_and_the_history_says_so(stored: Path, capsys: pytest.CaptureFixture[str]) -> None:
    back = call_json(capsys, "promote", "v001", "--reason", "the owner prefers it", "--assets", str(stored))
    assert (back["champion"], back["previous_champion"]) == ("v001", "v002")
    history = pd.read_parquet(stored / "calibration_history.parquet")
    last = history.iloc[-1]
    assert (last["criteria_version"], last["decision"], last["champion"]) == ("v001", "promoted", "v001")
    assert last["is_by_hand"]
    assert last["decision_reason"].startswith("by hand: the owner prefers it (before: baseline")
    assert len(history) == 3
    assert "is champion already" in call(capsys, "promote", "v001", "--reason", "x", "--assets", str(stored), code=2)
    assert call_json(capsys, "promote", "v002", "--reason", "back", "--assets", str(stored))["champion"] == "v002"


@pytest.mark.slow
def test_a_version_that_was_evaluated_on_other_data_is_evaluated_again_and_then_promoted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    records, out = tmp_path / "records.csv", tmp_path / "out"
    write_records(records)
    (out / "criteria").mkdir(parents=True)
    (out / "criteria" / "v001.yaml").write_text("criteria: Score 1 if right", encoding="utf-8")
    (out / "criteria" / "v002.yaml").write_text("criteria: Score 1 if it is right\nbase: v001\n", encoding="utf-8")
    run = ["run", "--records", str(records), "--judge", "recorded", "--max-iterations", "0", "--output", str(out)]
    assert cli.main(run) == 0  # the same verdicts with more words: v002 is rejected
    with records.open("a", encoding="utf-8") as file:
        file.write("new,one more question,one more answer,1,because,1,1\n")
    assert cli.main(run) == 0
    found = call_json(capsys, "promote", "v002", "--reason", "it reads better", "--assets", str(out))
    assert (found["champion"], found["previous_champion"]) == ("v002", "v001")
    last = pd.read_parquet(out / "calibration_history.parquet").iloc[-1]
    assert (last["criteria_version"], last["champion"], last["is_by_hand"]) == ("v002", "v002", True)
    assert not last["is_test_sealed"]


def test_recorded_verdicts_cannot_be_ablated(stored: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "recorded verdicts do not depend" in call(capsys, "ablate", "--assets", str(stored), code=2)


def test_an_exported_judge_holds_what_judging_takes(stored: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, card = stored / "judge.json", stored / "card.md"
    call(capsys, "export", "--assets", str(stored), "--to", str(path), "--card", str(card), "--version", "v001")
    content = json.loads(path.read_text(encoding="utf-8"))
    assert {"criteria", "certificate", "examples", "model", "sampling", "template_version", "abstention"} <= set(
        content
    )
    certificate = content["certificate"]
    test = certificate["test"]["cohen_kappa"]
    assert test["ci_low"] < test["value"] < test["ci_high"]
    assert certificate["human_ceiling"]["value"] is None  # one rater beside the gold label
    assert set(certificate["fingerprints"]) == {"records", "annotations", "criteria"}
    assert sum(certificate["labels"][split] for split in ("train", "dev", "test")) == N
    assert (
        parse_document(path.read_text(encoding="utf-8"), source="x").criteria == "Score 1 if it is right and complete"
    )
    assert "# Calibrated judge v001" in card.read_text(encoding="utf-8")


def test_the_check_holds_the_lower_bound_against_the_minimum(stored: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = stored / "checked.json"
    call(capsys, "export", "--assets", str(stored), "--to", str(path), "--version", "v001")
    low = json.loads(path.read_text(encoding="utf-8"))["certificate"]["test"]["cohen_kappa"]["ci_low"]
    assert "supports" in call(capsys, "check", "--judge", str(path), "--min-kappa", str(low - 0.01))
    assert "does not support" in call(capsys, "check", "--judge", str(path), "--min-kappa", str(low + 0.01), code=1)
    assert "give a kappa" in call(capsys, "check", "--judge", str(path), "--min-kappa", "1.5", code=2)
    (stored / "broken.json").write_text("{}", encoding="utf-8")
    assert "no calibrated judge" in call(
        capsys, "check", "--judge", str(stored / "broken.json"), "--min-kappa", "0.6", code=2
    )


def test_the_check_fails_for_a_judge_that_is_not_the_certified_one(
    stored: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = stored / "edited.json"
    call(capsys, "export", "--assets", str(stored), "--to", str(path), "--version", "v001")
    content = json.loads(path.read_text(encoding="utf-8"))
    content["definition"]["criteria"] = content["criteria"] = "Score 1 always"
    path.write_text(json.dumps(content), encoding="utf-8")
    refused = call(capsys, "check", "--judge", str(path), "--min-kappa", "-1", code=1)
    assert "the certificate does not hold: the criteria or their sampling were changed" in refused
    with pytest.warns(UserWarning, match="the criteria or their sampling were changed"):
        judge = CalibratedJudge.load(path)
    (difference,) = judge.differences
    assert f"the certificate does not hold: {difference}" in refused


def test_an_exported_judge_scores_a_file(stored: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = stored / "scoring.json"
    call(capsys, "export", "--assets", str(stored), "--to", str(path), "--version", "v001")
    records = stored.parent / "records.csv"
    options = ["--judge", str(path), "--records", str(records), "--to", str(stored / "verdicts.csv")]
    counts = call_json(capsys, "score", *options)
    assert counts["n_records"] == N
    assert counts["n_accepted"] + counts["n_rejected"] == N
    verdicts = pd.read_csv(stored / "verdicts.csv")
    assert verdicts["record_id"].tolist() == [f"r{i}" for i in range(N)]
    assert verdicts.loc[3, "llm_score"] == 0  # wrong, as recorded
    assert counts["n_rejected_records"] == 0


def test_scoring_counts_every_row_that_is_no_record(
    stored: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    judge, records = tmp_path / "judge.json", tmp_path / "records.jsonl"
    call(capsys, "export", "--assets", str(stored), "--to", str(judge), "--version", "v001")
    broken = '{"query": "q"}\n' + "{broken\n" * 21
    records.write_text(f'{{"query": "q", "output": "o", "score": 1}}\n{broken}', encoding="utf-8")
    options = ["--judge", str(judge), "--records", str(records), "--to", str(tmp_path / "verdicts.csv")]
    assert cli.main(["score", *options]) == 0
    told = capsys.readouterr().err.splitlines()
    assert told[0] == "line 2 rejected: output is blank"
    assert told[1].startswith("line 3 rejected: is not JSON: ")
    assert told[-2:] == [
        "and 2 more; `caliber ingest` lists all with their texts",
        "records: 1, rejected records: 22, accepted: 1, rejected: 0, failed: 0, for people: 1",
    ]


async def _score(judge: CalibratedJudge, records: pd.DataFrame) -> pd.DataFrame:
    return await judge.score_async(records)


def test_another_template_is_warned_of(stored: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = stored / "aged.json"
    call(capsys, "export", "--assets", str(stored), "--to", str(path), "--version", "v001")
    content = json.loads(path.read_text(encoding="utf-8"))
    content["certificate"]["template_version"] = "0"
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.warns(UserWarning, match="template version '1' instead of '0'"):
        CalibratedJudge.load(path)


def test_scoring_from_python_awaited_or_not_is_the_same(stored: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = stored / "python.json"
    call(capsys, "export", "--assets", str(stored), "--to", str(path), "--version", "v001")
    judge = CalibratedJudge.load(path)
    rows: list[dict[str, Any]] = [{"query": "q", "output": "a", "llm_score": 1}, {"query": "q", "output": "b"}]
    found = judge.score(rows)
    assert found["status"].tolist() == ["scored", "failed"]
    pd.testing.assert_frame_equal(asyncio.run(_score(judge, pd.DataFrame(rows))), found)
    assert found["is_abstained"].all()  # recorded verdicts bring no confidence, so that none may stand alone


def test_the_embedded_judge_encodes_its_examples_once(
    stored: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, encoded = tmp_path / "judge.json", list[str]()

    class Counting(WordEncoder):
        def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
            encoded.extend(texts)
            return super().encode(texts)

    call(capsys, "export", "--assets", str(stored), "--to", str(path), "--version", "v001")
    content = json.loads(path.read_text(encoding="utf-8"))
    content["provider"] = content["certificate"]["provider"] = "local"
    content["model"] = content["certificate"]["model"] = Counting.name
    path.write_text(json.dumps(content), encoding="utf-8")
    monkeypatch.setattr(judging, "default_encoder", Counting)
    first = CalibratedJudge.load(path).score([{"query": "a b", "output": "c d"}])
    n_first = len(encoded)
    assert n_first > 0
    pd.testing.assert_frame_equal(CalibratedJudge.load(path).score([{"query": "a b", "output": "c d"}]), first)
    assert len(encoded) == n_first
