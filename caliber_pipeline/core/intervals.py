"""Intervals for the figures of `core.agreement`, each with the source of its formula.

Which method serves which figure was settled by simulation; the tests repeat it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Self, TypeAlias

import numpy as np
import numpy.typing as npt

from caliber_pipeline.core.agreement import Floats, kappa_from_rates, point_metrics, ratio

Interval: TypeAlias = tuple[float, float]

CONFIDENCE: Final = 0.95
N_DRAWS: Final = 4000  # the Monte Carlo error of a 2.5 % quantile is then 0.04 standard deviations of the figure
MAX_RARE: Final = 2  # hits up to which Brown, Cai & DasGupta (2001) take the lower end from Poisson's law
JEFFREYS: Final = 0.5  # pseudo-count per cell: without it an empty cell would be certain to stay empty
# Half a record for both kinds of error together: half a record for each would rule out a judge that is next to perfect.
PRIORS: Final = np.array([[JEFFREYS] * 4, [JEFFREYS, JEFFREYS, JEFFREYS / 2, JEFFREYS / 2]])
MAX_DISTINCT: Final = 2000  # with more distinct groups their sums are drawn from the normal limit
MIN_GROUPS: Final = 20  # below it the simulated coverage of the bootstrap over groups falls under 93 %
# Of the error goes to each part of lift, as at a tie either part's upper end may miss: for single records of weight 1,
# whose intervals are a little wide, and for groups and weights.
LIFT_ERROR_SHARES: Final = (0.75, 0.5)
GAINS: Final = {"over_rejecting": (0, 2), "over_accepting": (1, 3)}  # cells won and lost against a constant verdict
STANDARD_PREVALENCE: Final = 0.5  # where kappa is as high as the judge's rates allow

# Figures whose intervals over groups and weights cover by smoothing alone (simulated).
SMOOTHED_ENOUGH: Final = frozenset({"accuracy", "precision", "specificity", "bias"})

# Cells of the numerator and of the denominator, by index in CELLS.
PROPORTIONS: Final[Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]]] = {
    "accuracy": ((0, 1), (0, 1, 2, 3)),
    "precision": ((0,), (0, 2)),
    "recall": ((0,), (0, 3)),
    "specificity": ((1,), (1, 2)),
    "prevalence": ((0, 3), (0, 1, 2, 3)),
    "accept_rate": ((0, 2), (0, 1, 2, 3)),
}


@dataclass(frozen=True)
class CellSample:
    """The judged records as independent units: single records, or whole groups of records that belong together.

    Attributes:
        vectors: Shape (k, 4): the distinct units, each by its (weighted) counts in the order of `CELLS`.
        multiplicities: Shape (k,): how many units of each kind there are, all above 0.
        is_simple: Every unit is one record of weight 1, so that the four counts are all there is to know.
    """

    vectors: Floats
    multiplicities: Floats
    is_simple: bool

    @classmethod
    def from_counts(cls, counts: npt.ArrayLike) -> Self:
        """Independent records that weigh the same, from the four counts."""
        cells = np.asarray(counts, dtype=np.float64)
        return cls(np.eye(4)[cells > 0], cells[cells > 0], is_simple=True)

    @classmethod
    def from_units(cls, vectors: Floats) -> Self:
        """One vector per group (or per weighted record), equal ones merged."""
        filled = vectors[vectors.any(axis=1)]
        distinct, multiplicities = merge_rows(filled)
        return cls(distinct, multiplicities.astype(np.float64), is_simple=False)

    @property
    def cells(self) -> Floats:
        """The four (weighted) counts."""
        return np.asarray(self.multiplicities @ self.vectors, dtype=np.float64)

    @property
    def n_units(self) -> float:
        """How many independent units there are."""
        return float(self.multiplicities.sum())

    @property
    def n_effective_units(self) -> float:
        """Units of equal size that would carry as much: Kish's (sum of sizes) squared over the sum of squares."""
        sizes = self.vectors.sum(axis=1)
        return float((self.multiplicities @ sizes) ** 2 / (self.multiplicities @ sizes**2))

    @property
    def planned_effect(self) -> float:
        """The design effect to plan further labels with: that of single records at least.

        Groups that happen to be alike as wholes have an effect near 0, on which no later ones can be counted.
        """
        return max(self.design_effect, 1.0) if self.n_units else 1.0

    @property
    def design_effect(self) -> float:
        """Variance of the cell shares over that of as many single records, summed over the cells.

        Kish (1965), Survey Sampling, 8.2; where every record falls into one cell nothing shows how alike members of a
        group are, and they are taken to be copies.
        """
        cells, sizes = self.cells, self.vectors.sum(axis=1)
        total = cells.sum()
        shares = cells / total
        single = total * (1 - (shares**2).sum())
        if single <= 0:
            return float(self.multiplicities @ sizes**2 / total)
        deviations = self.vectors - sizes[:, None] * shares
        return float(self.multiplicities @ (deviations**2).sum(axis=1) / single)


