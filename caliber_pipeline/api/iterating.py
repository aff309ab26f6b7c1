"""The rounds of iterating, and how they ended."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from caliber_pipeline.api.faults import make_criteria
from caliber_pipeline.api.frames import frame_from_json, frame_to_json
from caliber_pipeline.api.optimization import OptimizationResult
from caliber_pipeline.api.results import EvaluationResult
from caliber_pipeline.core.criteria import DEFAULT_CRITERIA, Criteria

if TYPE_CHECKING:
    from datetime import datetime

    import pandas as pd

_UNKNOWN: Final[dict[Any, Any]] = dict.fromkeys(
    ("records_fingerprint", "annotations_fingerprint", "criteria_fingerprint"), "unknown"
)


@dataclass(frozen=True, eq=False)
class CalibrationRound:
    """One version of the criteria: what it scored, what was decided, what was proposed from it.

    Attributes:
        version: Its name.
        criteria: Its content.
        result: Its evaluation.
        row: The decision, as one row of the pipeline's `optimized_criteria` table.
        proposal: What was proposed from the champion; None where the loop ended.
    """

    version: str
    criteria: Criteria
    result: EvaluationResult = field(repr=False)
    row: pd.DataFrame = field(repr=False)
    proposal: OptimizationResult | None = field(default=None, repr=False)

    @property
    def base(self) -> str | None:
        """The version it was compared with; None for the first."""
        from caliber_pipeline.core.loop import base_of

        return base_of(self.row)

    @property
    def decision(self) -> str:
        """baseline, promoted, rejected or undecided."""
        return str(self.row["decision"].iloc[0])

    @property
    def decision_reason(self) -> str:
        """Why."""
        return str(self.row["decision_reason"].iloc[0])

    @property
    def champion(self) -> str:
        """The best version after the decision."""
        return str(self.row["champion"].iloc[0])

    @property
    def is_test_reported(self) -> bool:
        """Whether it was judged on test, as the first version and promoted ones are."""
        from caliber_pipeline.core.optimized_criteria import is_test_reported

        return is_test_reported(self.decision)

    @property
    def evaluated_at(self) -> str:
        """When, in ISO 8601."""
        decided_at: datetime = self.row["decided_at"].iloc[0]
        return str(self.row.attrs.get("evaluated_at", decided_at.isoformat()))

    @property
    def candidates(self) -> list[dict[str, Any]]:
        """What became of each proposal among which the next version was chosen."""
        return [dict(candidate) for candidate in self.row["candidates"].iloc[0]]

    @property
    def kappa_by_split(self) -> dict[str, float | None]:
        """Cohen's kappa on train, dev and all, and on test unless that is sealed."""
        from caliber_pipeline.core.alignment_metrics import metric_value

        splits = ("train", "dev", "test", "all") if self.is_test_reported else ("train", "dev", "all")
        table = self.result.alignment_metrics
        return {split: metric_value(table, split, "cohen_kappa") for split in splits}

    def to_dict(self) -> dict[str, Any]:
        """All of it, ready for JSON; decision and figures are in it to be read."""
        from caliber_pipeline.core.schemas import OPTIMIZED_CRITERIA

        return {
            "version": self.version,
            "decision": self.decision,
            "decision_reason": self.decision_reason,
            "kappa_by_split": self.kappa_by_split,
            "criteria": self.criteria.model_dump(mode="json"),
            "result": self.result.to_dict(),
            "row": frame_to_json(self.row, OPTIMIZED_CRITERIA),
            "made_from": dict(self.row.attrs),
            "proposal": self.proposal.to_dict() if self.proposal else None,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> CalibrationRound:
        """What `to_dict` was made from."""
        from caliber_pipeline.core.schemas import OPTIMIZED_CRITERIA

        row = frame_from_json(data["row"], OPTIMIZED_CRITERIA)
        row.attrs = dict(data.get("made_from", {}))
        return cls(
            data["version"],
            Criteria.model_validate(data["criteria"]),
            EvaluationResult.from_dict(data["result"]),
            row,
            OptimizationResult.from_dict(data["proposal"]) if data["proposal"] else None,
        )


@dataclass(frozen=True, eq=False)
class CalibrationOutcome:
    """Every round, and how it ended.

    Attributes:
        rounds: One per version, in the order of evaluation.
        champion: The last version that won on dev.
        stop_reason: Why it ended.
    """

    rounds: tuple[CalibrationRound, ...]
    champion: str
    stop_reason: str

    @property
    def is_aligned(self) -> bool:
        """Whether it ended since judge and people agree well enough on dev."""
        return self.stop_reason.startswith("aligned")

    @property
    def best(self) -> CalibrationRound:
        """The champion's round."""
        return next(each for each in self.rounds if each.version == self.champion)

    @property
    def decisions(self) -> pd.DataFrame:
        """One row per round, of the pipeline's `optimized_criteria` schema."""
        import pandas as pd

        return pd.concat([each.row for each in self.rounds], ignore_index=True)

    @property
    def history(self) -> pd.DataFrame:
        """One row per round with its figures and decision: the pipeline's `calibration_history`, in the same schema."""
        from caliber_pipeline.core.alignment_metrics import seal_test
        from caliber_pipeline.core.calibration_history import append_evaluations

        metrics, rows = {}, {}
        for each in self.rounds:
            table = each.result.alignment_metrics
            metrics[each.version] = table.copy() if each.is_test_reported else seal_test(table)
            rows[each.version] = each.row.copy()
            rows[each.version].attrs = _UNKNOWN | each.row.attrs | {"evaluated_at": each.evaluated_at}
            metrics[each.version].attrs = dict(rows[each.version].attrs)
        return append_evaluations(None, metrics, rows)

    def to_dict(self) -> dict[str, Any]:
        """All of it, ready for JSON."""
        return {
            "champion": self.champion,
            "stop_reason": self.stop_reason,
            "is_aligned": self.is_aligned,
            "rounds": [each.to_dict() for each in self.rounds],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> CalibrationOutcome:
        """What `to_dict` was made from."""
        rounds = tuple(CalibrationRound.from_dict(each) for each in data["rounds"])
        return cls(rounds, data["champion"], data["stop_reason"])


OnRound = Callable[[CalibrationRound], object]


def first_version(
    criteria: str | Criteria | None, system_prompt: str | None, evaluation: EvaluationResult | None
) -> Criteria:
    """What iterating starts with: a version that a person wrote, without a base."""
    if criteria is None:
        criteria = evaluation.criteria if evaluation is not None else DEFAULT_CRITERIA
    first = criteria if isinstance(criteria, Criteria) else make_criteria(criteria)
    update: dict[str, object] = {"base": None, "round": 0, "author": "person"}
    if system_prompt is not None:
        update["system_prompt"] = system_prompt
    return first.model_copy(update=update)
