"""What starts runs: the sensor that closes the loop, the weekly recalibration, and the jobs they request."""

from collections.abc import Iterable
from datetime import datetime

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition
from dagster._core.storage.dagster_run import IN_PROGRESS_RUN_STATUSES
from dagster._core.storage.tags import PARTITION_NAME_TAG, RUN_KEY_TAG

from caliber_pipeline.assets.definition import criteria_versions
from caliber_pipeline.core.annotation_events import find_reason_to_wait
from caliber_pipeline.core.criteria import Criteria
from caliber_pipeline.core.errors import CaliberError
from caliber_pipeline.core.loop import LoopPlan, LoopState, champion_base, plan_next, select_stale, select_untested
from caliber_pipeline.core.optimized_criteria import current_champion
from caliber_pipeline.renderers.markdown import render_code
from caliber_pipeline.resources import ALL_SCORES, Project
from caliber_pipeline.stores.annotation_store import find_store
from caliber_pipeline.stores.batch_folder import describe_batches, identify
from caliber_pipeline.stores.ingest import combined_input_fingerprint, find_missing_input

SENSOR_INTERVAL_S = 15
ANNOTATIONS_INTERVAL_S = 30
BATCHES_INTERVAL_S = 60
INPUT_TAG = "caliber/input"
EVALUATION_TAG = "caliber/evaluation"
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

scoring_job = _define_job(
    "scoring", (ALL_SCORES,), "Judge every stored record under one criteria version, labelled or not."
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
    by_hand = _partitions_under_way(instance, "judge_scores", calibration_job.name, test_job.name)
    waiting, answered = _look_at_batches(project, listing.valid)
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
        running=frozenset(v for v, status in runs.items() if status in IN_PROGRESS_RUN_STATUSES) | by_hand,
        failed=frozenset(v for v, key in keys.items() if _is_given_up(project, instance, v, key)),
        registered=frozenset(instance.get_dynamic_partitions(str(criteria_versions.name))),
        waiting=waiting,
        answered=answered,
    )


def evaluation_key(version: str, criteria: Criteria, ingested_at: str, *, on_test: bool = False) -> str:
    """Identifies the evaluation of a version on the data as ingested, so that it is requested once."""
    return f"{version}:{criteria.fingerprint}:{ingested_at}{':test' if on_test else ''}"


def _run_status(instance: dg.DagsterInstance, key: str, tag: str = EVALUATION_TAG) -> dg.DagsterRunStatus | None:
    """The status of the latest run with this tag."""
    runs = instance.get_runs(dg.RunsFilter(tags={tag: key}), limit=1)
    return runs[0].status if runs else None


def _is_given_up(project: Project, instance: dg.DagsterInstance, version: str, key: str) -> bool:
    """Whether the latest run of an evaluation failed, and sent no batches that are still to be taken."""
    runs = instance.get_run_records(dg.RunsFilter(tags={EVALUATION_TAG: key}), limit=1)
    if not runs or runs[0].dagster_run.status not in _UNSUCCESSFUL:
        return False
    begun = runs[0].create_timestamp
    sent = (batch for batch in project.open_batches("judge_scores", version) if batch.batch_id is not None)
    return not any(datetime.fromisoformat(batch.sent_at) >= begun for batch in sent)


def _partitions_under_way(instance: dg.DagsterInstance, asset: str, *jobs: str) -> frozenset[str]:
    """The versions for which a run of these jobs, or one that makes the asset, is under way, whoever started it."""
    runs = instance.get_runs(dg.RunsFilter(statuses=IN_PROGRESS_RUN_STATUSES))
    makers = (run for run in runs if run.job_name in jobs or dg.AssetKey(asset) in (run.asset_selection or ()))
    return frozenset(run.tags[PARTITION_NAME_TAG] for run in makers if PARTITION_NAME_TAG in run.tags)


def _look_at_batches(project: Project, versions: Iterable[str]) -> tuple[dict[str, str], frozenset[str]]:
    """The versions whose batches are under way, with words about them, and those whose batches have ended."""
    waiting, answered = {}, set()
    for version in versions:
        if (words := describe_waiting(project, "judge_scores", version)) is None:
            continue
        if words:
            waiting[version] = words
        else:
            answered.add(version)
    return waiting, frozenset(answered)


def describe_waiting(project: Project, table: str, version: str) -> str | None:
    """What is under way at the provider for a table of a version; "" where all has ended, None where nothing was."""
    batches = project.open_batches(table, version)
    if not batches:
        return None
    try:
        progress = project.poll_batches(table, version)
    except CaliberError as error:
        return f"{describe_batches(batches)}; asked how far they are, it failed: {error}"
    return "" if progress.n_ended == progress.n_batches else f"{describe_batches(batches)}; {progress}"


def _ingest_runs(project: Project, instance: dg.DagsterInstance) -> list[dg.DagsterRun]:
    """The runs that the sensor requested for the input as it is now, the latest first."""
    return list(instance.get_runs(dg.RunsFilter(tags={INPUT_TAG: combined_input_fingerprint(project.settings)})))


def materialization_of(project: Project, version: str) -> dg.AssetMaterialization:
    """The event that makes a criteria file part of the lineage."""
    criteria = project.criteria_files.load(version)
    return dg.AssetMaterialization(
        asset_key="criteria",
        partition=version,
        description=f"{version} by {'a person' if criteria.author == 'person' else 'the optimizer'}",
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
    batches = project.open_batches("judge_scores", version)  # ended, and to be taken by a run of their own
    run_key = f"{key}:{identify(batches)}" if batches else key
    job_name = "test" if plan.test else "calibration"
    return [dg.RunRequest(run_key=run_key, job_name=job_name, partition_key=version, tags={EVALUATION_TAG: key})]


@dg.sensor(
    job=scoring_job,
    minimum_interval_seconds=BATCHES_INTERVAL_S,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Looks at the provider's batches of 'all_scores', and has their results taken when they have ended.",
)
def batches_sensor(context: dg.SensorEvaluationContext, project: Project) -> list[dg.RunRequest] | dg.SkipReason:
    """Request the run again whose batches have all ended."""
    try:
        versions = project.criteria_files.load_all().valid
    except CaliberError as error:
        return dg.SkipReason(str(error))
    running = _partitions_under_way(context.instance, ALL_SCORES, scoring_job.name)
    requests, reasons = [], []
    for version in versions:
        words = "a run is taking them" if version in running else describe_waiting(project, ALL_SCORES, version)
        run_key = f"{ALL_SCORES}:{version}:{identify(project.open_batches(ALL_SCORES, version))}"
        if words == "" and _run_status(context.instance, run_key, RUN_KEY_TAG) in _UNSUCCESSFUL:
            words = "all have ended, and the run that was to take their results failed; run the job 'scoring' again"
        if words:
            reasons.append(f"'{version}': {words}")
        elif words is not None:
            requests.append(dg.RunRequest(run_key=run_key, partition_key=version))
    return requests or dg.SkipReason("; ".join(reasons) or "no batches of 'all_scores' are under way")


def build_recalibration_schedule(cron: str) -> dg.ScheduleDefinition:
    """Recalibration at the times of a cron expression."""
    return dg.ScheduleDefinition(
        name="recalibration_schedule",
        job=recalibration_job,
        cron_schedule=cron,
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Reads the input again, so that the champion is measured on the latest annotations.",
    )
