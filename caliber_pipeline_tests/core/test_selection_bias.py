"""The best of several looks better than it is: how much is taken back."""

import numpy as np
import pytest

from caliber_pipeline.core.selection_bias import correct_best


def test_of_judges_that_all_guess_the_best_is_corrected_to_about_nothing() -> None:
    # Kappa of a guess has a standard error of 1/sqrt(200) = 0.07; the best of 8 stands at about 1.42 of them, 0.10.
    raw, corrected = [], []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        human, guesses = rng.integers(0, 2, 200).astype(np.int8), rng.integers(0, 2, (8, 200)).astype(np.int8)
        best = correct_best(human, guesses, np.arange(200), seed=seed)
        assert best is not None
        assert best.corrected is not None
        raw.append(best.kappa)
        corrected.append(best.corrected)
    assert np.mean(raw) == pytest.approx(0.10, abs=0.03)
    assert np.mean(corrected) == pytest.approx(0.0, abs=0.04)


def test_a_clear_winner_loses_next_to_nothing_and_the_only_one_nothing() -> None:
    rng = np.random.default_rng(0)
    human = rng.integers(0, 2, 400).astype(np.int8)
    good = np.where(rng.random(400) < 0.1, 1 - human, human).astype(np.int8)
    noise = rng.integers(0, 2, 400).astype(np.int8)
    groups = np.arange(400) // 2
    best = correct_best(human, np.stack([noise, good]), groups)
    assert best is not None
    assert (best.position, best.n_compared) == (1, 2)
    assert best.corrected == pytest.approx(best.kappa, abs=0.02)
    alone = correct_best(human, good[None], groups)
    assert alone is not None
    assert alone.corrected == alone.kappa


def test_nothing_to_compare_is_none() -> None:
    nothing = np.zeros(0, dtype=np.int8)
    assert correct_best(nothing, np.zeros((2, 0), dtype=np.int8), nothing.astype(np.int64)) is None
    ones = np.ones(5, dtype=np.int8)
    assert correct_best(ones, ones[None], np.arange(5)) is None
