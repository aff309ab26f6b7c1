"""What people call our columns and scores: in files, in dicts and in objects alike."""

from collections.abc import Mapping
from typing import Final

RECORD_ALIASES: Final[Mapping[str, tuple[str, ...]]] = {
    "record_id": ("record_id", "item_id", "id"),
    "query": ("query", "input", "question", "prompt"),
    "output": ("output", "actual_output", "response", "answer"),
    "reference": ("reference", "expected_output", "ground_truth", "expected"),
    "human_score": ("human_score", "judgment"),
    "human_notes": ("human_notes", "notes"),
    "llm_score": ("llm_score", "score", "llm_judgment"),
    "llm_reasoning": ("llm_reasoning", "reasoning", "explanation", "llm_explanation"),
}
ANNOTATION_ALIASES: Final[Mapping[str, tuple[str, ...]]] = {
    "record_id": ("record_id", "item_id", "id"),
    "score": ("score", "human_score", "judgment", "verdict", "label"),
    "notes": ("notes", "human_notes", "note", "comment"),
    "annotator": ("annotator", "rater"),
    "severity": ("severity",),
    "created_at": ("created_at", "timestamp"),
    "criteria_version": ("criteria_version",),
    "inclusion_probability": ("inclusion_probability",),
}
GOLD: Final = "gold"
"""The annotator whose verdict is the label, whatever others say."""
SCORE_BY_WORD: Final = {
    "1": 1, "1.0": 1, "accept": 1, "accepted": 1, "pass": 1, "passed": 1, "true": 1, "yes": 1,
    "0": 0, "0.0": 0, "reject": 0, "rejected": 0, "fail": 0, "failed": 0, "false": 0, "no": 0,
}  # fmt: skip
SCORE_FORMS: Final = "0/1, accept/reject, pass/fail, true/false or yes/no"
