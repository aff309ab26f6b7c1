"""What a finished loop amounts to: versions, champion, patterns, and where the tables lie."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import pandas as pd

from caliber_pipeline.core.agreement import CELLS
from caliber_pipeline.core.calibration_history import FIGURES, latest_evaluations
from caliber_pipeline.core.errors import MissingStepError
from caliber_pipeline.resources import Project

_NAMES: Final = ("n", *FIGURES, *CELLS)


@dataclass(frozen=True)
class Summary:
    """The outcome of the loop.

    Attributes:
        champion: The version that won last on dev.
        versions: Per version its decision and figures, over all records and by split; test is None where sealed.
        patterns: Name and count of each pattern in the notes.
        stop_reason: Why the loop ended.
        n_records: Records.
        n_rejected_records: Rows of the records file that are none.
        n_rejected_annotations: Rows of the annotations file that are none.
        n_unclustered: Notes that belong to no pattern.
        output: The folder of the tables.
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

    def to_dict(self) -> dict[str, Any]:
        """The summary as JSON takes it."""
        return dict(vars(self))


def load_summary(project: Project) -> Summary:
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
    counts = {
        name: len(frame) if (frame := tables.load(name)) is not None else 0
        for name in ("records", "rejected_records", "rejected_annotations")
    }
    stops = history["stop_reason"].dropna()
    return Summary(
        champion=champion,
        versions=[_version(row) for _, row in latest_evaluations(history).iterrows()],
        patterns=[{"name": row["name"], "count": int(row["count"])} for _, row in named.iterrows()],
        stop_reason=str(stops.iloc[-1]) if len(stops) else None,
        n_records=counts["records"],
        n_rejected_records=counts["rejected_records"],
        n_rejected_annotations=counts["rejected_annotations"],
        n_unclustered=int(patterns.loc[is_unclustered, "count"].sum()),
        output=str(project.settings.output),
    )


def _version(row: "pd.Series[Any]") -> dict[str, Any]:
    kept = ("criteria_version", "base", "round", "decision", "decision_reason", "n_failed", "n_examples")
    return {
        **{name: _plain(row[name]) for name in kept},
        **_figures(row, "all"),
        "splits": {"dev": _figures(row, "dev"), "test": None if row["is_test_sealed"] else _figures(row, "test")},
    }


def _figures(row: Mapping[str, Any], split: str) -> dict[str, Any]:
    return {name: _plain(row[f"{split}_{name}"]) for name in _NAMES}


def _plain(value: Any) -> Any:  # noqa: ANN401 - a cell is of any type
    return None if pd.isna(value) else value.item() if hasattr(value, "item") else value
