"""Intervals at 95 % (or another level) for the figures of `core.agreement`, each with the source of its formula."""

from collections.abc import Mapping
from typing import Final

import numpy as np
import numpy.typing as npt

from caliber_pipeline.core.agreement import Floats, point_metrics, ratio

CONFIDENCE: Final = 0.95
N_DRAWS: Final = 4000  # the Monte Carlo error of a 2.5 % quantile is then under 0.1 standard deviations
PRIOR: Final = 0.5  # Jeffreys' pseudo-count per cell: without it an empty cell would be certain to stay empty
MAX_DISTINCT: Final = 2000  # above it the sums over groups are drawn from their normal limit


def normal_quantile(confidence: float = CONFIDENCE) -> float:
    """The two-sided normal quantile, 1.96 at 0.95."""
    from scipy.special import ndtri

    return float(ndtri((1 + confidence) / 2))


def wilson_interval(
    successes: npt.ArrayLike, n: npt.ArrayLike, *, confidence: float = CONFIDENCE
) -> tuple[Floats, Floats]:
    """Score interval of a proportion: Wilson (1927), J. Am. Stat. Assoc. 22:209-212; NaN where n is 0."""
    z2 = normal_quantile(confidence) ** 2
    hits, total = np.asarray(successes, dtype=np.float64), np.asarray(n, dtype=np.float64)
    share = ratio(hits, total)
    centre = (hits + z2 / 2) / (total + z2)
    half = np.sqrt(z2) * np.sqrt(total * share * (1 - share) + z2 / 4) / (total + z2)
    # The ends meet the value exactly at 0 and 1; rounding must not leave it outside.
    return np.minimum(np.maximum(centre - half, 0.0), share), np.maximum(np.minimum(centre + half, 1.0), share)


def draw_cells(vectors: Floats, multiplicities: Floats, *, rng: np.random.Generator, n_draws: int = N_DRAWS) -> Floats:
    """Draws of the four cells: the Bayesian bootstrap over groups, smoothed by Jeffreys' prior.

    Rubin (1981), Ann. Stat. 9:130-134: instead of resampling m equal groups, give them a Gamma(m) weight. The four
    pseudo-groups of the prior weigh half a group of mean size each. Where every group is one record this is the
    Dirichlet posterior of a multinomial. The cost grows with the number of distinct vectors, not with rows.

    Args:
        vectors: Shape (k, 4): distinct cell vectors of groups.
        multiplicities: Shape (k,): how many groups have each.
        rng: The source of randomness.
        n_draws: How many draws.

    Returns:
        Shape (n_draws, 4), positive, of arbitrary scale.
    """
    group_size = float(multiplicities @ vectors.sum(axis=1) / multiplicities.sum())
    prior = group_size * rng.gamma(PRIOR, size=(n_draws, 4))
    if len(vectors) <= MAX_DISTINCT:
        return np.asarray(rng.gamma(multiplicities, size=(n_draws, len(multiplicities))) @ vectors + prior)
    mean = multiplicities @ vectors
    covariance = (vectors * multiplicities[:, None]).T @ vectors
    sums = rng.multivariate_normal(mean, covariance, size=n_draws, method="eigh")
    return np.asarray(np.maximum(sums, 0.0) + prior)


def bootstrap_intervals(
    vectors: Floats,
    multiplicities: Floats,
    *,
    seed: int,
    confidence: float = CONFIDENCE,
    n_draws: int = N_DRAWS,
) -> Mapping[str, tuple[float, float]]:
    """Intervals of all point metrics from `draw_cells`; the arguments are the same."""
    draws = draw_cells(vectors, multiplicities, rng=np.random.default_rng(seed), n_draws=n_draws)
    tails = ((1 - confidence) / 2, (1 + confidence) / 2)
    intervals = {}
    for name, values in point_metrics(draws).items():
        low, high = np.quantile(values, tails)
        intervals[name] = (float(low), float(high))
    return intervals
