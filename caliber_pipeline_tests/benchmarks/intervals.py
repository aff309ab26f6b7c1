"""What the intervals of a judge's figures cover in simulated samples, and how wide they are beside common ones.

python -m caliber_pipeline_tests.benchmarks.intervals [SAMPLES]

The designs are those of the tests and those that these leave out, with 4,000 samples each instead of 1,500.
"""

import sys
from itertools import product

from caliber_pipeline_tests.core.simulated_intervals import (
    COVERED,
    PREVALENCES,
    RATES,
    SIZES,
    UNITS,
    Simulation,
    simulate_records,
    simulate_units,
    width_ratios,
)


def show(design: str, *simulations: Simulation) -> None:
    """One line: the interval that covers least, and the one that is widest beside a rival's that covers."""
    least, name = min((share, name) for each in simulations for name, share in each.ours.coverage.items())
    ratios = sorted((ratio, key) for key, ratio in width_ratios(*simulations, covered=COVERED).items())
    widest = f"{ratios[-1][0]:.2f} ({' '.join(ratios[-1][1])})" if ratios else "no rival covers"
    print(f"{design:<46} {least:>7.1%} {name:<20} {widest}", flush=True)  # noqa: T201


def main() -> None:
    """Simulate and print."""
    n_samples = int(sys.argv[1]) if len(sys.argv) > 1 else 4000
    print(f"{'labels, prevalence, judge or units':<46} {'covered':>7} {'at least':<20} times as wide, at most")  # noqa: T201
    for n, prevalence, rates in product(SIZES, PREVALENCES, RATES):
        show(f"{n}, {prevalence}, recall and specificity {rates}", simulate_records(n, prevalence, rates, n_samples))
    for n, (kind, sizes) in product(SIZES, UNITS.items()):
        both = [simulate_units(n, prevalence, sizes, n_samples) for prevalence in PREVALENCES]
        show(f"{n}, {PREVALENCES}, {kind}", *both)


if __name__ == "__main__":
    main()
