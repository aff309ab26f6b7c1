from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest

from caliber_pipeline.core.agreement import Floats
from caliber_pipeline.core.errors import InputError
from caliber_pipeline.core.estimation import (
    RateEstimate,
    estimate_from_random_sample,
    estimate_under_label_shift,
)
from caliber_pipeline.core.planning import draw_sample, sampling_probabilities
from caliber_pipeline_tests.core.simulated_intervals import COVERED, N_SAMPLES

HUMAN = np.array([1, 1, 0, 1, 0, 1, 1, 1, 0, 1, 1, 0, 1, 1, 1, 0, 1, 1, 0, 1])
JUDGE = np.array([1, 1, 0, 1, 1, 1, 1, 0, 0, 1, 1, 0, 1, 1, 1, 0, 1, 1, 1, 1])
OTHERS = np.array([1, 1, 1, 0, 1] * 20)


def test_a_random_sample_gives_what_ppi_python_gives() -> None:
    estimate = estimate_from_random_sample(HUMAN, JUDGE, OTHERS)

    # ppi-python 0.2.3: ppi_mean_pointestimate 0.73131579, ppi_mean_ci (0.56761207, 0.89501951), which is 1.959964
    # standard errors each way.
    assert estimate.value == pytest.approx(0.73131579, abs=1e-8)
    assert estimate.standard_error == pytest.approx((0.89501951 - 0.56761207) / 2 / 1.959963985, abs=1e-8)
    assert estimate.judge_rate == 0.8
    assert estimate.ci_low < estimate.value < estimate.ci_high


def test_a_judge_that_knows_nothing_is_not_used() -> None:
    rng = np.random.default_rng(0)
    human = rng.integers(0, 2, 300)

    estimate = estimate_from_random_sample(human, 1 - human, OTHERS)  # always wrong: no weight below 0

    assert estimate.judge_weight == 0
    assert estimate.value == pytest.approx(human.mean())
    assert estimate_from_random_sample(human, np.ones(300), np.ones(50)).judge_weight == 0


def test_a_good_judge_makes_few_labels_worth_many() -> None:
    rng = np.random.default_rng(0)
    human = (rng.random(200) < 0.6).astype(float)
    judge = np.where(rng.random(200) < 0.95, human, 1 - human)

    estimate = estimate_from_random_sample(human, judge, (rng.random(20_000) < 0.59).astype(float))

    assert estimate.n_equivalent > 400


def test_copies_of_labels_in_groups_add_nothing() -> None:
    single = estimate_from_random_sample(HUMAN, JUDGE, OTHERS)
    groups = np.tile(np.arange(20), 4)
    copied = estimate_from_random_sample(np.tile(HUMAN, 4), np.tile(JUDGE, 4), OTHERS, groups)

    assert copied.ci_high - copied.ci_low > 0.85 * (single.ci_high - single.ci_low)


def test_weights_undo_active_sampling() -> None:
    # Of 30 accepts one in three was sampled, of 10 rejects each: weighted, people accept 30 / 40, as the judge does.
    human, weights = np.repeat([1, 0], [10, 10]), np.repeat([3.0, 1.0], 10)
    others = np.repeat([1, 0], [750, 250])

    weighted = estimate_from_random_sample(human, human, others, weights=weights)

    assert weighted.value == pytest.approx(0.75)
    assert estimate_from_random_sample(human, human, others, weights=7 * weights) == weighted


def test_weights_of_one_change_nothing() -> None:
    for estimate in (estimate_from_random_sample, estimate_under_label_shift):
        assert estimate(HUMAN, JUDGE, OTHERS, weights=np.ones(len(HUMAN))) == estimate(HUMAN, JUDGE, OTHERS)


def test_label_shift_weighs_errors_by_what_they_stand_for() -> None:
    # TPR: 20 hits that stand for 4 each and 10 misses for 2 each: 80 / 100; TNR 10 of 10 rejects.
    human, judge = np.repeat([1, 1, 0], [20, 10, 10]), np.repeat([1, 0, 0], [20, 10, 10])
    weights = np.repeat([4.0, 2.0, 1.0], [20, 10, 10])

    estimate = estimate_under_label_shift(human, judge, np.repeat([1, 0], [400, 600]), weights=weights)

    assert estimate.value == pytest.approx(0.4 / 0.8)


def test_label_shift_of_a_worked_example() -> None:
    # TPR 0.9 of 100, TNR 0.8 of 50, judge's rate 0.48 of 1,000: (0.48 + 0.8 - 1) / 0.7 = 0.4.
    human = np.repeat([1, 1, 0, 0], [100, 0, 50, 0])
    judge = np.repeat([1, 0, 0, 1], [90, 10, 40, 10])
    others = np.repeat([1, 0], [480, 520])

    estimate = estimate_under_label_shift(human, judge, others)

    assert estimate.value == pytest.approx(0.4)
    # 0.48 * 0.52 / 1000 + 0.16 * 0.09 / 100 + 0.36 * 0.16 / 50 = 0.0015456, over 0.49
    assert estimate.standard_error == pytest.approx((0.0015456 / 0.49) ** 0.5, abs=1e-9)
    assert estimate.judge_rate == 0.48


