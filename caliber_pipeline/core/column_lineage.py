"""Which columns each stored column is made from, from the records to the fields of the calibrated judge."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

Column = tuple[str, str]
"""A table and a column of it."""

_TEXTS: Final = tuple(("records", name) for name in ("query", "output", "reference"))
_LABELS: Final = (("annotations", "score"), ("annotations", "is_gold"))
_RATINGS: Final = (("annotations", "score"), ("annotations", "annotator"))
_VERDICTS: Final = (("judge_scores", "llm_score"), ("judge_scores", "is_example"))
_AGREEMENT: Final = (*_LABELS, ("annotations", "inclusion_probability"), *_VERDICTS)
_JUDGED_BY: Final = (*_TEXTS, ("records", "llm_score"), ("records", "llm_reasoning"))
_NOTES: Final = (("annotations", "notes"),)
_GATE: Final = (*_LABELS, *_VERDICTS, ("records", "group"), ("records", "split"))
_ERRORS: Final = tuple(("misalignments", name) for name in ("record_id", "kind", "human_notes", "pattern_id"))
_THEMES: Final = tuple(("patterns", name) for name in ("name", "train_record_ids", "examples"))
_VERSION: Final = (("alignment_metrics", "value"),)


def _same(table: str, *names: str) -> dict[str, tuple[Column, ...]]:
    return {name: ((table, name),) for name in names}


def _all_from(sources: tuple[Column, ...], *names: str) -> dict[str, tuple[Column, ...]]:
    return dict.fromkeys(names, sources)


COLUMN_LINEAGE: Final[Mapping[str, Mapping[str, tuple[Column, ...]]]] = MappingProxyType(
    {
        "annotations": {
            **_same("records", "record_id"),
            "annotator": (("records", "ratings"),),
            "score": (("records", "human_score"), ("records", "ratings")),
            "notes": (("records", "human_notes"), ("records", "ratings")),
            "is_gold": (("records", "human_score"),),
        },
        "annotator_agreement": {
            **_same("annotations", "annotator"),
            "other": (("annotations", "annotator"),),
            **_all_from(_RATINGS, "value", "n"),
            **_all_from((*_RATINGS, ("records", "group")), "ci_low", "ci_high"),
        },
        "judge_scores": {
            "record_id": (("records", "record_id"), ("annotations", "record_id")),
            **_all_from(_JUDGED_BY, "status", "llm_score", "llm_reasoning", "confidence", "vote_share", "fingerprint"),
        },
        "alignment_metrics": {
            "split": (("records", "split"),),
            **_all_from((("records", "metadata"),), "slice_column", "slice_value"),
            **_all_from((*_AGREEMENT, ("records", "group")), "value", "ci_low", "ci_high", "n"),
        },
        "patterns": {
            "polarity": _LABELS,
            **_all_from(_NOTES, "pattern_id", "name", "description", "count", "examples", "keywords", "confidence"),
            "stability": _NOTES,
            "record_ids": (("annotations", "record_id"), *_NOTES),
            "train_record_ids": (("records", "split"), *_NOTES),
        },
        "misalignments": {
            **_same("judge_scores", "record_id", "llm_score", "llm_reasoning", "confidence"),
            **_same("records", "split", "query", "output", "reference"),
            "kind": (*_LABELS, *_VERDICTS),
            "human_score": _LABELS,
            "human_notes": _NOTES,
            **_same("annotations", "severity"),
            **_same("patterns", "pattern_id"),
            "pattern_name": (("patterns", "name"),),
            **_all_from((*_LABELS, *_VERDICTS, ("patterns", "pattern_id")), "attribution", "attribution_reason"),
        },
        "drift": {
            **_all_from((*_LABELS, *_VERDICTS, ("annotations", "created_at")), "agreement", "evidence", "is_alarm"),
        },
        "learnings": {
            **_same("patterns", "pattern_id", "polarity"),
            **_all_from(_THEMES, "title", "content", "supporting_item_ids", "recommended_actions"),
            **_all_from(
                (("patterns", "train_record_ids"), *_VERDICTS), "n_missed", "n_caught", "odds_ratio", "p_value"
            ),
        },
        "relabel_queue": {
            "record_id": (("misalignments", "record_id"), ("annotations", "record_id")),
            **_same("records", "query", "output", "reference"),
            "reason": (("misalignments", "attribution"), ("annotations", "score")),
            "n_annotators": (("annotations", "annotator"),),
            "n_accepts": (("annotations", "score"),),
        },
        "optimized_criteria": {
            **_all_from(_GATE, "base_kappa", "kappa", "p_value", "n_compared", "n_groups", "n_fixed", "n_broken"),
            **_all_from((*_GATE, *_VERSION), "decision", "champion", "stop_reason"),
            **_all_from((*_ERRORS, *_THEMES), "proposed_criteria", "suggestions", "example_ids"),
        },
        "calibration_history": {
            **_same("optimized_criteria", "base", "decision", "decision_reason", "champion", "stop_reason"),
            **_all_from(_VERSION, *(f"{split}_{name}" for split in ("all", "dev") for name in ("n", "cohen_kappa"))),
        },
        "calibrated_judge": {
            **_all_from((("optimized_criteria", "champion"),), "criteria_version", "criteria", "definition"),
            "examples": (*_TEXTS, *_LABELS, *_NOTES, ("optimized_criteria", "example_ids")),
            **_same("judge_scores", "provider", "model"),
            "abstention": (*_LABELS, *_VERDICTS, ("judge_scores", "confidence"), ("records", "split")),
            "certificate": (*_GATE, *_VERSION, ("optimized_criteria", "decision"), ("optimized_criteria", "kappa")),
        },
    }
)
