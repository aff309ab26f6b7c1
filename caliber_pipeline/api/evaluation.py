"""Runs a judge over annotated records: the `judge_scores` and `alignment_metrics` stages for scripts and notebooks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from caliber_pipeline.api.examples import resolve_examples
from caliber_pipeline.api.faults import make_criteria
from caliber_pipeline.api.fields import Item
from caliber_pipeline.api.judging import find_judge, open_judge
from caliber_pipeline.api.records import annotations_from, annotations_table, rows_from_records
from caliber_pipeline.api.results import EvaluationConfig, EvaluationResult
from caliber_pipeline.api.running import OnProgress, run_in_thread, run_sync
from caliber_pipeline.api.selection import SelectionResult
from caliber_pipeline.api.upload import UploadHandler, UploadResult
from caliber_pipeline.core.arguments import INTEGER, accepts, has_attributes
from caliber_pipeline.core.criteria import Criteria
from caliber_pipeline.core.errors import InputError, MissingStepError

if TYPE_CHECKING:
    import pandas as pd

    from caliber_pipeline.judges.protocol import Judge
    from caliber_pipeline.stores.verdict_cache import VerdictCache

MAX_CONCURRENT: Final = 32


_CONFIG: Final = has_attributes("criteria", "llm_provider", wanted="an EvaluationConfig")


class EvaluationRunner:
    """Has a judge score records and compares its verdicts with people's."""

    @accepts(config=_CONFIG.or_none, max_concurrent=INTEGER)
    def __init__(
        self,
        config: EvaluationConfig | None = None,
        max_concurrent: int = MAX_CONCURRENT,
        *,
        judge: Judge | None = None,
        cache: VerdictCache | None = None,
    ) -> None:
        """Set what is asked of whom.

        Args:
            config: The criteria and the judge; without it a general default on gpt-4o.
            max_concurrent: Calls under way at once at most.
            judge: Who judges, whatever the config's provider.
            cache: Where verdicts that were paid for are kept.
        """
        self.config = config or EvaluationConfig()
        self._max_concurrent = max_concurrent
        self._judge = judge
        self._cache = cache

    async def run(
        self,
        records: Iterable[Item] | UploadResult | pd.DataFrame,
        annotations: Mapping[Any, Any] | Iterable[Item] | None = None,
        on_progress: OnProgress | None = None,
    ) -> EvaluationResult:
        """Judge the annotated records.

        Args:
            records: Models, dicts, objects, an upload's result or a frame.
            annotations: `{id: 0/1}`, `{id: Annotation}` or a list of annotations; without them the labels that came
                with the records.
            on_progress: Called with (records done, records in all) as verdicts arrive.

        Raises:
            MissingStepError: no record is annotated.
            InputError: an annotation is for an unknown record.
            JudgeError: the judge as a whole cannot work.
        """
        table = records_table(records)
        known = _annotations(table, annotations)
        return await evaluate_table(table, known, self.config, self._open(), cache=self._cache, on_progress=on_progress)

    def run_sync(
        self,
        records: Iterable[Item] | UploadResult | pd.DataFrame,
        annotations: Mapping[Any, Any] | Iterable[Item] | None = None,
        on_progress: OnProgress | None = None,
    ) -> EvaluationResult:
        """`run`, without awaiting."""
        return run_sync(self.run(records, annotations, on_progress))

    def _open(self) -> Judge:
        if self._judge is not None:
            return self._judge
        provider, model = find_judge(self.config.llm_provider, self.config.model_name)
        return open_judge(provider, model, self._max_concurrent)


def build_config(
    criteria: str | Criteria,
    model_name: str,
    llm_provider: str | None,
    system_prompt: str | None,
    examples: Iterable[Item] | SelectionResult[Any] | None,
) -> EvaluationConfig:
    """What to ask under criteria that are a text, or a version that brings its clauses and examples along."""
    if isinstance(examples, SelectionResult):
        examples = examples.examples
    if not isinstance(criteria, Criteria):
        return EvaluationConfig(criteria, model_name, llm_provider, system_prompt, () if examples is None else examples)
    shown = examples if examples is not None else [example.record_id for example in criteria.examples]
    return EvaluationConfig(
        criteria.criteria,
        model_name,
        llm_provider,
        system_prompt or criteria.system_prompt,
        shown,
        criteria.clauses,
    )