def test_label_shift_is_refused_for_a_judge_near_chance_and_for_labels_of_one_kind() -> None:
    with pytest.raises(InputError, match=r"TPR 0\.60 and TNR 0\.40: the judge is hardly better than chance"):
        estimate_under_label_shift([1, 0] * 50, [1, 1] * 30 + [0, 0] * 20, OTHERS)
    with pytest.raises(InputError, match="30 accepts and 0 rejects among the labels"):
        estimate_under_label_shift([1] * 30, [1] * 30, OTHERS)


def test_the_interval_under_label_shift_is_fiellers() -> None:
    # TPR 97 of 100, TNR 74 of 98, q 480 of 1,000; adjusted: 98 / 102, 75 / 100 and (480 + 1.92073) / 1003.84146
    human, judge = np.repeat([1, 1, 0, 0], [97, 3, 74, 24]), np.repeat([1, 0, 0, 1], [97, 3, 74, 24])

    estimate = estimate_under_label_shift(human, judge, np.repeat([1, 0], [480, 520]))

    # At both ends the rate is 1.96 standard errors from what it would be there.
    for share in (estimate.ci_low, estimate.ci_high):
        distance = 0.480077 - share * 98 / 102 - (1 - share) * 0.25
        variance = 0.480077 * 0.519923 / 1003.84146 + share**2 * 98 * 4 / 102**3 + (1 - share) ** 2 * 0.75 * 0.25 / 100
        assert abs(distance) == pytest.approx(1.959964 * variance**0.5, abs=1e-5)


def test_a_judge_that_is_not_shown_to_be_better_than_chance_leaves_every_rate_open() -> None:
    # TPR 0.75 of 40, TNR 0.5 of 10: 0.25 above chance, with a standard error of 0.16
    human, judge = np.repeat([1, 1, 0, 0], [30, 10, 5, 5]), np.repeat([1, 0, 0, 1], [30, 10, 5, 5])

    estimate = estimate_under_label_shift(human, judge, OTHERS)

    assert (estimate.ci_low, estimate.ci_high) == (0, 1)


def test_a_rate_that_the_judge_cannot_have_contradicts_the_assumption() -> None:
    human, judge = np.repeat([1, 1, 0, 0], [80, 20, 90, 10]), np.repeat([1, 0, 0, 1], [80, 20, 90, 10])

    impossible = estimate_under_label_shift(human, judge, np.ones(1000))  # were all acceptable, it would accept 80 %
    possible = estimate_under_label_shift(human, judge, OTHERS)

    assert (impossible.value, impossible.ci_high) == (1, 1)
    assert impossible.caution is not None
    assert impossible.caution.endswith("the assumption does not hold")
    assert possible.caution is None


def test_too_few_labels_or_no_unlabelled_record_are_refused() -> None:
    with pytest.raises(InputError, match="3 labelled and judged records; label at least 20"):
        estimate_from_random_sample([1, 0, 1], [1, 0, 1], OTHERS)
    with pytest.raises(InputError, match="no unlabelled record has a verdict"):
        estimate_from_random_sample(HUMAN, JUDGE, [])


@pytest.mark.parametrize("estimate", [estimate_from_random_sample, estimate_under_label_shift])
def test_arrays_that_do_not_fit_together_are_refused(estimate: Callable[..., RateEstimate]) -> None:
    with pytest.raises(InputError, match=r"20 labels, but \[19\] verdicts, groups or weights"):
        estimate(HUMAN, JUDGE[1:], OTHERS)
    with pytest.raises(InputError, match=r"20 labels, but \[2\] verdicts, groups or weights"):
        estimate(HUMAN, JUDGE, OTHERS, ["a", "b"])
    with pytest.raises(InputError, match="a weight is not above 0"):
        estimate(HUMAN, JUDGE, OTHERS, weights=np.zeros(20))
    with pytest.raises(InputError, match=r"labels: .* give a flat list or array of 0 and 1"):
        estimate(np.append(HUMAN[1:], np.nan), JUDGE, OTHERS)
    with pytest.raises(InputError, match="verdicts on unlabelled records: "):
        estimate(HUMAN, JUDGE, [0.7] * 50)


def test_a_judge_without_errors_in_few_groups_is_not_taken_for_perfect() -> None:
    # 5 groups of 20 copies tell as little as 5 labels, although no residual shows how alike they are
    human, groups = np.repeat([1, 0, 1, 1, 0], 20), np.repeat(np.arange(5), 20)

    single = estimate_from_random_sample(human, human, OTHERS)
    grouped = estimate_from_random_sample(human, human, OTHERS, groups)

    assert grouped.n_equivalent < single.n_equivalent / 2


