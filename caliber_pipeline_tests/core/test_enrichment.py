"""Enrichment against tables worked out by hand."""

import pandas as pd
import pytest

from caliber_pipeline.core.enrichment import measure_enrichment


def _patterns() -> pd.DataFrame:
    return pd.DataFrame(
        [
            ("reject-a", "reject", "Invents facts", False, [f"a{i}" for i in range(6)]),
            ("reject-b", "reject", "Rude", False, [f"b{i}" for i in range(6)]),
            ("unclustered-reject", "reject", "Unclustered", True, ["u0", "u1"]),
            ("accept-c", "accept", "Short but right", False, ["c0", "c1"]),
        ],
        columns=["pattern_id", "polarity", "name", "is_unclustered", "record_ids"],
    )


def _scored() -> pd.DataFrame:
    """The judge accepts 5 of 6 in a, 0 of 6 in b, 1 of 2 unclustered; rejects c0; 100 noteless ones are right."""
    rows = [(f"a{i}", 0, int(i < 5)) for i in range(6)] + [(f"b{i}", 0, 0) for i in range(6)]
    rows += [("u0", 0, 1), ("u1", 0, 0), ("c0", 1, 0), ("c1", 1, 1)] + [(f"x{i}", 0, 0) for i in range(100)]
    return pd.DataFrame(rows, columns=["record_id", "human_score", "llm_score"]).astype({"llm_score": "Int64"})


def test_the_universe_is_what_can_be_missed() -> None:
    table = measure_enrichment(_scored(), _patterns()).set_index("pattern_id")
    row = table.loc["reject-a"]
    # among the 14 rejects with notes 6 are missed: 5 of a's 6 and 1 of the other 8; the 100 without notes do not count
    assert list(row[["n_missed", "n_caught", "n_other_missed", "n_other_caught"]]) == [5, 1, 1, 7]
    # (C(6,5) C(8,1) + C(6,6) C(8,0)) / C(14,6) = (48 + 1) / 3003
    assert row["p_value"] == pytest.approx(49 / 3003)
    # the least of three p-values, so q = 3 p
    assert row["q_value"] == pytest.approx(3 * 49 / 3003)
    assert row["is_enriched"]
    assert row["odds_ratio"] == pytest.approx(35.0)
    assert (row["share_missed"], row["share_other_missed"]) == (pytest.approx(5 / 6), pytest.approx(1 / 8))


def test_accepts_are_compared_with_accepts() -> None:
    row = measure_enrichment(_scored(), _patterns()).set_index("pattern_id").loc["accept-c"]
    assert row["kind"] == "false_negative"
    assert list(row[["n_missed", "n_caught", "n_other_missed", "n_other_caught"]]) == [1, 1, 0, 0]
    assert row["p_value"] == 1
    assert pd.isna(row["share_other_missed"])
    assert pd.isna(row["odds_ratio"])


def test_failed_verdicts_and_examples_do_not_count() -> None:
    scored = _scored().assign(is_example=lambda s: s["record_id"] == "a0")
    scored.loc[scored["record_id"] == "a1", "llm_score"] = pd.NA
    row = measure_enrichment(scored, _patterns()).set_index("pattern_id").loc["reject-a"]
    assert list(row[["n_missed", "n_caught"]]) == [3, 1]


def test_a_theme_without_verdicts_is_tested_on_nothing() -> None:
    scored = _scored()
    scored["llm_score"] = pd.NA
    table = measure_enrichment(scored, _patterns())
    assert list(table["p_value"]) == list(table["q_value"]) == [1.0, 1.0, 1.0]
    assert table["share_missed"].isna().all()


def test_no_patterns_give_an_empty_table() -> None:
    assert measure_enrichment(_scored(), _patterns().head(0)).empty
