"""What recalibration shows: drift, by a changed judge and by changed data, and the records to label again."""

import csv
from collections.abc import Callable
from pathlib import Path

import dagster as dg
import pandas as pd
import pytest

from caliber_pipeline.definitions import build_definitions
from caliber_pipeline.resources import Project
from caliber_pipeline_tests.projects import QuotingJudge

RunJob = Callable[..., dg.ExecuteInProcessResult]


@pytest.fixture
def run(planted: Project, instance: dg.DagsterInstance) -> RunJob:
    """Runs a job of the planted project."""
    definitions = build_definitions(planted.settings, planted)
    instance.add_dynamic_partitions("criteria_version", ["v001"])

    def run_job(name: str, version: str | None = None) -> dg.ExecuteInProcessResult:
        result = definitions.resolve_job_def(name).execute_in_process(instance=instance, partition_key=version)
        assert result.success
        return result

    return run_job


@pytest.fixture
def certified(planted: Project, run: RunJob) -> Project:
    """The planted project with v001 evaluated: it accepts everything, people accept one half."""
    run("ingest")
    run("calibration", "v001")
    run("history")
    return planted


def add_labels(project: Project, n: int, *, score: int) -> None:
    """New records without a flaw, labelled later."""
    records, annotations = project.settings.records_file, project.settings.annotations_file
    assert annotations is not None
    with annotations.open() as file:
        rows = list(csv.DictReader(file))
    with Path(records).open("a", newline="") as file:
        csv.writer(file).writerows([f"n{i}", f"new question {i}", f"new answer {i}", "t0"] for i in range(n))
    with annotations.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["record_id", "annotator", "score", "notes", "created_at"])
        writer.writeheader()
        writer.writerows(rows)
        for i in range(n):
            late = f"2100-01-01T00:00:{i:02}Z"
            writer.writerow({"record_id": f"n{i}", "annotator": "ann", "score": score, "created_at": late})


def add_tie(project: Project, record_id: str) -> None:
    """A second annotator who rejects what the first accepts."""
    annotations = project.settings.annotations_file
    assert annotations is not None
    with annotations.open("a", newline="") as file:
        csv.writer(file).writerow([record_id, "ben", 0, "not for me", ""])


def drift_of(project: Project) -> pd.Series:
    return project.tables.require("drift", "v001").iloc[0]


def failed_checks(result: dg.ExecuteInProcessResult) -> list[str]:
    return [check.check_name for check in result.get_asset_check_evaluations() if not check.passed]


@pytest.mark.slow
def test_new_labels_that_contradict_the_judge_raise_the_alarm(certified: Project, run: RunJob) -> None:
    before = drift_of(certified)
    assert before["summary"] == "first evaluation: no certificate to hold it against"
    assert not before["is_alarm"]
    add_labels(certified, 50, score=0)
    add_tie(certified, "r2")
    run("recalibration")

    result = run("calibration", "v001")

    state = drift_of(certified)
    assert state["is_alarm"]
    assert state["n_audited"] == 50
    assert "data drift of -" in str(state["summary"])
    assert "judge drift" not in str(state["summary"])
    assert "no_drift" in failed_checks(result)
    queue = certified.tables.require("relabel_queue", "v001")
    assert queue[["record_id", "reason"]].to_numpy().tolist() == [["r2", "annotators tie"]]
    form = pd.read_csv(certified.settings.local_output / "relabel_queue" / "v001.csv")
    assert form.columns.tolist() == ["record_id", "query", "output", "reference", "annotator", "score", "notes"]


@pytest.mark.slow
def test_a_judge_that_changed_shows_on_the_anchors(
    certified: Project, run: RunJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The model behind the endpoint changes: it now sees both flaws by itself, which people always rejected.
    monkeypatch.setattr(QuotingJudge, "knows", lambda self, criteria: ["zebra", "quasar"])
    add_labels(certified, 50, score=1)
    run("recalibration")

    result = run("calibration", "v001")

    state = drift_of(certified)
    assert not state["is_alarm"]
    assert state["n_anchors"] == 50
    assert "judge drift of +" in str(state["summary"])
    assert "no_drift" not in failed_checks(result)