def _judge(truth: Floats, rates: tuple[float, float], rng: np.random.Generator) -> Floats:
    draws = rng.random(len(truth))
    return np.where(truth == 1, draws < rates[0], draws > rates[1]).astype(np.float64)


@pytest.mark.slow
@pytest.mark.parametrize("n", [50, 200, 1000])
@pytest.mark.parametrize("prevalence", [0.5, 0.9])
@pytest.mark.parametrize("rates", [(0.93, 0.37), (0.75, 0.65), (0.9, 0.8), (0.97, 0.95)])
def test_both_intervals_cover(n: int, prevalence: float, rates: tuple[float, float]) -> None:
    """Productions of 2,000 records; under label shift production accepts 0.7 whatever the labels' share."""
    rng = np.random.default_rng(n)

    def production(share: float) -> Floats:
        return _judge((rng.random(2000) < share).astype(np.float64), rates, rng)

    random, shifted = [], []
    for _ in range(N_SAMPLES):
        human = (rng.random(n) < prevalence).astype(np.float64)
        judge = _judge(human, rates, rng)
        random.append(_covers(estimate_from_random_sample(human, judge, production(prevalence)), prevalence))
        try:
            shifted.append(_covers(estimate_under_label_shift(human, judge, production(0.7)), 0.7))
        except InputError:
            assert n < 1000  # too few rejects, or rates that look like chance

    assert np.mean(random) >= COVERED
    assert np.mean(shifted) >= COVERED


@pytest.mark.slow
@pytest.mark.parametrize("n", [50, 200, 1000])
@pytest.mark.parametrize("prevalence", [0.5, 0.9])
def test_both_intervals_cover_from_active_samples(n: int, prevalence: float) -> None:
    """n labels of 10 n records, the unsure ones more often; the judge is right as often as it says."""
    rng, levels = np.random.default_rng(n), np.linspace(0.5, 0.98, 9)

    def population(size: int, share: float) -> tuple[Floats, Floats, Floats]:
        human, confidence = (rng.random(size) < share).astype(np.float64), rng.choice(levels, size)
        return human, np.where(rng.random(size) < confidence, human, 1 - human), confidence

    random, shifted = [], []
    for _ in range(N_SAMPLES):
        human, judge, confidence = population(10 * n, prevalence)
        probabilities = sampling_probabilities(1 - confidence, n)
        drawn = draw_sample(probabilities, seed=int(rng.integers(1 << 31)))
        labels, weights = (human[drawn], judge[drawn]), 1 / probabilities[drawn]
        production = population(2000, prevalence)[1]
        random.append(_covers(estimate_from_random_sample(*labels, production, weights=weights), prevalence))
        try:
            estimate = estimate_under_label_shift(*labels, population(2000, 0.7)[1], weights=weights)
        except InputError:
            assert n < 1000
        else:
            shifted.append(_covers(estimate, 0.7))

    assert np.mean(random) >= COVERED
    assert np.mean(shifted) >= COVERED


def _covers(estimate: RateEstimate, truth: float) -> bool:
    return estimate.ci_low <= truth <= estimate.ci_high


def draw(
    rng: np.random.Generator, share: float, groups: npt.NDArray[np.int64], is_shared: npt.NDArray[np.bool_]
) -> npt.NDArray[np.bool_]:
    """Outcomes of which a group's members share some."""
    return np.where(is_shared, rng.random(groups.max() + 1)[groups], rng.random(len(groups))) < share


@pytest.mark.slow
@pytest.mark.parametrize(
    ("n", "group_size", "is_weighted"), [(100, 4, False), (100, 4, True), (60, 1, True), (200, 4, True)]
)
def test_intervals_of_groups_and_weights_cover(n: int, group_size: int, *, is_weighted: bool) -> None:
    """People accept 85 %, the judge errs on 15 %; members of a group share both nine times in ten. 500 samples each."""
    estimators = (estimate_from_random_sample, estimate_under_label_shift)
    covered: list[list[bool]] = [[], []]
    for seed in range(500):
        rng = np.random.default_rng([n, group_size, seed])
        groups = np.repeat(np.arange(n // group_size), group_size)
        is_shared = rng.random(n // group_size)[groups] < (0.9 if group_size > 1 else 0)

        human, is_wrong = (draw(rng, share, groups, is_shared) for share in (0.85, 0.15))
        weights = np.where(rng.random(n) < 0.8, 1.0, 6.0) if is_weighted else None
        others = rng.random(2000) < 0.85
        judged = others ^ (rng.random(2000) < 0.15)
        for estimate, hits in zip(estimators, covered, strict=True):
            try:
                found = estimate(human, human ^ is_wrong, judged, groups, weights=weights)
            except InputError:  # too few rejects
                continue
            hits.append(found.ci_low <= 0.85 <= found.ci_high)
    # the standard error is 0.011 at 0.935
    assert min(np.mean(hits) for hits in covered) >= 0.915
