"""A provider's batches in Dagster: a run sends them and ends, sensors look at them, a second run takes the results."""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pandas as pd
import pytest

from caliber_pipeline.automation import batches_sensor
from caliber_pipeline.definitions import build_definitions
from caliber_pipeline.resources import Project
from caliber_pipeline_tests.benchmarks.loopback_server import Endpoint, LoopbackConfig
from caliber_pipeline_tests.judges.batch_server import BatchConfig, BatchServer, batch_server
from caliber_pipeline_tests.projects import open_project, write_planted_input
from caliber_pipeline_tests.test_automation import obey, requested, skip_reason, tick

N = 48
EACH = (300 * 2.5 + 20 * 10) / 1e6  # US dollars for the loopback's 300 and 20 tokens at gpt-4o's price
LOOKS = 2  # the run that sends looks once, then a sensor


@pytest.fixture
def server() -> Iterator[BatchServer]:
    """An endpoint with batches that are still under way at the second look."""
    with batch_server(BatchConfig(n_looks=LOOKS)) as running:
        running.endpoint = Endpoint(LoopbackConfig(reject_if="zebra"))
        yield running


def make_project(folder: Path, server: BatchServer) -> Project:
    if not (folder / "records.csv").exists():
        write_planted_input(folder, N)
    options: dict[str, str | int | float] = {"base_url": server.base_url, "model": "gpt-4o", "max_retries": 0}
    return open_project(folder, mode="batch", judge_options=options, max_iterations=0)


def send(folder: Path, server: BatchServer, instance: dg.DagsterInstance) -> Project:
    """A project whose first version was asked about in a batch."""
    project = make_project(folder, server)
    for expected in (("ingest", None), ("calibration", "v001")):
        outcome = tick(project, instance)
        assert requested(outcome) == [expected]
        (result,) = obey(project, instance, outcome)
        assert result.success
    return project


def take(project: Project, instance: dg.DagsterInstance) -> dg.ExecuteInProcessResult:
    outcome = tick(project, instance)
    assert requested(outcome) == [("calibration", "v001")]
    (result,) = obey(project, instance, outcome)
    return result


