"""Ratings for tests: one row per record, one column per annotator, NaN where nobody judged."""

import numpy as np

from caliber_pipeline.core.annotators import Ratings


def ratings_of(scores: object) -> Ratings:
    matrix = np.asarray(scores, dtype=np.float64)
    ids = np.array([f"r{i:05d}" for i in range(len(matrix))], dtype=object)
    return Ratings(ids, tuple(f"a{j}" for j in range(matrix.shape[1])), matrix)
