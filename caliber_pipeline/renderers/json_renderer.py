"""Emits results as JSON, for programs and web back ends."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from caliber_pipeline.core.arguments import Kind, accepts, refuses_none
from caliber_pipeline.core.errors import InputError
from caliber_pipeline.renderers.wording import list_patterns, list_rounds

if TYPE_CHECKING:
    from caliber_pipeline.renderers import views

_RECORD = ("record_id", "query", "output", "reference")
_STATE = ("total", "annotated", "accepts", "rejects", "undecided")
_EVALUATED = ("record_id", "human_score", "llm_score", "llm_reasoning", "human_notes", "aligned")
_FAILED = ("record_id", "status", "reason")
_MISALIGNED = ("record_id", "kind", "query", "output", "human_notes", "llm_reasoning")
_FINDING = ("title", "description", "record_ids")
_PATTERN = ("category", "description", "count", "record_ids", "examples", "keywords", "stability")
_SUGGESTION = ("aspect", "suggestion", "rationale", "record_ids")
_PROPOSAL = ("summary", "original_criteria", "optimized_criteria", "example_ids")
_ROUND = ("version", "decision", "decision_reason")
_TARGET = Kind(lambda value: isinstance(value, str | Path) or hasattr(value, "write"), "a stream or a path")


@refuses_none
class JsonCaliberRenderer:
    """Every method returns one JSON object as text, and writes it as a line where a target was given."""

    @accepts(target=_TARGET.or_none)
    def __init__(self, target: TextIO | str | Path | None = None, *, indent: int | None = None) -> None:
        """Say where the JSON goes beside the return value.

        Args:
            target: A stream, or a file to append to; None for nowhere.
            indent: Spaces of indentation; None for one line per object.

        Raises:
            InputError: the target is neither; when it is written to, also where it cannot be.
        """
        self._target = target
        self._indent = indent

    def render_records(self, records: Sequence[views.RecordView]) -> str:
        """`{"type": "records", "records": […]}`."""
        return self._emit("records", {"records": [_pick(record, _RECORD) for record in records]})

    def render_progress(self, state: views.StateView) -> str:
        """`{"type": "progress", "total": …, "annotated": …, …}`."""
        return self._emit("progress", _pick(state, _STATE))

    def render_evaluation(self, result: views.EvaluationView) -> str:
        """`{"type": "evaluation", "metrics": {…}, "intervals": {…}, "records": […], "failed": […], …}`."""
        metrics = result.metrics
        content = {
            "provider": result.provider,
            "model": result.model,
            "interpretation": result.interpretation,
            "metrics": {"n": metrics.n, **vars(metrics), **metrics.figures},
            "intervals": {name: result.interval(name) for name in metrics.figures},
            "records": [_pick(record, _EVALUATED) for record in result.records],
            "failed": [_pick(record, _FAILED) for record in result.failed],
        }
        return self._emit("evaluation", content)

    def render_misalignments(self, analysis: views.AnalysisView) -> str:
        """`{"type": "misalignments", "summary": …, "findings": […], …}`."""
        content = {
            "summary": analysis.summary,
            "findings": [_pick(finding, _FINDING) for finding in analysis.findings],
            "recommendations": list(analysis.recommendations),
            "false_positives": [_pick(error, _MISALIGNED) for error in analysis.false_positives],
            "false_negatives": [_pick(error, _MISALIGNED) for error in analysis.false_negatives],
        }
        return self._emit("misalignments", content)

    def render_patterns(self, patterns: Sequence[views.PatternView] | views.PatternsView) -> str:
        """`{"type": "patterns", "patterns": […]}`."""
        return self._emit("patterns", {"patterns": [_pick(pattern, _PATTERN) for pattern in list_patterns(patterns)]})

    def render_proposal(self, proposal: views.ProposalView) -> str:
        """`{"type": "proposal", "original_criteria": …, "optimized_criteria": …, "suggestions": […], …}`."""
        suggestions = [_pick(suggestion, _SUGGESTION) for suggestion in proposal.suggestions]
        return self._emit("proposal", {**_pick(proposal, _PROPOSAL), "suggestions": suggestions})

    def render_history(self, rounds: Sequence[views.RoundView] | views.RoundsView) -> str:
        """`{"type": "history", "versions": […]}`."""
        versions = [
            {**_pick(each, _ROUND), "kappa_by_split": dict(each.kappa_by_split)} for each in list_rounds(rounds)
        ]
        return self._emit("history", {"versions": versions})

    def render_message(self, text: str) -> str:
        """`{"type": "message", "text": …}`."""
        return self._emit("message", {"text": text})

    def annotate(self, manager: views.AnnotatingView) -> str:
        """`{"type": "annotate", "record": …, "progress": {…}}`: the record at hand; a program gives the verdict."""
        record = manager.get_next_unannotated()
        content = {
            "record": _pick(record, _RECORD) if record is not None else None,
            "progress": _pick(manager.get_state(), _STATE),
        }
        return self._emit("annotate", content)

    def _emit(self, kind: str, content: Mapping[str, Any]) -> str:
        text = json.dumps({"type": kind, **content}, ensure_ascii=False, indent=self._indent, allow_nan=False)
        if isinstance(self._target, str | Path):
            try:
                with Path(self._target).open("a", encoding="utf-8") as file:
                    file.write(f"{text}\n")
            except OSError as error:
                raise InputError(f"{self._target}: cannot be written ({error.strerror})") from error
        elif self._target is not None:
            self._target.write(f"{text}\n")
        return text


JsonCaliberHQRenderer = JsonCaliberRenderer


def _pick(item: object, names: Sequence[str]) -> dict[str, Any]:
    values = {name: getattr(item, name) for name in names}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
