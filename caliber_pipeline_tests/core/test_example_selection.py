import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caliber_pipeline.core.errors import InputError
from caliber_pipeline.core.example_selection import (
    ExampleSelection,
    SelectionStrategy,
    choose_strategy,
    select_examples,
)

STRATEGIES = list(SelectionStrategy)


def make_candidates(*kinds: tuple[int, int | None, int | None, str | None]) -> pd.DataFrame:
    """Rows from (how many, human_score, llm_score, pattern_id)."""
    rows = [kind[1:] for kind in kinds for _ in range(kind[0])]
    frame = pd.DataFrame(rows, columns=["human_score", "llm_score", "pattern_id"])
    frame = frame.astype({"human_score": "Int8", "llm_score": "Int8", "pattern_id": "string"})
    return frame.assign(record_id=[f"r{i}" for i in range(len(rows))])


candidate_tables = st.lists(
    st.tuples(
        st.integers(1, 3),
        st.sampled_from([0, 1, None]),
        st.sampled_from([0, 1, None]),
        st.sampled_from(["a", "b", "c", None, "unclustered-reject"]),
    ),
    max_size=15,
).map(lambda kinds: make_candidates(*kinds))


def ids(selection: ExampleSelection) -> list[str]:
    return list(selection.examples["record_id"])


@settings(max_examples=40)
@given(candidate_tables, st.integers(0, 20), st.sampled_from(STRATEGIES), st.integers(0, 3))
def test_gives_the_count_or_all_that_are_annotated_each_once(
    candidates: pd.DataFrame, count: int, strategy: SelectionStrategy, seed: int
) -> None:
    selection = select_examples(candidates, count, strategy, seed)

    annotated = set(candidates["record_id"][candidates["human_score"].notna()])
    assert len(ids(selection)) == min(count, len(annotated))
    assert len(set(ids(selection))) == len(ids(selection))
    assert set(ids(selection)) <= annotated
    assert selection.metadata["accepts"] == int((selection.examples["human_score"] == 1).sum())
    assert selection.metadata["accepts"] + selection.metadata["rejects"] == len(ids(selection))


@settings(max_examples=40)
@given(candidate_tables, st.integers(0, 12), st.sampled_from(STRATEGIES), st.integers(0, 3), st.integers(0, 99))
def test_depends_on_the_seed_and_not_on_the_order_of_rows(
    candidates: pd.DataFrame, count: int, strategy: SelectionStrategy, seed: int, order_seed: int
) -> None:
    order = np.random.default_rng(order_seed).permutation(len(candidates))

    first = select_examples(candidates, count, strategy, seed)
    second = select_examples(candidates.iloc[order], count, strategy, seed)

    assert ids(first) == ids(second)
    assert first.metadata == second.metadata


def test_seeds_choose_different_records() -> None:
    candidates = make_candidates((50, 1, None, None), (50, 0, None, None))

    chosen = {tuple(ids(select_examples(candidates, 6, "balanced", seed))) for seed in range(10)}

    # two seeds agree with probability 1 / (C(50, 3)² 6!) < 1e-11
    assert len(chosen) == 10


@pytest.mark.parametrize(
    ("n_accepts", "n_rejects", "count", "expected"),
    [
        (10, 10, 6, (3, 3)),
        (10, 10, 5, (2, 3)),  # an odd one is a reject
        (1, 10, 6, (1, 5)),  # fills from the rejects
        (10, 1, 6, (5, 1)),  # fills from the accepts
        (2, 2, 6, (2, 2)),
        (0, 3, 2, (0, 2)),
        (3, 3, 0, (0, 0)),
    ],
)
def test_balanced_takes_half_of_each_and_fills(
    n_accepts: int, n_rejects: int, count: int, expected: tuple[int, int]
) -> None:
    candidates = make_candidates((n_accepts, 1, None, None), (n_rejects, 0, None, None), (5, None, None, None))

    selection = select_examples(candidates, count, SelectionStrategy.BALANCED)

    assert (selection.metadata["accepts"], selection.metadata["rejects"]) == expected
    assert selection.strategy_used is SelectionStrategy.BALANCED


