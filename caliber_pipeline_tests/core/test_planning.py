import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from caliber_pipeline.core.agreement import point_metrics
from caliber_pipeline.core.errors import InputError
from caliber_pipeline.core.intervals import CellSample, metric_intervals
from caliber_pipeline.core.planning import (
    draw_sample,
    kappa_variance,
    labels_for_gain,
    labels_for_half_width,
    missing_labels,
    plan_labels,
    plausible_shares,
    power_of_gain,
    sampling_probabilities,
)


@pytest.mark.parametrize("cells", [(183, 21, 52, 31), (148, 105, 18, 29), (5, 80, 7, 8)])
def test_variance_of_kappa_agrees_with_statsmodels(cells: tuple[int, int, int, int]) -> None:
    rater = pytest.importorskip("statsmodels.stats.inter_rater")
    tp, tn, fp, fn = cells

    expected = rater.cohens_kappa([[tp, fn], [fp, tn]])

    assert kappa_variance(cells) / sum(cells) == pytest.approx(expected.var_kappa, abs=1e-9)
    assert float(point_metrics(cells)["cohen_kappa"]) == pytest.approx(expected.kappa, abs=1e-9)


def test_no_agreement_at_equal_margins_has_variance_one() -> None:
    # With kappa 0 and margins 1/2 the agreeing cells add 0, the others 2 * 0.25 * 1 * 1 less pe squared 0.25, over
    # (1 - pe) squared 0.25: the variance is 1 / n, and (1.959964 / 0.2) squared is 96.04.
    assert kappa_variance([0.25] * 4) == pytest.approx(1.0)
    assert labels_for_half_width([0.25] * 4, 0.2) == 97
    assert labels_for_half_width([0.25] * 4, 0.2, design_effect=2) == 193


def test_the_planned_number_of_labels_gives_the_planned_interval() -> None:
    shares = np.array([0.63, 0.225, 0.075, 0.07])  # prevalence 0.7, TPR 0.9, TNR 0.75

    n = labels_for_half_width(shares, 0.1)
    low, high = metric_intervals(CellSample.from_counts(np.round(n * shares)))["cohen_kappa"]

    assert (high - low) / 2 == pytest.approx(0.1, rel=0.05)


def test_kappa_cannot_be_planned_where_it_is_undefined() -> None:
    with pytest.raises(InputError, match="kappa is undefined"):
        kappa_variance([1, 0, 0, 0])
    with pytest.raises(InputError, match=r"the half-width is 0; give a number above 0"):
        labels_for_half_width([0.25] * 4, 0)


def test_power_of_a_worked_example() -> None:
    # n = 6, all discordant, always won: the exact test needs 2 ** -m <= 0.05, which holds from m = 5, so power is 1.
    # With n = 4 it can never hold.
    assert power_of_gain(6, 1.0, 1.0) == pytest.approx(1.0)
    assert power_of_gain(4, 1.0, 1.0) == 0.0
    # n = 5, all discordant, gain 0.6: a win has probability 0.8, and only 5 of 5 rejects: 0.8 ** 5.
    assert power_of_gain(5, 0.6, 1.0) == pytest.approx(0.8**5)


def test_power_agrees_with_simulation() -> None:
    from scipy.stats import binomtest

    rng = np.random.default_rng(0)
    won, lost, _ = rng.multinomial(150, [0.16, 0.06, 0.78], size=4000).T
    rejected = [
        w + x > 0 and binomtest(int(w), int(w + x), alternative="greater").pvalue <= 0.05
        for w, x in zip(won, lost, strict=True)
    ]

    assert power_of_gain(150, 0.1, 0.22) == pytest.approx(np.mean(rejected), abs=0.025)


def test_without_a_gain_power_is_at_most_alpha() -> None:
    assert power_of_gain(200, 0.0, 0.3) <= 0.05


