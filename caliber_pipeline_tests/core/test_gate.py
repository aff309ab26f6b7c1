"""The gate: a gain counts only where the permutation test says so, on dev, over records judged under both."""

import re
from itertools import product

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest
from sklearn.metrics import cohen_kappa_score

from caliber_pipeline.core.gate import compare_versions, decide, exact_mcnemar
from caliber_pipeline_tests.core.scored_rows import scored

HUMAN = np.array([1, 1, 1, 1, 0, 0, 0, 0], dtype=np.int8)
OLD = np.array([1, 1, 0, 0, 1, 1, 0, 0], dtype=np.int8)
NEW = np.array([1, 1, 1, 1, 0, 1, 0, 1], dtype=np.int8)


def test_the_p_value_is_that_of_all_exchanges() -> None:
    # Records 2, 3, 4 and 7 differ; of the 2**4 exchanges count those whose gain is at least the observed one.
    differ = np.flatnonzero(OLD != NEW)
    observed = cohen_kappa_score(HUMAN, NEW) - cohen_kappa_score(HUMAN, OLD)
    n_as_large = 0
    for swap in product([False, True], repeat=len(differ)):
        new, old = NEW.copy(), OLD.copy()
        at = differ[list(swap)]
        new[at], old[at] = OLD[at], NEW[at]
        n_as_large += cohen_kappa_score(HUMAN, new) - cohen_kappa_score(HUMAN, old) >= observed - 1e-12
    exact = n_as_large / 2 ** len(differ)
    result = compare_versions(scored(HUMAN, OLD), scored(HUMAN, NEW))
    assert result.p_value == pytest.approx(exact, abs=0.01)  # 20,000 draws: three standard errors are 0.01
    assert result.kappa == pytest.approx(cohen_kappa_score(HUMAN, NEW))
    assert result.base_kappa == pytest.approx(cohen_kappa_score(HUMAN, OLD))
    assert (result.n_fixed, result.n_broken, result.n_compared) == (3, 1, 8)


def test_whole_groups_are_exchanged() -> None:
    # All four differing records in one group: two exchanges, of which one has the observed gain: p = 1/2.
    groups = ["a", "b", "x", "x", "x", "c", "d", "x"]
    result = compare_versions(scored(HUMAN, OLD, groups=groups), scored(HUMAN, NEW, groups=groups))
    assert result.n_groups == 5
    assert result.p_value == pytest.approx(0.5, abs=0.012)


def test_examples_failures_and_other_splits_are_not_compared() -> None:
    base, version = scored(HUMAN, OLD), scored(HUMAN, NEW)
    version.loc[0, "is_example"] = True
    base.loc[1, "llm_score"] = pd.NA
    version.loc[2, "split"] = "test"
    version.loc[3, "split"] = "train"
    result = compare_versions(base, version)
    assert result.n_compared == 4
    assert not result.has_lost_coverage


def large(n: int, flip_old: float, flip_new: float) -> tuple[pd.DataFrame, pd.DataFrame]:
    rng = np.random.default_rng(0)
    human = rng.integers(0, 2, n).astype(np.int8)
    old, new = (np.where(rng.random(n) < share, 1 - human, human).astype(np.int8) for share in (flip_old, flip_new))
    return scored(human, old), scored(human, new)


def test_a_clear_gain_is_promoted_and_a_loss_or_no_gain_rejected() -> None:
    base, version = large(200, 0.4, 0.1)
    assert decide(compare_versions(base, version), max_rounds=3)[0] == "promoted"
    assert decide(compare_versions(version, base), max_rounds=3)[0] == "rejected"
    assert decide(compare_versions(base, base), max_rounds=3)[0] == "rejected"


def test_each_round_is_one_more_look() -> None:
    base, version = large(60, 0.4, 0.2)
    result = compare_versions(base, version)
    assert result.p_value is not None
    assert 0.05 / 100 < result.p_value < 0.05
    assert decide(result, max_rounds=1)[0] == "promoted"
    assert decide(result, max_rounds=100)[0] == "rejected"


def test_too_few_groups_decide_nothing() -> None:
    base, version = large(200, 0.4, 0.1)
    for frame in (base, version):
        frame["group"] = [f"book{i % 6}" for i in range(200)]
    decision, reason = decide(compare_versions(base, version), max_rounds=3)
    assert decision == "undecided"
    assert reason.startswith("too few groups: 6 of the 20")


