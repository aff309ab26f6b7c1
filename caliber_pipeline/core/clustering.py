"""Groups of notes' vectors: consensus for few, HDBSCAN on principal components for many, and assignment of the rest."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from caliber_pipeline.core.consensus_clustering import (
    MIN_FOR_CONSENSUS,
    Labels,
    Matrix,
    cluster_by_consensus,
    principal_components,
    unit,
)
from caliber_pipeline.core.ties import TIE, first_best, number_in_order

UNCLUSTERED: Final = -1
MIN_MEMBERS: Final = 2  # records; a theme is what recurs
MAX_SMALL: Final = 1_000  # distinct notes up to which consensus agrees with gold themes as well as density or better
MAX_SAMPLE: Final = 10_000  # distinct notes that HDBSCAN is fitted on; the rest are assigned
N_COMPONENTS: Final = 15
CONSENSUS: Final = "consensus"
HDBSCAN_PCA: Final = "hdbscan"
_BLOCK: Final = 16_384  # rows assigned at a time


@dataclass(frozen=True)
class Clusters:
    """A fit: a label per row, and what it takes to assign other rows.

    Attributes:
        labels: Per fitted row 0 … k-1, or -1 for the unclustered.
        mean: What is taken off a row first, shape (dimensions,): the fitted rows' mean, or nothing.
        axes: The axes in whose space rows are compared, shape (dimensions, components): the principal ones, or, for
            few rows or a single cluster, which are compared as they are, all.
        centroids: Unit vectors in that space, shape (k, components).
        thresholds: Per cluster the least cosine similarity to its centroid that a member needs.
        method: What ran: 'consensus' or 'hdbscan'.
    """

    labels: Labels
    mean: Matrix
    axes: Matrix
    centroids: Matrix
    thresholds: NDArray[np.float64]
    method: str

    def project(self, rows: Matrix) -> Matrix:
        """The rows as unit vectors in the space of the centroids; a block at a time, for memory's sake."""
        points = np.empty((len(rows), self.axes.shape[1]))
        for start in range(0, len(rows), _BLOCK):
            points[start : start + _BLOCK] = unit((rows[start : start + _BLOCK] - self.mean) @ self.axes)
        return points

    def strengths(self, rows: Matrix) -> NDArray[np.float64]:
        """Per fitted row the cosine similarity to its cluster's centroid; 0 for the unclustered."""
        found = np.zeros(len(rows))
        is_member = self.labels >= 0
        if is_member.any():
            points = self.project(rows[is_member])
            found[is_member] = (points * self.centroids[self.labels[is_member]]).sum(axis=1)
        return found

    def assign(self, rows: Matrix) -> Labels:
        """The nearest cluster of each row, or -1 where it is further from it than every member."""
        labels = np.full(len(rows), UNCLUSTERED, dtype=np.int64)
        if not len(self.centroids):
            return labels
        for start in range(0, len(rows), _BLOCK):
            similarity = self.project(rows[start : start + _BLOCK]) @ self.centroids.T
            nearest = first_best(similarity)
            is_near = similarity.max(axis=1) >= self.thresholds[nearest] - TIE
            labels[start : start + _BLOCK] = np.where(is_near, nearest, UNCLUSTERED)
        return labels


def fit_clusters(rows: Matrix, weights: Labels, *, seed: int = 0) -> Clusters:
    """Cluster distinct notes.

    Args:
        rows: One unit vector per distinct note, shape (n, dimensions), in a canonical order that the caller fixes;
            single precision will do.
        weights: How many records each of the notes stands for.
        seed: Draws the subsamples and the sample of a large fit.
    """
    from threadpoolctl import threadpool_limits

    with threadpool_limits(limits=1, user_api="blas"):  # on a busy machine, threads wait on each other for minutes
        return _fit(rows, weights, seed)


def _fit(rows: Matrix, weights: Labels, seed: int) -> Clusters:
    if len(rows) <= MAX_SAMPLE:
        rows = rows.astype(np.float64)
    if len(rows) <= MAX_SMALL:
        labels = cluster_by_consensus(rows, np.random.default_rng(seed))
        return _describe(rows, _drop_small(labels, weights), CONSENSUS)
    if len(rows) <= MAX_SAMPLE:
        return _describe(rows, _cluster_by_density(rows, weights), HDBSCAN_PCA)
    sample = np.sort(np.random.default_rng(seed).choice(len(rows), MAX_SAMPLE, replace=False))
    chosen = rows[sample].astype(np.float64)
    fit = _describe(chosen, _cluster_by_density(chosen, weights[sample]), HDBSCAN_PCA)
    labels = fit.assign(rows)
    labels[sample] = fit.labels
    return Clusters(labels, fit.mean, fit.axes, fit.centroids, fit.thresholds, fit.method)


def _cluster_by_density(rows: Matrix, weights: Labels) -> Labels:
    """HDBSCAN in few dimensions; noise joins a cluster whose members are no nearer to its centre."""
    from hdbscan import HDBSCAN

    mean, axes = principal_components(rows, N_COMPONENTS)
    least = max(5, round(len(rows) ** 0.5 / 2))
    model = HDBSCAN(min_cluster_size=least, min_samples=5, core_dist_n_jobs=1)
    labels: Labels = model.fit_predict(unit((rows - mean) @ axes)).astype(np.int64)
    is_own = (labels == UNCLUSTERED) & (weights >= least)  # one note that many people wrote
    labels[is_own] = labels.max() + 1 + np.arange(is_own.sum())
    is_noise = labels == UNCLUSTERED
    labels[is_noise] = _describe(rows, labels, HDBSCAN_PCA).assign(rows[is_noise])
    return number_in_order(labels)


def _drop_small(labels: Labels, weights: Labels) -> Labels:
    """The labels renumbered, those of clusters that stand for fewer than `MIN_MEMBERS` records -1."""
    kept = np.flatnonzero(np.bincount(labels, weights) >= MIN_MEMBERS)
    new = np.full(labels.max(initial=UNCLUSTERED) + 1, UNCLUSTERED, dtype=np.int64)
    new[kept] = np.arange(len(kept))
    return new[labels]


def _describe(rows: Matrix, labels: Labels, method: str) -> Clusters:
    n_clusters = int(labels.max(initial=UNCLUSTERED)) + 1
    mean: Matrix = np.zeros(rows.shape[1])
    axes: Matrix = np.eye(rows.shape[1])
    if n_clusters > 1 and len(rows) >= MIN_FOR_CONSENSUS:  # else all that tells members from strangers is the mean
        mean, axes = principal_components(rows, N_COMPONENTS)
    points = unit((rows - mean) @ axes)
    centroids, thresholds = np.zeros((n_clusters, axes.shape[1])), np.zeros(n_clusters)
    for c in range(n_clusters):
        members = points[labels == c]
        others = unit(members.sum(axis=0) - members) if len(members) > 1 else members
        centroids[c] = unit(members.sum(axis=0, keepdims=True))[0]
        thresholds[c] = (members * others).sum(axis=1).min()
    return Clusters(labels, mean, axes, centroids, thresholds, method)
