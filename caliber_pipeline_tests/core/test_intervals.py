import numpy as np
import pytest

from caliber_pipeline.core.agreement import point_metrics
from caliber_pipeline.core.intervals import (
    CellSample,
    degrees_of_freedom,
    draw_cells,
    expanded_tail,
    jeffreys_interval,
    metric_intervals,
    paired_difference_interval,
    percentiles,
    proportion_interval,
    satterthwaite,
)
from caliber_pipeline_tests.core.simulated_intervals import SIZES


def test_a_proportion_interval_holds_jeffreys_and_wilsons_with_a_t_for_its_z() -> None:
    proportion = pytest.importorskip("statsmodels.stats.proportion")
    hits, n = np.arange(1, 50), 50

    low, high = proportion_interval(hits, n)

    # t at 0.025 with 53 degrees of freedom is -2.005745995, the normal quantile of 0.0224416776
    wilson = proportion.proportion_confint(hits, n, alpha=2 * 0.0224416776, method="wilson")
    jeffreys = proportion.proportion_confint(hits, n, method="jeffreys")
    inner = slice(2, -2)  # of 3 to 47 hits; the others have an end of their own
    np.testing.assert_allclose(low[inner], np.minimum(wilson[0], jeffreys[0])[inner], atol=1e-8)
    np.testing.assert_allclose(high[inner], np.maximum(wilson[1], jeffreys[1])[inner], atol=1e-8)


def test_after_one_hit_the_lower_end_is_the_poisson_bound() -> None:
    # No hit has the probability 0.95 at a mean of -log(0.95) = 0.0512933, of 50 records.
    assert float(proportion_interval(1, 50)[0]) == pytest.approx(0.0512933 / 50, abs=1e-8)
    assert float(proportion_interval(49, 50)[1]) == pytest.approx(1 - 0.0512933 / 50, abs=1e-8)


@pytest.mark.parametrize("n", SIZES)
def test_proportion_intervals_cover_at_every_proportion(n: int) -> None:
    """Exact, by the binomial probabilities of all outcomes; the widths against Wilson's, the narrowest in use."""
    from scipy.stats import binom

    proportion = pytest.importorskip("statsmodels.stats.proportion")
    rare = np.geomspace(1e-5, 0.01, 100)
    truths, hits = np.concatenate([rare, np.linspace(0.01, 0.99, 197), 1 - rare])[:, None], np.arange(n + 1)
    weights = binom.pmf(hits, n, truths)
    low, high = proportion_interval(hits, n)
    wilson_low, wilson_high = proportion.proportion_confint(hits, n, method="wilson")

    coverage = (weights * ((low <= truths) & (truths <= high))).sum(axis=1)
    widening = (weights @ (high - low)) / (weights @ (wilson_high - wilson_low))

    assert coverage.min() >= 0.939
    assert widening.max() <= 1.055


def test_paired_difference_of_a_worked_example() -> None:
    # 8 against 3 of 48: one more of each of 50 are 9 and 4, difference 0.1, variance (0.26 - 0.01) / 50 = 0.005,
    # half-width 1.959964 * 0.0707107 = 0.1385904.
    low, high = paired_difference_interval(8, 3, 48)

    assert float(low) == pytest.approx(0.1 - 0.1385904, abs=1e-6)
    assert float(high) == pytest.approx(0.1 + 0.1385904, abs=1e-6)


def test_an_empty_denominator_has_no_interval() -> None:
    assert np.isnan(proportion_interval(0, 0)).all()


def test_percentiles_are_read_further_out_where_units_are_few() -> None:
    # t at 0.025 with 19 degrees of freedom is -2.093024; times the root of 20/19 it is -2.147396, whose normal tail
    # probability is 0.01588.
    assert expanded_tail(20) == pytest.approx(0.01588, abs=1e-5)
    assert expanded_tail(1e9) == pytest.approx(0.025, abs=1e-6)


def test_single_records_as_groups_give_what_the_counts_give() -> None:
    counts = np.array([20, 15, 5, 10])
    by_groups = CellSample.from_units(np.repeat(np.eye(4), counts, axis=0))

    assert by_groups.design_effect == pytest.approx(1.0, abs=1e-12)
    assert by_groups.n_effective_units == pytest.approx(50)
    assert by_groups.cells.tolist() == counts.tolist()
    draws = [
        draw_cells(sample, rng=np.random.default_rng(1))[0] for sample in (by_groups, CellSample.from_counts(counts))
    ]
    spreads = [np.std(point_metrics(draw)["cohen_kappa"]) for draw in draws]
    assert spreads[0] == pytest.approx(spreads[1], rel=0.05)


def test_groups_of_copies_count_once() -> None:
    # Each of 50 records is there four times: the interval must be as wide as that of 50 records, not of 200.
    singles = np.repeat(np.eye(4), [20, 15, 5, 10], axis=0)
    copies = CellSample.from_units(4 * singles)

    assert copies.design_effect == pytest.approx(4.0, abs=1e-12)
    low, high = metric_intervals(copies)["cohen_kappa"]
    single_low, single_high = metric_intervals(CellSample.from_counts([20, 15, 5, 10]))["cohen_kappa"]
    assert high - low == pytest.approx(single_high - single_low, rel=0.02)


