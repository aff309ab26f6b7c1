"""Inclusion weights: how many records each labelled one stands for, where labels were sampled actively."""

from typing import Final

import numpy as np
import pandas as pd

from caliber_pipeline.core.agreement import Floats

WEIGHT: Final = "weight"


def inclusion_weights(rows: pd.DataFrame) -> Floats | None:
    """Weights of the rows, 1 on average, so that their sums are numbers of records.

    Args:
        rows: With a column `weight` (1 / inclusion probability; null counts as 1) where labels were sampled.

    Returns:
        Shape (n,); None where all rows weigh the same, so that counts are all there is to know.
    """
    if WEIGHT not in rows or rows[WEIGHT].isna().all():
        return None
    weights = rows[WEIGHT].to_numpy(dtype=np.float64, na_value=1.0)
    if (weights == weights[:1]).all():
        return None
    return np.asarray(weights / np.sort(weights).mean(), dtype=np.float64)
