"""What each part of criteria contributes."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import cohen_kappa_score

from caliber_pipeline.core.ablation import (
    N_HELD_OUT,
    hold_out,
    leave_out,
    list_parts,
    measure_contribution,
    select_ablated,
)
from caliber_pipeline.core.criteria import Clause, Criteria, ExampleRef

CRITERIA = Criteria(
    criteria="Score 1 if fine",
    clauses=(Clause(text="no zebras"), Clause(text="no quasars")),
    examples=tuple(ExampleRef(record_id=f"e{i}", content_hash="h") for i in range(2)),
)
N = 100


def scored() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    human = rng.integers(0, 2, N)
    llm = np.where(rng.random(N) < 0.1, 1 - human, human)
    return pd.DataFrame(
        {
            "record_id": [f"r{i}" for i in range(N)],
            "group": [f"g{i // 2}" for i in range(N)],
            "split": "train",
            "human_score": pd.array(human.tolist(), dtype="int8[pyarrow]"),
            "llm_score": pd.array(llm.tolist(), dtype="int8[pyarrow]"),
            "is_example": False,
        }
    )


def test_every_clause_and_example_can_be_left_out_and_many_examples_only_at_once() -> None:
    parts = list_parts(CRITERIA)
    assert [part.name for part in parts] == ["clause 1", "clause 2", "example e0", "example e1"]
    assert [clause.text for clause in parts[0].without.clauses] == ["no quasars"]
    assert [example.record_id for example in parts[3].without.examples] == ["e0"]
    many = CRITERIA.model_copy(
        update={"examples": tuple(ExampleRef(record_id=f"e{i}", content_hash="h") for i in range(21))}
    )
    assert [part.name for part in list_parts(many)] == ["clause 1", "clause 2", "all examples"]


def test_a_part_that_changes_no_verdict_does_nothing() -> None:
    found = measure_contribution(list_parts(CRITERIA)[0], scored(), scored()[["record_id", "llm_score"]])
    assert (found.effect, found.change, found.n_changed, found.n) == ("does nothing", 0.0, 0, N)


def test_the_change_is_that_of_kappa_and_its_interval_holds_it() -> None:
    full = scored()
    worse = full.assign(llm_score=pd.array([1] * 50 + full["llm_score"].tolist()[50:], dtype="int8[pyarrow]"))
    found = measure_contribution(list_parts(CRITERIA)[0], full, worse)
    before, after = (cohen_kappa_score(full["human_score"], frame["llm_score"]) for frame in (full, worse))
    assert found.change == pytest.approx(after - before)
    assert found.ci_low is not None
    assert found.ci_high is not None
    assert found.ci_low < after - before < found.ci_high < 0
    assert found.effect == "helps"
    swapped = measure_contribution(list_parts(CRITERIA)[0], worse, full)
    assert swapped.effect == "harms"


@pytest.mark.parametrize("group_size", [1, 5])
@pytest.mark.parametrize(("n_groups_changed", "effect"), [(1, "nothing shown"), (4, "nothing shown"), (10, "helps")])
def test_a_few_changed_verdicts_show_nothing(group_size: int, n_groups_changed: int, effect: str) -> None:
    """By the sign test 4 changes in one direction of 4 have p = 2 / 2**4 = 0.125, 10 have 0.002."""
    n = 60 * group_size
    full = pd.concat([scored()] * 3, ignore_index=True).head(n)
    full = full.assign(
        record_id=[f"r{i}" for i in range(n)],
        group=[f"g{i // group_size}" for i in range(n)],
        llm_score=full["human_score"],
    )
    is_changed = np.arange(n) < n_groups_changed * group_size
    without = full.assign(llm_score=full["llm_score"].where(~is_changed, 1 - full["human_score"]))
    found = measure_contribution(list_parts(CRITERIA)[0], full, without)
    assert found.effect == effect
    assert found.n_changed == n_groups_changed * group_size
    assert found.ci_low is not None
    assert found.change is not None
    assert found.ci_low < found.change < 0


def test_records_without_a_verdict_are_left_aside_and_dev_is_not_looked_at() -> None:
    full = scored()
    full.loc[:9, "split"] = "dev"
    full.loc[10, "is_example"] = True
    assert len(select_ablated(full)) == N - 10
    without = full.assign(llm_score=full["llm_score"].where(full.index >= 20))
    assert measure_contribution(list_parts(CRITERIA)[0], select_ablated(full), without).n == N - 20


def test_a_shown_record_is_judged_while_itself_is_left_out_and_every_record_once() -> None:
    shown = [f"r{i}" for i in range(12)]
    criteria = CRITERIA.model_copy(
        update={"examples": tuple(ExampleRef(record_id=record_id, content_hash="h") for record_id in shown)}
    )
    record_ids = [f"r{i}" for i in range(20)]
    batches = hold_out(criteria, record_ids)
    assert sorted(i for ids, _ in batches for i in ids) == sorted(record_ids)
    assert len(batches) == 1 + N_HELD_OUT
    for ids, left_out in batches:
        kept = {example.record_id for example in leave_out(criteria, left_out).examples}
        assert not kept & set(ids)
        assert kept | left_out == set(shown)
    assert hold_out(CRITERIA, record_ids) == [(record_ids, frozenset())]
    assert hold_out(CRITERIA, []) == []


def test_where_kappa_is_undefined_nothing_is_shown() -> None:
    full = scored().assign(human_score=1, llm_score=1)
    without = full.assign(llm_score=[0] + [1] * (N - 1))
    found = measure_contribution(list_parts(CRITERIA)[0], full, without)
    assert (found.change, found.effect, found.n_changed) == (None, "nothing shown", 1)


def test_a_few_records_tell_nothing() -> None:
    few = scored().head(30)  # 15 groups
    found = measure_contribution(list_parts(CRITERIA)[0], few, few)
    assert (found.effect, found.change, found.n) == ("too few records", None, 30)
