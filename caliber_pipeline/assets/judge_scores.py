"""Stage `judge_scores`: the judge's verdict on every labelled record."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Final

import dagster as dg
import pandas as pd
from filelock import FileLock, Timeout

from caliber_pipeline.assets.batches import observe_batches, show_endings
from caliber_pipeline.assets.definition import criteria_versions, log_progress, one_line_failures, stage, with_attrs
from caliber_pipeline.assets.evaluation_metadata import show_judging
from caliber_pipeline.assets.metadata import show_numbers
from caliber_pipeline.core.criteria import Criteria
from caliber_pipeline.core.errors import CriteriaError
from caliber_pipeline.core.judge_scores import is_test_judged, resolve_examples, select_judged
from caliber_pipeline.core.labels import resolve_labels
from caliber_pipeline.core.loop import describe_change
from caliber_pipeline.core.optimized_criteria import may_judge_test, measure_effort
from caliber_pipeline.core.verdicts import JudgingSummary, refuse_capped, summarize_verdicts
from caliber_pipeline.judges.batch_judge import BatchJudge, StillUnderWayError
from caliber_pipeline.judges.openai_judge import OpenAIJudge
from caliber_pipeline.judges.protocol import Judge, JudgeTask
from caliber_pipeline.judges.runner import run_judge
from caliber_pipeline.resources import Project
from caliber_pipeline.stores.ingest import load_annotated

_NO_COST: Final = (
    "no price is known for this model, or the endpoint did not count the tokens of some calls; "
    "CALIBER_INPUT_PRICE and CALIBER_OUTPUT_PRICE set a price"
)


@stage(
    partitions_def=criteria_versions,
    deps=["criteria", "records"],
    description="One row per labelled record: the judge's verdict, or why there is none. Test is judged for the first "
    "version and for promoted ones alone.",
    group="evaluation",
    kinds={"openai"},
    output_required=False,
)
def judge_scores(
    context: dg.AssetExecutionContext, project: Project, annotations: pd.DataFrame
) -> Iterator[dg.Output[pd.DataFrame] | dg.AssetObservation]:
    """Judge the labelled records under one criteria version, those of test once it has won.

    While a provider's batches are under way there is no table, and what is downstream does not run.
    """
    version = context.partition_key
    with one_line_failures():
        criteria = load_unchanged(project, version)
        records = load_annotated(project.tables)
        has_test = may_judge_test(version, criteria, project.tables.load_versions("optimized_criteria"))
        task = build_task(records, annotations, criteria, with_test=has_test)
        judge = _open_judge(context, project, criteria)
        started = time.monotonic()
        try:
            verdicts = _judge(context, project, judge, task)
        except StillUnderWayError:
            yield observe_batches(context, project)
            return
        elapsed_s = time.monotonic() - started
        summary = summarize_verdicts(verdicts)
        refuse_capped(summary, f"under '{version}'")
    n_invented = int(verdicts.attrs.get("n_invented", 0))
    with_attrs(
        verdicts,
        records,
        annotations,
        criteria_fingerprint=criteria.fingerprint,
        judge_provider=judge.provider,
        judge_model=judge.model,
        has_test=str(has_test),
    )
    verdicts.attrs |= _describe_evaluation(project, version, verdicts)
    yield dg.Output(
        verdicts,
        metadata={
            "is_test_judged": has_test,
            "n_examples": len(task.examples),
            "n_invented": n_invented,
            **_describe(judge, summary),
            **show_endings(judge),
            **show_judging(verdicts, elapsed_s),
        },
    )


def _open_judge(context: dg.AssetExecutionContext, project: Project, criteria: Criteria) -> Judge:
    version = context.partition_key
    judge = project.build_judge(log_progress(context, "texts encoded"), criteria=criteria, version=version)
    judge = project.in_batches(judge, "judge_scores", version)
    if isinstance(judge, BatchJudge):
        judge.tell = context.log.info
    return judge


def _judge(context: dg.AssetExecutionContext, project: Project, judge: Judge, task: JudgeTask) -> pd.DataFrame:
    progress = log_progress(context, "records judged", lambda: _spent_so_far(judge))
    with project.open_verdict_cache() as cache, _turn(context, project):
        return run_judge(judge, task, cache=cache, on_progress=progress)


@contextmanager
def _turn(context: dg.AssetExecutionContext, project: Project) -> Iterator[None]:
    """One run at a time judges a version on this machine: who comes second finds the first one's verdicts stored."""
    version = context.partition_key
    lock = FileLock(project.cache_folder / f"judge_{version}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        context.log.info(f"another run is judging '{version}'; waiting for it, to take its verdicts")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _describe_evaluation(project: Project, version: str, verdicts: pd.DataFrame) -> dict[str, str]:
    """When the version was evaluated; verdicts on test that came after it won belong to the same evaluation."""
    attrs, before = verdicts.attrs, project.tables.load_attrs("judge_scores", version) or {}
    same = ("records_fingerprint", "annotations_fingerprint", "criteria_fingerprint")
    is_same = all(before.get(name) == attrs[name] for name in same)
    if not is_same or is_test_judged(before) or not is_test_judged(attrs):
        return {"evaluated_at": datetime.now(UTC).isoformat()}
    n_calls, cost = measure_effort(verdicts)
    return {
        "evaluated_at": before["evaluated_at"],
        "test_n_calls": str(n_calls),
        "test_cost_usd": "nan" if cost is None else str(cost),
    }


def build_task(
    records: pd.DataFrame, annotations: pd.DataFrame, criteria: Criteria, *, with_test: bool = True
) -> JudgeTask:
    """What the judge is asked: the labelled ones of the records, under the criteria, shown their examples.

    Raises:
        CriteriaError: an example is no labelled record any more, or changed.
    """
    labels = resolve_labels(annotations)
    examples = resolve_examples(criteria, records, labels)
    judged = select_judged(records, labels, with_ties=True, with_test=with_test)
    return JudgeTask(judged, criteria, examples)


def _describe_missing_cost(judge: Judge, summary: JudgingSummary) -> dict[str, str | float | dg.MetadataValue]:
    if summary.cost_usd is not None:
        return {}
    if judge.provider in {"local", "recorded"}:
        return {"cost_usd": 0.0}
    return {"cost_usd": dg.MetadataValue.null(), "cost_unknown": _NO_COST}


def _describe(judge: Judge, summary: JudgingSummary) -> dict[str, str | int | float | dg.MetadataValue]:
    """The run's figures as metadata; what is unknown is left out, but for the cost, of which is told why."""
    names = ("coverage", "prompt_tokens", "completion_tokens", "cost_usd", "mean_latency_s", "repeat_stability")
    return {
        "judge": f"{judge.provider}/{judge.model}",
        "n_judged": summary.n_records,
        "n_cached": summary.n_cached,
        "n_calls": summary.n_calls,
        **show_numbers({name: getattr(summary, name) for name in names}),
        **_describe_missing_cost(judge, summary),
        **{f"n_{status}": n for status, n in summary.n_by_status.items()},
    }


def _spent_so_far(judge: Judge) -> str:
    if not isinstance(judge, OpenAIJudge):
        return ""
    spent = None if judge.last_run is None else judge.last_run.spent_usd
    return ", price unknown" if spent is None else f", {spent:.4f} USD"


def load_unchanged(project: Project, version: str) -> Criteria:
    """The criteria of a version.

    Raises:
        CriteriaError: the file is invalid, or changed after the version was evaluated.
    """
    criteria = project.criteria_files.load(version)
    before = (project.tables.load_attrs("judge_scores", version) or {}).get("criteria_fingerprint")
    if before is not None and before != criteria.fingerprint:
        raise CriteriaError(describe_change(version, before, criteria.fingerprint))
    return criteria
