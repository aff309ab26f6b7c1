"""The sensor: what it requests from what is there, and the loop that it drives alone."""

import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import pytest

from caliber_pipeline.automation import criteria_sensor
from caliber_pipeline.core import optimized_criteria as core
from caliber_pipeline.core.criteria import Criteria, ExampleRef
from caliber_pipeline.definitions import build_definitions
from caliber_pipeline.instances import open_instance
from caliber_pipeline.resources import Project
from caliber_pipeline_tests.benchmarks.loopback_server import LoopbackConfig, loopback
from caliber_pipeline_tests.projects import (
    QuotingJudge,
    make_planted,
    open_project,
    planted_settings,
    write_planted_input,
)


def tick(project: Project, instance: dg.DagsterInstance) -> dg.SensorResult | dg.SkipReason:
    context = dg.build_sensor_context(instance=instance, resources={"project": project})
    outcome = criteria_sensor(context)
    assert isinstance(outcome, dg.SensorResult | dg.SkipReason)
    if isinstance(outcome, dg.SensorResult):  # the daemon refuses a request for another job
        assert {request.job_name for request in outcome.run_requests or []} <= {
            job.name for job in criteria_sensor.jobs
        }
    return outcome


def requested(outcome: dg.SensorResult | dg.SkipReason) -> list[tuple[str | None, str | None]]:
    assert isinstance(outcome, dg.SensorResult), outcome
    return [(request.job_name, request.partition_key) for request in outcome.run_requests or []]


def run_key(outcome: dg.SensorResult | dg.SkipReason) -> str:
    assert isinstance(outcome, dg.SensorResult)
    (request,) = outcome.run_requests or []
    return str(request.run_key)


def obey(
    project: Project, instance: dg.DagsterInstance, outcome: dg.SensorResult | dg.SkipReason
) -> list[dg.ExecuteInProcessResult]:
    """Do what the daemon does with a sensor's outcome."""
    assert isinstance(outcome, dg.SensorResult), outcome
    definitions = build_definitions(project.settings, project)
    for addition in outcome.dynamic_partitions_requests or []:
        assert isinstance(addition, dg.AddDynamicPartitionsRequest)
        instance.add_dynamic_partitions(addition.partitions_def_name, list(addition.partition_keys))
    for event in outcome.asset_events:
        instance.report_runless_asset_event(event)
    results = []
    for request in outcome.run_requests or []:
        assert request.job_name is not None
        tags = {**request.tags, "dagster/run_key": str(request.run_key)}
        job = definitions.resolve_job_def(request.job_name)
        results.append(
            job.execute_in_process(
                instance=instance, partition_key=request.partition_key, tags=tags, raise_on_error=False
            )
        )
    return results


def skip_reason(outcome: dg.SensorResult | dg.SkipReason) -> str:
    assert isinstance(outcome, dg.SkipReason), outcome
    return str(outcome.skip_message)


def test_input_that_is_not_ingested_is_ingested_first(planted: Project, instance: dg.DagsterInstance) -> None:
    assert requested(tick(planted, instance)) == [("ingest", None)]


def test_input_that_failed_is_read_again_once_it_is_corrected(planted: Project, instance: dg.DagsterInstance) -> None:
    good = planted.settings.records_file.read_text()
    planted.settings.records_file.write_text("nothing,useful\n1,2\n")
    (result,) = obey(planted, instance, tick(planted, instance))
    assert not result.success
    assert "the input could not be read" in skip_reason(tick(planted, instance))
    planted.settings.records_file.write_text(good)
    (result,) = obey(planted, instance, tick(planted, instance))
    assert result.success


def test_tables_that_were_removed_are_made_again(planted: Project, instance: dg.DagsterInstance) -> None:
    first = tick(planted, instance)
    obey(planted, instance, first)
    planted.tables.path("records").unlink()
    second = tick(planted, instance)
    assert requested(second) == [("ingest", None)]
    assert run_key(first) != run_key(second)


