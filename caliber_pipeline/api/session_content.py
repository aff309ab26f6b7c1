"""What a session holds; JSON, files and the session itself are made of it."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from caliber_pipeline.api.annotating import AnnotationManager

if TYPE_CHECKING:
    from caliber_pipeline.api.analysis import MisalignmentAnalysis
    from caliber_pipeline.api.discovery_results import PatternDiscoveryResult
    from caliber_pipeline.api.iterating import CalibrationOutcome
    from caliber_pipeline.api.optimization import OptimizationResult
    from caliber_pipeline.api.results import EvaluationResult
    from caliber_pipeline.api.upload import UploadResult


@dataclass
class SessionContent:
    """Records, annotations, and what the steps made of them so far.

    Attributes:
        session_id: The session's id.
        upload: The records; None before any.
        manager: The annotations.
        evaluation: The last evaluation.
        patterns: The themes in the notes.
        analysis: What the judge gets wrong.
        proposal: The criteria that were proposed.
        outcome: The rounds of iterating.
    """

    session_id: str = field(default_factory=lambda: uuid.uuid4().hex)
    upload: UploadResult | None = None
    manager: AnnotationManager = field(default_factory=lambda: AnnotationManager([]))
    evaluation: EvaluationResult | None = None
    patterns: PatternDiscoveryResult | None = None
    analysis: MisalignmentAnalysis | None = None
    proposal: OptimizationResult | None = None
    outcome: CalibrationOutcome | None = None

    def drop_results(self) -> None:
        """Drop what rested on records and annotations that changed."""
        self.evaluation = self.patterns = self.analysis = self.proposal = self.outcome = None

    @property
    def evaluations(self) -> list[EvaluationResult]:
        """Every evaluation that is held, those of the rounds among them."""
        rounds = [each.result for each in self.outcome.rounds] if self.outcome else []
        return rounds + ([self.evaluation] if self.evaluation else [])
