from collections import Counter, defaultdict
from collections.abc import Iterator

import numpy as np
import pytest

from caliber_pipeline.core.agreement import Floats, point_metrics
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
    wilson_interval,
)
from caliber_pipeline.core.planning import sampling_probabilities

SIZES = (50, 200, 1000)


def test_wilson_agrees_with_statsmodels() -> None:
    proportion = pytest.importorskip("statsmodels.stats.proportion")
    hits, n = np.array([0, 3, 25, 49, 50]), 50

    low, high = wilson_interval(hits, n)

    expected = proportion.proportion_confint(hits, n, method="wilson")
    np.testing.assert_allclose((low, high), expected, atol=1e-9)


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

    rare = np.geomspace(1e-5, 0.01, 100)
    truths, hits = np.concatenate([rare, np.linspace(0.01, 0.99, 197), 1 - rare])[:, None], np.arange(n + 1)
    weights = binom.pmf(hits, n, truths)
    low, high = proportion_interval(hits, n)
    wilson_low, wilson_high = wilson_interval(hits, n)

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


NEXT_TO_PERFECT = (0.99, 0.99)
# Recall and specificity of judges: one that knows nothing, a weak, a good, an excellent and a next to perfect one.
RATES = [(0.5, 0.5), (0.75, 0.65), (0.9, 0.8), (0.97, 0.95), NEXT_TO_PERFECT]
PERCENTILES = {"f1_score", "balanced_accuracy", "mcc", "cohen_kappa", "gwet_ac1", "bias"}


def _shares(prevalence: float, rates: tuple[float, float]) -> Floats:
    recall, specificity = rates
    rejects = 1 - prevalence
    return np.array(
        [prevalence * recall, rejects * specificity, rejects * (1 - specificity), prevalence * (1 - recall)]
    )


class _Tally:
    """Share of samples covered and mean width, by figure."""

    def __init__(self) -> None:
        self.samples: Counter[str] = Counter()
        self.covered: Counter[str] = Counter()
        self.width: defaultdict[str, float] = defaultdict(float)

    def add(self, name: str, interval: tuple[float, float], truth: float, count: int) -> None:
        if not np.isnan(interval).any():
            self.samples[name] += count
            self.covered[name] += count * bool(interval[0] - 1e-12 <= truth <= interval[1] + 1e-12)
            self.width[name] += count * (interval[1] - interval[0])

    def coverage(self, name: str) -> float:
        return self.covered[name] / self.samples[name]

    def mean_width(self, name: str) -> float:
        return self.width[name] / self.samples[name]


def _rival_intervals(cells: Floats, rng: np.random.Generator) -> Iterator[tuple[str, str, tuple[float, float]]]:
    """The intervals that others print: percentile and BCa bootstrap (Efron 1987) and the normal one with its spread."""
    from scipy.special import ndtr, ndtri

    n = int(cells.sum())
    figures = point_metrics(cells)
    draws = point_metrics(rng.multinomial(n, cells / n, size=1000))
    left_out = point_metrics(np.maximum(cells - np.eye(4), 0))
    for name in PERCENTILES:
        values, value = draws[name][~np.isnan(draws[name])], float(figures[name])
        if np.isnan(value) or len(values) < 900:
            continue
        yield "percentile", name, (float(np.quantile(values, 0.025)), float(np.quantile(values, 0.975)))
        spread = 1.96 * float(values.std())
        yield "normal", name, (value - spread, value + spread)
        below = (np.mean(values < value) + np.mean(values <= value)) / 2
        shift = ndtri(np.clip(below, 1e-3, 1 - 1e-3))
        jackknife = np.where(cells > 0, np.nan_to_num(left_out[name], nan=value), value)
        influence = (cells @ jackknife) / n - jackknife
        scale = 6 * (cells @ influence**2) ** 1.5
        skew = (cells @ influence**3) / scale if scale > 0 else 0.0
        reach = shift + ndtri([0.025, 0.975])
        low, high = np.quantile(values, ndtr(shift + reach / (1 - skew * reach)))
        yield "bca", name, (float(low), float(high))