def test_the_planned_number_of_labels_confirms_the_gain() -> None:
    n = labels_for_gain(0.1, 0.2)

    assert n is not None
    assert power_of_gain(n, 0.1, 0.2) >= 0.8
    assert power_of_gain(n // 2, 0.1, 0.2) < 0.8
    assert labels_for_gain(0.0001, 0.2, max_labels=1000) is None


def test_the_planned_number_is_enough_where_power_is_a_sawtooth() -> None:
    n = labels_for_gain(0.3, 1.0)

    assert n is not None
    assert power_of_gain(n, 0.3, 1.0) >= 0.8
    assert power_of_gain(n - 1, 0.3, 1.0) < 0.8


def test_up_to_the_most_labels_every_number_is_looked_at() -> None:
    n = labels_for_gain(0.05, 0.2)

    assert n is not None
    assert 512 < n < 800
    assert labels_for_gain(0.05, 0.2, max_labels=800) == n
    assert labels_for_gain(0.05, 0.2, max_labels=512) is None


@pytest.mark.parametrize("shares", [[0.5, 0.5, 0, 0], [0.5, 0.3, 0.2], [0.9, 0.3, 0.1, -0.3], [0, 0, 0, 0]])
def test_what_no_labels_can_be_planned_for_is_refused(shares: list[float]) -> None:
    with pytest.raises(InputError, match=r"give the (errors that you expect|four cells true_positives)"):
        labels_for_half_width(shares, 0.1)
    with pytest.raises(InputError, match="the design effect is 0"):
        labels_for_half_width([0.25] * 4, 0.1, design_effect=0)
    with pytest.raises(InputError, match="n is -1"):
        power_of_gain(-1, 0.1, 0.2)
    with pytest.raises(InputError, match="the budget is 0"):
        sampling_probabilities([0.5, 0.4], 0)
    with pytest.raises(InputError, match="a probability is not between 0 and 1"):
        draw_sample([0.5, 1.5], seed=0)


def test_a_gain_above_the_discordance_is_refused() -> None:
    with pytest.raises(InputError, match=r"a gain of 0.3 at a discordance of 0.2 is impossible"):
        power_of_gain(100, 0.3, 0.2)


@given(
    st.lists(st.floats(min_value=0, max_value=1), min_size=1, max_size=50),
    st.integers(min_value=1, max_value=60),
    st.floats(min_value=0.05, max_value=1),
)
def test_probabilities_meet_the_budget_and_are_never_0(uncertainty: list[float], budget: int, floor: float) -> None:
    probabilities = sampling_probabilities(uncertainty, budget, floor=floor)

    assert probabilities.sum() == pytest.approx(min(budget, len(uncertainty)))
    assert (probabilities <= 1).all()
    assert (probabilities >= floor * min(budget / len(uncertainty), 1) * (1 - 1e-9)).all()
    drawn = draw_sample(probabilities, seed=0).sum()
    assert abs(drawn - probabilities.sum()) <= 1 + 1e-6


def test_what_would_be_drawn_more_than_surely_is_drawn_surely() -> None:
    # Of 2 labels, 1.6 follow the uncertainty: all of it on the first record, which takes 1 and leaves 1 to the others.
    probabilities = sampling_probabilities([1, 0, 0, 0, 0], 2)

    assert probabilities == pytest.approx([1, 0.25, 0.25, 0.25, 0.25])


def test_a_plan_names_what_it_chose_in_a_random_order_and_with_which_probability() -> None:
    ids = [f"r{i:03d}" for i in range(200)]
    confidence = np.where(np.arange(200) < 100, 0.9, np.nan)

    plan = plan_labels(ids, confidence, 40, criteria_version="v001", seed=1)

    assert len(plan) == 40
    assert not plan["record_id"].is_monotonic_increasing
    # a fifth of 40 labels evenly over 200, the rest in the ratio of 0.1 to 0.5 (a coin's, where nothing is known)
    expected = [
        (8 / 2 + 32 / 6) / 100 if record_id < "r100" else (8 / 2 + 32 * 5 / 6) / 100 for record_id in plan["record_id"]
    ]
    assert plan["inclusion_probability"].tolist() == pytest.approx(expected)


def test_impossible_floors_and_uncertainties_are_refused() -> None:
    with pytest.raises(InputError, match="the floor is 0"):
        sampling_probabilities([0.5], 1, floor=0)
    with pytest.raises(InputError, match="finite and at least 0"):
        sampling_probabilities([float("nan")], 1)


def test_weighted_estimates_from_an_active_sample_are_unbiased() -> None:
    rng = np.random.default_rng(0)
    uncertainty = rng.random(400)
    is_wrong = rng.random(400) < uncertainty / 2  # the uncertain ones are wrong more often
    probabilities = sampling_probabilities(uncertainty, 80)

    weighted, plain = [], []
    for seed in range(800):
        drawn = draw_sample(probabilities, seed=seed)
        weights = 1 / probabilities[drawn]
        weighted.append(np.average(is_wrong[drawn], weights=weights))
        plain.append(is_wrong[drawn].mean())

    assert np.mean(weighted) == pytest.approx(is_wrong.mean(), abs=0.006)
    assert np.mean(plain) > is_wrong.mean() + 0.03


def test_missing_labels_follow_the_root_of_n() -> None:
    # Twice the wanted half-width needs four times the labels: 3 * 50 more.
    assert missing_labels(0.4, 50) == 150
    assert missing_labels(0.2, 50) == 0


def test_no_outcome_is_planned_to_be_impossible() -> None:
    assert plausible_shares([3, 0, 0, 0]).tolist() == [0.7, 0.1, 0.1, 0.1]
