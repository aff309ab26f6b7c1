"""Simulated coverage and width of the intervals over groups and weighted records."""

from collections.abc import Iterator

import numpy as np
import pytest

from caliber_pipeline.core.agreement import Floats, point_metrics
from caliber_pipeline.core.intervals import CellSample, metric_intervals
from caliber_pipeline.core.planning import sampling_probabilities
from caliber_pipeline_tests.core.simulated_intervals import SIZES, Tally, shares_of


def _weighted_samples(n: int, prevalence: float, rng: np.random.Generator) -> tuple[Floats, Iterator[CellSample]]:
    """Active samples of about n of 10 n records; the judge is right as often as it says, and mostly sure."""
    confidence, share = np.linspace(0.5, 1, 11), np.array([1, 1, 1, 1, 1, 2, 2, 3, 4, 6, 8]) / 30
    right = np.minimum(confidence, 0.98)
    kinds = share[:, None] * np.stack([shares_of(prevalence, (rate, rate)) for rate in right])

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
    return shares_of(prevalence, rates), (CellSample.from_units(vectors) for vectors in groups)


def _unit_rivals(sample: CellSample, rng: np.random.Generator) -> Iterator[tuple[str, str, tuple[float, float]]]:
    """What others print for groups and weights: percentiles of resampled units, and the normal interval."""
    draws = point_metrics(rng.gamma(sample.multiplicities, size=(500, len(sample.vectors))) @ sample.vectors)
    figures = point_metrics(sample.cells)
    for name in draws.keys() - {"lift", "majority_baseline"}:
        if not np.isnan(figures[name]):
            values, value = draws[name][~np.isnan(draws[name])], float(figures[name])
            low, high = np.quantile(values, (0.025, 0.975))
            spread = 1.96 * float(values.std())
            yield "percentile", name, (float(low), float(high))
            yield "normal", name, (value - spread, value + spread)


@pytest.mark.slow
@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("sizes", [None, (1, 2, 3), (1, 1, 2, 3, 10)], ids=["weighted", "groups", "unequal groups"])
def test_intervals_over_weights_and_groups_cover_and_are_narrow(n: int, sizes: tuple[int, ...] | None) -> None:
    """4,000 samples each at prevalence 0.5 and 0.9; a rival counts where it covers at both: one chooses before."""
    ours: dict[float, Tally] = {}
    rivals: dict[tuple[str, float], Tally] = {}
    for prevalence in (0.5, 0.9):
        rng, tally = np.random.default_rng(n), Tally()
        shares, samples = (
            _weighted_samples(n, prevalence, rng) if sizes is None else _grouped_samples(n, prevalence, sizes, rng)
        )
        truths = {name: float(value) for name, value in point_metrics(shares).items()}
        for seed, sample in enumerate(samples):
            for name, interval in metric_intervals(sample, seed=seed, n_draws=1000).items():
                if name in truths:
                    tally.add(name, interval, truths[name], 1)
            for rival, name, interval in _unit_rivals(sample, np.random.default_rng(seed)):
                rivals.setdefault((rival, prevalence), Tally()).add(name, interval, truths[name], 1)
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
