"""What a renderer is."""

from collections.abc import Sequence
from typing import Protocol

from caliber_pipeline.renderers import views


class CaliberRenderer(Protocol):
    """Shows what calibrating yields; each method returns what it made, where there is anything to return."""

    def render_records(self, records: Sequence[views.RecordView]) -> object:
        """Show records."""
        ...

    def render_progress(self, state: views.StateView) -> object:
        """Show how far the annotating is."""
        ...

    def render_evaluation(self, result: views.EvaluationView) -> object:
        """Show agreement between judge and people, and what got no verdict."""
        ...

    def render_misalignments(self, analysis: views.AnalysisView) -> object:
        """Show what the judge gets wrong."""
        ...

    def render_patterns(self, patterns: Sequence[views.PatternView] | views.PatternsView) -> object:
        """Show the themes in people's notes."""
        ...

    def render_proposal(self, proposal: views.ProposalView) -> object:
        """Show how the criteria would change, and why."""
        ...

    def render_history(self, rounds: Sequence[views.RoundView] | views.RoundsView) -> object:
        """Show the versions of the criteria and what was decided about each."""
        ...

    def render_message(self, text: str) -> object:
        """Show a line of text."""
        ...

    def annotate(self, manager: views.AnnotatingView) -> object:
        """Have a person give verdicts; what was given is kept, however it ends."""
        ...


CaliberHQRenderer = CaliberRenderer