@pytest.mark.slow
@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("prevalence", [0.5, 0.9])
@pytest.mark.parametrize("rates", RATES)
def test_intervals_cover_and_are_narrow(n: int, prevalence: float, rates: tuple[float, float]) -> None:
    """4,000 samples; no interval of a rival that covers as well may be narrower by more than the factor 1.15.

    With a judge that is next to perfect rivals cover by luck only: they are points wherever no record is misjudged.
    """
    shares = _shares(prevalence, rates)
    truths = {name: float(value) for name, value in point_metrics(shares).items()}
    truths["standardised_kappa"] = sum(rates) - 1  # kappa at prevalence 1/2 is TPR + TNR - 1
    samples = np.random.default_rng(n).multinomial(n, shares, size=4000)
    distinct, counts = np.unique(samples, axis=0, return_counts=True)
    ours, rivals = _Tally(), {name: _Tally() for name in ("percentile", "normal", "bca")}
    for seed, (cells, count) in enumerate(zip(distinct.astype(np.float64), counts.tolist(), strict=True)):
        for name, interval in metric_intervals(CellSample.from_counts(cells), seed=seed, n_draws=1000).items():
            ours.add(name, interval, truths[name], count)
        for rival, name, interval in _rival_intervals(cells, np.random.default_rng(seed)):
            rivals[rival].add(name, interval, truths[name], count)

    coverage = {name: ours.coverage(name) for name in truths}
    assert {name: value for name, value in coverage.items() if value < 0.935} == {}
    if rates == NEXT_TO_PERFECT:
        return
    widths = {
        (rival, name): ours.mean_width(name) / tally.mean_width(name)
        for rival, tally in rivals.items()
        for name in PERCENTILES
        if tally.coverage(name) >= 0.935
    }
    assert {key: value for key, value in widths.items() if value > 1.15} == {}


def _weighted_samples(n: int, prevalence: float, rng: np.random.Generator) -> tuple[Floats, Iterator[CellSample]]:
    """Active samples of about n of 10 n records; the judge is right as often as it says, and mostly sure."""
    confidence, share = np.linspace(0.5, 1, 11), np.array([1, 1, 1, 1, 1, 2, 2, 3, 4, 6, 8]) / 30
    right = np.minimum(confidence, 0.98)
    kinds = share[:, None] * np.stack([_shares(prevalence, (rate, rate)) for rate in right])

    def samples() -> Iterator[CellSample]:
        for counts in rng.multinomial(10 * n, share, size=4000):
            probabilities = sampling_probabilities(np.repeat(1 - confidence, counts), n)
            chances = probabilities[np.cumsum(counts) - 1]
            drawn = rng.multinomial(rng.binomial(counts, chances), kinds / share[:, None])
            vectors = (np.eye(4) / chances[:, None, None]).reshape(-1, 4)
            is_there = drawn.ravel() > 0
            weight = drawn.sum() / (drawn.sum(axis=1) @ (1 / chances))
            yield CellSample(weight * vectors[is_there], drawn.ravel()[is_there].astype(float), is_simple=False)

    return np.asarray(kinds.sum(axis=0)), samples()


def _grouped_samples(
    n: int, prevalence: float, sizes: tuple[int, ...], rng: np.random.Generator
) -> tuple[Floats, Iterator[CellSample]]:
    """About n records in groups whose members are alike: intra-class correlation 0.3 in each rate."""
    n_groups, alike, rates = round(n / float(np.mean(sizes))), 0.7 / 0.3, (0.85, 0.75)

    def rate(mean: float) -> Floats:
        return rng.beta(mean * alike, (1 - mean) * alike, size=(4000, n_groups))

    n_records = rng.choice(sizes, size=(4000, n_groups))
    accepted = rng.binomial(n_records, rate(prevalence))
    tp, tn = rng.binomial(accepted, rate(rates[0])), rng.binomial(n_records - accepted, rate(rates[1]))
    groups = np.stack([tp, tn, n_records - accepted - tn, accepted - tp], axis=-1).astype(np.float64)
    return _shares(prevalence, rates), (CellSample.from_units(vectors) for vectors in groups)


