"""The winner's curse: the best of several looks better than it is."""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from caliber_pipeline.core.agreement import Floats, cohen_kappa, to_optional
from caliber_pipeline.core.paired_gain import cells_by_group

N_RESAMPLES: Final = 1_000  # the Monte Carlo error of the mean is then a thirtieth of one resample's spread


@dataclass(frozen=True)
class BestOfSeveral:
    """The highest kappa among several judges of the same records, raw and corrected.

    Attributes:
        position: Which one it is; the first of equals.
        kappa: Its Cohen's kappa on these records.
        corrected: What it would have on records that did not help to choose it.
        n_compared: How many there were to choose from.
    """

    position: int
    kappa: float
    corrected: float | None
    n_compared: int


def correct_best(
    human: npt.NDArray[np.int8],
    verdicts: npt.NDArray[np.int8],
    groups: npt.NDArray[np.int64],
    weights: Floats | None = None,
    *,
    seed: int = 0,
) -> BestOfSeveral | None:
    """The best of several judges with its kappa corrected for having been chosen.

    Tsamardinos, Greasidou & Borboudakis (2018), Mach. Learn. 107:1895-1922: choose on a bootstrap sample of the
    groups, measure on the groups that it left out, average. The only one of its kind needs no correction.

    Args:
        human: Shape (n,): people's verdicts.
        verdicts: Shape (k, n): each judge's, without gaps.
        groups: Shape (n,): codes of what belongs together, 0 to g - 1.
        weights: Shape (n,): as `inclusion_weights` gives them.
        seed: Of the bootstrap.

    Returns:
        None where kappa is undefined for all.
    """
    n_groups = int(groups.max()) + 1 if len(groups) else 0
    if not n_groups or not len(verdicts):
        return None
    cells = np.stack([cells_by_group(human, row, groups, n_groups, weights) for row in verdicts])
    kappas = cohen_kappa(cells.sum(axis=1))
    if np.isnan(kappas).all():
        return None
    best = int(np.nanargmax(kappas))
    kappa = float(kappas[best])
    if len(verdicts) == 1:
        return BestOfSeveral(best, kappa, kappa, 1)
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(n_groups, np.full(n_groups, 1 / n_groups), size=N_RESAMPLES).astype(np.float64)
    inside = np.nan_to_num(cohen_kappa(np.einsum("bg,kgc->bkc", drawn, cells)), nan=-np.inf)
    outside = cohen_kappa(np.einsum("bg,kgc->bkc", (drawn == 0).astype(np.float64), cells))
    chosen = outside[np.arange(N_RESAMPLES), inside.argmax(axis=1)]
    known = chosen[~np.isnan(chosen)]
    corrected = to_optional(float(known.mean())) if len(known) else None
    return BestOfSeveral(best, kappa, corrected, len(verdicts))
