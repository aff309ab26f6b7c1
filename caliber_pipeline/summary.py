"""What a finished loop amounts to: versions, champion, patterns, and where the tables lie."""

from typing import Any

import pandas as pd

from caliber_pipeline.core.alignment_metrics import label_verdict, metric_value
from caliber_pipeline.core.calibration_history import CalibrationSummary, latest_evaluations, summarize_evaluation
from caliber_pipeline.core.conforming import plain_cell
from caliber_pipeline.core.errors import MissingStepError
from caliber_pipeline.core.plain_words import describe_champion
from caliber_pipeline.core.stability import is_unstable
from caliber_pipeline.resources import Project


def load_summary(project: Project) -> CalibrationSummary:
    """Summarise what is stored.

    Raises:
        MissingStepError: nothing was evaluated yet.
    """
    tables = project.tables
    history = tables.load("calibration_history")
    if history is None or history.empty:
        raise MissingStepError("nothing was evaluated yet; run `caliber run`, or materialize the assets")
    champion = str(history["champion"].iloc[-1])
    patterns = tables.load("patterns", champion)
    if patterns is None:
        raise MissingStepError(f"the patterns of '{champion}' are missing; run the job 'calibration' for it")
    is_unclustered = patterns["is_unclustered"].astype(bool)
    named = patterns[~is_unclustered].sort_values(["count", "name"], ascending=[False, True])
    stops, latest = history["stop_reason"].dropna(), latest_evaluations(history)
    of_champion = latest[latest["criteria_version"] == champion].iloc[0]
    n_records = tables.count("records")
    return CalibrationSummary(
        champion=champion,
        versions=[
            _with_labels(project, summarize_evaluation(row.to_dict()))
            | {"is_on_earlier_data": _differs(row, of_champion)}
            for _, row in latest.iterrows()
        ],
        patterns=[_pattern(row) for _, row in named.iterrows()],
        stop_reason=str(stops.iloc[-1]) if len(stops) else None,
        n_records=n_records,
        n_rejected_records=tables.count("rejected_records"),
        n_rejected_annotations=tables.count("rejected_annotations"),
        n_unclustered=int(patterns.loc[is_unclustered, "count"].sum()),
        output=str(project.settings.output),
        **_kappas_with_people(project, champion),
        n_to_relabel=tables.count("relabel_queue", champion),
        n_stale_annotations=int(of_champion["n_stale_annotations"]),
        n_unlabelled=n_records - int(tables.select("annotations", columns=["record_id"])["record_id"].nunique()),
        in_words=_in_words(project, champion),
        drift_alarm=_drift_alarm(project, champion),
        first_rejections=_first_rejections(project),
    )


def _first_rejections(project: Project) -> dict[str, str]:
    """Per table of rejected rows the first one's line, where it has one, and reason."""
    found = {}
    for name in ("rejected_records", "rejected_annotations"):
        if project.tables.count(name):
            rows = (row for batch in project.tables.scan(name, columns=["line", "reason"]) for row in batch.to_pylist())
            first = next(rows)
            found[name] = first["reason"] if first["line"] is None else f"line {first['line']}: {first['reason']}"
    return found


def _differs(row: pd.Series, of_champion: pd.Series) -> bool:
    """Whether a version was last evaluated on other data than the champion: their figures do not compare."""
    return any(row[name] != of_champion[name] for name in ("records_fingerprint", "annotations_fingerprint"))


def _drift_alarm(project: Project, champion: str) -> str | None:
    drift = project.tables.load("drift", champion)
    return None if drift is None or not drift["is_alarm"].iloc[0] else str(drift["summary"].iloc[0])


def _in_words(project: Project, champion: str) -> tuple[str, ...]:
    metrics = project.tables.load("alignment_metrics", champion)
    if metrics is None:
        return ()
    return tuple(describe_champion(metrics, champion, kappa_target=project.settings.kappa_target))


def _kappas_with_people(project: Project, champion: str) -> dict[str, Any]:
    """How far two people agree on dev, and judge and one person on the same records; both None where one judged."""
    metrics = project.tables.load("alignment_metrics", champion)
    names = {"human_kappa": "human_human_kappa", "judge_annotator_kappa": "judge_annotator_kappa"}
    if metrics is None or not set(names.values()) <= set(metrics["metric"]):
        return {}
    return {ours: metric_value(metrics, "dev", name) for ours, name in names.items()}


def _pattern(row: pd.Series) -> dict[str, Any]:
    stability = plain_cell(row["stability"])
    return {
        "name": row["name"],
        "count": int(row["count"]),
        "polarity": row["polarity"],
        "stability": stability,
        "is_unstable": is_unstable(stability),
    }


def _with_labels(project: Project, version: dict[str, Any]) -> dict[str, Any]:
    """The version with how many labels dev lacks to say anything, and what its labels say."""
    metrics = project.tables.load("alignment_metrics", version["criteria_version"])
    if metrics is None:
        return version | {"labels_missing": None, "labels_on_dev": None}
    missing = int(metric_value(metrics, "dev", "labels_missing") or 0)
    return version | {"labels_missing": missing, "labels_on_dev": label_verdict(metrics, "dev")}
