"""What the UI shows of an evaluation: how the judging went, and how far judge and people agree."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

import dagster as dg
import pandas as pd

from caliber_pipeline.assets.metadata import Metadata, share_of, show_numbers, show_table
from caliber_pipeline.core.agreement import interpret_kappa
from caliber_pipeline.core.alignment_metrics import confusion_matrix, metric_row, metric_value
from caliber_pipeline.core.conforming import plain_cell
from caliber_pipeline.renderers.kappa_charts import (
    Evaluation,
    plot_kappa_by_version,
    plot_kappa_over_time,
)
from caliber_pipeline.renderers.pictures import embed_picture
from caliber_pipeline.renderers.plots import plot_confusion_matrix

PLOTTED: Final = ("accuracy", "precision", "recall", "specificity", "f1_score", "cohen_kappa")
SHOWN: Final = (*PLOTTED, "gwet_ac1", "mcc", "bias", "majority_baseline", "coverage", "labels_missing")
NBSP: Final = "\N{NO-BREAK SPACE}"  # a figure and its interval, a day and its time stay on one line
NBHY: Final = "\N{NON-BREAKING HYPHEN}"
CEILING: Final = ("human_human_kappa", "judge_annotator_kappa")
MAX_REASONS: Final = 10
SPLITS_SHOWN: Final = ("dev", "test", "all")
COUNTS: Final = frozenset({"labels_missing"})
UNDECIDED: Final = "not decided yet"
_DATA: Final = ("records_fingerprint", "annotations_fingerprint")


def show_judging(judge_scores: pd.DataFrame, elapsed_s: float) -> Metadata:
    """Throughput, the share read from the cache, latencies, and the failures by kind."""
    n = len(judge_scores)
    n_cached = int(judge_scores["is_cached"].sum())
    latencies = judge_scores.loc[~judge_scores["is_cached"].astype(bool), "latency_s"].dropna()
    failed = judge_scores[judge_scores["failure_reason"].notna()]
    kinds = failed[["status", "failure_reason"]].value_counts().head(MAX_REASONS).reset_index()
    return {
        **show_numbers(
            {
                "n_without_verdict": int(judge_scores["llm_score"].isna().sum()),
                "cached_share": share_of(n_cached, n),
                "records_per_s": n / elapsed_s if elapsed_s > 0 else None,
                "elapsed_s": round(elapsed_s, 2),
                "accept_rate": judge_scores["llm_score"].astype("Float64").mean(),
                **{f"latency_s_p{q}": latencies.quantile(q / 100) for q in (50, 95) if len(latencies)},
            }
        ),
        "failures_by_kind": show_table(
            [
                {"records": int(n), "status": status, "reason": reason}
                for status, reason, n in kinds.itertuples(index=False)
            ]
        ),
    }


def show_agreement(
    version: str,
    metrics: pd.DataFrame,
    others: Mapping[str, pd.DataFrame],
    decisions: Mapping[str, str],
    history: pd.DataFrame | None,
    target: float,
) -> Metadata:
    """The figures, the confusion matrix, and kappa over versions and over time.

    Args:
        version: The version that was measured.
        metrics: Its metrics.
        others: The metrics of all stored versions.
        decisions: What was decided about versions so far.
        history: The evaluations so far; None where there are none.
        target: Kappa on dev from which judge and people count as aligned.
    """
    figures = {f"{split}_{name}": metric_value(metrics, split, name) for split in ("dev", "all") for name in PLOTTED}
    ceiling = {name: metric_value(metrics, "dev", name) for name in CEILING}
    lines = {"target": target}
    if ceiling["human_human_kappa"] is not None:
        lines["people"] = ceiling["human_human_kappa"]
    stored = sorted((dict(others) | {version: metrics}).items())
    latest = {name: read_evaluation(name, own, decisions.get(name, UNDECIDED)) for name, own in stored}
    same_data = [
        latest[name] for name, own in stored if all(own.attrs.get(key) == metrics.attrs.get(key) for key in _DATA)
    ]
    in_time = {(each.version, each.evaluated_at): each for each in (*read_history(history), *latest.values())}
    return {
        "agreement_on_dev": interpret_kappa(figures["dev_cohen_kappa"]),
        "plot_of_confusion_matrix": _picture(
            plot_confusion_matrix(confusion_matrix(metrics, "dev")), "Confusion matrix on dev"
        ),
        "plot_of_kappa_by_version": _picture(plot_kappa_by_version(same_data, lines), "Kappa by version"),
        "plot_of_kappa_over_time": _picture(plot_kappa_over_time([*in_time.values()]), "Kappa over time"),
        "figures_with_intervals": show_table(_figure_rows(metrics)),
        "confusion_matrix": show_table(_confusion_rows(metrics, "dev")),
        **show_numbers(figures | ceiling),
    }


def read_evaluation(version: str, metrics: pd.DataFrame, decision: str) -> Evaluation:
    """A version's kappa on dev with its interval, as it was measured."""
    row = metric_row(metrics, "dev", "cohen_kappa")
    kappa, low, high = (plain_cell(row[name]) for name in ("value", "ci_low", "ci_high"))
    return Evaluation(version, decision, kappa, low, high, datetime.fromisoformat(metrics.attrs["evaluated_at"]))