async def evaluate_table(
    records: pd.DataFrame,
    annotations: pd.DataFrame,
    config: EvaluationConfig,
    judge: Judge,
    *,
    cache: VerdictCache | None = None,
    on_progress: OnProgress | None = None,
    with_test: bool = True,
) -> EvaluationResult:
    """Judge the labelled ones of the records.

    Args:
        records: Of the `records` schema.
        annotations: Of the `annotations` schema.
        config: What is asked.
        judge: Who is asked.
        cache: Where verdicts are kept.
        on_progress: Called as verdicts arrive.
        with_test: Whether those of test are judged too.

    Raises:
        MissingStepError: no record has a label.
    """
    return await run_in_thread(
        lambda report: _evaluate(records, annotations, config, judge, cache, report, with_test=with_test), on_progress
    )


def _evaluate(
    records: pd.DataFrame,
    annotations: pd.DataFrame,
    config: EvaluationConfig,
    judge: Judge,
    cache: VerdictCache | None,
    report: OnProgress,
    *,
    with_test: bool,
) -> EvaluationResult:
    from caliber_pipeline.core.judge_scores import join_labels, select_judged
    from caliber_pipeline.core.labels import resolve_labels
    from caliber_pipeline.judges.protocol import JudgeTask
    from caliber_pipeline.judges.runner import run_judge

    labels = resolve_labels(annotations)
    judged = select_judged(records, labels, with_ties=True, with_test=with_test)
    if labels["human_score"].isna().all():
        raise MissingStepError("no record has a label: annotate records first, or upload some with a human_score")
    examples, refs, quoted = resolve_examples(config.examples, records, labels)
    criteria = make_criteria(
        config.criteria + quoted if quoted else config.criteria,
        system_prompt=config.system_prompt,
        examples=refs,
        clauses=tuple(config.clauses),
    )
    task = JudgeTask(judged, criteria, examples)
    judge_scores = run_judge(judge, task, cache=cache, on_progress=lambda done, total: (report(done, total), None)[1])
    return EvaluationResult(
        config=config,
        criteria=criteria,
        provider=judge.provider,
        model=judge.model,
        judge_scores=_in_order(judge_scores, records),
        scored=_in_order(join_labels(judge_scores, labels, records), records),
        texts=_in_order(judged[["record_id", "query", "output", "reference"]], records),
    )


def _in_order(frame: pd.DataFrame, records: pd.DataFrame) -> pd.DataFrame:
    """The frame's rows in the order of the records."""
    import pandas as pd

    position = pd.Index(records["record_id"]).get_indexer(pd.Index(frame["record_id"]))
    ordered: pd.DataFrame = frame.iloc[position.argsort()].reset_index(drop=True)
    ordered.attrs = frame.attrs
    return ordered


def records_table(records: Iterable[Item] | UploadResult | pd.DataFrame) -> pd.DataFrame:
    """Records in whatever form as a table of the `records` schema.

    Raises:
        InputError: a record cannot be used.
    """
    import pandas as pd
    import pyarrow as pa

    from caliber_pipeline.core.conforming import frame_from_arrow
    from caliber_pipeline.core.schemas import RECORDS

    if isinstance(records, UploadResult):
        return records.table
    handler = UploadHandler(strict_validation=True)
    if not isinstance(records, pd.DataFrame):
        return handler.from_records(rows_from_records(records)).table
    if list(records.columns) != RECORDS.names:
        return handler.from_dataframe(records).table
    # a stored table, maybe read by pandas, which has types of its own
    return frame_from_arrow(pa.Table.from_pandas(records, RECORDS, preserve_index=False))


def _annotations(table: pd.DataFrame, annotations: Mapping[Any, Any] | Iterable[Item] | None) -> pd.DataFrame:
    from caliber_pipeline.core.annotations import annotations_from_records

    if annotations is None:
        return annotations_from_records(table)
    parsed = annotations_from(annotations)
    known = set(table["record_id"])
    unknown = [annotation.record_id for annotation in parsed if annotation.record_id not in known]
    if unknown:
        raise InputError(f"{len(unknown)} annotations are for no record, e.g. {unknown[:3]}")
    return annotations_table(parsed)
