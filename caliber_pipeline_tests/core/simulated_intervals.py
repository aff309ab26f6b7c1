"""What simulations of intervals share: the cells of a judge with known rates, and a tally of what was covered."""

from collections import Counter, defaultdict

import numpy as np

from caliber_pipeline.core.agreement import Floats

SIZES = [50, 200, 1000]


def shares_of(prevalence: float, rates: tuple[float, float]) -> Floats:
    recall, specificity = rates
    rejects = 1 - prevalence
    return np.array(
        [prevalence * recall, rejects * specificity, rejects * (1 - specificity), prevalence * (1 - recall)]
    )


class Tally:
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
