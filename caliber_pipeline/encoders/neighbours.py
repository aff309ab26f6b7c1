"""Labelled records as the vectors by which their near neighbours are found."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from caliber_pipeline.core.misalignments import needs_vectors
from caliber_pipeline.encoders.protocol import Encoder


def encode_neighbours(encoder: Encoder, scored: pd.DataFrame, records: pd.DataFrame) -> NDArray[np.float64] | None:
    """Unit vectors of queries and outputs, shape (len(scored), dimensions); None where neighbours could tell nothing.

    Args:
        encoder: Of the texts.
        scored: Verdicts with labels, as `core.judge_scores.join_labels` gives them.
        records: record_id, query, output.
    """
    if not needs_vectors(scored):
        return None
    texts = scored[["record_id"]].merge(records, on="record_id")
    return encoder.encode([*(texts["query"] + "\n" + texts["output"])]).astype(np.float64)
