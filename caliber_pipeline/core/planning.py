"""How many labels a statement about a judge needs, and which records to label next."""

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from caliber_pipeline.core.agreement import CELLS, Floats
from caliber_pipeline.core.arguments import INTEGER, NUMBER, SHARE, accepts, show
from caliber_pipeline.core.conforming import conform_table, frame_from_arrow
from caliber_pipeline.core.errors import InputError
from caliber_pipeline.core.intervals import normal_quantile
from caliber_pipeline.core.schemas import LABEL_PLAN

# An interval of 0.4 spans two of Landis & Koch's bands at most: a wider one cannot tell fair from substantial.
DECISIVE_HALF_WIDTH: Final = 0.2
UNIFORM_FLOOR: Final = 0.2  # share of the sampling budget spread evenly, so that no weight exceeds 1 / 0.2 of uniform


def kappa_variance(shares: npt.ArrayLike) -> float:
    """Large-sample variance of Cohen's kappa times n: Fleiss, Cohen & Everitt (1969), Psychol. Bull. 72:323-327.

    Args:
        shares: The four cells in the order of `CELLS`; any positive scale.

    Raises:
        InputError: they are no four cells, or chance agreement is 1, where kappa is undefined.
    """
    cells = np.asarray(shares, dtype=np.float64)
    if cells.shape != (4,) or not (np.isfinite(cells).all() and (cells >= 0).all() and cells.sum() > 0):
        raise InputError(f"the shares are {show(shares)}; give the four cells {', '.join(CELLS)}, each 0 or more")
    tp, tn, fp, fn = cells / cells.sum()
    human, judge = tp + fn, tp + fp
    chance = human * judge + (1 - human) * (1 - judge)
    if chance >= 1:
        raise InputError("people and the judge give one and the same verdict throughout: kappa is undefined")
    kappa = (tp + tn - chance) / (1 - chance)
    gap = 1 - kappa
    agreeing = tp * (1 - (human + judge) * gap) ** 2 + tn * (1 - (2 - human - judge) * gap) ** 2
    differing = gap**2 * (fn * (judge + 1 - human) ** 2 + fp * (human + 1 - judge) ** 2)
    return float((agreeing + differing - (kappa - chance * gap) ** 2) / (1 - chance) ** 2)


@accepts(half_width=NUMBER, design_effect=NUMBER, confidence=SHARE)
def labels_for_half_width(
    shares: npt.ArrayLike, half_width: float, *, design_effect: float = 1.0, confidence: float = 0.95
) -> int:
    """Labels for an interval of kappa of this half-width, where the cells have these shares.

    Args:
        shares: The four cells in the order of `CELLS`, as they are expected; see `plausible_shares` for observed ones.
        half_width: Half of the interval's width, above 0.
        design_effect: How many times more labels are needed because records come in groups, above 0.
        confidence: Of the interval.

    Raises:
        InputError: the shares are no four cells, hold no error or one verdict only, or a number is not above 0.
    """
    if not half_width > 0:
        raise InputError(f"the half-width is {half_width}; give a number above 0, such as 0.1")
    if not design_effect > 0:
        raise InputError(f"the design effect is {design_effect}; give a number above 0: 1 for single records")
    variance = kappa_variance(shares)
    if variance <= 0:
        raise InputError("a judge that never errs needs no labels to plan with; give the errors that you expect")
    return math.ceil(design_effect * variance * (normal_quantile(confidence) / half_width) ** 2)


@accepts(n=INTEGER, gain=NUMBER, discordance=NUMBER, alpha=SHARE)
def power_of_gain(n: int, gain: float, discordance: float, *, alpha: float = 0.05) -> float:
    """Probability that a one-sided exact McNemar test confirms a gain in accuracy between two versions.

    Args:
        n: Records judged under both versions.
        gain: Accuracy of the new version less that of the old one.
        discordance: Share of records on which exactly one version is right; at least `gain`.
        alpha: One-sided level.

    The number of discordant records is Binomial(n, discordance); given m of them, the new version wins
    Binomial(m, (discordance + gain) / 2 / discordance), compared with Binomial(m, 1/2): Connor (1987), Biometrics
    43:207-211, made exact.
    """
    if n < 0:
        raise InputError(f"n is {n}; give 0 or more records")
    if not 0 < discordance <= 1 or abs(gain) > discordance:
        raise InputError(
            f"a gain of {gain} at a discordance of {discordance} is impossible: the gain is at most the discordance, "
            "and that at most 1"
        )
    from scipy.stats import binom

    sizes = np.arange(n + 1)
    # The smallest number of wins whose one-sided p-value is at most alpha; above the size where none is.
    critical = binom.isf(alpha, sizes, 0.5) + 1
    wins = (discordance + gain) / 2 / discordance
    return float(np.clip(binom.pmf(sizes, n, discordance) @ binom.sf(critical - 1, sizes, wins), 0.0, 1.0))


