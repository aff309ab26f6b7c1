"""How surely one version's kappa is above another's: tests of the paired gain, whole groups at a time."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from caliber_pipeline.core.agreement import Floats, Scores, cell_codes, cohen_kappa, sum_cells, to_optional
from caliber_pipeline.core.intervals import JEFFREYS, satterthwaite

N_PERMUTATIONS: Final = 20_000  # resolves p = 0.0167 (three rounds) to ± 0.001
MAX_EXACT_GROUPS: Final = 14  # up to 2**14 exchanges are counted rather than drawn
_BATCH: Final = 1_000  # permutations at a time, which bounds memory
_TIE: Final = 1e-12  # rounding by which exchanges of the same gain may differ

# A record that only the new version gets right, then one that only the old one does, accepted and rejected by people:
# their cells under the new version and under the old one, in the order of `agreement.CELLS`.
UNSEEN_NEW: Final = np.array([[1, 0, 0, 0], [0, 0, 0, 1], [0, 1, 0, 0], [0, 0, 1, 0]], dtype=np.float64)
UNSEEN_OLD: Final = UNSEEN_NEW[[1, 0, 3, 2]]


def cells_by_group(
    human: Scores, llm: Scores, groups: NDArray[np.int64], n_groups: int, weights: Floats | None = None
) -> Floats:
    """The four cells of each group, in the order of `agreement.CELLS`, shape (n_groups, 4); counts, or sums of weights.

    As floats, in which counts stay exact and which BLAS multiplies.
    """
    keys = groups * 4 + cell_codes(human, llm)
    if weights is not None:
        return sum_cells(keys, weights, 4 * n_groups).reshape(n_groups, 4)
    return np.bincount(keys, minlength=4 * n_groups).reshape(n_groups, 4).astype(np.float64)


def gain_p(new: Floats, old: Floats, weights: Floats | None, seed: int) -> float | None:
    """The p-value of a gain in kappa: of `permutation_p`, and under weights of `weighted_p` where that is larger.

    Args:
        new: Shape (g, 4): each group's cells under the version that asks for promotion.
        old: Likewise, under its base.
        weights: Of the records, 1 on average; None where all weigh the same.
        seed: Of the exchanges.
    """
    exchanged = permutation_p(new, old, seed)
    tested = exchanged if weights is None else weighted_p(new, old, weights)
    return None if exchanged is None or tested is None else max(exchanged, tested)


def permutation_p(new: Floats, old: Floats, seed: int) -> float | None:
    """The share of exchanges of whole groups that give at least the observed gain; None where kappa is undefined.

    Args:
        new: Shape (g, 4): each group's cells under the version that asks for promotion.
        old: Likewise, under its base.
        seed: Of the exchanges that are drawn, where there are too many to count.
    """
    difference = (new - old)[(new != old).any(axis=1)]
    new_sum, old_sum = new.sum(axis=0), old.sum(axis=0)
    observed = to_optional(float(_gain(new_sum, old_sum)))
    if observed is None:
        return None
    n_groups = len(difference)
    if n_groups <= MAX_EXACT_GROUPS:
        swaps = (np.arange(2**n_groups)[:, None] >> np.arange(n_groups)) & 1
        return float(_count_as_large(new_sum, old_sum, swaps @ difference, observed) / 2**n_groups)
    rng = np.random.default_rng(seed)
    n_as_large = 1
    for _ in range(N_PERMUTATIONS // _BATCH):
        swapped = rng.integers(0, 2, size=(_BATCH, n_groups)).astype(np.float64) @ difference
        n_as_large += _count_as_large(new_sum, old_sum, swapped, observed)
    return n_as_large / (N_PERMUTATIONS + 1)


def weighted_p(new: Floats, old: Floats, weights: Floats) -> float | None:
    """One-sided p-value of the gain by a t test on the influence of each group; None where kappa is undefined.

    For labels that were sampled by what the old version is unsure of. Its errors are then in the sample by light
    records and the new version's by few heavy ones, so that the two are no longer exchangeable: where none of the heavy
    ones happens to be wrong, exchanging finds nearly any gain significant. Here few heavy groups leave few degrees of
    freedom (`satterthwaite`), and half an unseen record of each kind of change, as heavy as Kish's mean of the squared
    weights, keeps what was not drawn from looking impossible.

    Args:
        new: Shape (g, 4): each group's weighted cells under the version that asks for promotion.
        old: Likewise, under its base.
        weights: Of the records, 1 on average.
    """
    from scipy.special import stdtr

    whole_new, whole_old = new.sum(axis=0), old.sum(axis=0)
    gain = to_optional(float(_gain(whole_new, whole_old)))
    if gain is None:
        return None
    heaviness = float((weights**2).mean())
    unseen_new, unseen_old = (JEFFREYS * heaviness * cells for cells in (UNSEEN_NEW, UNSEEN_OLD))
    smooth_new, smooth_old = whole_new + unseen_new.sum(axis=0), whole_old + unseen_old.sum(axis=0)
    times = np.append(np.ones(len(new)), np.full(len(unseen_new), JEFFREYS))
    without = _gain(smooth_new - np.vstack([new, unseen_new]), smooth_old - np.vstack([old, unseen_old]))
    squares = ((without - _gain(smooth_new, smooth_old)) / times) ** 2
    return float(stdtr(satterthwaite(squares, times), -gain / np.sqrt(times @ squares)))


def _count_as_large(new: Floats, old: Floats, swapped: Floats, observed: float) -> int:
    return int(np.count_nonzero(_gain(new - swapped, old + swapped) >= observed - _TIE))


def _gain(new: Floats, old: Floats) -> Floats:
    return np.asarray(cohen_kappa(new) - cohen_kappa(old))