def few_groups(n_groups: float) -> str | None:
    """The caution that goes with intervals of the bootstrap over so few groups; None over enough."""
    return f"only {n_groups:.0f} groups: the interval may be too narrow" if n_groups < MIN_GROUPS else None


def merge_rows(rows: Floats) -> tuple[Floats, npt.NDArray[np.int64]]:
    """The distinct rows, and how many of each there are."""
    order = np.lexsort(rows.T)
    ordered = rows[order]
    starts = np.append(True, (ordered[1:] != ordered[:-1]).any(axis=1))[: len(rows)]
    places = np.flatnonzero(starts)
    return ordered[places], np.diff(np.append(places, len(rows)))


def normal_quantile(confidence: float = CONFIDENCE) -> float:
    """The two-sided normal quantile, 1.96 at 0.95."""
    from scipy.special import ndtri

    return float(ndtri((1 + confidence) / 2))


def _score_interval(hits: Floats, total: Floats, z2: npt.ArrayLike) -> tuple[Floats, Floats]:
    """Score interval of a proportion: Wilson (1927), J. Am. Stat. Assoc. 22:209-212; NaN where n is 0."""
    share, z2 = ratio(hits, total), np.asarray(z2, dtype=np.float64)
    centre = (hits + z2 / 2) / (total + z2)
    half = np.sqrt(z2) * np.sqrt(total * share * (1 - share) + z2 / 4) / (total + z2)
    # The ends meet the value exactly at 0 and 1; rounding must not leave it outside.
    return np.minimum(np.maximum(centre - half, 0.0), share), np.maximum(np.minimum(centre + half, 1.0), share)


def jeffreys_interval(
    successes: npt.ArrayLike, n: npt.ArrayLike, *, confidence: float = CONFIDENCE
) -> tuple[Floats, Floats]:
    """Equal-tailed Beta(1/2, 1/2) posterior: Brown, Cai & DasGupta (2001), Stat. Sci. 16:101-133; NaN where n is 0."""
    from scipy.special import betaincinv

    tail = (1 - confidence) / 2
    hits, total = np.asarray(successes, dtype=np.float64), np.asarray(n, dtype=np.float64)
    low = np.where(hits <= 0, 0.0, betaincinv(hits + 0.5, total - hits + 0.5, tail))
    high = np.where(hits >= total, 1.0, betaincinv(hits + 0.5, total - hits + 0.5, 1 - tail))
    return np.where(total > 0, low, np.nan), np.where(total > 0, high, np.nan)


def proportion_interval(
    successes: npt.ArrayLike, n: npt.ArrayLike, *, confidence: float = CONFIDENCE
) -> tuple[Floats, Floats]:
    """Wilson's interval with a t for its z, widened to Jeffreys' ends where those lie outside.

    Wilson's and Jeffreys' alone have proportions at which the 95 % interval covers less than 90 % at n = 50; this one
    covers every proportion with at least 93.9 % at n >= 50, and is at most 6 % wider than Wilson's (computed exactly,
    see the tests). The t, as in Pan (2002), Comput. Stat. Data Anal. 40:143-157, has the degrees of
    freedom of n + 4 records, as many as Wilson's centre stands for. After few hits (or misses) the end next to them is
    the one-sided Poisson bound, by which Brown, Cai & DasGupta (2001) mend both where nearly none (or all) hit.
    """
    from scipy.special import gammaincinv, stdtrit

    hits, total = np.asarray(successes, dtype=np.float64), np.asarray(n, dtype=np.float64)
    wilson = _score_interval(hits, total, stdtrit(total + 3, (1 + confidence) / 2) ** 2)
    jeffreys = jeffreys_interval(hits, total, confidence=confidence)
    low, high = np.minimum(wilson[0], jeffreys[0]), np.maximum(wilson[1], jeffreys[1])
    few, many = (
        np.where((count > 0) & (count <= MAX_RARE), ratio(gammaincinv(count, 1 - confidence), total), 1.0)
        for count in (hits, total - hits)
    )
    return np.minimum(low, few), np.maximum(high, 1 - many)