def test_missing_input_is_named(planted: Project, instance: dg.DagsterInstance) -> None:
    planted.settings.records_file.unlink()
    assert "records.csv: no such file" in skip_reason(tick(planted, instance))


def test_a_new_file_is_registered_reported_and_evaluated(planted: Project, instance: dg.DagsterInstance) -> None:
    obey(planted, instance, tick(planted, instance))
    outcome = tick(planted, instance)
    assert requested(outcome) == [("calibration", "v001")]
    assert isinstance(outcome, dg.SensorResult)
    assert [event.partition for event in outcome.asset_events] == ["v001"]
    assert outcome.asset_events[0].asset_key == dg.AssetKey("criteria")


@pytest.mark.parametrize(
    ("job", "asset"),
    [("calibration", None), ("__ASSET_JOB", "judge_scores"), ("__ASSET_JOB", "patterns")],
    ids=["the job", "the asset graph", "the asset graph downstream"],
)
def test_a_version_that_somebody_has_evaluated_by_hand_is_not_started_beside(
    planted: Project, instance: dg.DagsterInstance, job: str, asset: str | None
) -> None:
    obey(planted, instance, tick(planted, instance))
    started = dg.DagsterRun(
        job_name=job,
        status=dg.DagsterRunStatus.STARTED,
        tags={"dagster/partition": "v001"},
        asset_selection=None if asset is None else frozenset({dg.AssetKey(asset)}),
    )
    instance.add_run(started)
    outcome = tick(planted, instance)
    judges = job == "calibration" or asset == "judge_scores"
    assert (isinstance(outcome, dg.SkipReason) or requested(outcome) == []) is judges


def test_two_runs_that_meet_on_a_version_ask_for_each_verdict_once(tmp_path: Path) -> None:
    write_planted_input(tmp_path, 40)
    with loopback(LoopbackConfig(latency_s=0.05)) as server:
        options = {"base_url": server.base_url, "model": "m", "max_concurrency": 2}
        project = open_project(tmp_path, judge_options=options)
        definitions = build_definitions(project.settings, project)

        def evaluate(_: int) -> bool:
            with dg.DagsterInstance.ephemeral() as own:
                own.add_dynamic_partitions("criteria_version", ["v001"])
                job = definitions.resolve_job_def("calibration")
                judging = [dg.AssetKey("judge_scores")]
                return job.execute_in_process(instance=own, partition_key="v001", asset_selection=judging).success

        with dg.DagsterInstance.ephemeral() as first:
            assert definitions.resolve_job_def("ingest").execute_in_process(instance=first).success
        with ThreadPoolExecutor(2) as pool:
            assert list(pool.map(evaluate, range(2))) == [True, True]
        assert server.stats()["calls"] == 40
    assert (project.tables.require("judge_scores", "v001")["status"] == "scored").all()


def test_the_sensor_alone_turns_the_loop_until_aligned(planted: Project, instance: dg.DagsterInstance) -> None:
    ran = []
    for _ in range(10):
        outcome = tick(planted, instance)
        if isinstance(outcome, dg.SkipReason):
            break
        ran += requested(outcome)
        assert all(result.success for result in obey(planted, instance, outcome))
    assert ran == [("ingest", None), ("calibration", "v001"), ("calibration", "v002"), ("test", "v002")]
    assert "nothing new among 2 criteria versions" in skip_reason(tick(planted, instance))
    decided = planted.tables.require("optimized_criteria", "v002").iloc[0]
    assert decided["decision"] == "promoted"
    assert decided["champion"] == "v002"
    # Both planted rules are in the clauses, so that the quoting judge agrees with people on every record.
    assert decided["kappa"] == 1.0
    assert decided["stop_reason"].startswith("aligned: kappa on dev 1.000 reaches the target 0.9, and is at least 0.9")