@accepts(gain=NUMBER, discordance=NUMBER, power=SHARE, alpha=SHARE)
def labels_for_gain(
    gain: float, discordance: float, *, power: float = 0.8, alpha: float = 0.05, max_labels: int = 100_000
) -> int | None:
    """Labels with which a gain is confirmed with this probability; None above `max_labels`.

    The fewest, except where nearly all records are discordant: there the power of an exact test falls back with some
    further labels, and fewer may do.
    """

    def is_enough(n: int) -> bool:
        return power_of_gain(n, gain, discordance, alpha=alpha) >= power

    low, high = 1, min(16, max_labels)
    while not is_enough(high):
        if high == max_labels:
            return None
        low, high = high, min(2 * high, max_labels)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if is_enough(middle) else (middle + 1, high)
    return low


@accepts(budget=NUMBER, floor=NUMBER)
def sampling_probabilities(uncertainty: npt.ArrayLike, budget: int, *, floor: float = UNIFORM_FLOOR) -> Floats:
    """Inclusion probabilities for labelling about `budget` records, the uncertain ones more often.

    A share `floor` of the budget is spread evenly, the rest in proportion to `uncertainty`; probabilities that would
    exceed 1 are set to 1 and their excess is spread over the others. Zrnic & Candès (2024), Active statistical
    inference, ICML: with each record drawn by its probability and weighted by its inverse, means stay unbiased.

    Args:
        uncertainty: One non-negative number per unlabelled record, such as 1 - confidence.
        budget: How many labels one can afford, on average.
        floor: Share of the budget spread evenly, (0, 1].
    """
    scores = np.asarray(uncertainty, dtype=np.float64)
    if not 0 < floor <= 1:
        raise InputError(f"the floor is {floor}; give a share above 0 and at most 1, else estimates may be biased")
    if not budget > 0:
        raise InputError(f"the budget is {budget}; give the number of records that can be labelled, at least 1")
    if scores.size and not (np.isfinite(scores).all() and (scores >= 0).all()):
        raise InputError("uncertainties must be finite and at least 0")
    if budget >= scores.size:
        return np.ones(scores.size)
    total = scores.sum()
    relative = scores / total if total > 0 else np.full(scores.size, 1 / scores.size)
    mixed = floor / scores.size + (1 - floor) * relative
    return _capped(mixed, float(budget))


def _capped(relative: Floats, budget: float) -> Floats:
    certain = np.zeros(relative.size, dtype=np.bool_)
    while True:
        rest = ~certain
        scale = (budget - certain.sum()) / relative[rest].sum()
        beyond = rest & (relative * scale >= 1)
        if not beyond.any():
            return np.where(certain, 1.0, relative * scale)
        certain |= beyond


@accepts(seed=INTEGER)
def draw_sample(probabilities: npt.ArrayLike, *, seed: int) -> npt.NDArray[np.bool_]:
    """Which records to label: systematic sampling, so that the number drawn is the expected one, give or take one.

    Madow (1949), Ann. Math. Stat. 20:333-354, in a random order: each record is drawn with exactly its probability.
    """
    chances = np.asarray(probabilities, dtype=np.float64)
    if not ((chances >= 0) & (chances <= 1)).all():
        raise InputError("a probability is not between 0 and 1; give those of sampling_probabilities")
    rng = np.random.default_rng(seed)
    order = rng.permutation(chances.size)
    steps = np.floor(np.cumsum(chances[order]) + rng.random())
    drawn = np.zeros(chances.size, dtype=np.bool_)
    drawn[order] = np.diff(steps, prepend=0.0) >= 1
    return drawn


def plan_labels(
    record_ids: Sequence[str], confidence: npt.ArrayLike, budget: int, *, criteria_version: str, seed: int
) -> pd.DataFrame:
    """Which of the unlabelled records to label next, in a random order: labels of a part are then a sample too.

    Args:
        record_ids: The unlabelled records.
        confidence: Of the champion's verdict on each; without one nothing is known, and it counts as a coin's.
        budget: How many labels one can afford, on average.
        criteria_version: The champion.
        seed: Of the choice.

    Returns:
        A frame of the `LABEL_PLAN` schema.
    """
    surest = np.nan_to_num(np.asarray(confidence, dtype=np.float64), nan=0.5)
    probabilities = sampling_probabilities(1 - surest, budget)
    drawn = np.flatnonzero(draw_sample(probabilities, seed=seed))
    order = np.random.default_rng(seed).permutation(drawn)
    chosen = {"record_id": np.asarray(record_ids, dtype=object)[order], "inclusion_probability": probabilities[order]}
    return frame_from_arrow(
        conform_table(pa.table({**chosen, "criteria_version": [criteria_version] * len(order)}), LABEL_PLAN, "plan")
    )


def missing_labels(half_width: float, n: int) -> int:
    """Labels still missing for an interval of the decisive half-width, which shrinks with the root of their number."""
    excess = half_width / DECISIVE_HALF_WIDTH
    return 0 if excess <= 1 else max(1, math.ceil(n * (excess**2 - 1)))


def plausible_shares(cells: npt.ArrayLike) -> Floats:
    """Shares to plan with: the observed cells with half a record added to each, so that none is impossible."""
    counts = np.asarray(cells, dtype=np.float64) + 0.5
    return np.asarray(counts / counts.sum())
