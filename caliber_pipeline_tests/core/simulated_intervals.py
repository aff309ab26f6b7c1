"""Simulations of the intervals of a judge's figures: what they cover, and how wide they are beside those of others."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from caliber_pipeline.core.agreement import Floats, point_metrics
from caliber_pipeline.core.intervals import CellSample, Interval, metric_intervals
from caliber_pipeline.core.planning import sampling_probabilities

SIZES: Final = (50, 200, 1000)
PREVALENCES: Final = (0.5, 0.9)
WEAK: Final = (0.75, 0.65)
NEXT_TO_PERFECT: Final = (0.99, 0.99)
# Recall and specificity of judges: one that knows nothing, a weak, a good, an excellent and a next to perfect one.
RATES: Final = ((0.5, 0.5), WEAK, (0.9, 0.8), (0.97, 0.95), NEXT_TO_PERFECT)
# Sizes of groups, drawn evenly; None for an active sample of single records.
UNITS: Final = {"weighted": None, "groups": (1, 2, 3), "unequal groups": (1, 1, 2, 3, 10)}

COVERED: Final = 0.935  # of 4,000 samples, by ours; a rival that covers less may be narrower
MAX_WIDTH_RATIO: Final = 1.15
N_SAMPLES: Final = 1500  # in a test; the command `benchmarks.intervals` draws 4,000
# By which ours may cover less in a test, and a rival has to cover more to count: at 0.925 an interval that covers 90 %
# passes in one design of 2,000, one that covers 94 % in all but one of 100.
MARGIN: Final = 0.01

_N_DRAWS: Final = 1000
_SMOOTH: Final = ("f1_score", "balanced_accuracy", "mcc", "cohen_kappa", "gwet_ac1", "bias")
_BOUNDED: Final = ("lift", "majority_baseline")


class Tally:
    """Share of samples covered and mean width, by figure."""

    def __init__(self) -> None:
        self.samples: Counter[str] = Counter()
        self.covered: Counter[str] = Counter()
        self.width: defaultdict[str, float] = defaultdict(float)

    def add(self, name: str, interval: Interval, truth: float, count: int) -> None:
        if not np.isnan(interval).any():
            self.samples[name] += count
            self.covered[name] += count * bool(interval[0] - 1e-12 <= truth <= interval[1] + 1e-12)
            self.width[name] += count * (interval[1] - interval[0])

    @property
    def coverage(self) -> dict[str, float]:
        return {name: self.covered[name] / n for name, n in self.samples.items()}

    def mean_width(self, name: str) -> float:
        return self.width[name] / self.samples[name]


@dataclass(frozen=True)
class Simulation:
    """What intervals of one design did: ours, and those of each rival."""

    ours: Tally
    rivals: Mapping[str, Tally]

    def undercovered(self, least: float) -> dict[str, float]:
        return {name: share for name, share in self.ours.coverage.items() if share < least}


def width_ratios(*simulations: Simulation, covered: float) -> dict[tuple[str, str], float]:
    """How many times wider ours are than a rival's, at most, by rival and figure.

    A rival counts where it covers as much in all of the simulations: one chooses an interval before the data.
    """
    ratios = {}
    for rival in simulations[0].rivals:
        tallies = [simulation.rivals[rival] for simulation in simulations]
        for name in tallies[0].samples:
            if min(tally.coverage[name] for tally in tallies) >= covered:
                pairs = zip(simulations, tallies, strict=True)
                ratios[rival, name] = max(each.ours.mean_width(name) / their.mean_width(name) for each, their in pairs)
    return ratios


def simulate_records(n: int, prevalence: float, rates: tuple[float, float], n_samples: int) -> Simulation:
    """Samples of n independent records.

    Beside a judge that is next to perfect rivals cover by luck only, as they are points wherever no record is
    misjudged: there are none then.
    """
    shares = _shares(prevalence, rates)
    truths = _truths(shares)
    samples = np.random.default_rng(n).multinomial(n, shares, size=n_samples)
    distinct, counts = np.unique(samples, axis=0, return_counts=True)
    ours, rivals = Tally(), defaultdict[str, Tally](Tally)
    for seed, (cells, count) in enumerate(zip(distinct.astype(np.float64), counts.tolist(), strict=True)):
        for name, interval in metric_intervals(CellSample.from_counts(cells), seed=seed, n_draws=_N_DRAWS).items():
            ours.add(name, interval, truths[name], count)
        if rates != NEXT_TO_PERFECT:
            for rival, name, interval in _rivals_over_records(cells, np.random.default_rng(seed)):
                rivals[rival].add(name, interval, truths[name], count)
    return Simulation(ours, rivals)


def simulate_units(n: int, prevalence: float, sizes: tuple[int, ...] | None, n_samples: int) -> Simulation:
    """Samples of about n records in groups of these sizes, or of weighted ones."""
    rng = np.random.default_rng(n)
    if sizes is None:
        shares, samples = _weighted_samples(n, prevalence, n_samples, rng)
    else:
        shares, samples = _grouped_samples(n, prevalence, sizes, n_samples, rng)
    truths = _truths(shares)
    ours, rivals = Tally(), defaultdict[str, Tally](Tally)
    for seed, sample in enumerate(samples):
        for name, interval in metric_intervals(sample, seed=seed, n_draws=_N_DRAWS).items():
            ours.add(name, interval, truths[name], 1)
        for rival, name, interval in _rivals_over_units(sample, np.random.default_rng(seed)):
            rivals[rival].add(name, interval, truths[name], 1)
    return Simulation(ours, rivals)


def _shares(prevalence: float, rates: tuple[float, float]) -> Floats:
    recall, specificity = rates
    rejects = 1 - prevalence
    return np.array(
        [prevalence * recall, rejects * specificity, rejects * (1 - specificity), prevalence * (1 - recall)]
    )


def _truths(shares: Floats) -> dict[str, float]:
    truths = {name: float(value) for name, value in point_metrics(shares).items()}
    # kappa at prevalence 1/2 is TPR + TNR - 1
    return truths | {"standardised_kappa": 2 * truths["balanced_accuracy"] - 1}


def _weighted_samples(
    n: int, prevalence: float, n_samples: int, rng: np.random.Generator
) -> tuple[Floats, Iterator[CellSample]]:
    """Active samples of about n of 10 n records; the judge is right as often as it says, and mostly sure."""
    confidence, share = np.linspace(0.5, 1, 11), np.array([1, 1, 1, 1, 1, 2, 2, 3, 4, 6, 8]) / 30
    right = np.minimum(confidence, 0.98)
    kinds = share[:, None] * np.stack([_shares(prevalence, (rate, rate)) for rate in right])

    def samples() -> Iterator[CellSample]:
        for counts in rng.multinomial(10 * n, share, size=n_samples):
            probabilities = sampling_probabilities(np.repeat(1 - confidence, counts), n)
            chances = probabilities[np.cumsum(counts) - 1]
            drawn = rng.multinomial(rng.binomial(counts, chances), kinds / share[:, None])
            vectors = (np.eye(4) / chances[:, None, None]).reshape(-1, 4)
            is_there = drawn.ravel() > 0
            weight = drawn.sum() / (drawn.sum(axis=1) @ (1 / chances))
            yield CellSample(weight * vectors[is_there], drawn.ravel()[is_there].astype(float), is_simple=False)

    return np.asarray(kinds.sum(axis=0)), samples()


def _grouped_samples(
    n: int, prevalence: float, sizes: tuple[int, ...], n_samples: int, rng: np.random.Generator
) -> tuple[Floats, Iterator[CellSample]]:
    """About n records in groups whose members are alike: intra-class correlation 0.3 in each rate."""
    n_groups, alike, rates = round(n / float(np.mean(sizes))), 0.7 / 0.3, (0.85, 0.75)

    def rate(mean: float) -> Floats:
        return rng.beta(mean * alike, (1 - mean) * alike, size=(n_samples, n_groups))

    n_records = rng.choice(sizes, size=(n_samples, n_groups))
    accepted = rng.binomial(n_records, rate(prevalence))
    tp, tn = rng.binomial(accepted, rate(rates[0])), rng.binomial(n_records - accepted, rate(rates[1]))
    groups = np.stack([tp, tn, n_records - accepted - tn, accepted - tp], axis=-1).astype(np.float64)
    return _shares(prevalence, rates), (CellSample.from_units(vectors) for vectors in groups)


def _rivals_over_records(cells: Floats, rng: np.random.Generator) -> Iterator[tuple[str, str, Interval]]:
    """The intervals that others print: those of `_plain_rivals`, and the BCa bootstrap (Efron 1987)."""
    from scipy.special import ndtr, ndtri

    n = int(cells.sum())
    resampled = rng.multinomial(n, cells / n, size=1000)
    figures, draws = point_metrics(cells), point_metrics(resampled)
    yield from _plain_rivals(_SMOOTH, figures, draws)
    left_out = point_metrics(np.maximum(cells - np.eye(4), 0))
    for name, values in _known_draws(_SMOOTH, figures, draws):
        value = float(figures[name])
        below = (np.mean(values < value) + np.mean(values <= value)) / 2
        shift = ndtri(np.clip(below, 1e-3, 1 - 1e-3))
        jackknife = np.where(cells > 0, np.nan_to_num(left_out[name], nan=value), value)
        influence = (cells @ jackknife) / n - jackknife
        scale = 6 * (cells @ influence**2) ** 1.5
        skew = (cells @ influence**3) / scale if scale > 0 else 0.0
        reach = shift + ndtri([0.025, 0.975])
        yield "bca", name, _ends(values, ndtr(shift + reach / (1 - skew * reach)))


def _rivals_over_units(sample: CellSample, rng: np.random.Generator) -> Iterator[tuple[str, str, Interval]]:
    """What others print for groups and weights, from resampled units."""
    draws = point_metrics(rng.gamma(sample.multiplicities, size=(500, len(sample.vectors))) @ sample.vectors)
    names = [name for name in draws if name not in _BOUNDED]
    yield from _plain_rivals(names, point_metrics(sample.cells), draws)


def _plain_rivals(
    names: Sequence[str], figures: Mapping[str, Floats], draws: Mapping[str, Floats]
) -> Iterator[tuple[str, str, Interval]]:
    """The percentile bootstrap, and the normal interval with the spread of its draws."""
    for name, values in _known_draws(names, figures, draws):
        yield "percentile", name, _ends(values, np.array([0.025, 0.975]))
        value, spread = float(figures[name]), 1.96 * float(values.std())
        yield "normal", name, (value - spread, value + spread)


def _known_draws(
    names: Sequence[str], figures: Mapping[str, Floats], draws: Mapping[str, Floats]
) -> Iterator[tuple[str, Floats]]:
    """The draws of each figure in order, without those that leave it undefined, where these are few."""
    for name in names:
        values = np.sort(draws[name][~np.isnan(draws[name])])
        if not np.isnan(figures[name]) and len(values) >= 0.9 * len(draws[name]):
            yield name, values


def _ends(ordered: Floats, shares: Floats) -> Interval:
    """The nearest of the draws at two quantiles; `np.quantile` takes ten times as long."""
    low, high = ordered[np.rint(shares * (len(ordered) - 1)).astype(int)].tolist()
    return low, high
