"""Simulated coverage and width of the intervals over independent records."""

import math

import pytest

from caliber_pipeline_tests.core.simulated_intervals import (
    COVERED,
    MARGIN,
    MAX_WIDTH_RATIO,
    N_SAMPLES,
    PREVALENCES,
    RATES,
    SIZES,
    WEAK,
    simulate_records,
    width_ratios,
)


def test_an_interval_that_covers_nine_in_ten_hardly_ever_passes() -> None:
    from scipy.stats import binom

    n_needed = math.ceil((COVERED - MARGIN) * N_SAMPLES)

    assert binom.sf(n_needed - 1, N_SAMPLES, 0.90) < 1 / 2000
    assert binom.cdf(n_needed - 1, N_SAMPLES, 0.94) < 1 / 100


@pytest.mark.slow
@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("prevalence", PREVALENCES)
@pytest.mark.parametrize("rates", [rates for rates in RATES if rates != WEAK])
def test_intervals_cover_and_are_narrow(n: int, prevalence: float, rates: tuple[float, float]) -> None:
    """No interval of a rival that covers as well may be narrower by more than the factor 1.15.

    A weak judge lies between two that are here; the command `benchmarks.intervals` has it, too.
    """
    simulation = simulate_records(n, prevalence, rates, N_SAMPLES)

    assert simulation.undercovered(COVERED - MARGIN) == {}
    ratios = width_ratios(simulation, covered=COVERED + MARGIN)
    assert {key: ratio for key, ratio in ratios.items() if ratio > MAX_WIDTH_RATIO} == {}