def test_cost_does_not_grow_with_groups_of_many_kinds() -> None:
    """Above 2,000 distinct groups the sums come from their normal limit, which must spread as the draws do."""
    rng = np.random.default_rng(0)
    groups = rng.poisson([8, 5, 2, 2], size=(1900, 4)).astype(np.float64)
    more = np.concatenate([groups, groups + np.eye(4)[0] * 1e-9])  # the same, but 3,800 distinct ones

    few = metric_intervals(CellSample.from_units(np.concatenate([groups, groups])))
    many = metric_intervals(CellSample.from_units(more))

    assert many["cohen_kappa"] == pytest.approx(few["cohen_kappa"], abs=3e-3)


def test_few_units_are_drawn_by_their_own_law_and_not_by_its_normal_limit() -> None:
    from scipy.stats import gamma

    # one record and half a record of the prior: Gamma(1) + Gamma(1/2) = Gamma(3/2), skewed to the right
    draws = draw_cells(CellSample.from_counts([1, 0, 0, 0]), rng=np.random.default_rng(0))[0, :, 0]
    for place in (0.1, 0.5, 2.0):
        assert np.mean(draws < place) == pytest.approx(gamma.cdf(place, 1.5), abs=0.02)


def test_the_normal_limit_draws_no_negative_cell() -> None:
    rng = np.random.default_rng(0)
    rare = np.zeros(2_500)
    rare[0] = 30.0  # the only group with a false negative, so that its normal limit reaches below 0
    vectors = np.column_stack([rng.random((2_500, 3)), rare])
    draws = draw_cells(CellSample.from_units(vectors), rng=rng)
    assert (draws > 0).all()


def test_percentiles_are_read_as_far_out_as_the_figure_s_freedom_demands() -> None:
    # three heavy units among forty light ones: little is known of the spread, however many units there are
    sample = CellSample.from_units(np.vstack([np.repeat(np.eye(4), [20, 15, 3, 2], axis=0), 12 * np.eye(4)[:3]]))
    smoothed = sample.cells + 0.5 * sample.design_effect
    freedom = degrees_of_freedom(sample.vectors, sample.multiplicities, smoothed, point_metrics)["mcc"]
    assert freedom + 1 < sample.n_effective_units
    draws = point_metrics(draw_cells(sample, rng=np.random.default_rng(0)))["mcc"]
    assert metric_intervals(sample)["mcc"] == pytest.approx(percentiles(draws, expanded_tail(freedom + 1)))


def test_a_heavy_unit_leaves_few_degrees_of_freedom() -> None:
    # Squares 1, 1 and 4: variance 6, whose estimate varies by 18 - 6 ** 2 / 3 = 6; 2 * 6 ** 2 / 6 = 12.
    assert satterthwaite(np.array([1.0, 4.0]), np.array([2.0, 1.0])) == pytest.approx(12)
    assert satterthwaite(np.array([1.0]), np.array([5.0])) == np.inf  # nothing shows that the estimate varies


def test_the_majority_baseline_is_never_under_a_half() -> None:
    low, high = metric_intervals(CellSample.from_counts([25, 25, 25, 25]))["majority_baseline"]
    assert low == 0.5
    assert high == pytest.approx(float(proportion_interval(50, 100)[1]))


def test_lift_is_bounded_by_the_smaller_of_two_gains() -> None:
    # Against always rejecting the judge wins 40 and loses 10 of 100, against always accepting 20 and 30. Three quarters
    # of the error of 5 % go to each: at a tie either upper end may miss.
    won, lost = (paired_difference_interval(*pair, 100, confidence=0.9625) for pair in ((40, 10), (20, 30)))
    low, high = metric_intervals(CellSample.from_counts([40, 20, 10, 30]))["lift"]
    assert (low, high) == pytest.approx((float(lost[0]), float(lost[1])))
    assert high < float(won[0])


def test_undefined_figures_have_no_interval() -> None:
    intervals = metric_intervals(CellSample.from_counts([5, 0, 0, 0]))

    assert np.isnan(intervals["cohen_kappa"]).all()
    assert np.isnan(intervals["standardised_kappa"]).all()
    assert intervals["accuracy"][1] == 1


def test_no_hit_and_no_miss_leave_their_end_open() -> None:
    # Brown, Cai & DasGupta (2001) set the end to 0 or 1, where the posterior's tail would leave it out
    assert float(jeffreys_interval(0, 50)[0]) == 0
    assert float(jeffreys_interval(50, 50)[1]) == 1


@pytest.mark.parametrize("cells", [(25, 25, 0, 0), (0, 0, 25, 25), (50, 0, 0, 0), (1, 1, 0, 0), (0, 3, 0, 1)])
def test_an_interval_reaches_to_its_figure_where_that_is_perfect(cells: tuple[int, int, int, int]) -> None:
    units = np.repeat(np.eye(4), cells, axis=0)
    groups = CellSample.from_units(units * np.linspace(1, 2, len(units))[:, None])
    for sample in (CellSample.from_counts(cells), groups):
        values, intervals = point_metrics(sample.cells), metric_intervals(sample)
        known = {name: float(value) for name, value in values.items() if not np.isnan(value)}
        assert all(intervals[name][0] <= value <= intervals[name][1] for name, value in known.items())
