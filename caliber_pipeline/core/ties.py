"""Choices by similarity that come out alike wherever they are made.

Two processors, or two batches of another make-up, give the same text embeddings that differ in the seventh digit. What
a person would call a tie, as of two notes to the middle between them, must not be decided by that digit. So whatever
is as near to the best as `TIE` is as good, and the order in which the candidates come decides; for notes that is the
order of their texts.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

TIE: Final = 1e-4  # of similarities; a hundred times what arithmetic adds, a hundredth of what means anything


def first_best(scores: NDArray[np.floating]) -> NDArray[np.int64]:
    """The position of the best score along the last axis; of those within `TIE` of it the first."""
    first: NDArray[np.int64] = (scores >= scores.max(axis=-1, keepdims=True) - TIE).argmax(axis=-1)
    return first


def rank(scores: NDArray[np.floating]) -> NDArray[np.int64]:
    """The positions, the best score first; those within `TIE` of the best that is left stay in the order given."""
    order = np.argsort(-scores, kind="stable")
    falling = -scores[order]
    start = 0
    while start < len(order):
        end = int(np.searchsorted(falling, falling[start] + TIE, side="right"))
        order[start:end].sort()
        start = end
    return order


def number_in_order(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """The labels as 0 … k-1 in the order in which they first occur; -1 stays.

    Whoever numbers clusters by a tree numbers them by the lengths of its branches.
    """
    found, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    is_cluster = found >= 0
    new = np.full(len(found), -1, dtype=np.int64)
    new[is_cluster] = np.argsort(np.argsort(first[is_cluster]))
    return new[inverse]
