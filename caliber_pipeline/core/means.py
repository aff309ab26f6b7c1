"""Means of values whose records come in groups or weigh unequally: their variance, their interval, and a test."""

import numpy as np
import numpy.typing as npt

from caliber_pipeline.core.agreement import Floats
from caliber_pipeline.core.intervals import CONFIDENCE, Interval, normal_quantile, proportion_interval, satterthwaite


def mean_interval(values: Floats, groups: npt.ArrayLike | None = None, weights: Floats | None = None) -> Interval:
    """95 % interval of the mean of values in [0, 1].

    `proportion_interval` at the size at which a proportion would vary as much as the mean does; one further value of
    full variance keeps equal values from looking certain.

    Args:
        values: Shape (n,), n at least 1.
        groups: Groups of the records, where records of a group are alike.
        weights: 1 / inclusion probability, where the records were sampled actively.
    """
    n, given = values.size, np.ones(values.size) if weights is None else weights
    order = np.lexsort((given, values))  # so that the order of records changes no bit of the sums
    values, shares = values[order], normalised_weights(given[order])
    groups = None if groups is None else np.asarray(groups)[order]
    mean = float(np.average(values, weights=shares))
    spread = mean * (1 - mean)
    variance = weighted_variance(values, shares) + spread / n
    n_equivalent = n * max(spread / variance, 1.0) if variance > 0 else float(n)
    n_equivalent /= design_effect(values, groups, shares) * t_widening(values, groups, shares, CONFIDENCE) ** 2
    low, high = proportion_interval(mean * n_equivalent, n_equivalent)
    return float(low), float(high)


def normalised_weights(weights: Floats) -> Floats:
    """Weights of mean 1."""
    return np.asarray(weights / weights.mean())


def weighted_variance(values: Floats, weights: Floats) -> float:
    """Mean squared distance from the weighted mean."""
    return float(np.average((values - np.average(values, weights=weights)) ** 2, weights=weights))


def design_effect(values: Floats, groups: npt.ArrayLike | None, weights: Floats) -> float:
    """How many times larger groups and weights make the variance of a mean, never below 1.

    From the sums over groups: Cochran (1977), Sampling Techniques, 6.4 (a ratio) and 9A. Where all values are equal
    nothing shows how alike members of a group are, and they are taken to be copies.
    """
    single = weighted_variance(values, weights) * values.size
    if single <= 0:
        return max(1.0, float((_sums(weights, groups) ** 2).sum() / weights.sum()))
    squares = _squared_sums(values, groups, weights)
    variance = float(squares.sum()) * (1.0 if groups is None else squares.size / max(squares.size - 1, 1))
    return max(1.0, variance / single)


def t_widening(values: Floats, groups: npt.ArrayLike | None, weights: Floats, confidence: float) -> float:
    """How many times wider than a normal interval one of a mean is, whose variance few heavy groups tell.

    A t with the degrees of freedom of `satterthwaite`. At least 1, which it is for single records of equal weight.
    """
    from scipy.special import stdtrit

    squares = _squared_sums(values, groups, weights)
    if squares.size == values.size and (weights == weights[0]).all():
        return 1.0
    return float(stdtrit(_freedom(squares), (1 + confidence) / 2)) / normal_quantile(confidence)


def p_below(values: Floats, bound: float, groups: npt.ArrayLike | None = None) -> float:
    """One-sided p-value of a t test that the mean lies below a bound; 0 or 1 where all values are equal.

    Single records: the one-sample t test. Groups: the variance from their sums, as by `design_effect`, and the degrees
    of freedom of `satterthwaite`, so that copies of a record in its group add nothing.
    """
    from scipy.special import stdtr

    ones, is_grouped = np.ones(values.size), groups is not None
    units = groups if is_grouped else np.arange(values.size)
    distance, spread = float(values.mean()) - bound, weighted_variance(values, ones)
    if spread <= 0:
        return float(distance >= 0)
    error = np.sqrt(spread * design_effect(values, units, ones) / values.size)
    freedom = _freedom(_squared_sums(values, units, ones)) if is_grouped else values.size - 1
    return float(stdtr(freedom, distance / error))


def _freedom(squares: Floats) -> float:
    """Degrees of freedom of a mean's variance, from the squared sums over groups: at most one fewer than groups."""
    return max(1.0, min(satterthwaite(squares, np.ones(squares.size)), squares.size - 1))


def _squared_sums(values: Floats, groups: npt.ArrayLike | None, weights: Floats) -> Floats:
    """Per group, the weighted sum of distances from the mean, squared; sorted."""
    distances = weights * (values - np.average(values, weights=weights))
    return np.sort(_sums(distances, groups) ** 2)


def _sums(values: Floats, groups: npt.ArrayLike | None) -> Floats:
    """By group; the values as they are where there are none."""
    if groups is None:
        return values
    return np.bincount(np.unique(np.asarray(groups), return_inverse=True)[1], weights=values).astype(np.float64)
