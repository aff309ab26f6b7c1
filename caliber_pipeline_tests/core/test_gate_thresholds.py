"""Where the gate's rules meet: evidence on either side of each threshold."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from caliber_pipeline.core.gate import ALPHA, Comparison, compare_versions, decide

CLEAR = Comparison(
    base_kappa=0.2,
    kappa=0.5,
    p_value=0.001,
    n_compared=100,
    n_groups=100,
    n_all_groups=100,
    n_fixed=20,
    n_broken=2,
    has_lost_coverage=False,
    n_differing_groups=22,
    new_error_share=0.1,
)


@pytest.mark.parametrize(
    ("changes", "decision", "why"),
    [
        ({}, "promoted", "kappa on dev 0.200 → 0.500, 20 fixed, 2 broken of 100; p = 0.0010 ≤ 0.0167"),
        ({"n_all_groups": 19}, "undecided", "too few groups: 19 of the 20"),
        ({"n_all_groups": 20}, "promoted", ""),
        ({"kappa": 0.2}, "rejected", "no gain"),
        ({"p_value": ALPHA / 3}, "promoted", ""),
        ({"p_value": 0.0167}, "rejected", "p = 0.0167 > 0.0167"),
        ({"n_differing_groups": 5}, "undecided", "differ in 5 groups and 6 are needed"),
        ({"n_differing_groups": 6}, "promoted", ""),
        # 2 of 6 groups are missing: half of the 4 that differ, so half of all labelled groups more
        ({"n_differing_groups": 4, "n_all_groups": 90}, "undecided", "missing 2, about 45 more labelled groups"),
        ({"new_error_share": 1.0}, "promoted", ""),
        ({"new_error_share": 1.01}, "rejected", "the new errors weigh 101% of those it mends"),
        ({"new_error_share": None}, "rejected", "the new errors weigh more than nothing of those it mends"),
        ({"n_fixed": 9, "n_broken": 9}, "promoted", ""),  # no tie: it errs elsewhere, and kappa gains
        ({"n_fixed": 0, "n_broken": 0}, "rejected", "a tie"),
        ({"p_value": 0.00009}, "promoted", "p < 0.0001"),
        ({"p_value": 0.0001}, "promoted", "p = 0.0001"),
    ],
)
def test_a_decision_changes_exactly_at_its_threshold(changes: dict[str, object], decision: str, why: str) -> None:
    found, reason = decide(replace(CLEAR, **changes), max_rounds=3)  # type: ignore[arg-type]
    assert found == decision
    assert why in reason


def test_no_round_and_one_round_are_one_look() -> None:
    at_5_percent = replace(CLEAR, p_value=0.04)
    assert [decide(at_5_percent, max_rounds=n)[0] for n in (0, 1, 2)] == ["promoted", "promoted", "rejected"]


@pytest.mark.parametrize(
    ("p_value", "told"),
    [
        # (z(0.0167) + z(0.2))² / z(p)², in units of the 60 groups there are: (2.1280 + 0.8416)² / 1.7507² = 2.8774
        (0.04, "about 173 groups to show, 113 more"),
        # / 0.8416² = 12.451
        (0.2, "about 748 groups to show, 688 more"),
        (0.3, None),  # / 0.5244² = 32: no plan
        (0.5, None),  # no sign of a gain
        (0.9, None),
    ],
)
def test_how_many_groups_a_gain_would_take(p_value: float, told: str | None) -> None:
    reason = decide(replace(CLEAR, p_value=p_value, n_groups=60), max_rounds=3)[1]
    assert told is None or told in reason
    assert ("a gain of this size" in reason) is (told is not None)


def judged(llm: list[int], **columns: object) -> pd.DataFrame:
    n = len(llm)
    given = {"record_id": [f"r{i}" for i in range(n)], "group": [f"g{i}" for i in range(n)], "split": "dev"}
    human = np.array([0, 1] * (n // 2), dtype=np.int8)
    return pd.DataFrame({**given, "human_score": human, "llm_score": llm, "is_example": False, **columns})


def test_a_base_s_examples_are_not_compared_either() -> None:
    shown = judged([0, 1, 0, 1], is_example=[True, False, False, False])
    assert compare_versions(shown, judged([0, 1, 0, 1])).n_compared == 3
    assert compare_versions(judged([0, 1, 0, 1]), shown).n_compared == 3


def test_an_unknown_severity_counts_as_one_and_new_errors_alone_have_no_share() -> None:
    base = judged([1, 1, 1, 1])
    # it mends records 0 (severity unknown) and 2, and breaks record 3, twice as bad
    version = judged([0, 1, 0, 0], severity=pd.array([None, 1.0, 1.0, 2.0], dtype="double[pyarrow]"))
    assert compare_versions(base, version).new_error_share == pytest.approx(2 / 2)
    assert compare_versions(judged([0, 1, 0, 1]), judged([1, 1, 0, 1])).new_error_share is None
