"""A dataset and a metric in, a table of verdicts out: the short way for scripts and web back ends."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Literal, overload

from caliber_pipeline.api.annotating import AnnotationManager
from caliber_pipeline.api.evaluation import EvaluationRunner
from caliber_pipeline.api.fields import (
    Item,
    each_item,
    index_by_id,
    is_missing,
    parse_score,
    read_field,
    read_id,
    read_text,
)
from caliber_pipeline.api.results import EvaluationConfig, EvaluationResult, metrics_to_dict
from caliber_pipeline.api.running import OnProgress, run_sync
from caliber_pipeline.core.arguments import ITEMS, accepts, has_attributes
from caliber_pipeline.core.errors import InputError, MissingStepError

if TYPE_CHECKING:
    import pandas as pd

    from caliber_pipeline.judges.protocol import Judge
    from caliber_pipeline.renderers.protocol import CaliberRenderer

COLUMNS: Final = (
    "id",
    "aligned",
    "human_score",
    "llm_score",
    "score_difference",
    "query",
    "actual_output",
    "expected_output",
    "llm_explanation",
)
_TEXTS: Final = ("query", "output", "reference", "human_notes", "llm_reasoning")


@dataclass(frozen=True)
class DatasetItem:
    """One query and answer.

    Attributes:
        id: Unique in the dataset.
        query: What the judged system was asked.
        actual_output: What it answered.
        expected_output: A known good answer.
        judgment: A person's verdict, 1 accept, 0 reject; None where there is none yet.
        notes: Why.
        llm_score: A recorded judge's verdict.
        llm_reasoning: Its reasoning.
    """

    id: str
    query: str
    actual_output: str
    expected_output: str | None = None
    judgment: int | None = None
    notes: str | None = None
    llm_score: int | None = None
    llm_reasoning: str | None = None

    def __post_init__(self) -> None:
        """Hold the scores to 0 and 1; NaN and blank text, as frames and files have them, are None.

        Raises:
            InputError: a score is neither.
        """
        for name in ("expected_output", "judgment", "notes", "llm_score", "llm_reasoning"):
            value = getattr(self, name)
            if is_missing(value):
                object.__setattr__(self, name, None)
            elif name in {"judgment", "llm_score"}:
                object.__setattr__(self, name, parse_score(value, what=f"{name} of item '{self.id}'"))

    @classmethod
    def parse(cls, record: Item) -> DatasetItem:
        """An item from a dict or object under any of the usual names.

        Raises:
            InputError: it has no id, no query or no output.
        """
        record_id = read_id(record)
        texts = {name: read_text(record, name) for name in _TEXTS}
        missing = [name for name in ("query", "output") if texts[name] is None]
        if missing:
            raise InputError(f"item '{record_id}' has no {' and no '.join(missing)}")
        return cls(
            record_id,
            str(texts["query"]),
            str(texts["output"]),
            texts["reference"],
            read_field(record, "human_score"),
            texts["human_notes"],
            read_field(record, "llm_score"),
            texts["llm_reasoning"],
        )


@dataclass(frozen=True)
class Dataset:
    """Items with ids of their own.

    Attributes:
        items: The items, in their order; given as dicts or objects under any of the usual names, they are made items.
    """

    items: Sequence[DatasetItem]

    def __post_init__(self) -> None:
        """Refuse ids that repeat.

        Raises:
            InputError: an id repeats, or what is to be made an item has no id, no query or no output.
        """
        items = (item if isinstance(item, DatasetItem) else DatasetItem.parse(item) for item in each_item(self.items))
        object.__setattr__(self, "items", tuple(items))
        index_by_id(self.items)

    def __len__(self) -> int:
        """How many items there are."""
        return len(self.items)


class BaseMetric:
    """What a judge is asked; subclass it and set `instruction`, and what else differs.

    Attributes:
        instruction: The criteria.
        model_name: The model of an endpoint.
        llm_provider: A provider's name, 'local' or 'recorded'; None takes the one whose key the environment has, else
            'local'.
        system_prompt: What the model is told before.
        examples: What it is shown, as `EvaluationConfig.examples`.
        judge: A judge of one's own, whatever the provider.
    """

    instruction: str = ""
    model_name: str = "gpt-4o"
    llm_provider: str | None = None
    system_prompt: str | None = None
    examples: Sequence[Item] = ()
    judge: Judge | None = None


class CaliberMetric(BaseMetric):
    """A metric from its instruction."""

    def __init__(
        self,
        instruction: str,
        examples: Sequence[Item] = (),
        model_name: str = "gpt-4o",
        llm_provider: str | None = None,
        system_prompt: str | None = None,
        *,
        judge: Judge | None = None,
    ) -> None:
        """Set what a judge is asked; see `BaseMetric`.

        Args:
            instruction: The criteria.
            examples: Labelled records, or pairs `{"input": …, "output": …}` that are quoted as they are.
            model_name: The model of an endpoint.
            llm_provider: Its provider, 'local' or 'recorded'.
            system_prompt: What the model is told before.
            judge: A judge of one's own.
        """
        self.instruction = instruction
        self.examples = examples
        self.model_name = model_name
        self.llm_provider = llm_provider
        self.system_prompt = system_prompt
        self.judge = judge


class CaliberHQ:
    """Has people annotate a dataset, a judge score it, and shows how well they agree."""

    @accepts(
        dataset=has_attributes("items", wanted="a Dataset"),
        metric=has_attributes("instruction", wanted="a metric, such as CaliberMetric('…')"),
    )
    def __init__(
        self, dataset: Dataset, metric: BaseMetric | type[BaseMetric], renderer: CaliberRenderer | None = None
    ) -> None:
        """Bring dataset and metric together.

        Args:
            dataset: What is judged.
            metric: What the judge is asked.
            renderer: Where results are shown and verdicts are taken from; None for the console.

        Raises:
            InputError: the metric has no instruction.
        """
        self._metric = metric() if isinstance(metric, type) else metric
        if is_missing(self._metric.instruction):
            raise InputError(f"{type(self._metric).__name__} has no instruction; set what the judge is asked")
        self._items = dataset.items
        self._manager = AnnotationManager(_record(item) for item in self._items)
        self._renderer = renderer
        self._result: EvaluationResult | None = None

    @property
    def dataset(self) -> Dataset:
        """The dataset with the judgments that were given so far."""
        found = {item.id: self._manager.get_annotation(str(item.id)) for item in self._items}
        annotated = []
        for item in self._items:
            given = found[item.id]
            annotated.append(item if given is None else replace(item, judgment=given.score, notes=given.notes))
        return Dataset(annotated)

    @property
    def annotation_manager(self) -> AnnotationManager:
        """The judgments, with undo and history."""
        return self._manager

    @property
    def result(self) -> EvaluationResult | None:
        """The last evaluation, None before the first."""
        return self._result

    def annotate(self) -> object:
        """Have a person judge the items; what was given is kept, however it ends."""
        return self._open_renderer().annotate(self._manager)

    def execute(self, on_progress: OnProgress | None = None) -> pd.DataFrame:
        """Have the judge score the items, show the agreement, and return one row per item.

        Returns:
            id, aligned, human_score, llm_score, score_difference, query, actual_output, expected_output,
            llm_explanation. An item that got no verdict has nulls, and the reason as its explanation.

        Raises:
            MissingStepError: items have no judgment; the message names them.
            JudgeError: the judge as a whole cannot work.
        """
        result = run_sync(self._evaluate(on_progress))
        self._open_renderer().render_evaluation(result)
        return _frame(self._rows(result))

    async def _evaluate(self, on_progress: OnProgress | None) -> EvaluationResult:
        if not self._items:
            raise MissingStepError("the dataset has no items; give it at least one")
        labels = self._manager.get_annotations_dict()
        missing = [str(item.id) for item in self._items if str(item.id) not in labels]
        if missing:
            named = f", e.g. {missing[:5]}" if len(missing) > 5 else f": {missing}"
            raise MissingStepError(
                f"{len(missing)} items have no judgment{named}; annotate them first, or leave them out"
            )
        metric = self._metric
        config = EvaluationConfig(
            metric.instruction, metric.model_name, metric.llm_provider, metric.system_prompt, metric.examples
        )
        runner = EvaluationRunner(config, judge=metric.judge)
        self._result = await runner.run(self._manager.records, self._manager.annotations, on_progress)
        return self._result

    def _rows(self, result: EvaluationResult) -> list[dict[str, Any]]:
        from caliber_pipeline.core.conforming import plain_cell

        verdicts = {record.record_id: record for record in result.records}
        failures = {record.record_id: record.reason for record in result.failed}
        labels = self._manager.get_annotations_dict()
        rows = []
        for item in self._items:
            record_id = str(item.id)
            judged = verdicts.get(record_id)
            values = (
                plain_cell(item.id),
                judged.aligned if judged else None,
                labels[record_id],
                judged.llm_score if judged else None,
                judged.score_difference if judged else None,
                item.query,
                item.actual_output,
                item.expected_output,
                judged.llm_reasoning if judged else failures.get(record_id, "shown to the judge as an example"),
            )
            rows.append(dict(zip(COLUMNS, values, strict=True)))
        return rows

    def _open_renderer(self) -> CaliberRenderer:
        if self._renderer is None:
            from caliber_pipeline.renderers.console import ConsoleCaliberRenderer

            self._renderer = ConsoleCaliberRenderer()
        return self._renderer


class WebCaliberHQ(CaliberHQ):
    """The same for web back ends: shows nothing, returns what `json.dumps` takes as it is."""

    @classmethod
    @accepts(records=ITEMS)
    def from_records(
        cls, records: Iterable[Item], metric: BaseMetric | type[BaseMetric], renderer: CaliberRenderer | None = None
    ) -> WebCaliberHQ:
        """From dicts or objects under any of the usual names.

        Raises:
            InputError: a record has no id, no query or no output, ids repeat, or a score is neither 0 nor 1.
        """
        return cls(Dataset([*each_item(records)]), metric, renderer)

    @overload  # type: ignore[override]  # a dict is what is asked of it
    def execute(self, on_progress: OnProgress | None = None, *, as_dict: Literal[True] = True) -> dict[str, Any]: ...

    @overload
    def execute(self, on_progress: OnProgress | None = None, *, as_dict: Literal[False]) -> pd.DataFrame: ...

    @overload
    def execute(self, on_progress: OnProgress | None = None, *, as_dict: bool) -> dict[str, Any] | pd.DataFrame: ...

    def execute(self, on_progress: OnProgress | None = None, *, as_dict: bool = True) -> dict[str, Any] | pd.DataFrame:
        """Have the judge score the items.

        Args:
            on_progress: Called with (items done, items in all) as verdicts arrive.
            as_dict: Return a dict rather than a frame.

        Returns:
            `results` (one dict per item with the columns of `CaliberHQ.execute`), `metrics`, `confusion_matrix`,
            `interpretation` and `failed`; with as_dict=False the frame.

        Raises:
            MissingStepError: items have no judgment; the message names them.
            JudgeError: the judge as a whole cannot work.
        """
        answer = run_sync(self.execute_async(on_progress))
        return answer if as_dict else _frame(answer["results"])

    async def execute_async(self, on_progress: OnProgress | None = None) -> dict[str, Any]:
        """`execute`, to be awaited."""
        result = await self._evaluate(on_progress)
        if self._renderer is not None:
            self._renderer.render_evaluation(result)
        return {
            "results": self._rows(result),
            "metrics": metrics_to_dict(result.metrics),
            "confusion_matrix": result.confusion_matrix,
            "interpretation": result.interpretation,
            "failed": [vars(failed) for failed in result.failed],
        }


def _record(item: DatasetItem) -> dict[str, Any]:
    return {
        "record_id": str(item.id),
        "query": item.query,
        "output": item.actual_output,
        "reference": item.expected_output,
        "human_score": item.judgment,
        "human_notes": item.notes,
        "llm_score": item.llm_score,
        "llm_reasoning": item.llm_reasoning,
    }


def _frame(rows: list[dict[str, Any]]) -> pd.DataFrame:
    import pandas as pd

    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    scores = dict.fromkeys(("human_score", "llm_score", "score_difference"), "Int64")
    return frame.astype({"aligned": "boolean", **scores})
