"""Simulated coverage and width of the intervals over independent records."""

from collections.abc import Iterator

import numpy as np
import pytest

from caliber_pipeline.core.agreement import Floats, point_metrics
from caliber_pipeline.core.intervals import CellSample, metric_intervals
from caliber_pipeline_tests.core.simulated_intervals import SIZES, Tally, shares_of

NEXT_TO_PERFECT = (0.99, 0.99)
# Recall and specificity of judges: one that knows nothing, a weak, a good, an excellent and a next to perfect one.
RATES = [(0.5, 0.5), (0.75, 0.65), (0.9, 0.8), (0.97, 0.95), NEXT_TO_PERFECT]
PERCENTILES = {"f1_score", "balanced_accuracy", "mcc", "cohen_kappa", "gwet_ac1", "bias"}


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
    shares = shares_of(prevalence, rates)
    truths = {name: float(value) for name, value in point_metrics(shares).items()}
    truths["standardised_kappa"] = sum(rates) - 1  # kappa at prevalence 1/2 is TPR + TNR - 1
    samples = np.random.default_rng(n).multinomial(n, shares, size=4000)
    distinct, counts = np.unique(samples, axis=0, return_counts=True)
    ours, rivals = Tally(), {name: Tally() for name in ("percentile", "normal", "bca")}
    for seed, (cells, count) in enumerate(zip(distinct.astype(np.float64), counts.tolist(), strict=True)):
        for name, interval in metric_intervals(CellSample.from_counts(cells), seed=seed, n_draws=1000).items():
            ours.add(name, interval, truths[name], count)
        if rates != NEXT_TO_PERFECT:
            for rival, name, interval in _rival_intervals(cells, np.random.default_rng(seed)):
                rivals[rival].add(name, interval, truths[name], count)

    coverage = {name: ours.coverage(name) for name in truths}
    assert {name: value for name, value in coverage.items() if value < 0.935} == {}
    widths = {
        (rival, name): ours.mean_width(name) / tally.mean_width(name)
        for rival, tally in rivals.items()
        for name in PERCENTILES
        if tally.samples[name] and tally.coverage(name) >= 0.935
    }
    assert {key: value for key, value in widths.items() if value > 1.15} == {}
