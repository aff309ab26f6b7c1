"""The history: one row per evaluation, nothing overwritten, sealed where it must be."""

import pandas as pd

from caliber_pipeline.core.alignment_metrics import compute_alignment_metrics, seal_test
from caliber_pipeline.core.calibration_history import append_evaluations, latest_evaluations, summarize_evaluation
from caliber_pipeline.core.criteria import Criteria
from caliber_pipeline.core.optimized_criteria import build_row
from caliber_pipeline.core.stopping import Decision
from caliber_pipeline_tests.core.test_optimized_criteria import START

PROPOSED = Criteria(criteria="x", base="v001", round=1, author="optimizer")


def evaluation(
    version: str, at: str, criteria: Criteria | None = None, decision: str = "baseline"
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Metrics and decision of 8 records: on dev 2 TP, 1 TN, 1 FP; on test 1 TP, 1 FN, 2 without a verdict."""
    scored = pd.DataFrame(
        {
            "record_id": [f"r{i}" for i in range(8)],
            "group": [f"g{i}" for i in range(8)],
            "split": ["dev"] * 4 + ["test"] * 4,
            "human_score": pd.Series([1, 1, 0, 0, 1, 1, 1, 0], dtype="int8[pyarrow]"),
            "llm_score": pd.Series([1, 1, 0, 1, 1, 0, None, None], dtype="int8[pyarrow]"),
            "is_example": False,
            "weight": pd.Series([None] * 8, dtype="double[pyarrow]"),
            "vote_share": pd.Series([None] * 8, dtype="double[pyarrow]"),
        }
    )
    is_open = decision in {"baseline", "promoted"}
    metrics = compute_alignment_metrics(scored) if is_open else seal_test(compute_alignment_metrics(scored))
    attrs = {
        "evaluated_at": at,
        "records_fingerprint": "r",
        "annotations_fingerprint": "a",
        "criteria_fingerprint": "c",
    }
    decided = Decision(decision, "why", None, "v001", None)
    optimized = build_row(version, criteria or Criteria(criteria="x"), decided, None, None, None, START)
    metrics.attrs.update(attrs)
    optimized.attrs.update(attrs)
    return metrics, optimized


def history_of(*evaluations: tuple[str, str], before: pd.DataFrame | None = None) -> pd.DataFrame:
    made = {version: evaluation(version, at) for version, at in evaluations}
    return append_evaluations(before, {v: m for v, (m, _) in made.items()}, {v: o for v, (_, o) in made.items()})


MONDAY, TUESDAY = "2026-01-05T06:00:00+00:00", "2026-01-06T06:00:00+00:00"


def test_a_row_holds_the_figures_of_all_dev_and_test() -> None:
    row = history_of(("v001", MONDAY)).iloc[0]
    assert (row["all_n"], row["n_failed"], row["n_examples"]) == (6, 2, 0)
    assert (row["dev_true_positives"], row["dev_true_negatives"], row["dev_false_positives"]) == (2, 1, 1)
    assert row["dev_accuracy"] == 0.75
    # Dev: po = 3/4, people accept 2/4, the judge 3/4: pe = 1/2 * 3/4 + 1/2 * 1/4 = 1/2; kappa = 1/2.
    assert row["dev_cohen_kappa"] == 0.5
    assert (row["test_n"], row["test_false_negatives"]) == (2, 1)
    assert row["evaluated_at"] == pd.Timestamp(MONDAY)


def test_recalibrations_add_rows_and_the_same_evaluation_adds_none() -> None:
    first = history_of(("v001", MONDAY), ("v002", MONDAY))
    again = history_of(("v001", MONDAY), ("v002", MONDAY), before=first)
    pd.testing.assert_frame_equal(again, first)
    later = history_of(("v002", TUESDAY), before=first)
    assert later["criteria_version"].tolist() == ["v001", "v002", "v002"]
    assert latest_evaluations(later)["criteria_version"].tolist() == ["v001", "v002"]
    assert latest_evaluations(later)["evaluated_at"].tolist()[1] == pd.Timestamp(TUESDAY)


def test_an_evaluation_that_is_not_decided_yet_is_left_for_later() -> None:
    metrics, optimized = evaluation("v001", MONDAY)
    metrics.attrs["evaluated_at"] = TUESDAY
    assert append_evaluations(None, {"v001": metrics}, {"v001": optimized}).empty
    assert append_evaluations(None, {"v001": metrics}, {}).empty


def test_a_winner_that_is_not_judged_on_test_yet_is_left_for_later() -> None:
    metrics, optimized = evaluation("v002", MONDAY, PROPOSED, "promoted")
    sealed = seal_test(metrics)
    assert append_evaluations(None, {"v002": sealed}, {"v002": optimized}).empty


def test_the_calls_and_cost_of_judging_test_are_added_and_an_unknown_price_stays_unknown() -> None:
    metrics, optimized = evaluation("v002", MONDAY, PROPOSED, "promoted")
    metrics.attrs |= {"test_n_calls": "3", "test_cost_usd": "0.25"}
    spent = optimized.assign(n_calls=10, cost_usd=0.5)
    spent.attrs = optimized.attrs
    row = append_evaluations(None, {"v002": metrics}, {"v002": spent}).iloc[0]
    assert (row["n_calls"], row["cost_usd"]) == (13, 0.75)
    metrics.attrs["test_cost_usd"] = "nan"
    assert pd.isna(append_evaluations(None, {"v002": metrics}, {"v002": spent}).iloc[0]["cost_usd"])


def test_a_sealed_test_stays_null_and_undefined_figures_too() -> None:
    metrics, optimized = evaluation("v002", MONDAY, PROPOSED, "rejected")
    history = append_evaluations(None, {"v002": metrics}, {"v002": optimized})
    assert history["is_test_sealed"].tolist() == [True]
    assert pd.isna(history["test_accuracy"].iloc[0])
    summary = summarize_evaluation(history.iloc[0].to_dict())
    assert summary["splits"]["test"] is None
    assert summary["splits"]["dev"]["cohen_kappa"] == 0.5
    assert {"kappa_corrected", "n_test_looks"} <= set(summary)
    open_ = history_of(("v001", MONDAY)).iloc[0].to_dict()
    assert summarize_evaluation(open_)["splits"]["test"]["specificity"] is None