@pytest.mark.slow
def test_the_sensor_alone_goes_through_three_versions_where_none_is_aligned(
    planted: Project, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(QuotingJudge, "knows", lambda self, criteria: [])
    ran = []
    while isinstance(outcome := tick(planted, instance), dg.SensorResult):
        ran += requested(outcome)
        assert all(result.success for result in obey(planted, instance, outcome))
    assert [version for _, version in ran] == [None, "v001", "v002", "v003"]
    decisions = {
        v: planted.tables.require("optimized_criteria", v)["decision"].iloc[0] for v in ("v001", "v002", "v003")
    }
    assert decisions == {"v001": "baseline", "v002": "rejected", "v003": "rejected"}
    last = planted.tables.require("optimized_criteria", "v003").iloc[0]
    assert last["champion"] == "v001"
    assert last["stop_reason"] == "no improvement 2 times over v001"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the planted project after its loop has ended, and with the Dagster instance of its runs."""
    folder = tmp_path_factory.mktemp("finished")
    project = make_planted(folder)
    with open_instance(project.settings) as instance:
        while isinstance(outcome := tick(project, instance), dg.SensorResult):
            obey(project, instance, outcome)
    return folder


@pytest.fixture
def evaluated(finished: Path, tmp_path: Path) -> Project:
    """A copy of it."""
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    return make_planted(tmp_path)


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    """The project's own instance."""
    with open_instance(planted_settings(tmp_path)) as instance:
        yield instance


def test_several_new_files_are_registered_at_once_and_evaluated_one_after_the_other(
    evaluated: Project, instance: dg.DagsterInstance
) -> None:
    for name in ("mine", "yours"):
        evaluated.criteria_files.add_as(name, Criteria(criteria=f"Score 1 if {name}, otherwise 0"))
    first = tick(evaluated, instance)
    assert isinstance(first, dg.SensorResult)
    assert [event.partition for event in first.asset_events] == ["mine", "yours"]
    assert requested(first) == [("calibration", "mine")]
    obey(evaluated, instance, first)
    assert requested(tick(evaluated, instance)) == [("calibration", "yours")]


def test_an_unreadable_folder_is_not_an_empty_one(evaluated: Project, instance: dg.DagsterInstance) -> None:
    folder = evaluated.criteria_files.folder
    folder.rename(folder.with_name("gone"))
    assert "cannot read the criteria folder" in skip_reason(tick(evaluated, instance))


def test_a_half_written_file_is_reported_and_skipped_until_it_is_whole(
    evaluated: Project, instance: dg.DagsterInstance
) -> None:
    path = evaluated.criteria_files.folder / "v100.yaml"
    path.write_text("criteria: 'Score 1 if")
    assert "v100.yaml: not valid YAML" in skip_reason(tick(evaluated, instance))
    path.write_text("criteria: Score 1 if it is whole, otherwise 0")
    assert requested(tick(evaluated, instance)) == [("calibration", "v100")]


def test_a_file_that_changed_after_its_evaluation_is_refused_with_both_hashes(
    evaluated: Project, instance: dg.DagsterInstance
) -> None:
    path = evaluated.criteria_files.folder / "v001.yaml"
    before = evaluated.criteria_files.load("v001").fingerprint
    path.write_text("criteria: Score 1 always")
    after = evaluated.criteria_files.load("v001").fingerprint
    reason = skip_reason(tick(evaluated, instance))
    assert f"fingerprint {before[:12]} then, {after[:12]} now" in reason
    job = build_definitions(evaluated.settings, evaluated).resolve_job_def("calibration")
    with pytest.raises(dg.Failure, match="changed after they were evaluated"):
        job.execute_in_process(instance=instance, partition_key="v001")


def test_an_unknown_base_is_an_error_that_names_it(evaluated: Project, instance: dg.DagsterInstance) -> None:
    (evaluated.criteria_files.folder / "v050.yaml").write_text("criteria: Score 1\nbase: v999")
    assert "'v050' name the base 'v999'" in skip_reason(tick(evaluated, instance))


def test_a_failed_evaluation_is_not_requested_again_and_does_not_stop_others(
    evaluated: Project, instance: dg.DagsterInstance
) -> None:
    bad = Criteria(criteria="x", examples=(ExampleRef(record_id="nobody", content_hash="0"),))
    evaluated.criteria_files.add_as("bad", bad)
    (result,) = obey(evaluated, instance, tick(evaluated, instance))
    assert not result.success
    assert "the evaluation of 'bad' failed" in skip_reason(tick(evaluated, instance))
    evaluated.criteria_files.add_as("good", Criteria(criteria="y"))
    assert requested(tick(evaluated, instance)) == [("calibration", "good")]


def test_after_a_recalibration_the_base_and_then_the_champion_are_evaluated_again(
    evaluated: Project, instance: dg.DagsterInstance
) -> None:
    definitions = build_definitions(evaluated.settings, evaluated)
    assert definitions.resolve_job_def("recalibration").execute_in_process(instance=instance).success
    ran = []
    while isinstance(outcome := tick(evaluated, instance), dg.SensorResult):
        ran += requested(outcome)
        obey(evaluated, instance, outcome)
    assert ran == [("calibration", "v001"), ("calibration", "v002")]
    assert definitions.resolve_job_def("history").execute_in_process(instance=instance).success
    history = evaluated.tables.require("calibration_history")
    assert history["criteria_version"].tolist() == ["v001", "v002"]
    assert evaluated.criteria_files.load_all().valid.keys() == {"v001", "v002"}


def turn(project: Project, instance: dg.DagsterInstance) -> list[str | None]:
    """Let the sensor turn the loop until it has nothing left to do; the versions in the order of their evaluations."""
    ran = []
    while isinstance(outcome := tick(project, instance), dg.SensorResult):
        ran += [version for _, version in requested(outcome)]
        assert all(result.success for result in obey(project, instance, outcome))
    return ran


def read_a_new_label(project: Project, instance: dg.DagsterInstance) -> None:
    """Have the input read again with one more verdict, so that figures of before are of other data."""
    assert project.settings.annotations_file is not None
    with project.settings.annotations_file.open("a") as file:
        file.write("r3,ben,1,\n")
    definitions = build_definitions(project.settings, project)
    assert definitions.resolve_job_def("recalibration").execute_in_process(instance=instance).success


def promote_by_hand(project: Project, version: str) -> None:
    tables = project.tables
    row = core.promote_by_hand(tables.require("optimized_criteria", version), "my own", datetime.now(UTC), 2)
    tables.save(row, tables.path("optimized_criteria", version), "optimized_criteria")


def champion_of(project: Project) -> str | None:
    return core.current_champion(project.tables.load_versions("optimized_criteria"))


@pytest.mark.slow
def test_on_new_labels_base_and_champion_are_measured_again_and_nothing_is_proposed_before_the_champion_is(
    evaluated: Project, instance: dg.DagsterInstance
) -> None:
    read_a_new_label(evaluated, instance)
    assert turn(evaluated, instance) == ["v001", "v002"]
    assert champion_of(evaluated) == "v002"
    base, champion = (evaluated.tables.require("optimized_criteria", v) for v in ("v001", "v002"))
    assert base["base"].isna().all()
    assert base["proposal_reason"].iloc[0] == "v001 was evaluated again; the champion v002 stands"
    assert champion["decision_reason"].iloc[0].startswith("evaluated again; before: kappa on dev 0.000 → 1.000")
    assert champion.attrs["annotations_fingerprint"] == base.attrs["annotations_fingerprint"]


@pytest.mark.slow
@pytest.mark.parametrize(("version", "evaluated_again"), [("v001", ["v001"]), ("v002", ["v001", "v002"])])
def test_what_a_person_promoted_stays_champion_on_new_labels(
    evaluated: Project, instance: dg.DagsterInstance, version: str, evaluated_again: list[str]
) -> None:
    promote_by_hand(evaluated, version)
    for _ in range(2):
        read_a_new_label(evaluated, instance)
        assert turn(evaluated, instance) == evaluated_again
        row = evaluated.tables.require("optimized_criteria", version).iloc[0]
        assert champion_of(evaluated) == row["champion"] == version
        assert row["is_by_hand"]
        assert row["decision_reason"].startswith("evaluated again; before: by hand: my own (before: ")


def test_a_file_that_can_never_be_evaluated_keeps_no_proposal_back(
    planted: Project, instance: dg.DagsterInstance
) -> None:
    planted.criteria_files.add_as("astray", Criteria(criteria="Score 1", base="v999"))
    for _ in range(2):  # the input is read, and v001 evaluated
        obey(planted, instance, tick(planted, instance))
    row = planted.tables.require("optimized_criteria", "v001").iloc[0]
    assert row["proposed_version"] == "v002"


def test_a_gain_over_an_old_base_does_not_dethrone_a_better_champion(
    evaluated: Project, instance: dg.DagsterInstance
) -> None:
    """Half of what v002 knows: clearly better than v001, and clearly worse than the champion."""
    half = evaluated.criteria_files.load("v002").clauses[:1]
    evaluated.criteria_files.add_as("half", Criteria(criteria="half", clauses=half, base="v001"))
    assert turn(evaluated, instance) == ["half"]
    row = evaluated.tables.require("optimized_criteria", "half").iloc[0]
    assert (row["base"], row["decision"], row["champion"]) == ("v001", "rejected", "v002")
    assert " ≤ 0.0167 over v001; over the champion v002: kappa on dev 1.000 → " in row["decision_reason"]
    assert row["decision_reason"].endswith("; no gain")
    assert champion_of(evaluated) == "v002"


@pytest.mark.slow
def test_the_history_keeps_one_row_per_evaluation(evaluated: Project, instance: dg.DagsterInstance) -> None:
    definitions = build_definitions(evaluated.settings, evaluated)
    history_job = definitions.resolve_job_def("history")
    assert history_job.execute_in_process(instance=instance).success
    assert definitions.resolve_job_def("recalibration").execute_in_process(instance=instance).success
    while isinstance(outcome := tick(evaluated, instance), dg.SensorResult):
        obey(evaluated, instance, outcome)
    assert history_job.execute_in_process(instance=instance).success
    assert history_job.execute_in_process(instance=instance).success
    history = evaluated.tables.require("calibration_history")
    assert history["criteria_version"].tolist() == ["v001", "v002", "v001", "v002"]
    assert history["evaluated_at"].is_monotonic_increasing
    assert history["decision"].tolist() == ["baseline", "promoted", "baseline", "promoted"]


def test_each_partition_says_what_it_was_made_from(evaluated: Project) -> None:
    records = evaluated.tables.require("records").attrs["records_fingerprint"]
    for name in ("judge_scores", "alignment_metrics", "patterns", "misalignments", "optimized_criteria"):
        attrs = evaluated.tables.load_attrs(name, "v002")
        assert attrs is not None
        assert attrs["records_fingerprint"] == records
        assert attrs["criteria_fingerprint"] == evaluated.criteria_files.load("v002").fingerprint


def test_proposals_hold_no_text_of_dev_or_test_records(evaluated: Project, tmp_path: Path) -> None:
    records = evaluated.tables.require("records").set_index("record_id")
    proposed = evaluated.criteria_files.load("v002")
    used = [i for clause in proposed.clauses for i in clause.evidence.record_ids]
    used += [example.record_id for example in proposed.examples]
    assert used
    assert set(records.loc[used, "split"]) == {"train"}
