"""Inclusion weights: how many records each labelled one stands for, where labels were sampled actively."""

from typing import Final

import numpy as np
import pandas as pd

from caliber_pipeline.core.agreement import Floats
from caliber_pipeline.core.fingerprints import hash_texts

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


def thin_sampled(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows as a plain random sample, for what counts records that weigh the same: exact tests and guarantees.

    Of the rows that were sampled by unequal probabilities, each is kept with a chance in proportion to its weight, by
    a stable hash of its id, so that all that are kept had the same chance: rejection sampling (von Neumann, 1951).
    Rows without a probability count as a random sample, and are kept.

    Args:
        rows: With record_id, and `weight` where labels were sampled.
    """
    if WEIGHT not in rows:
        return rows
    weights = rows[WEIGHT].to_numpy(dtype=np.float64, na_value=np.nan)
    if np.isnan(weights).all():
        return rows
    luck = hash_texts("thinning\x1f" + rows["record_id"].astype("string[pyarrow]")) / np.float64(2**64)
    kept: pd.DataFrame = rows[np.isnan(weights) | (luck < weights / np.nanmax(weights))]
    return kept
