"""Groups and splits at their thresholds: what was drawn once stays drawn."""

import pandas as pd
import pytest

from caliber_pipeline.core.splits import MIN_DISTINCT_QUERIES, default_groups, set_aside_calibration


@pytest.mark.parametrize(("n_queries", "n_groups"), [(MIN_DISTINCT_QUERIES, 20), (MIN_DISTINCT_QUERIES - 1, 38)])
def test_queries_are_groups_from_twenty_distinct_ones_on(n_queries: int, n_groups: int) -> None:
    query = pd.Series([f"query {i}" for i in range(n_queries)] * 2)
    output = pd.Series([f"output {i}" for i in range(2 * n_queries)])
    assert default_groups(query, output).nunique() == n_groups


def test_the_half_of_test_that_abstention_is_learned_on_stays_the_same() -> None:
    group = pd.Series([*"abcdefgh", *"abcdefgh"], dtype="string[pyarrow]")
    split = pd.Series(["test"] * 8 + ["dev"] * 4 + ["train"] * 4, dtype="string[pyarrow]")
    placed = set_aside_calibration(split, group)
    assert placed.tolist()[8:] == split.tolist()[8:]
    assert "".join(group[placed == "calibration"]) == "adfh"
