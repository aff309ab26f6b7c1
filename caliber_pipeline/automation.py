"""What starts runs: the sensor that closes the loop, the weekly recalibration, and the jobs they request."""

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition
from dagster._core.storage.dagster_run import IN_PROGRESS_RUN_STATUSES
from dagster._core.storage.tags import RUN_KEY_TAG

from caliber_pipeline.assets.definition import criteria_versions
from caliber_pipeline.core.annotation_events import find_reason_to_wait
from caliber_pipeline.core.criteria import Criteria
from caliber_pipeline.core.errors import CaliberError
from caliber_pipeline.core.loop import LoopPlan, LoopState, champion_base, plan_next, select_stale, select_untested
from caliber_pipeline.core.optimized_criteria import current_champion
from caliber_pipeline.renderers.markdown import render_code
from caliber_pipeline.resources import Project
from caliber_pipeline.stores.annotation_store import find_store
from caliber_pipeline.stores.ingest import combined_input_fingerprint, find_missing_input

SENSOR_INTERVAL_S = 15
ANNOTATIONS_INTERVAL_S = 30
INPUT_TAG = "caliber/input"
_UNSUCCESSFUL = (dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED)
INGEST = ("records", "rejected_records", "annotations", "rejected_annotations", "annotator_agreement")
CALIBRATION = (
    "judge_scores",
    "alignment_metrics",
    "drift",
    "patterns",
    "misalignments",
    "relabel_queue",
    "learnings",
    "optimized_criteria",
)
TEST = ("judge_scores", "alignment_metrics", "misalignments", "relabel_queue")
HISTORY = ("calibration_history", "report", "calibrated_judge")


def _define_job(name: str, assets: tuple[str, ...], description: str) -> UnresolvedAssetJobDefinition:
    # each step of a multiprocess run imports everything again, which takes longer than all seven stages do
    selection = dg.AssetSelection.assets(*assets)
    return dg.define_asset_job(name, selection, executor_def=dg.in_process_executor, description=description)


ingest_job = _define_job("ingest", INGEST, "Read the records and the annotations.")
calibration_job = _define_job(
    "calibration", CALIBRATION, "Evaluate one criteria version end to end, on the data as ingested."
)
test_job = _define_job("test", TEST, "Judge a version that has won on test too; the other verdicts are known.")
recalibration_job = _define_job(
    "recalibration", INGEST, "Read the input again; the sensor then has the champion and its base evaluated on it."
)
history_job = _define_job(
    "history", HISTORY, "Add the finished evaluations to the history, and write the report on the champion."
)


def observe_state(project: Project, instance: dg.DagsterInstance) -> LoopState:
    """What is there: input, stored tables, criteria files, known partitions, runs.

    Raises:
        InputError: the criteria folder cannot be read.
    """
    tables = project.tables
    judged = {version: tables.load_attrs("judge_scores", version) or {} for version in tables.versions("judge_scores")}
    listing = project.criteria_files.load_all()
    decided = tables.load_versions("optimized_criteria")
    champion = current_champion(decided)
    latest = (tables.load_attrs("annotations") or {}).get("ingested_at", "")
    ingestions = {version: decided[version].attrs["ingested_at"] for version in decided}
    untested = select_untested(decided, judged, latest)
    keys = {v: evaluation_key(v, c, latest, on_test=v in untested) for v, c in listing.valid.items()}
    runs = {v: _run_status(instance, key) for v, key in keys.items()}
    missing_input = find_missing_input(project.settings)
    ingests = [] if missing_input else [run.status for run in _ingest_runs(project, instance)]
    return LoopState(
        missing_input=missing_input,
        is_ingesting=ingests[:1] != [] and ingests[0] in IN_PROGRESS_RUN_STATUSES,
        has_ingest_failed=ingests[:1] != [] and ingests[0] in _UNSUCCESSFUL,
        is_ingested=all(tables.path(name).exists() for name in ("records", "annotations")),
        criteria=listing.valid,
        invalid=listing.invalid,
        evaluated={version: attrs["criteria_fingerprint"] for version, attrs in judged.items()},
        decided=frozenset(decided),
        untested=untested,
        stale=select_stale((champion_base(decided, champion), champion), ingestions, latest),
        running=frozenset(v for v, status in runs.items() if status in IN_PROGRESS_RUN_STATUSES),
        failed=frozenset(v for v, status in runs.items() if status in _UNSUCCESSFUL),
        registered=frozenset(instance.get_dynamic_partitions(str(criteria_versions.name))),
    )


def evaluation_key(version: str, criteria: Criteria, ingested_at: str, *, on_test: bool = False) -> str:
    """Identifies the evaluation of a version on the data as ingested, so that it is requested once."""
    return f"{version}:{criteria.fingerprint}:{ingested_at}{':test' if on_test else ''}"


