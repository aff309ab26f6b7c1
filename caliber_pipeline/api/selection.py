"""Chooses examples for a judge from annotated records, whatever they are held in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from caliber_pipeline.api.fields import Item, each_item, find_score, index_by_id, list_patterns, read_field, read_id
from caliber_pipeline.api.records import annotations_from, annotations_table
from caliber_pipeline.api.results import EvaluationResult
from caliber_pipeline.core.arguments import INTEGER, accepts
from caliber_pipeline.core.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

    from caliber_pipeline.api.discovery_results import PatternDiscoveryResult
    from caliber_pipeline.core.example_selection import SelectionStrategy

RecordT = TypeVar("RecordT")
DEFAULT_COUNT: Final = 6


@dataclass(frozen=True)
class SelectionResult(Generic[RecordT]):
    """The chosen records.

    Attributes:
        examples: The records themselves, as they were given.
        strategy_used: How they were chosen.
        metadata: accepts and rejects; for misalignment-guided also false_positives_selected, false_negatives_selected,
            aligned_selected, total_fp_available, total_fn_available; for pattern-aware also patterns_covered and
            total_patterns.
    """

    examples: list[RecordT]
    strategy_used: SelectionStrategy
    metadata: Mapping[str, int]


class ExampleSelector:
    """Chooses examples; the same call with the same seed gives the same answer."""

    @accepts(seed=INTEGER.or_none)
    def __init__(self, seed: int | None = None) -> None:
        """Set the seed of the choice; None is as 0."""
        self._seed = seed or 0

    def select(
        self,
        records: Iterable[RecordT],
        annotations: Mapping[Any, Any] | Iterable[Item] | None = None,
        count: int = DEFAULT_COUNT,
        strategy: SelectionStrategy | str | None = None,
        eval_results: EvaluationResult | Iterable[Item] | None = None,
        patterns: Iterable[Item] | PatternDiscoveryResult | None = None,
    ) -> SelectionResult[RecordT]:
        """Choose annotated records.

        Args:
            records: Dicts or objects with an id.
            annotations: `{id: 0/1}`, `{id: Annotation}` or a list; without them the records' own human_score.
            count: How many to choose; fewer come back where fewer are annotated.
            strategy: How; None takes what fits: misalignment-guided where there are errors, else pattern-aware where
                there are patterns, else balanced.
            eval_results: The judge's verdicts: a result, or items of which an id and a score are read.
            patterns: Themes in the notes, of which the record_ids are read.

        Raises:
            InputError: ids repeat, a score is neither 0 nor 1, the count is negative, or misalignment-guided choice is
                asked for without eval_results, pattern-aware choice without patterns.
        """
        from caliber_pipeline.core.example_selection import choose_strategy, select_examples

        by_id = index_by_id(records)
        known = None if patterns is None else list_patterns(patterns)
        verdicts, labels = _verdicts(eval_results), _labels(by_id, annotations)
        n_misaligned = sum(verdicts.get(record_id) == 1 - label for record_id, label in labels.items())
        fitting = choose_strategy(n_misaligned, len(_real_patterns(known)))
        chosen_strategy = fitting if strategy is None else _check(strategy, eval_results, known)
        candidates = _candidates(by_id, labels, verdicts, pattern_by_record(known))
        selection = select_examples(candidates, count, chosen_strategy, self._seed)
        examples = [by_id[record_id] for record_id in selection.examples["record_id"]]
        return SelectionResult(examples, selection.strategy_used, selection.metadata)


def auto_select_strategy(
    eval_results: EvaluationResult | Iterable[Item] | None = None,
    patterns: Iterable[Item] | PatternDiscoveryResult | None = None,
) -> SelectionStrategy:
    """The strategy that fits what is known.

    Misalignment-guided where the judge erred, else pattern-aware where there are patterns, else balanced.

    Args:
        eval_results: The judge's verdicts, with people's or with `aligned` beside them.
        patterns: Themes in the notes.
    """
    from caliber_pipeline.core.example_selection import choose_strategy

    n_misaligned = sum(map(_is_misaligned, _items(eval_results)))
    return choose_strategy(n_misaligned, len(_real_patterns(patterns)))


def _check(strategy: SelectionStrategy | str, eval_results: object, patterns: object) -> SelectionStrategy:
    from caliber_pipeline.core.example_selection import SelectionStrategy, parse_strategy

    strategy = parse_strategy(strategy)
    if strategy == SelectionStrategy.MISALIGNMENT_GUIDED and eval_results is None:
        raise InputError("the strategy misalignment_guided needs eval_results; evaluate first, or take balanced")
    if strategy == SelectionStrategy.PATTERN_AWARE and patterns is None:
        raise InputError("the strategy pattern_aware needs patterns; discover them first, or take balanced")
    return strategy


def _items(eval_results: EvaluationResult | Iterable[Item] | None) -> Iterable[Item]:
    if eval_results is None:
        return []
    if isinstance(eval_results, EvaluationResult):
        return eval_results.records
    if isinstance(eval_results, Mapping):
        return [{"record_id": key, "llm_score": value} for key, value in eval_results.items()]
    return list(each_item(eval_results))


def _verdicts(eval_results: EvaluationResult | Iterable[Item] | None) -> dict[str, int | None]:
    return {read_id(item): find_score(read_field(item, "llm_score")) for item in _items(eval_results)}


def _is_misaligned(item: Item) -> bool:
    aligned = read_field(item, "aligned")
    if aligned is not None:
        return not aligned
    human, llm = (find_score(read_field(item, name)) for name in ("human_score", "llm_score"))
    return human is not None and llm is not None and human != llm


def _labels(by_id: Mapping[str, Item], annotations: Mapping[Any, Any] | Iterable[Item] | None) -> dict[str, int]:
    from caliber_pipeline.api.records import column_values
    from caliber_pipeline.core.labels import resolve_labels

    if annotations is None:
        own = {record_id: read_field(record, "human_score") for record_id, record in by_id.items()}
        annotations = {record_id: score for record_id, score in own.items() if score is not None}
    parsed = annotations_from(annotations)
    if not parsed:
        return {}
    labels = resolve_labels(annotations_table(parsed))
    scores = zip(column_values(labels["record_id"]), column_values(labels["human_score"]), strict=True)
    return {record_id: score for record_id, score in scores if score is not None}


def _real_patterns(patterns: Iterable[Item] | PatternDiscoveryResult | None) -> list[list[str]]:
    """The members of each pattern, less those of notes that belong to none."""
    found = []
    for pattern in () if patterns is None else list_patterns(patterns):
        members = read_field(pattern, "record_ids") or ()
        if members and not read_field(pattern, "is_unclustered", default=False):
            found.append([str(record_id) for record_id in members])
    return found


def pattern_by_record(patterns: Iterable[Item] | None) -> dict[str, str]:
    """The pattern of each record; of several the smallest, which has the fewest others to stand for it."""
    members = _real_patterns(patterns)
    largest_first = sorted(range(len(members)), key=lambda i: (-len(members[i]), i))
    return {record_id: f"pattern-{i:06d}" for i in largest_first for record_id in members[i]}


def _candidates(
    by_id: Mapping[str, Item],
    labels: Mapping[str, int],
    verdicts: Mapping[str, int | None],
    pattern_of: Mapping[str, str],
) -> pd.DataFrame:
    import pandas as pd

    ids = list(by_id)
    return pd.DataFrame(
        {
            "record_id": pd.Series(ids, dtype="string[pyarrow]"),
            "human_score": pd.Series([labels.get(i) for i in ids], dtype="int8[pyarrow]"),
            "llm_score": pd.Series([verdicts.get(i) for i in ids], dtype="int8[pyarrow]"),
            "pattern_id": pd.Series([pattern_of.get(i) for i in ids], dtype="string[pyarrow]"),
        }
    )
