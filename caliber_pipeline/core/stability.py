"""How stable clusters are: the bootstrap Jaccard of each (Hennig 2007, cluster-wise assessment of stability)."""

from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from caliber_pipeline.core.consensus_clustering import Labels

MIN_STABILITY: Final = 0.6  # Hennig: under 0.6 a cluster should not be trusted, from 0.75 on it is a valid one


def is_unstable(stability: float | None) -> bool:
    """Whether resampling the notes tends to lose a pattern; one that was not resampled is not said to be."""
    return stability is not None and stability < MIN_STABILITY


def bootstrap_jaccard(
    labels: Labels, refit: Callable[[Labels, int], Labels], *, n_resamples: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Per cluster the mean, over bootstrap samples, of the best Jaccard similarity with a cluster found there.

    Args:
        labels: Per row 0 … k-1, or -1.
        refit: Clusters the rows at the given positions, with the given seed, and returns their labels.
        n_resamples: Bootstrap samples; rows drawn twice count once.
        rng: Draws them.

    Returns:
        Shape (k,); NaN for a cluster of which no sample held a row.
    """
    n_clusters = int(labels.max(initial=-1)) + 1
    sums, counts = np.zeros(n_clusters), np.zeros(n_clusters)
    for _ in range(n_resamples):
        chosen = np.unique(rng.integers(0, len(labels), len(labels)))
        best, sizes = _best_jaccard(labels[chosen], refit(chosen, int(rng.integers(2**31))), n_clusters)
        sums += np.where(sizes > 0, best, 0.0)
        counts += sizes > 0
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


def _best_jaccard(old: Labels, new: Labels, n_old: int) -> tuple[NDArray[np.float64], Labels]:
    n_new = int(new.max(initial=-1)) + 1
    shared = np.zeros((n_old, n_new))
    both = (old >= 0) & (new >= 0)
    np.add.at(shared, (old[both], new[both]), 1)
    old_sizes = np.bincount(old[old >= 0], minlength=n_old)
    new_sizes = np.bincount(new[new >= 0], minlength=n_new)
    union = old_sizes[:, None] + new_sizes[None, :] - shared
    jaccard = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    return jaccard.max(axis=1, initial=0.0), old_sizes