def paired_difference_interval(
    first: npt.ArrayLike, second: npt.ArrayLike, n: npt.ArrayLike, *, confidence: float = CONFIDENCE
) -> tuple[Floats, Floats]:
    """Interval of (first - second) / n for two exclusive outcomes among n records.

    Bonett & Price (2012), J. Educ. Behav. Stat. 37:479-488: Wald's formula after adding one record of each outcome.
    Half a record of each (Agresti & Min, 2005) covers as little as 91 % where one of them is rare (simulated).
    """
    total = np.asarray(n, dtype=np.float64) + 2
    above = (np.asarray(first, dtype=np.float64) + 1) / total
    below = (np.asarray(second, dtype=np.float64) + 1) / total
    difference = above - below
    half = normal_quantile(confidence) * np.sqrt((above + below - difference**2) / total)
    return np.maximum(difference - half, -1.0), np.minimum(difference + half, 1.0)


def expanded_tail(n_units: float, confidence: float = CONFIDENCE) -> float:
    """The tail at which percentiles of a bootstrap over few units are read.

    Hesterberg (2015), Am. Stat. 69:371-386: the percentile interval is as narrow as a z interval with the biased
    variance; reading it at the tail of sqrt(n / (n - 1)) t widens it to what a t interval would be.
    """
    from scipy.special import ndtr, stdtrit

    freedom = max(n_units - 1, 1.0)
    return float(ndtr(np.sqrt((freedom + 1) / freedom) * stdtrit(freedom, (1 - confidence) / 2)))


def draw_cells(sample: CellSample, *, rng: np.random.Generator, n_draws: int = N_DRAWS) -> Floats:
    """Draws of the four cells: the Bayesian bootstrap over units, smoothed by a prior for the lower and the upper end.

    Rubin (1981), Ann. Stat. 9:130-134: instead of resampling, m equal units share a Gamma(m) weight. For lower ends the
    prior is Jeffreys', half a record per cell; for upper ends it has half a record for all errors. The design effect
    makes both heavier. Where every unit is one record this is the Dirichlet posterior of a multinomial. The cost grows
    with the number of distinct vectors, not with rows.

    Returns:
        Shape (2, n_draws, 4), positive, of arbitrary scale: for lower and for upper ends.
    """
    prior = sample.design_effect * rng.gamma(PRIORS[:, None], size=(2, n_draws, 4))
    return np.asarray(draw_sums(sample.vectors, sample.multiplicities, rng=rng, n_draws=n_draws) + prior)


def draw_sums(vectors: Floats, multiplicities: Floats, *, rng: np.random.Generator, n_draws: int = N_DRAWS) -> Floats:
    """Draws of the sums of vectors over units, shape (n_draws, m), from vectors of shape (k, m) and their counts."""
    if len(vectors) <= MAX_DISTINCT:
        return np.asarray(rng.gamma(multiplicities, size=(n_draws, len(vectors))) @ vectors)
    covariance = (vectors * multiplicities[:, None]).T @ vectors
    sums = rng.multivariate_normal(multiplicities @ vectors, covariance, size=n_draws, method="eigh")
    return np.maximum(sums, 0.0)


