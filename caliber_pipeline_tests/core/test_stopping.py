"""The lower bound of kappa that a stop asks for."""

import numpy as np
import pandas as pd
import pytest

from caliber_pipeline.core.intervals import CellSample, metric_intervals
from caliber_pipeline.core.stopping import kappa_lower_bound


def frame(n: int, group_size: int = 1, weight: list[float] | None = None) -> pd.DataFrame:
    human = np.arange(n) % 2
    llm = np.where(np.arange(n) % 10 == 3, 1 - human, human)
    return pd.DataFrame(
        {
            "split": ["dev"] * n,
            "group": [f"g{i // group_size}" for i in range(n)],
            "human_score": human,
            "llm_score": llm,
            "is_example": False,
            "weight": weight or [1.0] * n,
        }
    )


def test_single_records_have_the_bound_of_their_four_counts() -> None:
    # Every tenth verdict is a false negative: 40 accepts right, 50 rejects right, 10 accepts rejected, of 100.
    expected = metric_intervals(CellSample.from_counts([40, 50, 0, 10]), confidence=0.9)["cohen_kappa"][0]
    assert kappa_lower_bound(frame(100)) == pytest.approx(expected)


def test_groups_and_weights_make_it_less_sure_and_order_does_not_count() -> None:
    single = kappa_lower_bound(frame(100))
    grouped = kappa_lower_bound(frame(100, group_size=10))
    weighted = kappa_lower_bound(frame(100, weight=[1.0, 5.0] * 50))
    assert single is not None
    assert grouped is not None
    assert weighted is not None
    assert weighted < single
    shuffled = frame(100, weight=[1.0, 5.0] * 50).sample(frac=1, random_state=0)
    assert kappa_lower_bound(shuffled) == weighted


def test_nothing_judged_has_no_bound_and_one_verdict_alone_has_none() -> None:
    assert kappa_lower_bound(frame(10).assign(is_example=True)) is None
    assert kappa_lower_bound(frame(10).assign(human_score=1, llm_score=1)) is None
