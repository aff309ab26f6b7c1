"""Clusters, their stability and the assignment of what was not fitted."""

import numpy as np
import pytest
from numpy.typing import NDArray

from caliber_pipeline.core import clustering
from caliber_pipeline.core.clustering import UNCLUSTERED, fit_clusters
from caliber_pipeline.core.consensus_clustering import (
    MIN_JOINING,
    cluster_by_consensus,
    join_small,
    share_on_sphere,
    unit,
)
from caliber_pipeline.core.stability import bootstrap_jaccard


def _groups(n_groups: int, size: int, *, spread: float, seed: int = 0, dimensions: int = 32) -> NDArray[np.floating]:
    """Unit vectors around random directions, group after group."""
    rng = np.random.default_rng(seed)
    centres = np.repeat(unit(rng.normal(size=(n_groups, dimensions))), size, axis=0)
    return unit(centres + spread * rng.normal(size=centres.shape) / dimensions**0.5)


def _agreement(labels: NDArray[np.int64], size: int) -> float:
    from sklearn.metrics import adjusted_rand_score

    return float(adjusted_rand_score(np.repeat(np.arange(len(labels) // size), size), labels))


@pytest.mark.parametrize(("n_groups", "size"), [(3, 7), (6, 10), (10, 20)])
def test_well_separated_groups_are_found_at_20_60_and_200(n_groups: int, size: int) -> None:
    rows = _groups(n_groups, size, spread=0.5)
    labels = cluster_by_consensus(rows, np.random.default_rng(0))
    assert _agreement(labels, size) == pytest.approx(1.0)


def test_groups_of_very_different_sizes_are_found_but_for_the_smallest_at_times() -> None:
    from sklearn.metrics import adjusted_rand_score

    sizes = [40, 20, 10, 5, 3]
    gold = np.repeat(np.arange(5), sizes)
    n_found = []
    for seed in range(10):
        rng = np.random.default_rng(seed)
        rows = unit(unit(rng.normal(size=(5, 32)))[gold] + 0.4 * rng.normal(size=(78, 32)) / 32**0.5)
        found = fit_clusters(rows, np.ones(78, dtype=np.int64)).labels
        assert adjusted_rand_score(gold, found) > 0.97  # the group of three with that of five: 0.99
        n_found.append(found.max() + 1)
    assert set(n_found) <= {4, 5}
    assert n_found.count(5) >= 5


def test_what_is_too_small_to_last_joins_the_nearest_and_a_stranger_none() -> None:
    labels = np.repeat([0, 1, 2, 3], [30, 30, 1, 1])
    shares = (labels[:, None] == labels[None, :]).astype(np.float64)
    shares[60, :30] = shares[:30, 60] = MIN_JOINING * 1.5
    shares[61, :61] = shares[:61, 61] = MIN_JOINING * 0.5
    joined = join_small(labels, shares)
    assert joined.tolist() == [0] * 30 + [1] * 30 + [0] + [2]


def test_a_note_belongs_to_the_clusters_it_lies_between_and_noise_moves_no_share() -> None:
    points = _groups(2, 20, spread=0.3, dimensions=6)
    between = unit(points[:20].sum(axis=0, keepdims=True) + points[20:].sum(axis=0, keepdims=True))
    rows = np.vstack([points, between])
    shares = share_on_sphere(rows, 6, np.random.default_rng(0))
    assert shares.sum(axis=1) == pytest.approx(1.0)
    assert shares[-1].max() < shares[:20].max(axis=1).mean()
    noisy = unit(rows + 1e-6 * np.random.default_rng(1).normal(size=rows.shape))
    assert share_on_sphere(noisy, 6, np.random.default_rng(0)) == pytest.approx(shares, abs=1e-4)


def test_clusters_are_numbered_as_their_notes_come_whatever_the_noise() -> None:
    rows = _groups(12, 8, spread=1.2)
    labels = cluster_by_consensus(rows, np.random.default_rng(0))
    assert labels[np.unique(labels, return_index=True)[1]].tolist() == list(range(labels.max() + 1))
    assert sorted(np.unique(labels, return_index=True)[1]) == list(np.unique(labels, return_index=True)[1])
    for seed in range(5):
        noisy = unit(rows + 1e-6 * np.random.default_rng(seed).normal(size=rows.shape))
        assert np.array_equal(cluster_by_consensus(noisy, np.random.default_rng(0)), labels)


@pytest.mark.parametrize("spread", [0.0, 0.1, 0.2])
def test_strangers_do_not_join_the_only_cluster_there_is(spread: float) -> None:
    fit = fit_clusters(_groups(1, 10, spread=spread), np.ones(10, dtype=np.int64))
    assert set(fit.labels) == {0}
    assert fit.strengths(_groups(1, 10, spread=spread)) == pytest.approx(1.0, abs=0.2)
    strangers = unit(np.random.default_rng(9).normal(size=(50, 32)))
    assert set(fit.assign(strangers)) == {UNCLUSTERED}


def test_near_duplicates_stay_together() -> None:
    rows = _groups(12, 2, spread=0.05)
    labels = cluster_by_consensus(rows, np.random.default_rng(0))
    assert all(labels[i] == labels[i + 1] for i in range(0, 24, 2))


def test_notes_that_are_all_near_duplicates_are_one_cluster() -> None:
    assert set(cluster_by_consensus(_groups(1, 9, spread=0.01), np.random.default_rng(0))) == {0}


def test_few_strangers_are_left_alone_and_few_paraphrases_are_not() -> None:
    strangers, weights = np.eye(5), np.ones(5, dtype=np.int64)
    assert set(fit_clusters(strangers, weights).labels) == {UNCLUSTERED}
    paraphrases = _groups(2, 3, spread=0.4)
    assert set(fit_clusters(paraphrases, np.ones(6, dtype=np.int64)).labels) == {0, 1}


def test_one_note_that_several_records_share_is_a_cluster() -> None:
    assert fit_clusters(np.eye(3), np.array([1, 5, 1])).labels.tolist() == [UNCLUSTERED, 0, UNCLUSTERED]


def test_no_notes_and_one_note_are_no_error() -> None:
    assert fit_clusters(np.zeros((0, 8)), np.zeros(0, dtype=np.int64)).labels.tolist() == []
    assert fit_clusters(np.ones((1, 8)), np.ones(1, dtype=np.int64)).labels.tolist() == [UNCLUSTERED]


def test_a_seed_fixes_the_result() -> None:
    rows, weights = _groups(8, 8, spread=1.5), np.ones(64, dtype=np.int64)
    assert np.array_equal(fit_clusters(rows, weights, seed=3).labels, fit_clusters(rows, weights, seed=3).labels)


def test_members_are_assigned_to_their_own_cluster_and_strangers_to_none() -> None:
    rows = _groups(6, 12, spread=0.5)
    fit = fit_clusters(rows, np.ones(72, dtype=np.int64))
    held_out = _groups(6, 12, spread=0.4, seed=0)[::3]
    assert np.array_equal(fit.assign(rows), fit.labels)
    assert np.array_equal(fit.assign(held_out), fit.labels[::3])
    strangers = unit(np.random.default_rng(9).normal(size=(50, 32)))
    assert (fit.assign(strangers) == UNCLUSTERED).mean() > 0.5


def test_many_notes_are_clustered_by_density_and_a_sample_stands_for_more(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = _groups(12, 150, spread=0.8)
    weights = np.ones(len(rows), dtype=np.int64)
    full = fit_clusters(rows, weights)
    assert full.method == "hdbscan"
    assert _agreement(full.labels, 150) > 0.95
    monkeypatch.setattr(clustering, "MAX_SAMPLE", 1_200)
    sampled = fit_clusters(rows, weights, seed=1)
    assert _agreement(sampled.labels, 150) > 0.9
    assert (sampled.labels == UNCLUSTERED).mean() < 0.1


def test_stability_is_the_mean_best_jaccard() -> None:
    # the refit splits off the last row: {0,1,2} is found again whole, {3,4,5} as {3,4} and {5}
    labels = np.array([0, 0, 0, 1, 1, 1])
    halves = np.array([0, 0, 0, 1, 1, 2])
    rng = np.random.default_rng(0)
    draws = [np.unique(rng.integers(0, 6, 6)) for _ in range(1)]
    found = bootstrap_jaccard(labels, lambda rows, _: halves[rows], n_resamples=1, rng=np.random.default_rng(0))
    second = [row for row in draws[0] if row >= 3]
    kept = [row for row in second if row != 5]
    assert found[0] == 1.0
    assert found[1] == pytest.approx(max(len(kept), len(second) - len(kept)) / len(second))


def test_stability_of_clear_groups_is_high_and_of_noise_low() -> None:
    def measure(rows: NDArray[np.floating]) -> float:
        weights = np.ones(len(rows), dtype=np.int64)
        fit = fit_clusters(rows, weights)

        def refit(chosen: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
            return fit_clusters(rows[chosen], weights[chosen], seed=seed).labels

        found = bootstrap_jaccard(fit.labels, refit, n_resamples=10, rng=np.random.default_rng(0))
        return float(np.nanmean(found))

    assert measure(_groups(5, 10, spread=0.4)) > 0.9
    assert measure(unit(np.random.default_rng(0).normal(size=(50, 32)))) < 0.6
