"""The map places every note once, and patterns apart."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from caliber_pipeline.core.pattern_map import MAX_POINTS, map_notes


def _notes(n: int, n_patterns: int) -> tuple[pd.DataFrame, NDArray[np.float64], pd.DataFrame]:
    rng = np.random.default_rng(0)
    home = np.arange(n) % n_patterns
    vectors = np.eye(8)[home] + 0.05 * rng.normal(size=(n, 8))
    ids = [f"r{i:05}" for i in range(n)]
    notes = pd.DataFrame({"record_id": ids, "text": "note", "polarity": "reject"})
    rows = [
        {
            "pattern_id": f"p{k}",
            "record_ids": [i for i, h in zip(ids, home, strict=True) if h == k],
            "is_unclustered": k == 0,
        }
        for k in range(n_patterns)
    ]
    return notes, vectors, pd.DataFrame(rows)


def test_every_note_is_placed_once_and_patterns_lie_apart() -> None:
    notes, vectors, patterns = _notes(40, 4)
    points = map_notes(notes, vectors, patterns)
    assert sorted(points["record_id"]) == list(notes["record_id"])
    centres = points[points["pattern_id"] != "p0"].groupby("pattern_id")[["x", "y"]].mean().to_numpy()
    within = points.groupby("pattern_id")[["x", "y"]].std().to_numpy().max()
    distances = [np.linalg.norm(centres[i] - centres[j]) for i in range(3) for j in range(i)]
    assert min(distances) > 5 * within


def test_noise_in_the_vectors_does_not_mirror_the_map() -> None:
    notes, vectors, patterns = _notes(40, 4)
    first = map_notes(notes, vectors, patterns)[["x", "y"]].to_numpy()
    for mirrored in (vectors @ np.diag([-1.0] * 8), vectors[:, ::-1]):  # distances stay, axes come out otherwise
        assert np.abs(map_notes(notes, mirrored, patterns)[["x", "y"]].to_numpy() - first).max() < 1e-6


def test_many_notes_are_thinned_evenly() -> None:
    notes, vectors, patterns = _notes(3 * MAX_POINTS, 5)
    assert len(map_notes(notes, vectors, patterns)) == MAX_POINTS


def test_one_note_and_no_notes_are_no_error() -> None:
    notes, vectors, patterns = _notes(1, 1)
    assert len(map_notes(notes, vectors, patterns)) == 1
    assert map_notes(notes.head(0), vectors[:0], patterns.head(0)).empty
