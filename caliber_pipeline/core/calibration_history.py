"""Stage `calibration_history`: one row per evaluation; recalibrations add rows and change none."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import pandas as pd

from caliber_pipeline.core.agreement import CELLS
from caliber_pipeline.core.alignment_metrics import confusion_matrix, is_test_sealed, metric_value
from caliber_pipeline.core.conforming import conform_frame, empty_frame, plain_cell
from caliber_pipeline.core.optimized_criteria import is_test_reported
from caliber_pipeline.core.schemas import CALIBRATION_HISTORY

FIGURES: Final = ("accuracy", "precision", "recall", "specificity", "f1_score", "cohen_kappa")
_KEY: Final = ["criteria_version", "evaluated_at", "decided_at"]


@dataclass(frozen=True)
class CalibrationSummary:
    """The outcome of the loop.

    Attributes:
        champion: The version that won last on dev.
        versions: Per version its decision and figures, over all records and by split; test is None where sealed.
        patterns: Per pattern in the notes its name, count, polarity, stability and whether that is too low.
        stop_reason: Why the loop ended.
        n_records: Records.
        n_rejected_records: Rows of the records file that are none.
        n_rejected_annotations: Rows of the annotations file that are none.
        n_unclustered: Notes that belong to no pattern.
        output: The folder of the tables.
        n_stale_annotations: Annotations made under criteria that differ from the champion's in substance.
        human_kappa: How far two people agree with each other on dev; None where only one judged.
        judge_annotator_kappa: How far judge and one person agree on the same records.
        n_to_relabel: Records whose label is in doubt.
        n_unlabelled: Records that nobody judged.
        in_words: What the champion's figures say, in sentences.
        drift_alarm: What the drift test found, where it raised its alarm on the champion.
        first_rejections: Per table of rejected rows the line and the reason of the first, where there is one.
    """

    champion: str
    versions: list[dict[str, Any]]
    patterns: list[dict[str, Any]]
    stop_reason: str | None
    n_records: int
    n_rejected_records: int
    n_rejected_annotations: int
    n_unclustered: int
    output: str
    n_stale_annotations: int = 0
    human_kappa: float | None = None
    judge_annotator_kappa: float | None = None
    n_to_relabel: int = 0
    n_unlabelled: int = 0
    in_words: tuple[str, ...] = ()
    drift_alarm: str | None = None
    first_rejections: dict[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The summary as JSON takes it."""
        return dict(vars(self))


def build_row(version: str, metrics: pd.DataFrame, optimized: pd.DataFrame) -> dict[str, Any]:
    """One evaluation of a version, from its metrics and the decision about it, and from what these were made of."""
    row = optimized.iloc[0]
    kept = (
        *("base", "round", "decision", "decision_reason", "champion", "stop_reason", "decided_at", "is_by_hand"),
        *("p_value", "kappa_corrected", "n_test_looks", "n_stale_annotations"),
        *("n_model_calls", "n_model_tokens", "model_cost_usd"),
    )
    is_sealed = is_test_sealed(metrics)
    return {
        "criteria_version": version,
        "evaluated_at": pd.Timestamp(metrics.attrs["evaluated_at"]),
        **{name: row[name] for name in kept},
        **_effort(row, metrics.attrs),
        "n_failed": int(metric_value(metrics, "all", "n_failed") or 0),
        "n_examples": int(metric_value(metrics, "all", "n_examples") or 0),
        **_figures("all", metrics),
        **_figures("dev", metrics),
        **_figures("test", None if is_sealed else metrics),
        "is_test_sealed": is_sealed,
        **{name: metrics.attrs[name] for name in CALIBRATION_HISTORY.names if name.endswith("_fingerprint")},
    }


def _effort(row: pd.Series, attrs: Mapping[Any, str]) -> dict[str, Any]:
    """Calls and cost, with those of judging test, which came after the decision."""
    cost = float("nan" if pd.isna(row["cost_usd"]) else row["cost_usd"]) + float(attrs.get("test_cost_usd", 0.0))
    return {
        "n_calls": int(row["n_calls"]) + int(attrs.get("test_n_calls", 0)),
        "cost_usd": None if pd.isna(cost) else cost,
    }


def append_evaluations(
    history: pd.DataFrame | None,
    metrics_by_version: Mapping[str, pd.DataFrame],
    optimized_by_version: Mapping[str, pd.DataFrame],
) -> pd.DataFrame:
    """The history with the evaluations that it lacks, in the order of time.

    A version whose evaluation is not finished is left for later: metrics without the decision on the same data, or a
    version that won and is not judged on test yet.
    """
    rows = [
        build_row(version, metrics, optimized_by_version[version])
        for version, metrics in metrics_by_version.items()
        if version in optimized_by_version
        and optimized_by_version[version].attrs.get("evaluated_at") == metrics.attrs["evaluated_at"]
        and not (is_test_reported(str(optimized_by_version[version]["decision"].iloc[0])) and is_test_sealed(metrics))
    ]
    known = empty_frame("calibration_history") if history is None else history
    if rows:
        columns = {name: pd.Series([row[name] for row in rows], dtype=object) for name in CALIBRATION_HISTORY.names}
        new = conform_frame(pd.DataFrame(columns), "calibration_history")
        known = pd.concat([known, new], ignore_index=True).drop_duplicates(_KEY, keep="first")
    return known.sort_values(["decided_at", "criteria_version"], ignore_index=True)


def latest_evaluations(history: pd.DataFrame) -> pd.DataFrame:
    """The last evaluation of each version, in the order in which the versions were first evaluated."""
    first = history.groupby("criteria_version")["evaluated_at"].min()
    latest = history.drop_duplicates("criteria_version", keep="last")
    order = latest["criteria_version"].map(first)
    return latest.assign(_order=order).sort_values(["_order", "criteria_version"]).drop(columns="_order")


def _figures(split: str, metrics: pd.DataFrame | None) -> dict[str, Any]:
    """The figures as the metrics have them, weighted where labels were sampled actively, and the counts."""
    if metrics is None:
        return dict.fromkeys([f"{split}_{name}" for name in ("n", *FIGURES, *CELLS)])
    cells = confusion_matrix(metrics, split)
    figures = {name: metric_value(metrics, split, name) for name in FIGURES}
    counts = dict(zip(CELLS, cells.cells, strict=True))
    return {f"{split}_{name}": value for name, value in {"n": cells.n, **figures, **counts}.items()}


def summarize_evaluation(row: Mapping[Any, Any]) -> dict[str, Any]:
    """A row of the history as the summary shows it."""
    kept = (
        *("criteria_version", "base", "round", "decision", "decision_reason", "n_failed", "n_examples"),
        *("kappa_corrected", "n_test_looks"),
    )
    return {
        **{name: plain_cell(row[name]) for name in kept},
        **_plain_figures(row, "all"),
        "splits": {
            "dev": _plain_figures(row, "dev"),
            "test": None if row["is_test_sealed"] else _plain_figures(row, "test"),
        },
    }


def _plain_figures(row: Mapping[Any, Any], split: str) -> dict[str, Any]:
    return {name: plain_cell(row[f"{split}_{name}"]) for name in ("n", *FIGURES, *CELLS)}