def _unit_rivals(sample: CellSample, rng: np.random.Generator) -> Iterator[tuple[str, str, tuple[float, float]]]:
    """What others print for groups and weights: percentiles of resampled units, and the normal interval."""
    draws = point_metrics(rng.gamma(sample.multiplicities, size=(500, len(sample.vectors))) @ sample.vectors)
    figures = point_metrics(sample.cells)
    for name in draws.keys() - {"lift", "majority_baseline"}:
        if not np.isnan(figures[name]):
            values, value = draws[name], float(figures[name])
            low, high = np.nanquantile(values, (0.025, 0.975))
            spread = 1.96 * float(np.nanstd(values))
            yield "percentile", name, (float(low), float(high))
            yield "normal", name, (value - spread, value + spread)


@pytest.mark.slow
@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("sizes", [None, (1, 2, 3), (1, 1, 2, 3, 10)], ids=["weighted", "groups", "unequal groups"])
def test_intervals_over_weights_and_groups_cover_and_are_narrow(n: int, sizes: tuple[int, ...] | None) -> None:
    """4,000 samples each at prevalence 0.5 and 0.9; a rival counts where it covers at both: one chooses before."""
    ours: dict[float, _Tally] = {}
    rivals: dict[tuple[str, float], _Tally] = {}
    for prevalence in (0.5, 0.9):
        rng, tally = np.random.default_rng(n), _Tally()
        shares, samples = (
            _weighted_samples(n, prevalence, rng) if sizes is None else _grouped_samples(n, prevalence, sizes, rng)
        )
        truths = {name: float(value) for name, value in point_metrics(shares).items()}
        for seed, sample in enumerate(samples):
            for name, interval in metric_intervals(sample, seed=seed, n_draws=1000).items():
                if name in truths:
                    tally.add(name, interval, truths[name], 1)
            for rival, name, interval in _unit_rivals(sample, np.random.default_rng(seed)):
                rivals.setdefault((rival, prevalence), _Tally()).add(name, interval, truths[name], 1)
        ours[prevalence] = tally
        assert {name: tally.coverage(name) for name in truths if tally.coverage(name) < 0.935} == {}

    for rival in ("percentile", "normal"):
        both = [rivals[rival, prevalence] for prevalence in ours]
        covering = [name for name in both[0].samples if min(tally.coverage(name) for tally in both) >= 0.935]
        wider = {
            (rival, name, prevalence): ours[prevalence].mean_width(name) / tally.mean_width(name)
            for name in covering
            for prevalence, tally in zip(ours, both, strict=True)
        }
        assert {key: value for key, value in wider.items() if value > 1.15} == {}


@pytest.mark.parametrize("cells", [(25, 25, 0, 0), (0, 0, 25, 25), (50, 0, 0, 0), (1, 1, 0, 0), (0, 3, 0, 1)])
def test_an_interval_reaches_to_its_figure_where_that_is_perfect(cells: tuple[int, int, int, int]) -> None:
    units = np.repeat(np.eye(4), cells, axis=0)
    groups = CellSample.from_units(units * np.linspace(1, 2, len(units))[:, None])
    for sample in (CellSample.from_counts(cells), groups):
        values, intervals = point_metrics(sample.cells), metric_intervals(sample)
        known = {name: float(value) for name, value in values.items() if not np.isnan(value)}
        assert all(intervals[name][0] <= value <= intervals[name][1] for name, value in known.items())