def metric_intervals(
    sample: CellSample, *, seed: int = 0, confidence: float = CONFIDENCE, n_draws: int = N_DRAWS
) -> dict[str, Interval]:
    """Intervals of all of `point_metrics` and of `standardised_kappa`; NaN where the figure is undefined.

    Independent records: `proportion_interval` for proportions, `paired_difference_interval` for bias and lift,
    percentiles of `draw_cells` for the rest. Groups and weights: percentiles of `draw_cells` for all, read as far out
    as the `degrees_of_freedom` of each figure demand.
    """
    cells = sample.cells
    draws = _figures(draw_cells(sample, rng=np.random.default_rng(seed), n_draws=n_draws))
    smoothed = cells + JEFFREYS * sample.design_effect
    freedoms = {} if sample.is_simple else degrees_of_freedom(sample.vectors, sample.multiplicities, smoothed, _figures)
    n_effective = sample.n_effective_units

    def interval(name: str, confidence: float = confidence) -> Interval:
        freedom = np.inf if name in SMOOTHED_ENOUGH else freedoms.get(name, np.inf)
        return percentiles(draws[name], expanded_tail(min(n_effective, freedom + 1), confidence))

    # Lift is the smaller of two gains, and bounds of both bound it; percentiles of the minimum itself cover 59 to 91 %
    # where people accept one half (simulated).
    narrowed = 1 - LIFT_ERROR_SHARES[not sample.is_simple] * (1 - confidence)
    intervals: dict[str, Interval] = {}
    if sample.is_simple:
        hits, totals = np.transpose([[cells[list(part)].sum() for part in parts] for parts in PROPORTIONS.values()])
        lows, highs = (ends.tolist() for ends in proportion_interval(hits, totals, confidence=confidence))
        intervals.update(zip(PROPORTIONS, zip(lows, highs, strict=True), strict=True))
        intervals["bias"] = _difference_interval(cells, (2, 3), confidence)
        gains = [_difference_interval(cells, pair, narrowed) for pair in GAINS.values()]
    else:
        gains = [interval(name, narrowed) for name in GAINS]
    intervals["lift"] = min(low for low, _ in gains), min(high for _, high in gains)
    composed = {*intervals, *GAINS, "majority_baseline"}
    intervals |= {name: interval(name) for name in draws if name not in composed}
    low, high = intervals["prevalence"]
    intervals["majority_baseline"] = (max(low, 1 - high, 0.5), max(high, 1 - low))
    return {
        name: _around(float(value), intervals[name]) for name, value in _figures(cells).items() if name in intervals
    }


def _difference_interval(cells: Floats, pair: tuple[int, int], confidence: float) -> Interval:
    """Of one cell's share less another's, among independent records."""
    first, second = cells[list(pair)]
    low, high = paired_difference_interval(first, second, cells.sum(), confidence=confidence)
    return float(low), float(high)


def _around(value: float, ends: Interval) -> Interval:
    """The ends, reaching to the value: draws are smoothed, and end short of a perfect figure; NaN without a value."""
    return (np.nan, np.nan) if np.isnan(value) else (min(ends[0], value), max(ends[1], value))


def _figures(cells: Floats) -> dict[str, Floats]:
    """All figures that have an interval, and the two gains whose smaller one is lift."""
    figures = point_metrics(cells)
    figures["standardised_kappa"] = kappa_from_rates(figures["recall"], figures["specificity"], STANDARD_PREVALENCE)
    with np.errstate(invalid="ignore"):  # without the only unit nothing is left
        gains = {name: (cells[..., won] - cells[..., lost]) / cells.sum(axis=-1) for name, (won, lost) in GAINS.items()}
    return figures | gains


def degrees_of_freedom(
    vectors: Floats, multiplicities: Floats, smoothed: Floats, figures: Callable[[Floats], Mapping[str, Floats]]
) -> dict[str, float]:
    """How many independent units each figure's variance is known from: `satterthwaite` of what leaving one out changes.

    Few heavy units, such as surely judged errors of an active sample, leave little to learn a spread from, however many
    units there are.

    Args:
        vectors: Shape (k, m): the distinct units.
        multiplicities: Shape (k,): how many of each there are.
        smoothed: Shape (m,): their sums and the prior's.
        figures: Computes the figures from sums.
    """
    whole, without = figures(smoothed), figures(smoothed - vectors)
    return {name: satterthwaite((without[name] - value) ** 2, multiplicities) for name, value in whole.items()}


def satterthwaite(squares: Floats, multiplicities: Floats) -> float:
    """Degrees of freedom of a variance that is a sum of squares.

    Satterthwaite (1946), Biometrics Bull. 2:110-114: twice the squared variance over the variance of its estimate.

    Args:
        squares: Shape (k,): the squared influence of each distinct unit.
        multiplicities: Shape (k,): how many of each there are.
    """
    variance = float(multiplicities @ squares)
    spread = float(multiplicities @ squares**2) - variance**2 / float(multiplicities.sum())
    return 2 * variance**2 / spread if spread > 0 else np.inf


def percentiles(values: Floats, tail: float) -> Interval:
    """The quantiles at both tails of values of shape (2, n): the first row's, the upper one raised to the second's."""
    low, high = np.quantile(values, (tail, 1 - tail), axis=-1)
    return float(low[0]), float(high.max())
