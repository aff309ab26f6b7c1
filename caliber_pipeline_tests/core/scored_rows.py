"""Verdicts with labels, as the figures and decisions of a version take them."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray


def scored(
    human: NDArray[np.int8],
    llm: NDArray[np.int8],
    weights: NDArray[np.float64] | None = None,
    groups: Sequence[str] | None = None,
    *,
    split: str = "dev",
) -> pd.DataFrame:
    """A row per record, each in a group of its own where no groups are given; with a weight where they are given."""
    n = len(human)
    columns = {
        "record_id": [f"r{i}" for i in range(n)],
        "group": groups or [f"g{i}" for i in range(n)],
        "split": split,
        "human_score": pd.Series(human, dtype="int8[pyarrow]"),
        "llm_score": pd.Series(llm, dtype="int8[pyarrow]"),
        "is_example": False,
    }
    return pd.DataFrame(columns if weights is None else columns | {"weight": weights})
