"""Consensus clustering: what stays together over many resampled clusterings is one theme.

Evidence accumulation (Fred and Jain 2005): Ward's clustering is run on many subsamples, in spaces of 6, 10 and 15
principal components, for numbers of clusters around the square root of the number of notes. Two notes' co-membership
is the share of the runs with both of them that put them together; average linkage on it, cut where the mean
co-membership falls under `MIN_COMEMBERSHIP`, gives the themes, so that the data decide how many there are.
"""

from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

Labels = NDArray[np.int64]
Matrix = NDArray[np.floating]

N_RUNS: Final = 40  # a co-membership's standard error is then at most 0.08
SUBSAMPLE: Final = 0.8
DIMENSIONS: Final = (6, 10, 15)  # more let the notes' single words in, fewer merge themes
NOTES_PER_DIMENSION: Final = 3  # of few notes, the last components are noise
CLUSTERS_PER_SQRT: Final = (0.7, 1.6)  # times the square root of n: fewest and most clusters per run
MIN_COMEMBERSHIP: Final = 0.3  # results hardly differ between 0.3 and 0.5; above, themes fall apart
MIN_FOR_CONSENSUS: Final = 8  # fewer notes leave nothing to resample; their similarities decide
MIN_SIMILARITY: Final = 0.5  # cosine; for the packaged encoder, what short paraphrases reach and strangers do not
NEAR_DUPLICATE: Final = 0.95  # cosine; the same words in another order or with another ending


def unit(vectors: NDArray[np.floating], *, in_place: bool = False) -> Matrix:
    """The rows scaled to length 1, in their own precision; a zero row stays zero."""
    lengths = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))[:, None]  # no array of squares beside millions of rows
    scaled: Matrix = np.divide(
        vectors, np.where(lengths > 0, lengths, 1).astype(vectors.dtype), out=vectors if in_place else None
    )
    return scaled


def principal_components(rows: Matrix, n_components: int) -> tuple[Matrix, Matrix]:
    """The rows' mean, and up to `n_components` principal axes as columns, by decreasing variance."""
    mean = rows.mean(axis=0)
    centred = rows - mean
    if len(rows) < rows.shape[1]:
        _, _, axes = np.linalg.svd(centred, full_matrices=False)
        return mean, axes[:n_components].T
    _, vectors = np.linalg.eigh(centred.T @ centred)
    return mean, vectors[:, ::-1][:, :n_components]


def cluster_by_consensus(rows: Matrix, rng: np.random.Generator, *, n_runs: int = N_RUNS) -> Labels:
    """A label 0 … k-1 for each of the unit rows; single ones have a label of their own."""
    if len(rows) < 2:
        return np.zeros(len(rows), dtype=np.int64)
    merged = _link(1.0 - rows @ rows.T, "complete", 1.0 - NEAR_DUPLICATE)
    distinct = unit(np.array([rows[merged == g].mean(axis=0) for g in range(merged.max() + 1)]))
    if len(distinct) < MIN_FOR_CONSENSUS:
        labels = _link(1.0 - distinct @ distinct.T, "average", 1.0 - MIN_SIMILARITY)
    else:
        labels = _link(1.0 - comembership(distinct, rng, n_runs=n_runs), "average", 1.0 - MIN_COMEMBERSHIP)
    return labels[merged]


def comembership(rows: Matrix, rng: np.random.Generator, *, n_runs: int = N_RUNS) -> Matrix:
    """Per pair of rows the share of the runs with both that put them together, shape (n, n)."""
    from scipy.cluster.hierarchy import fcluster, linkage

    n = len(rows)
    mean, axes = principal_components(rows, 64)
    reduced = (rows - mean) @ axes
    together, both = np.zeros((n, n), dtype=np.float32), np.zeros((n, n), dtype=np.float32)
    for run in range(n_runs):
        chosen = np.sort(rng.choice(n, max(4, int(n * SUBSAMPLE)), replace=False))
        n_axes = min(DIMENSIONS[run % len(DIMENSIONS)], max(2, len(chosen) // NOTES_PER_DIMENSION))
        sub_mean, sub_axes = principal_components(reduced[chosen], n_axes)
        points = unit((reduced[chosen] - sub_mean) @ sub_axes)
        n_clusters = max(2, round(len(chosen) ** 0.5 * rng.uniform(*CLUSTERS_PER_SQRT)))
        labels = fcluster(linkage(points, "ward"), n_clusters, criterion="maxclust")
        cells = np.ix_(chosen, chosen)
        together[cells] += labels[:, None] == labels[None, :]
        both[cells] += 1
    shares = (together / np.maximum(both, 1)).astype(np.float64)
    np.fill_diagonal(shares, 1.0)
    return shares


def _link(distances: Matrix, method: Literal["average", "complete"], height: float) -> Labels:
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.spatial.distance import squareform

    if len(distances) < 2:  # of which scipy makes no tree
        return np.zeros(len(distances), dtype=np.int64)
    condensed = squareform(np.clip(distances, 0.0, None), checks=False)
    labels: Labels = fcluster(linkage(condensed, method), height, criterion="distance").astype(np.int64) - 1
    return labels
