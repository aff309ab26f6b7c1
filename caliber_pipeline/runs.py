"""Runs the project's Dagster jobs in this process, one after the other, until the loop has nothing left to do."""

import logging
import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

import dagster as dg
from dagster._core.errors import DagsterAssetCheckFailedError, DagsterExecutionInterruptedError

from caliber_pipeline.assets.judge_scores import build_task
from caliber_pipeline.automation import EVALUATION_TAG, evaluation_key, materialization_of, observe_state
from caliber_pipeline.core.criteria import DEFAULT_CRITERIA, Criteria
from caliber_pipeline.core.errors import CaliberError, CriteriaError, InputError
from caliber_pipeline.core.loop import LoopState, plan_next
from caliber_pipeline.core.optimized_criteria import current_champion, may_judge_test
from caliber_pipeline.definitions import build_definitions
from caliber_pipeline.interrupts import refuse_lost_interrupts
from caliber_pipeline.judges.batch_judge import BatchJudge
from caliber_pipeline.judges.openai_judge import OpenAIJudge
from caliber_pipeline.judges.runner import find_open
from caliber_pipeline.resources import Project
from caliber_pipeline.settings import DEFAULT_CRITERIA_DIR, Settings
from caliber_pipeline.stores.criteria_files import CriteriaFiles
from caliber_pipeline.stores.ingest import describe_lost_labels, is_ingested, labelled_texts, load_annotated

Report = Callable[[str], None]
FIRST_VERSION: Final = "v001"
_LOGGER: Final = "report"


class RunFailedError(CaliberError):
    """A Dagster run ended without success."""


