"""Simulated coverage and width of the intervals over groups and weighted records."""

import pytest

from caliber_pipeline_tests.core.simulated_intervals import (
    COVERED,
    MARGIN,
    MAX_WIDTH_RATIO,
    N_SAMPLES,
    PREVALENCES,
    UNITS,
    simulate_units,
    width_ratios,
)

# Every kind and every size, most where units are few; the command `benchmarks.intervals` has all pairs.
DESIGNS = [("weighted", 50), ("unequal groups", 50), ("weighted", 200), ("groups", 200), ("unequal groups", 1000)]


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "n"), DESIGNS)
def test_intervals_over_weights_and_groups_cover_and_are_narrow(kind: str, n: int) -> None:
    """What an interval that covers too little gets away with is worked out in `test_interval_coverage`."""
    simulations = [simulate_units(n, prevalence, UNITS[kind], N_SAMPLES) for prevalence in PREVALENCES]

    assert [simulation.undercovered(COVERED - MARGIN) for simulation in simulations] == [{}, {}]
    ratios = width_ratios(*simulations, covered=COVERED + MARGIN)
    assert {key: ratio for key, ratio in ratios.items() if ratio > MAX_WIDTH_RATIO} == {}
