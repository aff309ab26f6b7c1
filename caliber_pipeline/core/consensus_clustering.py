"""Consensus clustering: what stays together over many resampled clusterings is one theme.

Evidence accumulation (Fred and Jain 2005): k-means on the sphere is run on many subsamples, in spaces of 6, 10 and 15
principal components, for numbers of clusters around twice the cube root of the number of notes. It is soft: a note
belongs to each cluster to a share, or one note that lies between two would send whole runs another way on another
processor. Two notes' co-membership is how likely a run with both of them puts them together; average linkage on it,
cut where the mean co-membership falls under `MIN_COMEMBERSHIP`, gives the themes, so that the data decide how many
there are.
"""

from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from caliber_pipeline.core.ties import TIE, first_best, number_in_order

Labels = NDArray[np.int64]
Matrix = NDArray[np.floating]

N_RUNS: Final = 100  # a co-membership's standard error is then at most 0.06
SUBSAMPLE: Final = 0.8
DIMENSIONS: Final = (6, 10, 15)  # more let the notes' single words in, fewer merge themes
NOTES_PER_DIMENSION: Final = 3  # of few notes, the last components are noise
CLUSTERS_PER_CUBE_ROOT: Final = (1.4, 3.2)  # times the cube root of n: fewest and most clusters per run
MIN_COMEMBERSHIP: Final = 0.25  # lower merges themes, higher has them fall apart into ones that do not last
MIN_JOINING: Final = MIN_COMEMBERSHIP / 2  # a small theme that is with no other so often stays by itself
SMALL_PER_CUBE_ROOT: Final = 0.5  # times the cube root of n: themes of fewer notes hardly ever come back
MIN_FOR_CONSENSUS: Final = 8  # fewer notes leave nothing to resample; their similarities decide
MIN_SIMILARITY: Final = 0.5  # cosine; for the packaged encoder, what short paraphrases reach and strangers do not
NEAR_DUPLICATE: Final = 0.95  # cosine; the same words in another order or with another ending
CONCENTRATION: Final = 10.0  # a note nearer to one of two clusters by 0.2 belongs to it by 0.88; 20 does as well
N_STEPS: Final = 10  # of k-means; single runs need not converge


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


def cluster_by_consensus(rows: Matrix, rng: np.random.Generator) -> Labels:
    """A label 0 … k-1 for each of the unit rows; single ones have a label of their own."""
    if len(rows) < 2:
        return np.zeros(len(rows), dtype=np.int64)
    merged = _link(1.0 - rows @ rows.T, "complete", 1.0 - NEAR_DUPLICATE)
    distinct = unit(np.array([rows[merged == g].mean(axis=0) for g in range(merged.max() + 1)]))
    if len(distinct) < MIN_FOR_CONSENSUS:
        labels = _link(1.0 - distinct @ distinct.T, "average", 1.0 - MIN_SIMILARITY)
    else:
        shares = comembership(distinct, rng)
        labels = join_small(_link(1.0 - shares, "average", 1.0 - MIN_COMEMBERSHIP), shares)
    return labels[merged]


def comembership(rows: Matrix, rng: np.random.Generator) -> Matrix:
    """Per pair of rows how likely the runs with both put them together, on average; shape (n, n)."""
    n = len(rows)
    mean, axes = principal_components(rows, 64)
    reduced = (rows - mean) @ axes
    is_drawn = np.zeros((n, N_RUNS), dtype=np.float32)
    groups = []
    for run in range(N_RUNS):
        chosen = np.sort(rng.choice(n, max(4, int(n * SUBSAMPLE)), replace=False))
        n_axes = min(DIMENSIONS[run % len(DIMENSIONS)], max(2, len(chosen) // NOTES_PER_DIMENSION))
        sub_mean, sub_axes = principal_components(reduced[chosen], n_axes)
        points = unit((reduced[chosen] - sub_mean) @ sub_axes)
        n_clusters = min(max(2, round(len(chosen) ** (1 / 3) * rng.uniform(*CLUSTERS_PER_CUBE_ROOT))), len(chosen))
        is_drawn[chosen, run] = 1
        groups.append(np.zeros((n, n_clusters)))
        groups[-1][chosen] = share_on_sphere(points, n_clusters, rng)
    membership = np.hstack(groups)
    shares: Matrix = membership @ membership.T / np.maximum(is_drawn @ is_drawn.T, 1)
    np.fill_diagonal(shares, 1.0)
    return shares


def share_on_sphere(points: Matrix, n_clusters: int, rng: np.random.Generator) -> Matrix:
    """Soft k-means by cosine similarity (Banerjee et al. 2005); shares of shape (n, n_clusters), rows summing to 1.

    It starts as k-means++ does, from rows drawn in proportion to their distances from those drawn before. A race of
    exponential variables draws them: only a photo finish is open to noise, a running sum of distances is everywhere.
    """
    centres: Matrix = np.empty((n_clusters, points.shape[1]))
    distances = np.ones(len(points))
    for c in range(n_clusters):
        centres[c] = points[(distances / rng.exponential(size=len(points))).argmax()]
        distances = np.minimum(distances, 1.0 - points @ centres[c])
        distances[distances < TIE] = 0.0
    for _ in range(N_STEPS):
        centres = unit(_soft_shares(points, centres).T @ points)
    return _soft_shares(points, centres)


def _soft_shares(points: Matrix, centres: Matrix) -> Matrix:
    likelihood = np.exp(CONCENTRATION * (points @ centres.T - 1.0))
    shares: Matrix = likelihood / likelihood.sum(axis=1, keepdims=True)
    return shares


def join_small(labels: Labels, shares: Matrix) -> Labels:
    """The labels with each cluster too small to last joined to the one that its notes are with most."""
    least = max(2.0, SMALL_PER_CUBE_ROOT * len(labels) ** (1 / 3))
    is_alone = np.zeros(labels.max() + 1, dtype=bool)
    while True:
        sizes = np.bincount(labels, minlength=len(is_alone))
        small = np.flatnonzero((sizes > 0) & (sizes < least) & ~is_alone)
        if not len(small):
            return number_in_order(labels)
        smallest = small[sizes[small].argmin()]
        own = labels == smallest
        mean = np.bincount(labels, shares[own].mean(axis=0), minlength=len(sizes)) / np.maximum(sizes, 1)
        mean[smallest] = -1.0
        if mean.max() >= MIN_JOINING - TIE:
            labels = np.where(own, first_best(mean), labels)
        else:
            is_alone[smallest] = True


def _link(distances: Matrix, method: Literal["average", "complete"], height: float) -> Labels:
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.spatial.distance import squareform

    if len(distances) < 2:  # of which scipy makes no tree
        return np.zeros(len(distances), dtype=np.int64)
    condensed = squareform(np.clip(distances, 0.0, None), checks=False)
    return number_in_order(fcluster(linkage(condensed, method), height, criterion="distance").astype(np.int64))