class JobRunner:
    """Runs jobs of one project on one Dagster instance."""

    def __init__(
        self,
        settings: Settings,
        instance: dg.DagsterInstance,
        *,
        report: Report,
        log_level: int = logging.INFO,
        project: Project | None = None,
    ) -> None:
        """Wire the definitions of the project.

        Args:
            settings: The project.
            instance: Where runs and events are kept.
            report: Called with a line of progress at a time.
            log_level: What of the runs' logs is reported.
            project: The project, where it has a judge and an encoder of its own.
        """
        self._instance = instance
        self._report = report
        loggers = dg.Definitions(loggers={_LOGGER: _report_logger(report, log_level)})
        self._project = project or Project.from_settings(settings, waits=True)
        self._definitions = dg.Definitions.merge(build_definitions(settings, self._project), loggers)

    def run_loop(self) -> None:
        """Ingest where the input is new, then evaluate version after version until there is nothing left to do.

        Raises:
            InputError: input, criteria or a setting cannot be used.
            JudgeError: the judge or the language model cannot be had.
            SpendingCapError: the spending cap ended the run, whatever the coverage; what was judged is kept.
            RunFailedError: a run failed for another reason.
        """
        self._project.check_clients()
        self._ingest()
        n_evaluated = 0
        while True:
            state = self._observe()
            plan = plan_next(state)
            for version in plan.register:
                self._instance.add_dynamic_partitions("criteria_version", [version])
                self._instance.report_runless_asset_event(materialization_of(self._project, version))
            chosen = plan.test or plan.evaluate
            if chosen is None:
                break
            self._evaluate(chosen, state.criteria[chosen], on_test=plan.test is not None)
            n_evaluated += 1
        for warning in plan.warnings:
            self._report(f"warning: {warning}")
        if not self._project.tables.versions("optimized_criteria"):
            why = "; ".join(plan.warnings) or str(plan.skip_reason)
            raise CriteriaError(f"{self._project.criteria_files.folder}: no usable criteria; {why}")
        is_sliced = self._slice()
        if n_evaluated or is_sliced or self._project.tables.load_attrs("calibration_history") is None:
            self._run("history")

    def _slice(self) -> bool:
        """Measure the champion by columns that its figures were not shown for; no verdict is asked for."""
        tables = self._project.tables
        champion = current_champion(tables.load_versions("optimized_criteria"))
        if champion is None or not (wanted := set(self._project.settings.slice_columns)):
            return False
        if wanted <= set(tables.require("alignment_metrics", champion)["slice_column"].dropna()):
            return False
        self._report(f"measuring {champion} by {', '.join(sorted(wanted))}")
        self._run("calibration", partition_key=champion, assets=[dg.AssetKey("alignment_metrics")])
        return True

    def _ingest(self) -> None:
        """Read the input where it is new, and tell of labelled records that are gone."""
        settings, tables = self._project.settings, self._project.tables
        if not is_ingested(settings, tables):
            before = labelled_texts(tables)
            self._report("reading records and annotations")
            self._run("ingest")
            if lost := describe_lost_labels(before, tables):
                self._report(f"warning: {lost}")
        refuse_unlabelled(self._project)

    def evaluate_on_stored(self, version: str) -> None:
        """Evaluate a version on the data as stored, where its evaluation was on other data.

        Raises:
            JudgeError: the judge cannot be had.
            SpendingCapError: the spending cap ended the run.
            RunFailedError: the run failed for another reason.
        """
        tables = self._project.tables
        judged, latest = (
            tables.load_attrs(*name) or {} for name in (("optimized_criteria", version), ("annotations",))
        )
        if judged.get("ingested_at") != latest.get("ingested_at"):
            self._evaluate(version, self._project.criteria_files.load(version), on_test=False)

    def update_history(self) -> None:
        """Judge on test who was promoted since, and add what was decided to the history.

        Raises:
            JudgeError: the judge cannot be had.
            SpendingCapError: the spending cap ended the run.
            RunFailedError: a run failed for another reason.
        """
        state = self._observe()
        for version in state.untested:
            self._evaluate(version, state.criteria[version], on_test=True)
        self._run("history")

    def _observe(self) -> LoopState:
        # what failed or was interrupted before is tried again: somebody is here to ask for it
        return replace(observe_state(self._project, self._instance), failed=frozenset(), running=frozenset())

    def _evaluate(self, version: str, criteria: Criteria, *, on_test: bool) -> None:
        self._report(f"evaluating {version}{' on test' if on_test else ''}")
        ingested_at = (self._project.tables.load_attrs("annotations") or {})["ingested_at"]
        key = evaluation_key(version, criteria, ingested_at, on_test=on_test)
        self._run("test" if on_test else "calibration", partition_key=version, tags={EVALUATION_TAG: key})

    def estimate_next(self) -> str:
        """What judging would take, for the next version and the loop; reads new input first, and judges nothing.

        Raises:
            InputError: input or criteria cannot be used.
            JudgeError: the judge cannot be had.
        """
        project = self._project
        project.check_clients()
        self._ingest()
        version = plan_next(self._observe()).evaluate
        return (
            "nothing to judge: every version is evaluated" if version is None else describe_estimate(project, version)
        )

    def _run(
        self,
        job_name: str,
        *,
        partition_key: str | None = None,
        tags: dict[str, str] | None = None,
        assets: Sequence[dg.AssetKey] | None = None,
    ) -> None:
        job = self._definitions.resolve_job_def(job_name)
        run_id = str(uuid.uuid4())
        try:
            with refuse_lost_interrupts():
                result = job.execute_in_process(
                    instance=self._instance,
                    partition_key=partition_key,
                    asset_selection=assets,
                    tags=tags,
                    run_id=run_id,
                    run_config={"loggers": {_LOGGER: {}}},  # without it Dagster's own writes all events to stderr
                )
        except DagsterExecutionInterruptedError as interruption:  # it is no Exception, and unknown outside Dagster
            raise KeyboardInterrupt from interruption
        except dg.Failure as failure:
            if isinstance(failure.__cause__, CaliberError):
                raise failure.__cause__ from failure
            raise RunFailedError(failure.description or str(failure)) from failure
        except DagsterAssetCheckFailedError as error:
            raise RunFailedError(self._describe_failed_checks(run_id)) from error
        if not result.success:
            raise RunFailedError(f"the run of job '{job_name}' failed; see it with `dagster dev`")

    def _describe_failed_checks(self, run_id: str) -> str:
        logs = self._instance.all_logs(run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION)
        checks = [log.get_dagster_event().asset_check_evaluation_data for log in logs]
        return "; ".join(
            f"check '{check.check_name}' of '{check.asset_key.to_user_string()}' failed: {check.description}"
            for check in checks
            if check.blocking and not check.passed
        )