@pytest.mark.parametrize(
    ("n_fp", "n_fn", "n_aligned", "count", "expected"),
    [
        (5, 5, 10, 6, (2, 2, 2)),
        (5, 5, 10, 9, (3, 3, 3)),
        (5, 5, 10, 4, (1, 1, 2)),
        (1, 5, 10, 6, (1, 2, 3)),  # what a third lacks comes from the aligned
        (5, 5, 0, 6, (3, 3, 0)),  # without aligned ones, from the errors
        (0, 0, 10, 6, (0, 0, 6)),
        (5, 5, 10, 2, (1, 1, 0)),
        (5, 5, 10, 1, (1, 0, 0)),
        (5, 5, 10, 0, (0, 0, 0)),
    ],
)
def test_misalignment_guided_takes_thirds(
    n_fp: int, n_fn: int, n_aligned: int, count: int, expected: tuple[int, int, int]
) -> None:
    candidates = make_candidates(
        (n_fp, 0, 1, None), (n_fn, 1, 0, None), (n_aligned // 2, 1, 1, None), (n_aligned // 2, 0, 0, None)
    )

    metadata = select_examples(candidates, count, "misalignment_guided").metadata

    kinds = ("false_positives_selected", "false_negatives_selected", "aligned_selected")
    assert tuple(metadata[kind] for kind in kinds) == expected
    assert (metadata["total_fp_available"], metadata["total_fn_available"]) == (n_fp, n_fn)


def test_misalignment_guided_balances_the_aligned() -> None:
    candidates = make_candidates((3, 0, 1, None), (3, 1, 0, None), (50, 1, 1, None), (50, 0, 0, None))

    examples = select_examples(candidates, 12, "misalignment_guided").examples

    aligned = examples[examples["human_score"] == examples["llm_score"]]
    # 12: 3 of the 3 false positives, 3 of the 3 false negatives, 6 aligned
    assert sorted(aligned["human_score"]) == [0, 0, 0, 1, 1, 1]


def test_misalignment_guided_takes_records_without_a_verdict_last() -> None:
    candidates = make_candidates((1, 0, 1, None), (2, 1, 1, None), (9, 1, None, None))

    examples = select_examples(candidates, 4, "misalignment_guided").examples

    assert int(examples["llm_score"].isna().sum()) == 1


def test_pattern_aware_takes_one_of_each_and_balances_the_rest() -> None:
    candidates = make_candidates((5, 0, None, "a"), (2, 0, None, "b"), (20, 0, None, None), (20, 1, None, None))

    selection = select_examples(candidates, 6, "pattern_aware", 3)

    assert {"a", "b"} <= set(selection.examples["pattern_id"].dropna())
    # one each of a and b (rejects), the other four half and half
    assert (selection.metadata["accepts"], selection.metadata["rejects"]) == (2, 4)
    assert (selection.metadata["patterns_covered"], selection.metadata["total_patterns"]) == (2, 2)


def test_pattern_aware_prefers_large_patterns_where_there_are_more_than_examples() -> None:
    candidates = make_candidates((1, 0, None, "a"), (3, 0, None, "b"), (2, 0, None, "c"))

    selection = select_examples(candidates, 2, "pattern_aware")

    assert sorted(selection.examples["pattern_id"]) == ["b", "c"]
    assert (selection.metadata["patterns_covered"], selection.metadata["total_patterns"]) == (2, 3)


def test_unclustered_notes_are_no_pattern() -> None:
    candidates = make_candidates((3, 0, None, "unclustered-reject"), (3, 1, None, None))

    assert select_examples(candidates, 4, "pattern_aware").metadata["total_patterns"] == 0


def test_keeps_the_candidates_other_columns() -> None:
    candidates = make_candidates((2, 1, None, None)).assign(query="q")

    assert list(select_examples(candidates, 1).examples.columns) == list(candidates.columns)


def test_refuses_what_it_cannot_choose_from() -> None:
    candidates = make_candidates((2, 1, 1, None))

    with pytest.raises(InputError, match="unknown strategy 'best'; give one of balanced"):
        select_examples(candidates, 2, "best")
    with pytest.raises(InputError, match="cannot choose -1 examples"):
        select_examples(candidates, -1)
    with pytest.raises(InputError, match=r"1 record ids repeat, e.g. \['r0'\]"):
        select_examples(candidates.assign(record_id="r0"), 2)
    with pytest.raises(InputError, match="no column 'llm_score'"):
        select_examples(candidates.drop(columns="llm_score"), 2, "misalignment_guided")
    with pytest.raises(InputError, match=r"2 values of human_score are neither 0 nor 1, e\.g\. 3"):
        select_examples(candidates.assign(human_score=3), 2)


def test_strategy_follows_what_is_known() -> None:
    assert choose_strategy(3, 5) is SelectionStrategy.MISALIGNMENT_GUIDED
    assert choose_strategy(0, 5) is SelectionStrategy.PATTERN_AWARE
    assert choose_strategy(0, 0) is SelectionStrategy.BALANCED