def test_a_run_sends_and_ends_and_the_sensor_has_the_results_taken(
    server: BatchServer, tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    project = send(tmp_path, server, instance)
    assert project.tables.versions("judge_scores") == []
    (observed,) = instance.fetch_observations(dg.AssetKey("judge_scores"), limit=1).records
    assert observed.asset_observation is not None
    shown = {name: value.value for name, value in observed.asset_observation.metadata.items()}
    assert (shown["n_batches"], shown["n_requests"], shown["batch_ids"]) == (1, N, ["batch-0"])

    again = make_project(tmp_path, server)  # as another process would
    reason = skip_reason(tick(again, instance))
    assert reason.startswith(f"'v001': 1 batch is under way at the provider, of {N} records, sent 20")
    assert reason.endswith("0 of 1 have ended, 0 records answered")

    result = take(again, instance)
    assert result.success
    verdicts = again.tables.require("judge_scores", "v001")
    assert verdicts["status"].tolist() == ["scored"] * N
    assert (verdicts["llm_score"] == 0).sum() == N / 4
    assert verdicts["cost_usd"].sum() == pytest.approx(N * EACH / 2)
    assert (len(server.batches), server.n_single) == (1, 0)
    assert again.open_batches("judge_scores", "v001") == []
    (materialized,) = result.asset_materializations_for_node("judge_scores")
    assert materialized.metadata["batches"].value == "1 completed"
    assert "nothing new among 1 criteria versions" in skip_reason(tick(again, instance))


@pytest.mark.slow
def test_what_expired_is_asked_one_by_one_and_the_log_says_so(
    server: BatchServer, tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    server.config.ends, server.config.n_answered = ("expired",), 40
    project = send(tmp_path, server, instance)
    tick(project, instance)
    result = take(project, instance)
    assert result.success
    assert (server.n_single, project.tables.count("judge_scores", "v001")) == (N - 40, N)
    logged = [entry.user_message for entry in instance.all_logs(result.run_id)]
    assert any("expired: 8 of its 48 records got no answer, and are asked one by one" in line for line in logged)


@pytest.mark.slow
def test_a_batch_that_the_provider_refuses_fails_the_run_with_its_reason_and_is_not_sent_again_unasked(
    server: BatchServer, tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    server.config.ends = ("failed", "completed")
    project = send(tmp_path, server, instance)
    tick(project, instance)
    result = take(project, instance)
    assert not result.success
    (failure,) = [event for event in result.all_events if event.is_step_failure]
    assert "refused batch batch-0 of 48 records: too many tokens queued; run again when" in str(
        failure.step_failure_data.error
    )
    assert "the evaluation of 'v001' failed" in skip_reason(tick(project, instance))

    # somebody runs the job by hand: what it sends is looked at and taken again
    job = build_definitions(project.settings, project).resolve_job_def("calibration")
    assert job.execute_in_process(instance=instance, partition_key="v001").success
    assert "1 batch is under way" in skip_reason(tick(project, instance))
    assert take(project, instance).success


@pytest.mark.slow
def test_a_run_that_could_send_nothing_failed_and_is_not_requested_again(
    server: BatchServer, tmp_path: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = make_project(tmp_path, server)
    obey(project, instance, tick(project, instance))
    monkeypatch.setattr(BatchServer, "_store", lambda *_: 1 / 0)  # the connection breaks
    (result,) = obey(project, instance, tick(project, instance))
    assert not result.success
    assert "the evaluation of 'v001' failed" in skip_reason(tick(project, instance))
    job = build_definitions(project.settings, project).resolve_job_def("scoring")
    assert not job.execute_in_process(instance=instance, partition_key="v001", raise_on_error=False).success
    keys = set()
    for _ in range(2):
        outcome = batches_sensor(dg.build_sensor_context(instance=instance, resources={"project": project}))
        assert isinstance(outcome, list)
        keys.add(outcome[0].run_key)  # once for the daemon, which makes one run of a key
        assert not job.execute_in_process(instance=instance, partition_key="v001", raise_on_error=False).success
    assert len(keys) == 1


@pytest.mark.slow
def test_a_provider_that_does_not_answer_is_asked_again_later(
    server: BatchServer, tmp_path: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = send(tmp_path, server, instance)
    with monkeypatch.context() as patch:
        patch.setattr(BatchServer, "_look", lambda *_: {"error": {"message": "down for a while"}})
        patch.setattr(server.config, "status", 503)
        reason = skip_reason(tick(project, instance))
    assert "1 batch is under way at the provider" in reason
    assert f"batches of custom at {server.base_url}: down for a while" in reason
    tick(project, instance)
    assert take(project, instance).success


@pytest.mark.slow
def test_a_batch_that_the_provider_does_not_know_says_what_to_remove(
    server: BatchServer, tmp_path: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = send(tmp_path, server, instance)
    monkeypatch.setattr(BatchServer, "_look", lambda *_: {"error": {"message": "no such batch"}})
    monkeypatch.setattr(server.config, "status", 404)
    result = take(project, instance)
    (failure,) = [event for event in result.all_events if event.is_step_failure]
    assert "does not know batch batch-0" in str(failure.step_failure_data.error)
    (path,) = (tmp_path / "out").rglob("*.batch")
    assert str(path) in str(failure.step_failure_data.error)


def test_the_run_over_all_records_is_requested_again_when_its_batches_have_ended(
    server: BatchServer, tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    project = make_project(tmp_path, server)
    obey(project, instance, tick(project, instance))
    instance.add_dynamic_partitions("criteria_version", ["v001"])
    job = build_definitions(project.settings, project).resolve_job_def("scoring")

    def look() -> list[dg.RunRequest] | dg.SkipReason:
        outcome = batches_sensor(dg.build_sensor_context(instance=instance, resources={"project": project}))
        assert isinstance(outcome, list | dg.SkipReason)
        return outcome

    assert str(look().skip_message) == "no batches of 'all_scores' are under way"  # type: ignore[union-attr]
    assert job.execute_in_process(instance=instance, partition_key="v001").success
    waiting = look()
    assert isinstance(waiting, dg.SkipReason)
    assert f"'v001': 1 batch is under way at the provider, of {N} records" in str(waiting.skip_message)
    requests = look()
    assert isinstance(requests, list)
    (request,) = requests
    result = job.execute_in_process(instance=instance, partition_key=request.partition_key)
    (materialized,) = result.asset_materializations_for_node("all_scores")
    found = pd.read_parquet(str(materialized.metadata["folder"].value))
    assert found["status"].tolist() == ["scored"] * N
    assert (len(server.batches), server.n_single) == (1, 0)
