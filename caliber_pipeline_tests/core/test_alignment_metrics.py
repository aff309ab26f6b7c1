from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from caliber_pipeline.core.agreement import ConfusionMatrix
from caliber_pipeline.core.alignment_metrics import compute_alignment_metrics, confusion_matrix, metric_value

DATASETS = Path(__file__).parents[3] / "shared" / "datasets"


def scored_frame(human: list[int], llm: list[int | None], **columns: object) -> pd.DataFrame:
    n = len(human)
    frame = {
        "record_id": [f"r{i}" for i in range(n)],
        "split": ["dev"] * n,
        "human_score": pd.array(human, dtype="int8[pyarrow]"),
        "llm_score": pd.array(llm, dtype="int8[pyarrow]"),
        "is_example": [False] * n,
        "status": ["failed" if score is None else "scored" for score in llm],
        **columns,
    }
    return pd.DataFrame(frame)


def test_records_without_a_verdict_and_examples_are_counted_but_not_scored() -> None:
    scored = scored_frame([1, 1, 0, 0, 1], [1, None, 0, 1, 1], is_example=[False] * 4 + [True])

    metrics = compute_alignment_metrics(scored)

    assert confusion_matrix(metrics, "dev") == ConfusionMatrix(1, 1, 1, 0)
    assert metric_value(metrics, "dev", "n_failed") == 1
    assert metric_value(metrics, "dev", "n_examples") == 1
    assert metric_value(metrics, "dev", "coverage") == 3 / 4
    assert metric_value(metrics, "dev", "accuracy") == pytest.approx(2 / 3)


def test_every_split_has_every_figure_and_undefined_ones_a_reason() -> None:
    metrics = compute_alignment_metrics(scored_frame([1, 1], [1, 1]))

    assert set(metrics["split"]) == {"train", "dev", "test", "all"}
    assert metrics.groupby("split")["metric"].agg(set).map(len).nunique() == 1
    undefined = metrics[metrics["value"].isna()]
    assert undefined["reason"].notna().all()
    assert undefined["ci_low"].isna().all()
    assert metric_value(metrics, "dev", "cohen_kappa") is None
    assert metric_value(metrics, "train", "accuracy") is None


def test_a_frame_without_rows_has_no_value() -> None:
    metrics = compute_alignment_metrics(scored_frame([], []))

    assert metric_value(metrics, "all", "accuracy") is None


def test_an_unknown_figure_is_refused() -> None:
    with pytest.raises(KeyError, match="0 figures 'kappa' on 'dev'"):
        metric_value(compute_alignment_metrics(scored_frame([1], [1])), "dev", "kappa")


def test_an_unknown_split_is_refused() -> None:
    with pytest.raises(ValueError, match=r"unknown values \['validation'\]"):
        compute_alignment_metrics(scored_frame([1], [1], split=["validation"]))


def test_intervals_hold_the_value_and_input_order_does_not_matter() -> None:
    rng = np.random.default_rng(0)
    human = rng.integers(0, 2, 200).tolist()
    llm: list[int | None] = [int(h if rng.random() < 0.8 else 1 - h) for h in human]
    scored = scored_frame(human, llm, split=rng.choice(["train", "dev", "test"], 200))

    metrics = compute_alignment_metrics(scored)

    with_interval = metrics[metrics["ci_low"].notna()]
    assert (with_interval["ci_low"] <= with_interval["value"]).all()
    assert (with_interval["value"] <= with_interval["ci_high"]).all()
    pd.testing.assert_frame_equal(metrics, compute_alignment_metrics(scored.sample(frac=1, random_state=1)))


@pytest.mark.skipif(not DATASETS.is_dir(), reason="the shared data sets are not beside the checkout")
@pytest.mark.parametrize(
    ("name", "expected", "accuracy", "kappa"),
    [
        # From the data sets' README: accuracy, kappa, TN, FP, FN, TP.
        ("booookscore_sample.csv", ConfusionMatrix(183, 21, 52, 31), 0.7108, 0.1578),
        ("openqa_eval_sample.csv", ConfusionMatrix(148, 105, 18, 29), 0.8433, 0.6805),
    ],
)
def test_figures_of_the_shared_data_sets(name: str, expected: ConfusionMatrix, accuracy: float, kappa: float) -> None:
    data = pd.read_csv(DATASETS / name)

    metrics = compute_alignment_metrics(scored_frame(data["human_score"].tolist(), data["llm_score"].tolist()))

    assert confusion_matrix(metrics, "all") == expected
    assert metric_value(metrics, "all", "accuracy") == pytest.approx(accuracy, abs=5e-5)
    assert metric_value(metrics, "all", "cohen_kappa") == pytest.approx(kappa, abs=5e-5)
