"""All metrics with intervals for ten million rows, beside scikit-learn's functions for the same metrics, in one run.

python -m caliber_pipeline_tests.benchmarks.metrics [ROWS]
"""

import sys
import time
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from caliber_pipeline.core.agreement import ConfusionMatrix
from caliber_pipeline.core.alignment_metrics import compute_alignment_metrics
from caliber_pipeline.core.conforming import frame_from_arrow
from caliber_pipeline.core.intervals import CellSample, metric_intervals

Scores = npt.NDArray[np.int8]
N_REPEATS = 3


def make_scores(n: int) -> tuple[Scores, Scores]:
    """People accept 70 %, the judge is right on 85 %."""
    rng = np.random.default_rng(0)
    human = (rng.random(n) < 0.7).astype(np.int8)
    return human, np.where(rng.random(n) < 0.85, human, 1 - human).astype(np.int8)


def make_scored(human: Scores, llm: Scores) -> pd.DataFrame:
    """The joined table as the stage takes it, ungrouped, one verdict in a hundred missing."""
    rng = np.random.default_rng(1)
    codes = pa.array(rng.integers(0, 3, len(human)), pa.int32())
    columns = {
        "split": pa.DictionaryArray.from_arrays(codes, ["train", "dev", "test"]).cast(pa.string()),
        "human_score": pa.array(human),
        "llm_score": pa.array(llm, mask=rng.random(len(llm)) < 0.01),
        "is_example": pa.array(np.zeros(len(human), dtype=np.bool_)),
    }
    return frame_from_arrow(pa.table(columns))


def with_sklearn(human: Scores, llm: Scores) -> dict[str, float]:
    """The same point metrics, without intervals."""
    from sklearn import metrics

    return {
        "accuracy": metrics.accuracy_score(human, llm),
        "precision": metrics.precision_score(human, llm),
        "recall": metrics.recall_score(human, llm),
        "specificity": metrics.recall_score(human, llm, pos_label=0),
        "f1_score": metrics.f1_score(human, llm),
        "balanced_accuracy": metrics.balanced_accuracy_score(human, llm),
        "mcc": metrics.matthews_corrcoef(human, llm),
        "cohen_kappa": metrics.cohen_kappa_score(human, llm),
    }


def with_intervals(human: Scores, llm: Scores) -> dict[str, float | None]:
    """Ours on the same columns: all figures with their intervals."""
    matrix = ConfusionMatrix.from_scores(human, llm)
    metric_intervals(CellSample.from_counts(matrix.cells))
    return dict(matrix.figures)


def seconds(work: Callable[[], object]) -> float:
    """The fastest of a few runs."""
    times = []
    for _ in range(N_REPEATS):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return min(times)


def main() -> None:
    """Measure and print."""
    n = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000_000
    human, llm = make_scores(n)
    scored = make_scored(human, llm)
    theirs, ours = with_sklearn(human, llm), with_intervals(human, llm)  # also warms up the imports
    gap = max(abs(theirs[name] - (ours[name] or 0.0)) for name in theirs)
    columns_s, stage_s = seconds(lambda: with_intervals(human, llm)), seconds(lambda: compute_alignment_metrics(scored))
    sklearn_s = seconds(lambda: with_sklearn(human, llm))
    print(f"{n:,} rows; largest difference between the two: {gap:.1e}")  # noqa: T201
    print(f"scikit-learn, 8 metrics, no intervals:           {sklearn_s:8.3f} s")  # noqa: T201
    print(f"ours, 14 metrics with intervals, same columns:   {columns_s:8.3f} s  ({sklearn_s / columns_s:,.0f} times)")  # noqa: T201
    print(f"ours, whole stage from the table, all 4 splits:  {stage_s:8.3f} s  ({sklearn_s / stage_s:,.0f} times)")  # noqa: T201


if __name__ == "__main__":
    main()
