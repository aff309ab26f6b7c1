"""Stage `calibration_history`: one row per evaluation; recalibrations add rows and change none."""

from collections.abc import Mapping
from typing import Any, Final

import pandas as pd

from caliber_pipeline.core.agreement import CELLS, ConfusionMatrix
from caliber_pipeline.core.alignment_metrics import confusion_matrix, metric_value
from caliber_pipeline.core.schemas import CALIBRATION_HISTORY, conform_frame, empty_frame

FIGURES: Final = ("accuracy", "precision", "recall", "specificity", "f1_score", "cohen_kappa")
_KEY: Final = ["criteria_version", "evaluated_at"]


def build_row(version: str, metrics: pd.DataFrame, optimized: pd.DataFrame) -> dict[str, Any]:
    """One evaluation of a version, from its metrics and the decision about it, and from what these were made of."""
    row = optimized.iloc[0]
    kept = ("base", "round", "decision", "decision_reason", "champion", "stop_reason")
    is_sealed = bool(pd.isna(row["test_true_positives"]))
    test = None if is_sealed else ConfusionMatrix(*(int(row[f"test_{cell}"]) for cell in CELLS))
    return {
        "criteria_version": version,
        "evaluated_at": pd.Timestamp(metrics.attrs["evaluated_at"]),
        **{name: row[name] for name in kept},
        "n_failed": int(metric_value(metrics, "all", "n_failed") or 0),
        "n_examples": int(metric_value(metrics, "all", "n_examples") or 0),
        **_figures("all", confusion_matrix(metrics, "all")),
        **_figures("dev", confusion_matrix(metrics, "dev")),
        **_figures("test", test),
        "is_test_sealed": is_sealed,
        **{name: metrics.attrs[name] for name in CALIBRATION_HISTORY.names if name.endswith("_fingerprint")},
    }


def append_evaluations(
    history: pd.DataFrame | None,
    metrics_by_version: Mapping[str, pd.DataFrame],
    optimized_by_version: Mapping[str, pd.DataFrame],
) -> pd.DataFrame:
    """The history with the evaluations that it lacks, in the order of time.

    A version whose evaluation is not finished (metrics without the decision on the same data) is left for later.
    """
    rows = [
        build_row(version, metrics, optimized_by_version[version])
        for version, metrics in metrics_by_version.items()
        if version in optimized_by_version
        and optimized_by_version[version].attrs.get("evaluated_at") == metrics.attrs["evaluated_at"]
    ]
    known = empty_frame("calibration_history") if history is None else history
    if rows:
        columns = {name: pd.Series([row[name] for row in rows], dtype=object) for name in CALIBRATION_HISTORY.names}
        new = conform_frame(pd.DataFrame(columns), "calibration_history")
        known = pd.concat([known, new], ignore_index=True).drop_duplicates(_KEY, keep="first")
    return known.sort_values(["evaluated_at", "criteria_version"], ignore_index=True)


def latest_evaluations(history: pd.DataFrame) -> pd.DataFrame:
    """The last evaluation of each version, in the order in which the versions were first evaluated."""
    first = history.groupby("criteria_version")["evaluated_at"].min()
    latest = history.drop_duplicates("criteria_version", keep="last")
    order = latest["criteria_version"].map(first)
    return latest.assign(_order=order).sort_values(["_order", "criteria_version"]).drop(columns="_order")


def _figures(split: str, cells: ConfusionMatrix | None) -> dict[str, Any]:
    if cells is None:
        return dict.fromkeys([f"{split}_{name}" for name in ("n", *FIGURES, *CELLS)])
    figures = {name: cells.figures[name] for name in FIGURES}
    counts = dict(zip(CELLS, cells.cells, strict=True))
    return {f"{split}_{name}": value for name, value in {"n": cells.n, **figures, **counts}.items()}
