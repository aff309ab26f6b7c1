"""Ratings for tests: one row per record, one column per annotator, NaN where nobody judged."""

import numpy as np
import numpy.typing as npt

from caliber_pipeline.core.annotators import Ratings, code_groups


def ratings_of(scores: object, groups: npt.NDArray[np.generic] | None = None) -> Ratings:
    matrix = np.asarray(scores, dtype=np.float64)
    ids = np.array([f"r{i:05d}" for i in range(len(matrix))], dtype=object)
    codes = None if groups is None else code_groups(groups)
    return Ratings(ids, tuple(f"a{j}" for j in range(matrix.shape[1])), matrix, None, codes)
