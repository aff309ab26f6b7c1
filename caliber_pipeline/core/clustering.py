"""Groups of vectors: agglomerative for few, HDBSCAN on principal components for many, and assignment of the rest."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Labels = NDArray[np.int64]
Vectors = NDArray[np.floating]

UNCLUSTERED: Final = -1
MIN_MEMBERS: Final = 2  # a theme is what recurs
MAX_SMALL: Final = 1_000  # distinct notes up to which all pairs are compared
MAX_SAMPLE: Final = 20_000  # distinct notes that HDBSCAN is fitted on; the rest are assigned
N_COMPONENTS: Final = 15


@dataclass(frozen=True)
class Clusters:
    """A fit: a label per row, and what it takes to assign other rows.

    Attributes:
        labels: Per row 0 … k-1, or -1 for the unclustered.
        centroids: Unit vectors of shape (k, dimensions).
        thresholds: Per cluster the least cosine similarity to its centroid that a member needs.
        method: What ran: 'agglomerative' or 'hdbscan'.
    """

    labels: Labels
    centroids: NDArray[np.float64]
    thresholds: NDArray[np.float64]
    method: str

    def assign(self, vectors: Vectors) -> Labels:
        """The nearest cluster of each row, or -1 where even that is further than its members are."""
        if not len(self.centroids):
            return np.full(len(vectors), UNCLUSTERED, dtype=np.int64)
        labels = np.empty(len(vectors), dtype=np.int64)
        for start in range(0, len(vectors), 65_536):
            similarity = np.asarray(vectors[start : start + 65_536]) @ self.centroids.T
            nearest = similarity.argmax(axis=1)
            is_near = similarity.max(axis=1) >= self.thresholds[nearest]
            labels[start : start + 65_536] = np.where(is_near, nearest, UNCLUSTERED)
        return labels


def unit(vectors: Vectors) -> NDArray[np.float64]:
    """The rows scaled to length 1; a zero row stays zero."""
    rows = np.asarray(vectors, dtype=np.float64)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(lengths > 0, lengths, 1.0)


def fit_clusters(vectors: Vectors, weights: Labels, *, seed: int = 0) -> Clusters:
    """Cluster distinct notes.

    Args:
        vectors: One per distinct note, shape (n, dimensions), in a canonical order that the caller fixes.
        weights: How many records each of the notes stands for.
        seed: Draws the sample of a large fit.
    """
    rows = unit(vectors)
    if len(rows) <= MAX_SMALL:
        labels, method = _drop_small(_fit_agglomerative(rows), weights), "agglomerative"
    else:
        labels, method = _fit_hdbscan(rows, weights, seed), "hdbscan"
    return _describe(rows, labels, method)


def _fit_agglomerative(rows: NDArray[np.float64]) -> Labels:
    if len(rows) < MIN_MEMBERS:
        return np.zeros(len(rows), dtype=np.int64)
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.spatial.distance import squareform

    distances = np.clip(1.0 - rows @ rows.T, 0.0, 2.0)
    np.fill_diagonal(distances, 0.0)
    tree = linkage(squareform(distances, checks=False), method="average")
    if len(rows) < 4:
        return fcluster(tree, 0.6, criterion="distance").astype(np.int64) - 1
    best, best_score = np.zeros(len(rows), dtype=np.int64), -np.inf
    for k in range(2, min(len(rows) - 1, 40) + 1):
        labels = fcluster(tree, k, criterion="maxclust").astype(np.int64) - 1
        score = _silhouette(distances, labels)
        if score > best_score + 1e-12:
            best, best_score = labels, score
    return best


def _silhouette(distances: NDArray[np.float64], labels: Labels) -> float:
    """Mean silhouette width (Rousseeuw 1987); members of clusters of one count 0."""
    membership = np.eye(labels.max() + 1)[labels]
    sizes = membership.sum(axis=0)
    sums = distances @ membership
    own = sums[np.arange(len(labels)), labels]
    inner = own / np.maximum(sizes[labels] - 1, 1)
    means = sums / sizes
    means[np.arange(len(labels)), labels] = np.inf
    outer = means.min(axis=1)
    widths = np.where(sizes[labels] > 1, (outer - inner) / np.maximum(np.maximum(outer, inner), 1e-12), 0.0)
    return float(widths.mean())


def _drop_small(labels: Labels, weights: Labels) -> Labels:
    sizes = np.bincount(labels, weights)
    keep = np.flatnonzero(sizes >= MIN_MEMBERS)
    new = np.full(len(sizes), UNCLUSTERED, dtype=np.int64)
    new[keep] = np.arange(len(keep))
    return new[labels]


def _fit_hdbscan(rows: NDArray[np.float64], weights: Labels, seed: int) -> Labels:
    from hdbscan import HDBSCAN
    from sklearn.decomposition import PCA

    sample = np.arange(len(rows))
    if len(rows) > MAX_SAMPLE:
        sample = np.sort(np.random.default_rng(seed).choice(len(rows), MAX_SAMPLE, replace=False))
    reduced = PCA(N_COMPONENTS, random_state=seed, svd_solver="randomized").fit_transform(rows[sample])
    least = max(5, round(len(sample) ** 0.5 / 2))
    model = HDBSCAN(min_cluster_size=least, min_samples=5, core_dist_n_jobs=1)
    fitted: Labels = model.fit_predict(reduced).astype(np.int64)
    is_own = (fitted == UNCLUSTERED) & (weights[sample] >= least)  # one note that many people wrote
    fitted[is_own] = fitted.max() + 1 + np.arange(is_own.sum())
    if len(sample) == len(rows):
        return fitted
    labels = _describe(rows[sample], fitted, "hdbscan").assign(rows)
    labels[sample] = fitted
    return labels


def _describe(rows: NDArray[np.float64], labels: Labels, method: str) -> Clusters:
    n_clusters = int(labels.max(initial=UNCLUSTERED)) + 1
    members = [rows[labels == c] for c in range(n_clusters)]
    centroids = np.zeros((n_clusters, rows.shape[1]))
    thresholds = np.zeros(n_clusters)
    for c, own in enumerate(members):
        centroids[c] = unit(own.mean(axis=0, keepdims=True))[0]
        thresholds[c] = np.quantile(own @ centroids[c], 0.05)
    return Clusters(labels, centroids, thresholds, method)