def _run_status(instance: dg.DagsterInstance, key: str) -> dg.DagsterRunStatus | None:
    runs = instance.get_runs(dg.RunsFilter(tags={RUN_KEY_TAG: key}), limit=1)
    return runs[0].status if runs else None


def _ingest_runs(project: Project, instance: dg.DagsterInstance) -> list[dg.DagsterRun]:
    """The runs that the sensor requested for the input as it is now, the latest first."""
    return list(instance.get_runs(dg.RunsFilter(tags={INPUT_TAG: combined_input_fingerprint(project.settings)})))


def materialization_of(project: Project, version: str) -> dg.AssetMaterialization:
    """The event that makes a criteria file part of the lineage."""
    criteria = project.criteria_files.load(version)
    return dg.AssetMaterialization(
        asset_key="criteria",
        partition=version,
        description=f"{version} by a {criteria.author}",
        metadata={
            "criteria": dg.MetadataValue.md(render_code(criteria.full_text)),
            "author": criteria.author,
            "base": criteria.base or "none",
            "round": criteria.round,
            "n_clauses": len(criteria.clauses),
            "n_examples": len(criteria.examples),
            "criteria_fingerprint": criteria.fingerprint,
        },
    )


@dg.sensor(
    jobs=[ingest_job, calibration_job, test_job],
    minimum_interval_seconds=SENSOR_INTERVAL_S,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Sees new criteria files, from a person or from the optimizer, and has each evaluated.",
)
def criteria_sensor(context: dg.SensorEvaluationContext, project: Project) -> dg.SensorResult | dg.SkipReason:
    """Request what the loop needs next."""
    try:
        plan = plan_next(observe_state(project, context.instance))
    except CaliberError as error:
        return dg.SkipReason(str(error))
    for warning in plan.warnings:
        context.log.warning(warning)
    if plan.skip_reason is not None and not plan.register:
        return dg.SkipReason(plan.skip_reason)
    return dg.SensorResult(
        run_requests=_requests(project, context.instance, plan),
        dynamic_partitions_requests=[criteria_versions.build_add_request(list(plan.register))] if plan.register else [],
        asset_events=[materialization_of(project, version) for version in plan.register],
    )


@dg.sensor(
    job=recalibration_job,
    minimum_interval_seconds=ANNOTATIONS_INTERVAL_S,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Sees verdicts given on the annotation page; once they are enough, has the champion measured on them.",
)
def annotations_sensor(context: dg.SensorEvaluationContext, project: Project) -> dg.RunRequest | dg.SkipReason:
    """Request a recalibration where enough annotations are new."""
    settings, ingested = project.settings, project.tables.load_attrs("annotations")
    if ingested is None:
        return dg.SkipReason("the input is not ingested yet")
    try:
        store = find_store(settings.annotation_store_url)
    except CaliberError as error:
        return dg.SkipReason(str(error))
    if store is None:
        return dg.SkipReason("nobody has annotated on the page yet; start it with `caliber annotate`")
    with store:
        place, n_changed = store.last_seq(), store.n_changed(after=int(ingested.get("annotation_store_place", 0)))
    running = dg.RunsFilter(job_name=recalibration_job.name, statuses=IN_PROGRESS_RUN_STATUSES)
    is_running = bool(context.instance.get_runs(running, limit=1))
    reason = find_reason_to_wait(n_changed, settings.recalibrate_after, is_running=is_running)
    return dg.SkipReason(reason) if reason else dg.RunRequest(run_key=f"annotations:{place}")


def _requests(project: Project, instance: dg.DagsterInstance, plan: LoopPlan) -> list[dg.RunRequest]:
    """The request for the next piece of work; its key keeps a failed one from being requested again and again."""
    if plan.should_ingest:
        what = combined_input_fingerprint(project.settings)
        # tables that were removed by hand are read again: the key counts the runs that this input had before
        key = f"ingest:{what}:{len(_ingest_runs(project, instance))}"
        return [dg.RunRequest(run_key=key, job_name="ingest", tags={INPUT_TAG: what})]
    version = plan.test or plan.evaluate
    if version is None:
        return []
    ingested_at = (project.tables.load_attrs("annotations") or {})["ingested_at"]
    criteria = project.criteria_files.load(version)
    key = evaluation_key(version, criteria, ingested_at, on_test=plan.test is not None)
    return [dg.RunRequest(run_key=key, job_name="test" if plan.test else "calibration", partition_key=version)]


def build_recalibration_schedule(cron: str) -> dg.ScheduleDefinition:
    """Recalibration at the times of a cron expression."""
    return dg.ScheduleDefinition(
        name="recalibration_schedule",
        job=recalibration_job,
        cron_schedule=cron,
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Reads the input again, so that the champion is measured on the latest annotations.",
    )