def test_lost_coverage_is_no_gain() -> None:
    base, version = large(200, 0.4, 0.1)
    version.loc[:9, "llm_score"] = pd.NA
    decision, reason = decide(compare_versions(base, version), max_rounds=3)
    assert decision == "rejected"
    assert "failed on more records" in reason


def test_nothing_to_compare_is_undecided() -> None:
    base, version = large(40, 0.4, 0.1)
    version["split"] = "test"
    result = compare_versions(base, version)
    assert result.kappa is None
    assert decide(result, max_rounds=3)[0] == "undecided"


def test_mcnemar_is_the_one_sided_binomial_and_left_out_where_records_share_a_group() -> None:
    # 3 fixed and 1 broken: P(X >= 3) for X ~ Binomial(4, 1/2) = (4 + 1) / 16.
    assert compare_versions(scored(HUMAN, OLD), scored(HUMAN, NEW)).mcnemar_p == pytest.approx(5 / 16)
    for n_fixed, n_broken in ((0, 0), (0, 5), (9, 2), (30, 14)):
        expected = binomtest(n_fixed, max(n_fixed + n_broken, 1), alternative="greater").pvalue
        assert exact_mcnemar(n_fixed, n_broken) == pytest.approx(expected)
    groups = ["a", "b", "x", "x", "x", "c", "d", "x"]
    assert compare_versions(scored(HUMAN, OLD, groups=groups), scored(HUMAN, NEW, groups=groups)).mcnemar_p is None


def test_new_errors_are_weighed_by_severity_against_those_of_the_base() -> None:
    # The version mends three of the base's errors and breaks record 7.
    version = scored(HUMAN, NEW).assign(severity=[1.0, 1, 1, 1, 1, 1, 1, 6])
    assert compare_versions(scored(HUMAN, OLD), version).new_error_share == pytest.approx(6 / 3)
    assert compare_versions(scored(HUMAN, OLD), scored(HUMAN, NEW)).new_error_share == pytest.approx(1 / 3)


def test_a_gain_that_breaks_what_matters_most_is_rejected() -> None:
    base, version = large(200, 0.4, 0.1)
    is_broken = (version["llm_score"] != version["human_score"]) & (base["llm_score"] == base["human_score"])
    decision, reason = decide(
        compare_versions(base, version.assign(severity=np.where(is_broken, 10.0, 1.0))), max_rounds=3
    )
    assert decision == "rejected"
    assert "over the budget of 100%" in reason


def test_too_few_differences_are_undecided_with_how_many_are_missing() -> None:
    human = np.array([0, 1] * 30, dtype=np.int8)
    old = human.copy()
    old[:4] = 1 - old[:4]
    decision, reason = decide(compare_versions(scored(human, old), scored(human, human)), max_rounds=3)
    # At 0.05 / 3 six differing groups are needed, as 1/2**6 = 0.0156 is the first power below 0.0167; 4 are there, so
    # that half as many groups again are needed: 30 of 60.
    assert decision == "undecided"
    assert "differ in 4 groups and 6 are needed to decide at 0.0167: missing 2, about 30 more" in reason


def test_six_improved_groups_of_one_record_each_are_enough() -> None:
    human = np.array([0, 1] * 30, dtype=np.int8)
    old = human.copy()
    old[:6] = 1 - old[:6]
    result = compare_versions(scored(human, old), scored(human, human))
    assert result.p_value == 1 / 64
    assert decide(result, max_rounds=3)[0] == "promoted"


def test_a_tie_keeps_the_simpler() -> None:
    base, _ = large(100, 0.4, 0.1)
    result = compare_versions(base, base)
    assert decide(result, max_rounds=3)[0] == "rejected"
    assert decide(result, max_rounds=3, is_simpler=True)[0] == "promoted"


def test_a_rejected_gain_says_how_many_groups_it_would_take() -> None:
    base, version = large(60, 0.4, 0.25)
    decision, reason = decide(compare_versions(base, version), max_rounds=3)
    assert decision == "rejected"
    assert re.search(r"a gain of this size would take about \d+ groups to show", reason)
