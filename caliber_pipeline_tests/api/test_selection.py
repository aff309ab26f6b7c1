from dataclasses import dataclass
from typing import Any

import pytest

from caliber_pipeline.api.discovery_results import DiscoveredPattern, PatternDiscoveryResult
from caliber_pipeline.api.evaluation import EvaluationRunner
from caliber_pipeline.api.results import EvaluationConfig
from caliber_pipeline.api.selection import ExampleSelector, auto_select_strategy
from caliber_pipeline.core.errors import InputError
from caliber_pipeline.core.example_selection import SelectionStrategy

RECORDS: list[dict[str, Any]] = [{"id": f"r{i}", "query": f"q{i}", "output": f"a{i}"} for i in range(20)]
ANNOTATIONS = {f"r{i}": i % 2 for i in range(16)}  # 8 accepts, 8 rejects, 4 without
# the judge accepts all but r1 and r3: false positives are the 8 even ones, false negatives r1 and r3
VERDICTS = [{"id": f"r{i}", "score": int(i not in {1, 3})} for i in range(16)]


@dataclass(frozen=True)
class Thing:
    record_id: str


def test_gives_back_what_it_was_given() -> None:
    dicts = ExampleSelector(1).select(RECORDS, ANNOTATIONS, 4)
    things = ExampleSelector(1).select([Thing(record["id"]) for record in RECORDS], ANNOTATIONS, 4)

    assert all(any(example is record for record in RECORDS) for example in dicts.examples)
    assert [thing.record_id for thing in things.examples] == [record["id"] for record in dicts.examples]
    assert dicts.metadata == {"accepts": 2, "rejects": 2}
    assert {record["id"] for record in dicts.examples} <= set(ANNOTATIONS)


def test_chooses_again_as_before() -> None:
    selector = ExampleSelector(7)

    first, second = (selector.select(RECORDS, ANNOTATIONS, 6) for _ in range(2))

    assert first == second
    assert first == ExampleSelector(7).select(list(reversed(RECORDS)), ANNOTATIONS, 6)
    assert first.examples != ExampleSelector(8).select(RECORDS, ANNOTATIONS, 6).examples


def test_guides_by_misalignments() -> None:
    selection = ExampleSelector().select(RECORDS, ANNOTATIONS, 6, "misalignment_guided", eval_results=VERDICTS)

    assert selection.strategy_used is SelectionStrategy.MISALIGNMENT_GUIDED
    assert selection.metadata["false_positives_selected"] == 2
    assert selection.metadata["false_negatives_selected"] == 2
    assert selection.metadata["total_fp_available"] == 8
    assert selection.metadata["total_fn_available"] == 2


def test_covers_patterns() -> None:
    patterns = [
        {"category": "a", "record_ids": ["r0", "r2"]},
        {"category": "b", "record_ids": ["r2", "r4", "r6"]},
        {"category": "rest", "record_ids": ["r8"], "is_unclustered": True},
    ]

    selection = ExampleSelector().select(RECORDS, ANNOTATIONS, 4, SelectionStrategy.PATTERN_AWARE, patterns=patterns)

    assert (selection.metadata["patterns_covered"], selection.metadata["total_patterns"]) == (2, 2)


def test_takes_what_discovering_returned() -> None:
    pattern = DiscoveredPattern("a", "", 2, ("r0", "r2"), (), ())
    found = PatternDiscoveryResult((pattern,), ("r4",))

    selection = ExampleSelector().select(RECORDS, ANNOTATIONS, 4, patterns=found)

    assert selection.strategy_used is auto_select_strategy(patterns=found) is SelectionStrategy.PATTERN_AWARE
    assert selection.metadata["total_patterns"] == 1


def test_needs_what_the_strategy_reads() -> None:
    with pytest.raises(InputError, match="needs eval_results"):
        ExampleSelector().select(RECORDS, ANNOTATIONS, 4, "misalignment_guided")
    with pytest.raises(InputError, match="needs patterns"):
        ExampleSelector().select(RECORDS, ANNOTATIONS, 4, "PATTERN_AWARE")
    assert ExampleSelector().select(RECORDS, ANNOTATIONS, 4, "BALANCED").strategy_used is SelectionStrategy.BALANCED
    with pytest.raises(InputError, match="unknown strategy 'best'"):
        ExampleSelector().select(RECORDS, ANNOTATIONS, 4, "best")


def test_selects_none_without_annotations() -> None:
    assert ExampleSelector().select(RECORDS).examples == []
    assert len(ExampleSelector().select([{**RECORDS[0], "judgment": 1}]).examples) == 1


def test_strategy_follows_what_is_known() -> None:
    rows = [{"id": i, "query": "q", "output": f"a{i}", "judgment": 1, "score": i % 2} for i in range(4)]
    result = EvaluationRunner(EvaluationConfig(llm_provider="recorded")).run_sync(rows)
    patterns = [{"record_ids": ["1"]}]

    assert auto_select_strategy() is SelectionStrategy.BALANCED
    assert auto_select_strategy(result) is SelectionStrategy.MISALIGNMENT_GUIDED
    assert auto_select_strategy(result, patterns) is SelectionStrategy.MISALIGNMENT_GUIDED
    assert auto_select_strategy(None, patterns) is SelectionStrategy.PATTERN_AWARE
    assert auto_select_strategy([{"id": 1, "judgment": 1, "score": 1}], []) is SelectionStrategy.BALANCED
    assert ExampleSelector().select(rows, eval_results=result).strategy_used is SelectionStrategy.MISALIGNMENT_GUIDED


def test_finds_errors_where_results_hold_no_more_than_an_id_and_a_score() -> None:
    right = [{"id": record_id, "score": score} for record_id, score in ANNOTATIONS.items()]
    selector = ExampleSelector()

    guided = selector.select(iter(RECORDS), ANNOTATIONS, eval_results=iter(VERDICTS), patterns=iter([]))

    assert guided.strategy_used is SelectionStrategy.MISALIGNMENT_GUIDED
    assert selector.select(RECORDS, ANNOTATIONS, eval_results=right).strategy_used is SelectionStrategy.BALANCED