def refuse_unlabelled(project: Project) -> None:
    """Stop where there is nothing to compare a judge with.

    Raises:
        InputError: no record has a verdict of people; the message says what became of those that were given.
    """
    settings, tables = project.settings, project.tables
    if tables.select("annotations", columns=["score"])["score"].notna().any():
        return
    rejected = tables.require("rejected_annotations")
    where = "" if settings.is_default_output else f" --output {settings.output}"
    why, what_to_do = "", "name their column with --column human_score=COLUMN, give them with --annotations FILE"
    if len(rejected):
        why = f" ({len(rejected)} rows rejected, the first: {rejected['reason'].iloc[0]})"
        what_to_do = "mend these rows"
    raise InputError(
        f"{settings.annotations_file or settings.records_file}: holds no verdict of people on a record{why}; "
        f"{what_to_do}, or judge some records with `caliber annotate{where}`"
    )


def describe_estimate(project: Project, version: str) -> str:
    """Calls, tokens and cost of judging a version, and the cost of the loop from there, in words."""
    criteria = project.criteria_files.load(version)
    judge = project.in_batches(project.build_judge(criteria=criteria, version=version), "judge_scores", version)
    if not isinstance(judge, OpenAIJudge | BatchJudge):
        return f"{version}: judge '{judge.provider}' makes no calls and costs nothing"
    has_test = may_judge_test(version, criteria, project.tables.load_versions("optimized_criteria"))
    task = build_task(
        load_annotated(project.tables), project.tables.require("annotations"), criteria, with_test=has_test
    )
    with project.open_verdict_cache() as cache:
        remaining, n_known = find_open(judge, task, cache)
    estimate = judge.estimate(remaining, n_known)
    text = (
        f"{version}: {judge.provider}/{judge.model}, {estimate.n_records} records ({n_known} known already), "
        f"{estimate.n_calls} calls, about {estimate.prompt_tokens} tokens sent and {estimate.completion_tokens} "
        "received"
    )
    each = judge.estimate(task).cost_usd
    if estimate.cost_usd is None or each is None:
        return f"{text}, price unknown; each further version takes about as much"
    n_more = project.settings.max_iterations
    return (
        f"{text}, about {estimate.cost_usd:.4f} USD; with the {n_more} proposals that may follow "
        f"{estimate.cost_usd + n_more * each:.4f} USD, what writes them not counted"
    )


def seed_criteria(project: Project, first: Criteria | None) -> None:
    """Make sure that there is a first version: the given one, or a default in a folder without any.

    The default is the project's own first version where the records are the project's own, else a general one.

    Raises:
        InputError: the folder has another first version already.
    """
    files = project.criteria_files
    path = files.folder / f"{FIRST_VERSION}.yaml"
    if first is not None:
        if not files.add_as(FIRST_VERSION, first) and files.load(FIRST_VERSION).fingerprint != first.fingerprint:
            raise InputError(
                f"{path} exists and differs from the given criteria; name another --output, or add a version"
            )
    elif not files.folder.exists() or not any(files.folder.glob("*.y*ml")):
        own = CriteriaFiles(DEFAULT_CRITERIA_DIR)
        is_own = project.settings.uses_own_input and (own.folder / f"{FIRST_VERSION}.yaml").exists()
        files.add_as(FIRST_VERSION, own.load(FIRST_VERSION) if is_own else Criteria(criteria=DEFAULT_CRITERIA))


def _report_logger(report: Report, level: int) -> dg.LoggerDefinition:
    """A Dagster logger that hands what the stages tell to `report`."""
    shows_events = level <= logging.DEBUG

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            meta = getattr(record, "dagster_meta", {})
            if shows_events or meta.get("dagster_event") is None:
                report(meta.get("orig_message") or record.getMessage())

    @dg.logger
    def report_logger(_: dg.InitLoggerContext) -> logging.Logger:
        logger = logging.Logger("caliber", level)
        logger.addHandler(Handler())
        return logger

    return report_logger