def read_history(history: pd.DataFrame | None) -> list[Evaluation]:
    """The evaluations of the history, without intervals."""
    if history is None:
        return []
    columns = history[["criteria_version", "decision", "dev_cohen_kappa", "evaluated_at"]]
    return [
        Evaluation(version, decision, plain_cell(kappa), evaluated_at=at.to_pydatetime())
        for version, decision, kappa, at in columns.itertuples(index=False)
    ]


def show_history(history: pd.DataFrame) -> Metadata:
    """Every evaluation with its figures, and kappa over time."""
    rows = [
        {
            "version": row["criteria_version"],
            "evaluated": f"{row['evaluated_at']:%Y-%m-%d %H:%M}".replace(" ", NBSP).replace("-", NBHY),
            "decision": row["decision"],
            "kappa on dev": row["dev_cohen_kappa"],
            "accuracy": row["dev_accuracy"],
            "FP": row["dev_false_positives"],
            "FN": row["dev_false_negatives"],
            "champion": row["champion"],
        }
        for row in history.tail(20).to_dict("records")
    ]
    return {
        "evaluations": show_table(rows),
        "plot_of_kappa_over_time": _picture(plot_kappa_over_time(read_history(history)), "Kappa over time"),
    }


def _figure_rows(metrics: pd.DataFrame) -> list[dict[str, Any]]:
    whole = metrics[metrics["slice_column"].isna()]
    rows = []
    for name in (name for name in SHOWN if name in set(whole["metric"])):
        own = whole[whole["metric"] == name].set_index("split")
        row: dict[str, Any] = {"figure": name.replace("_", " ")}
        row |= {
            f"on {split}": _with_interval(own.loc[split].to_dict()) if split in own.index else None
            for split in SPLITS_SHOWN
        }
        rows.append(row)
    return rows


def _with_interval(row: Mapping[Any, Any]) -> str | None:
    if pd.isna(row["value"]):
        return "sealed" if str(row["reason"]).startswith("sealed") else None
    value = float(row["value"])
    text = f"{value:.0f}" if row["metric"] in COUNTS else f"{value:z.2f}"
    ends = "" if pd.isna(row["ci_low"]) else f" [{row['ci_low']:z.2f},{row['ci_high']:z.2f}]"
    return f"{text}{ends}".replace(" ", NBSP)


def _confusion_rows(metrics: pd.DataFrame, split: str) -> list[dict[str, Any]]:
    cells = confusion_matrix(metrics, split)
    return [
        {f"on {split}": "people accept", "judge accepts": cells.true_positives, "judge rejects": cells.false_negatives},
        {f"on {split}": "people reject", "judge accepts": cells.false_positives, "judge rejects": cells.true_negatives},
    ]


def _picture(svg: str, alt: str) -> dg.MetadataValue[Any]:
    return dg.MetadataValue.md(embed_picture(svg, alt))
